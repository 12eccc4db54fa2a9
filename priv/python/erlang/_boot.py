"""Prepares an interpreter. Imports nothing that is slow: each call of a test waits for it."""

from __future__ import annotations

import _thread
import os
from time import monotonic

import _erlang
from erlang import _imports, _output, _types
from erlang._exceptions import Cancelled
from erlang._terms import Pid

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from types import FrameType, ModuleType
    from typing import NoReturn, TypedDict

    class Config(TypedDict):
        sink: Pid
        leader: Pid
        signal: int
        decimal: bool
        set_version: bool
        in_node: bool

else:
    import _signal as signal  # `signal` itself makes enums of it, which takes milliseconds


def start(config: Config) -> None:
    """Wire the interpreter to the BEAM. Call it once, on the main thread."""
    global _main
    _main = _thread.get_ident()
    _types.configure(with_decimal=config["decimal"])
    _output.install(config["sink"], config["leader"])
    signal.signal(config["signal"], _interrupt)
    _imports.after("logging", lambda _module: _install_logging())
    if config["in_node"]:
        os.fork, os.forkpty = _fork, _fork
        _imports.after("multiprocessing.context", _default_to_spawn)


def _interrupt(_signal: int, frame: FrameType | None) -> None:
    # The native side sends the signal again until the call has ended.
    call = _erlang.interrupted()
    if call is None:
        return
    if _listener is not None:
        _listener()
    elif not _imports.is_under_way(frame) and _is_due(call):
        raise Cancelled


# Seconds that a call has to clean up, once it is interrupted.
_CLEAN_UP = 0.25


def _is_due(call: int) -> bool:
    """Whether to interrupt the call now: it may still be in the `finally` that it was sent to."""
    global _interrupted
    now = monotonic()
    last, when = _interrupted
    if last == call and now < when + _CLEAN_UP:
        return False
    _interrupted = call, now
    return True


_interrupted: tuple[int | None, float] = (None, 0.0)


_main: int | None = None
_listener: Callable[[], object] | None = None


def listen(listener: Callable[[], object] | None) -> None:
    """Have the main thread, if this is it, call the listener instead of being interrupted."""
    global _listener
    if _thread.get_ident() == _main:
        _listener = listener


def _fork() -> NoReturn:
    raise RuntimeError(
        "os.fork() would duplicate the whole BEAM: "
        "use subprocess, or multiprocessing with the start method 'spawn'"
    )


def _install_logging() -> None:
    from erlang import _logging

    # By name: unlike its pid, the name survives a restart of that process.
    _logging.install("Elixir.Py.Output")


def _default_to_spawn(context: ModuleType) -> None:
    # set_start_method() would count as the user's own choice and refuse a second one.
    default = context._default_context
    default._default_context = default.get_context("spawn")
