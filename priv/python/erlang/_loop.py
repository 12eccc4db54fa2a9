"""The asyncio event loop of the interpreter, on a thread that the native side starts.

Each coroutine that is submitted is finished exactly once. Its task's done callback does that,
not the task: one that is cancelled before its first step runs no code of its own.
"""

from __future__ import annotations

import threading
from collections import deque
from contextvars import Context, copy_context

import _erlang
from erlang import _output, _request
from erlang._exceptions import Cancelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine
    from typing import Any


def run() -> None:
    """Serve until the loop is abandoned; a loop that user code closes is replaced."""
    global _thread
    _thread = threading.get_ident()
    served = _abandoned
    while served == _abandoned:
        loop = _current()
        _serve(loop)
        for job in [job for job in _jobs.values() if job.loop is loop]:
            job.finish(None, RuntimeError("the event loop was closed"))
    # Whatever was stuck on this thread has ended by now.
    loop.close()


def abandon() -> None:
    """Leave a loop to itself whose thread is stuck, with all it was at: what is submitted from
    then on gets a new one, and a thread of its own."""
    global _loop, _woken, _abandoned
    with _lock:
        loop, _loop, _woken = _loop, None, False
        _abandoned += 1
        _inbox.clear()
        _jobs.clear()
    if loop is not None:
        try:
            loop.call_soon_threadsafe(loop.stop)
        except RuntimeError:  # closed, by its own thread or by user code
            return


def submit(
    key: int, coroutine: Coroutine[Any, Any, object], handle: object, asker: object
) -> None:
    """Run the coroutine in the context of the caller, then give its outcome to `handle`."""
    global _woken
    job = _Job(key, _current(), coroutine, handle, asker)
    _jobs[key] = job
    _inbox.append((job, copy_context()))
    # Waking a loop costs more than starting a task: one that was woken takes all there is. The
    # flag is taken back before it looks, so what is added later is either seen or wakes it again.
    if not _woken:
        _woken = True
        try:
            job.loop.call_soon_threadsafe(_take)
        except RuntimeError as error:  # user code has closed it just now
            _woken = False
            job.finish(None, error)


def _take() -> None:
    global _woken
    _woken = False
    while _inbox:
        job, context = _inbox.popleft()
        context.run(job.start)


def cancel(key: int) -> None:
    """Cancel the task of that key, if it has not ended."""
    job = _jobs.get(key)
    if job is not None:
        job.loop.call_soon_threadsafe(job.cancel)


def runs_one_of(keys: list[int]) -> bool:
    """Whether the loop is at a step of one of these tasks now."""
    import asyncio

    jobs = [job for key in keys if (job := _jobs.get(key)) is not None]
    tasks = [(job.task, job.loop) for job in jobs if job.task is not None]
    return any(task is asyncio.current_task(loop) for task, loop in tasks)


def task_of(key: int) -> tuple[asyncio.Task[object] | None, int | None]:
    """The task of that key, and the thread of the loop where the loop is at a step of it."""
    import asyncio

    job = _jobs.get(key)
    if job is None or job.task is None:
        return None, None
    return job.task, _thread if asyncio.current_task(job.loop) is job.task else None


_thread: int | None = None
_jobs: dict[int, _Job] = {}
_inbox: deque[tuple[_Job, Context]] = deque()
_woken = False
_abandoned = 0  # how many loops


class _Job:
    """A coroutine on its way. It keeps its task alive, which asyncio does not."""

    __slots__ = ("asker", "coroutine", "handle", "key", "loop", "task")

    def __init__(
        self,
        key: int,
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, object],
        handle: object,
        asker: object,
    ) -> None:
        self.asker = asker
        self.key = key
        self.loop = loop
        self.coroutine = coroutine
        self.handle = handle
        self.task: asyncio.Task[object] | None = None

    def start(self) -> None:
        _request.asker.set(self.asker)
        try:
            self.task = self.loop.create_task(self.coroutine)
            self.task.add_done_callback(self.end)
        except BaseException as error:  # a task factory is user code
            self.finish(None, error)

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def end(self, task: asyncio.Task[object]) -> None:
        import asyncio

        try:
            error = task.exception()
        except asyncio.CancelledError as cancelled:
            error = cancelled
        self.finish(None if error else task.result(), error)

    def finish(self, value: object, error: BaseException | None) -> None:
        if _jobs.pop(self.key, None) is None:
            return
        try:
            try:
                _output.flush(self.asker)
            finally:
                _erlang.finish(self.handle, value, error)
        except BaseException:
            _report()


_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def _current() -> asyncio.AbstractEventLoop:
    """The loop of the thread that serves, or that of the one to come."""
    global _loop, _woken

    with _lock:
        if _loop is None or _loop.is_closed():
            # One that was closed never takes what it was woken for; run() fails its jobs.
            _woken = False
            _inbox.clear()
            _loop = _new_loop()
        return _loop


def _new_loop() -> asyncio.AbstractEventLoop:
    """A loop that tells when it waits for events: meanwhile others may run inline."""
    import asyncio
    import selectors

    class Selector(selectors.DefaultSelector):
        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is not None and timeout <= 0:
                return super().select(timeout)
            _erlang.loop_waits()
            try:
                return super().select(timeout)
            finally:
                _erlang.loop_returns()

    loop = asyncio.new_event_loop()
    if type(loop) is not asyncio.SelectorEventLoop:
        return loop  # of a policy that the user has set
    loop.close()
    return asyncio.SelectorEventLoop(Selector())


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """Run the loop until user code closes it, whatever comes out of it before."""
    import asyncio

    asyncio.set_event_loop(loop)
    while not loop.is_closed() and loop is _loop:
        try:
            loop.run_forever()
        except (Cancelled, SystemExit, KeyboardInterrupt):
            # The task that raised one of the latter has it, and asyncio lets it out as well; the
            # first may have been meant for a step that had just ended.
            continue
        except BaseException:
            _report()


def _report() -> None:
    import traceback

    traceback.print_exc()
