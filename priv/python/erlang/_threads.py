"""Threads of sessions that have one of their own.

A request is given to its session's thread, and waited for by the thread that got it. That asks
Elixir on behalf of the other one, which sees to further requests of its session meanwhile: what
Elixir does for the answer may need the session.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from queue import SimpleQueue

import _erlang
from erlang._boot import listen
from erlang._exceptions import Cancelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context
    from typing import Any

    from erlang._terms import Atom

# As large as those of the threads that run other requests.
_STACK = 64 * 1024 * 1024

# Seconds for which a thread that waits cannot be interrupted, where no signal reaches it.
_DEAF = 0.02

_here = threading.local()
_starting = threading.Lock()


def here() -> SessionThread | None:
    """The session's thread that the calling one is, if it is one."""
    return getattr(_here, "thread", None)


def _leave() -> None:
    # Nobody in a child process waits for the thread that forked it.
    _here.thread = None


os.register_at_fork(after_in_child=_leave)


class SessionThread:
    """A thread, and what it has to do."""

    def __init__(self) -> None:
        # Jobs, questions that have their answer, and None for the end.
        self.inbox: SimpleQueue[_Job | _Question | None] = SimpleQueue()
        self.jobs: list[_Job] = []  # those it is at: the last one runs, others wait for Elixir
        self.last_words: Callable[[], object] = lambda: None
        self.stopped = False
        with _starting:
            before = threading.stack_size(_STACK)
            try:
                thread = threading.Thread(target=self.serve, name="py-session", daemon=True)
                thread.start()
            finally:
                threading.stack_size(before)
        self.ident = thread.ident or 0

    def stop(self, last_words: Callable[[], object]) -> None:
        """End, when all is done that there is to do, and call this last."""
        self.last_words = last_words
        self.inbox.put(None)

    def run(
        self, context: Context, function: Callable[..., object], /, *args: Any, **kwargs: Any
    ) -> object:
        """Call the function on this thread, in the context."""
        if here() is self:
            return context.run(function, *args, **kwargs)
        return _Job(self, lambda: context.run(function, *args, **kwargs)).wait()

    def ask(self, kind: Atom, what: object, asker: object) -> Any:
        """Have the question asked by who waits for the job that runs, and wait for the answer."""
        question = _Question(kind, what, asker)
        self.jobs[-1].ask(question)
        while not question.is_answered:
            self.step()
        if question.error is not None:
            raise question.error
        return question.answer

    def serve(self) -> None:
        _here.thread = self
        while not self.stopped:
            self.step()
        self.last_words()

    def step(self) -> None:
        item = self.inbox.get()
        if item is None:
            self.stopped = True
        elif isinstance(item, _Question):
            item.is_answered = True
        else:
            self.jobs.append(item)
            while not item.is_over:
                try:
                    item.perform()
                except Cancelled:
                    # At its very end.
                    continue
            self.jobs.pop()
            item.wake()


class _Question:
    """What the thread of a session wants to know."""

    def __init__(self, kind: Atom, what: object, asker: object) -> None:
        self.kind = kind
        self.what = what
        self.asker = asker
        self.answer: Any = None
        self.error: BaseException | None = None
        self.is_answered = False

    def put(self) -> None:
        try:
            self.answer = _erlang.ask(self.kind, self.what, self.asker)
        except BaseException as error:
            self.error = error


class _Job:
    """A call, between the thread that waits for it and the one that makes it."""

    def __init__(self, thread: SessionThread, function: Callable[[], object]) -> None:
        self.thread = thread
        self.function = function
        # Of a queue `get` with a timeout waits for ever, once a signal came at its end.
        self.news = threading.Lock()
        self.news.acquire()
        self.question: _Question | None = None
        self.value: object = None
        self.error: BaseException | None = None
        self.cancelled: BaseException | None = None
        self.lock = threading.Lock()  # of what follows
        self.has_begun = self.is_over = False

    # --- on the session's thread

    def perform(self) -> None:
        if not self.has_begun:
            try:
                if self.begin():
                    self.value = self.function()
            except BaseException as error:
                self.error = error
        with self.lock:
            self.is_over = True
            # From here on nobody interrupts it.
            _erlang.interrupt_thread(self.thread.ident, False)

    def begin(self) -> bool:
        with self.lock:
            self.has_begun = True
            return not self.is_over

    def ask(self, question: _Question) -> None:
        self.question = question
        self.wake()

    def wake(self) -> None:
        with suppress(RuntimeError):  # it is awake
            self.news.release()

    # --- on the thread that waits

    def wait(self) -> object:
        """Have it done, and wait for the result."""
        # The main thread is interrupted again and again, which would leave it no time for this.
        listen(self.cancel)
        try:
            # What has begun is seen to its end, whenever this thread is interrupted.
            self.thread.inbox.put(self)
            while not self.is_over:
                self.attend()
        except BaseException as error:
            self.cancelled = error
            while not self.is_over:
                self.attend()
        finally:
            listen(None)
        if self.cancelled is not None:
            raise self.cancelled
        if self.error is not None:
            raise self.error
        return self.value

    def cancel(self) -> None:
        self.cancelled = Cancelled()

    def attend(self) -> None:
        if self.cancelled is not None:
            self.interrupt(self.cancelled)
        self.news.acquire(timeout=_DEAF)
        question = self.question
        if question is not None:
            question.put()
            self.hand_back(question)

    def hand_back(self, question: _Question) -> None:
        self.thread.inbox.put(question)
        # The other thread may have another one already.
        if self.question is question:
            self.question = None

    def interrupt(self, error: BaseException) -> None:
        """Have it end on the other thread too, which this one waits for."""
        question = self.question
        if question is not None:
            question.error = error
            self.hand_back(question)
            return
        with self.lock:
            if not self.has_begun:
                self.is_over = True
            elif not self.is_over:
                _erlang.interrupt_thread(self.thread.ident, True)
