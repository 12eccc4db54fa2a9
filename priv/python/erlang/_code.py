"""Running source text: `Py.eval`, `Py.exec`, a pool's `init:` and `Py.reload`."""

from __future__ import annotations

import builtins
import os
import sys
from types import ModuleType

from erlang._compile import Program, awaits, program
from erlang._sessions import current

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType

    Namespace = dict[str, object]


def new_base() -> ModuleType:
    """The base namespace of a pool: the builtins, and whatever `init` adds.

    Its dict is the `__builtins__` of each namespace that code runs in. So names of the base are
    seen below the code's own, as they are at that time, and an assignment never changes them.
    """
    base = ModuleType("__main__")
    own_names = dict(vars(base))
    vars(base).update(vars(builtins), **own_names, __builtins__=builtins)
    return base


def forget_base(base: ModuleType) -> None:
    """End what a pool had that was stopped."""
    from erlang import _sessions, _streams

    _sessions.forget(base)
    _streams.forget(base)


def init(
    base: ModuleType,
    source: str | None,
    file: str | None,
    line: int,
    paths: list[str],
    env: dict[str, str],
) -> object:
    """Prepare the interpreter and fill `base`; a coroutine if the source awaits."""
    os.environ.update(env)
    sys.path[:0] = [path for path in dict.fromkeys(paths) if path not in sys.path]
    if source is None:
        return None
    return _run(program(source, file, line, wants_value=False), vars(base))


def run(
    source: str,
    variables: dict[str, object],
    base: ModuleType,
    file: str | None,
    line: int,
    wants_value: bool,
) -> object:
    """The value of the last expression, or None; a coroutine for it if the source awaits."""
    if "__builtins__" in variables:
        raise ValueError("no variable may be called __builtins__")
    compiled = program(source, file, line, wants_value)
    session = current()
    if session is None:
        namespace = {"__name__": "__main__", **variables, "__builtins__": vars(base)}
    else:
        namespace = session.namespace
        namespace.update(variables)
    return _run(compiled, namespace)


def _run(compiled: Program, namespace: Namespace) -> object:
    if compiled.awaits:
        return _run_awaiting(compiled, namespace)
    eval(compiled.body, namespace)
    return None if compiled.tail is None else eval(compiled.tail, namespace)


async def _run_awaiting(compiled: Program, namespace: Namespace) -> object:
    await _evaluate(compiled.body, namespace)
    return None if compiled.tail is None else await _evaluate(compiled.tail, namespace)


async def _evaluate(code: CodeType, namespace: Namespace) -> object:
    value = eval(code, namespace)
    return await value if awaits(code) else value


def reload(name: str) -> None:
    """Import the module anew from its source, or for the first time."""
    import importlib

    importlib.invalidate_caches()
    module = sys.modules.get(name)
    if module is None:
        importlib.import_module(name)
    else:
        importlib.reload(module)
