"""Events of Python code, which Elixir's `:telemetry` executes in the node."""

from __future__ import annotations

import os
import time

import _erlang
from erlang import _request
from erlang._callbacks import ask_for
from erlang._exceptions import Cancelled
from erlang._terms import Atom

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

_TELL, _TELEMETRY, _SPAN = Atom("py_tell"), Atom("telemetry"), Atom("span")
_START, _STOP, _EXCEPTION = Atom("start"), Atom("stop"), Atom("exception")


def telemetry(
    event: list[str] | tuple[str, ...],
    measurements: dict[str, object] | None = None,
    metadata: dict[str, object] | None = None,
) -> None:
    """Execute an event, where the application has `:telemetry`.

    Its names and the keys are atoms there, and none is made for it: a name that no Elixir code
    has is a `ValueError`.
    """
    if not isinstance(event, (list, tuple)):
        got = type(event).__qualname__
        raise TypeError(f'telemetry() expects the names of an event (["app", "done"]), got {got}')
    for given in (measurements, metadata):
        if not (given is None or isinstance(given, dict)):
            got = type(given).__qualname__
            raise TypeError(f"telemetry() expects measurements and metadata (dict), got {got}")
    _tell((_TELEMETRY, list(event), measurements or {}, metadata or {}))


class span:  # noqa: N801
    """`with span(name, **metadata):` emits events when it begins and ends.

    `metadata` is a dict: what is put into it meanwhile is told at the end. Other spans, and what
    Elixir functions do that are called inside, are part of this one.
    """

    def __init__(self, name: str, /, **metadata: object) -> None:
        if not isinstance(name, str):
            raise TypeError(f"span() expects a name (str), got {type(name).__qualname__}")
        self.name = str(name)
        self.metadata = metadata
        self._id = os.urandom(8).hex()
        self._parent: object = None

    def __enter__(self) -> Self:
        self._parent = self._tell(_START)
        self._outer = _request.span.get()
        self._begun = time.perf_counter_ns()
        _request.span.set(self._id)
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        took = time.perf_counter_ns() - self._begun
        _request.span.set(self._outer)
        if error is None:
            self._tell(_STOP, took)
        else:
            from erlang._errors import describe

            self._tell(_EXCEPTION, took, describe(error), waits=not isinstance(error, Cancelled))

    def _tell(self, stage: Atom, *more: object, waits: bool = True) -> Any:
        facts = (self._id, self.name, self.metadata, self._parent, *more)
        return _tell((_SPAN, stage, facts), waits)


def _tell(what: tuple[object, ...], waits: bool = True) -> Any:
    """Ask, so that it is done before what comes next; or only send it, where nobody can wait."""
    if waits and _erlang.may_ask():
        return ask_for(what)
    _erlang.send("Elixir.Py.Output", (_TELL, what, _request.span.get()))
    return None
