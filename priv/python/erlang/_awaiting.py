"""Questions that coroutines ask: one thread hears which of them are answered, for all of them.

The coroutine itself fetches its answer, as its last step: one that is cancelled before has left
it where it was.
"""

from __future__ import annotations

import itertools
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

    board = _open()
    number, answered = board.ask(what, asyncio.get_running_loop())
    try:
        await answered
    except BaseException:
        board.withdraw(number)
        raise
    return board.fetch(number)


class _Board:
    """Where answers are announced."""

    def __init__(self) -> None:
        self._pid: Pid = _about("open")
        self._numbers = itertools.count(1)
        self._awaited: dict[int, asyncio.Future[None]] = {}
        self._listens = False

    def ask(
        self, what: tuple[object, ...], loop: asyncio.AbstractEventLoop
    ) -> tuple[int, asyncio.Future[None]]:
        number, answered = next(self._numbers), loop.create_future()
        try:
            with _lock:
                self._awaited[number] = answered
                self._start()
            _about("ask", self._pid, number, what)
        except BaseException:
            self.withdraw(number)
            raise
        return number, answered

    def fetch(self, number: int) -> Any:
        return _about("fetch", self._pid, number)

    def withdraw(self, number: int) -> None:
        self._awaited.pop(number, None)
        try:
            _about("withdraw", self._pid, number)
        except Exception:  # whoever would answer is not there any more
            return

    def _start(self) -> None:
        if not self._listens:
            # Its context would be that of a call that ends, and so would its group leader.
            run = Context().run
            threading.Thread(target=run, args=(self._listen,), daemon=True).start()
            self._listens = True

    def _listen(self) -> None:
        heard: list[int] = []
        try:
            while heard or self._goes_on():
                heard = _about("hear", self._pid, heard)
                for number in heard:
                    self._announce(number, None)
        except Exception as error:
            _close(self)
            for number in list(self._awaited):
                self._announce(number, error)

    def _goes_on(self) -> bool:
        with _lock:
            self._listens = bool(self._awaited)
            return self._listens

    def _announce(self, number: int, error: Exception | None) -> None:
        answered = self._awaited.pop(number, None)
        if answered is None:
            return
        try:
            answered.get_loop().call_soon_threadsafe(_settle, answered, error)
        except RuntimeError:  # the loop is closed
            self.withdraw(number)


def _settle(answered: asyncio.Future[None], error: Exception | None) -> None:
    if answered.done():
        return
    if error is None:
        answered.set_result(None)
    else:
        answered.set_exception(error)


_lock = threading.Lock()
_board: _Board | None = None


def _open() -> _Board:
    global _board
    with _lock:
        if _board is None:
            _board = _Board()
        return _board


def _close(board: _Board) -> None:
    global _board
    with _lock:
        if _board is board:
            _board = None


def _about(operation: str, *arguments: object) -> Any:
    return ask_for((_AWAIT, operation, list(arguments)))
