"""What calls are at, for `Py.Pool.stacktrace/1`."""

from __future__ import annotations

import sys

from erlang import _errors, _loop
from erlang._terms import Atom

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CoroutineType, FrameType
    from typing import Any

_FUNCTION, _AGE, _AWAITING, _FRAMES = map(Atom, ("function", "age_ms", "awaiting", "frames"))


def stacks(calls: list[tuple[str, int, int, int]]) -> list[dict[Atom, object]]:
    """Of each call, given by its name, its age, its thread and the key of its task (0: none)."""
    return [
        {
            _FUNCTION: name,
            _AGE: age,
            _AWAITING: task != 0,
            _FRAMES: _errors.frames(_of_task(task) if task else _of_thread(thread)),
        }
        for name, age, thread, task in calls
    ]


def _of_thread(thread: int) -> list[tuple[FrameType, int]]:
    lines = []
    frame = sys._current_frames().get(thread)
    # A worker's main thread came here from its own first lines.
    while frame is not None and frame.f_globals.get("__name__") != "_py_worker":
        lines.append((frame, frame.f_lineno))
        frame = frame.f_back
    return lines[::-1]


def _of_task(key: int) -> list[tuple[FrameType, int]]:
    """Where its coroutines wait for each other; a task at a step is on the loop's thread."""
    task, thread = _loop.task_of(key)
    if task is None:
        return []
    if thread is not None:
        return _of_thread(thread)
    lines = []
    coroutine: CoroutineType[Any, Any, Any] | object = task.get_coro()
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        lines.append((frame, frame.f_lineno))
        coroutine = getattr(coroutine, "cr_await", None)
    return lines
