"""Iterators over what Elixir enumerates: `Py.iter`."""

from __future__ import annotations

from collections import deque

import _erlang
from erlang._awaiting import ask_and_await
from erlang._callbacks import ask_for
from erlang._terms import Atom

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from erlang._callbacks import Function
    from erlang._terms import Pid

_ITER = Atom("iter")
_STOP = Atom("stop")

# Items that are asked for at once: few at first, so that what takes little asks for little.
_MOST = 64


class Iterator:
    """An iterator over an Elixir enumerable, which gives items as they are asked for."""

    __slots__ = ("_enumerable", "_items", "_many", "_more", "_pid")
    __module__ = "erlang"

    def __init__(self, enumerable: Function) -> None:
        self._enumerable = enumerable
        self._items: deque[object] = deque()
        self._many = 1
        self._more = True
        self._pid: Pid | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> object:
        while not self._items:
            if not self._more:
                raise StopIteration
            try:
                self._keep(ask_for(self._question()))
            except BaseException:
                self.close()
                raise
        return self._items.popleft()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> object:
        while not self._items:
            if not self._more:
                raise StopAsyncIteration
            try:
                self._keep(await ask_and_await(self._question()))
            except BaseException:
                self.close()
                raise
        return self._items.popleft()

    def close(self) -> None:
        """End the enumeration."""
        self._more = False
        self._items.clear()
        pid, self._pid = self._pid, None
        if pid is not None:
            _erlang.send(pid, _STOP)

    def __del__(self) -> None:
        # One that was never begun may have no fields yet.
        if getattr(self, "_pid", None) is not None:
            self.close()

    def _question(self) -> tuple[object, ...]:
        if self._pid is None:
            self._pid = ask_for((_ITER, "open", [self._enumerable]))
        return (_ITER, "next", [self._pid, self._many])

    def _keep(self, answer: Any) -> None:
        items, self._more = answer
        self._items.extend(items)
        self._many = min(2 * self._many, _MOST)
        if not self._more:
            self._pid = None  # its process has ended
