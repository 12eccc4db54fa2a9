"""How far a call is: `Py.call(..., progress: fun)`."""

from __future__ import annotations

from contextvars import ContextVar

from erlang._callbacks import Function, ask_for
from erlang._terms import Atom

_PROGRESS = Atom("progress")

_function: ContextVar[Function | None] = ContextVar("erlang.progress", default=None)


def enter(function: Function) -> None:
    _function.set(function)


def progress(done: object, total: object = None, note: object = None) -> None:
    """Call the function that the caller gave as `progress:`, and wait for it, if there is one."""
    function = _function.get()
    if function is not None:
        ask_for((_PROGRESS, function, [done, total, note]))


async def aprogress(done: object, total: object = None, note: object = None) -> None:
    """The same in a coroutine: the event loop goes on meanwhile."""
    function = _function.get()
    if function is not None:
        from erlang._awaiting import ask_and_await

        await ask_and_await((_PROGRESS, function, [done, total, note]))
