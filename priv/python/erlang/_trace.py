"""The trace that a call is part of, in the format of W3C's Trace Context.

https://www.w3.org/TR/trace-context/#traceparent-header
"""

from __future__ import annotations

from contextvars import ContextVar
from functools import cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_traceparent: ContextVar[str | None] = ContextVar("erlang.traceparent", default=None)


def enter(traceparent: str) -> None:
    """Be part of that trace; spans of OpenTelemetry too, where it is installed.

    It is never detached: the context that it is attached to ends with the call.
    """
    _traceparent.set(traceparent)
    attach = _attach()
    if attach is not None:
        attach(traceparent)


def traceparent() -> str | None:
    """The `traceparent` of the call that runs, None without one."""
    return _traceparent.get()


@cache
def _attach() -> Callable[[str], object] | None:
    try:
        from opentelemetry import context
        from opentelemetry.trace.propagation import tracecontext
    except Exception:  # it is not there, or not whole
        return None
    extract = tracecontext.TraceContextTextMapPropagator().extract
    return lambda traceparent: context.attach(extract({"traceparent": traceparent}))
