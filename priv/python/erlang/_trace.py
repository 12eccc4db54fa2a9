"""The trace that a call is part of, in the format of W3C's Trace Context.

https://www.w3.org/TR/trace-context/#traceparent-header
"""

from __future__ import annotations

from contextvars import ContextVar

_traceparent: ContextVar[str | None] = ContextVar("erlang.traceparent", default=None)


def enter(traceparent: str) -> None:
    _traceparent.set(traceparent)


def traceparent() -> str | None:
    """The `traceparent` of the call that runs, None without one."""
    return _traceparent.get()
