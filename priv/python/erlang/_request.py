"""Which request Python code belongs to: what is asked of the node is asked in its name."""

from __future__ import annotations

from contextvars import ContextVar

asker: ContextVar[object] = ContextVar("erlang.asker", default=None)
"""In tasks and threads, what the native side knows the request by. It knows its own threads."""

span: ContextVar[object] = ContextVar("erlang.span", default=None)
"""The span that is open."""
