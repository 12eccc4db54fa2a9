"""Questions that coroutines ask: one thread hears which of them are answered, for all of them.

The coroutine itself fetches its answer, as its last step: one that is cancelled before has left
it where it was.
"""

from __future__ import annotations

import itertools
import os
import threading
from contextvars import Context

from erlang._callbacks import ask_for
from erlang._terms import Atom

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from typing import Any

    from erlang._terms import Pid

_AWAIT = Atom("await")


async def ask_and_await(what: tuple[object, ...]) -> Any:
    """Ask the node, and await its answer."""
    import asyncio

    board, number, answered = _expect(asyncio.get_running_loop())
    try:
        board.ask(number, what)
        await answered
    except BaseException:
        board.withdraw(number)
        raise
    return board.fetch(number)


class _Board:
    """Where answers are announced, for as long as there is something to expect."""

    def __init__(self) -> None:
        self._pid: Pid = _about("open")
        self._numbers = itertools.count(1)
        self._expected: dict[int, asyncio.Future[None]] = {}
        # Its context would be that of a call that ends, and so would its group leader.
        run, listen = Context().run, (self._listen,)
        threading.Thread(target=run, args=listen, name="erlang.awaiting", daemon=True).start()

    def expect(self, loop: asyncio.AbstractEventLoop) -> tuple[int, asyncio.Future[None]]:
        number, answered = next(self._numbers), loop.create_future()
        self._expected[number] = answered
        return number, answered

    def ask(self, number: int, what: tuple[object, ...]) -> None:
        _about("ask", self._pid, number, what)

    def fetch(self, number: int) -> Any:
        return _about("fetch", self._pid, number)

    def withdraw(self, number: int) -> None:
        self._expected.pop(number, None)
        self._tell("withdraw", number)

    def _listen(self) -> None:
        try:
            self._hear()
        except Exception as error:
            with _lock:
                _take_down(self)
            for number in list(self._expected):
                self._announce(number, error)
        self._tell("close")

    def _hear(self) -> None:
        heard: list[int] = []
        while heard or not self._rests():
            heard = _about("hear", self._pid, heard)
            for number in heard:
                self._announce(number, None)

    def _rests(self) -> bool:
        """Whether it is taken down, since nothing is expected."""
        with _lock:
            if self._expected:
                return False
            _take_down(self)
            return True

    def _announce(self, number: int, error: Exception | None) -> None:
        answered = self._expected.pop(number, None)
        if answered is None:
            return
        try:
            answered.get_loop().call_soon_threadsafe(_settle, answered, error)
        except RuntimeError:  # the loop is closed
            self.withdraw(number)

    def _tell(self, operation: str, *arguments: object) -> None:
        try:
            _about(operation, self._pid, *arguments)
        except Exception:  # whoever it is told is not there any more
            return


def _settle(answered: asyncio.Future[None], error: Exception | None) -> None:
    if answered.done():
        return
    if error is None:
        answered.set_result(None)
    else:
        answered.set_exception(error)


_lock = threading.Lock()
_board: _Board | None = None


def _expect(loop: asyncio.AbstractEventLoop) -> tuple[_Board, int, asyncio.Future[None]]:
    global _board
    with _lock:
        if _board is None:
            _board = _Board()
        return _board, *_board.expect(loop)


def _forget() -> None:
    # A child process has no thread that hears, and one of its parent's may have had the lock.
    global _board, _lock
    _lock, _board = threading.Lock(), None


os.register_at_fork(after_in_child=_forget)


def _take_down(board: _Board) -> None:
    global _board
    if _board is board:
        _board = None


def _about(operation: str, *arguments: object) -> Any:
    return ask_for((_AWAIT, operation, list(arguments)))
