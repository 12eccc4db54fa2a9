"""What a request brings along: a context (`contextvars`) of its own, entered before it runs.

The map that came with the request says what is in it: `Py.Context` is the other half. Tasks and
threads have copies, as of any context.
"""

from __future__ import annotations

import types
from contextvars import Context, copy_context

import _erlang
from erlang import _objects, _progress, _request, _sessions, _trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Mapping
    from typing import Any

ENTERS: dict[str, Callable[[Any], object]] = {
    "progress": _progress.enter,
    "session": _sessions.enter,
    "span": _request.span.set,
    "traceparent": _trace.enter,
}
"""By key of the map: what is called with its value, in the new context."""

# Says that the result is to cross as a reference.
_RETURN = "return"


def within(
    values: Mapping[str, object], function: Callable[..., object]
) -> Callable[..., object]:
    """The function, as one that runs in a context with these values."""
    from functools import partial

    if _RETURN in values:
        function = partial(_refer, function)
    context = _entered(values)
    session = context.run(_sessions.current) if "session" in values else None
    if session is not None and session.thread is not None:
        # It runs on another thread than the one that has the request.
        context.run(_request.asker.set, _erlang.asker())
        return partial(session.thread.run, context, function)
    return partial(context.run, function)


def await_within(
    values: Mapping[str, object], coroutine: Coroutine[Any, Any, object]
) -> Coroutine[Any, Any, object]:
    """The same for a coroutine.

    What comes back has begun: closed before its first step, it closes the other one too.
    """
    awaiting = _await(values, coroutine, _entered(values))
    for name in ("__name__", "__qualname__"):
        setattr(awaiting, name, getattr(coroutine, name))
    awaiting.send(None)
    return awaiting


def _entered(values: Mapping[str, object]) -> Context:
    context = copy_context()
    context.run(_enter, values)
    return context


def _enter(values: Mapping[str, object]) -> None:
    for key, value in values.items():
        if key != _RETURN:
            ENTERS[key](value)


def _refer(function: Callable[..., object], /, *args: Any, **kwargs: Any) -> object:
    value = function(*args, **kwargs)
    # What is awaited comes to its own end.
    return value if type(value) is types.CoroutineType else _objects.Reference(value)


async def _await(
    values: Mapping[str, object], coroutine: Coroutine[Any, Any, object], _held: Context
) -> object:
    try:
        # What it enters is in use, by the context that is held, until the loop comes to it.
        await _beginning()
        # In the context of the task.
        _enter(values)
        value = await coroutine
        return _objects.Reference(value) if _RETURN in values else value
    finally:
        coroutine.close()


@types.coroutine
def _beginning() -> Generator[None, None, None]:
    yield
