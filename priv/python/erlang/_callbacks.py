"""Elixir functions that Python code calls."""

from __future__ import annotations

import sys

import _erlang
from erlang._exceptions import Closed, ElixirError
from erlang._output import current_leader
from erlang._request import asker, span
from erlang._terms import Atom

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from erlang._terms import Pid

    Question = tuple[object, ...]

_ASK = Atom("py_ask")
_CALL, _HAS = Atom("call"), Atom("has")
_WHEREIS, _SEND = Atom("whereis"), Atom("send")
_RAISED = "raised"
_ERRORS: dict[str, type[Exception]] = {
    "attribute": AttributeError,
    "type": TypeError,
    "runtime": RuntimeError,
    "value": ValueError,
    "timeout": TimeoutError,
    "closed": Closed,
}


class Function:
    """An Elixir function that was passed to Python. The native side alone makes them."""

    __slots__ = ("__weakref__", "_handle")
    __module__ = "erlang"

    def __init__(self, handle: object) -> None:
        if type(handle).__name__ != "PyCapsule":
            raise TypeError("functions come from Elixir, as arguments")
        object.__setattr__(self, "_handle", handle)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("erlang.Function is immutable")

    def __repr__(self) -> str:
        return "<erlang.Function>"

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Call it, and wait for what it returns."""
        return ask_for((_CALL, self, list(args), kwargs))


def call(name: str, /, *args: object, **kwargs: object) -> object:
    """Call the Elixir function that is registered under `name`, and wait for what it returns."""
    return ask_for(_call("call", name, args, kwargs))


def _call(who: str, name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> Question:
    if not isinstance(name, str):
        got = type(name).__qualname__
        raise TypeError(f"{who}() expects the name of a function (str), got {got}")
    return (_CALL, str(name), list(args), kwargs)


def ask_for(what: tuple[object, ...]) -> Any:
    """Ask the node, and wait for its answer."""
    tag, value = _ask(what)
    if tag == "ok":
        return value
    raise _error(*value)


async def acall(name: str, /, *args: object, **kwargs: object) -> object:
    """The same in a coroutine: the event loop goes on meanwhile."""
    from erlang._awaiting import ask_and_await

    return await ask_and_await(_call("acall", name, args, kwargs))


def whereis(name: str) -> Pid | None:
    """The process that is registered under `name` in the node, if there is one."""
    if not isinstance(name, str):
        raise TypeError(f"whereis() expects a name (str), got {type(name).__qualname__}")
    found: Pid | None = ask_for((_WHEREIS, str(name)))
    return found


def send_elsewhere(name: str, node: str, message: object) -> bool:
    """Send to a name on another node; False where no such name or node was ever heard of."""
    known: bool = ask_for((_SEND, str(name), str(node), message))
    return known


def function(name: str) -> Callable[..., object]:
    """The function of that name; an AttributeError where there is none."""
    if name.startswith("_") or not _ask((_HAS, name))[1]:
        raise AttributeError(
            f"module 'erlang' has no attribute {name!r}, and no Elixir function has that name"
        )

    def registered(*args: object, **kwargs: object) -> object:
        return call(name, *args, **kwargs)

    registered.__name__ = registered.__qualname__ = name
    registered.__module__ = "erlang"
    return registered


def _ask(what: tuple[object, ...]) -> tuple[str, Any]:
    question = (current_leader(), what, span.get())
    # Only sessions with a thread of their own have that imported.
    threads: Any = sys.modules.get("erlang._threads")
    thread = threads and threads.here()
    ask = thread.ask if thread else _erlang.ask
    answer: tuple[str, Any] = ask(_ASK, question, asker.get())
    return answer


def _error(kind: str, what: Any) -> Exception:
    if kind == _RAISED:
        error = ElixirError(what["kind"], what["reason"], what["stacktrace"], what["type"])
        error._again = what["again"]
        return error
    return _ERRORS[kind](what)
