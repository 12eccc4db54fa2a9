"""Items on their way between Python code and Elixir processes."""

from __future__ import annotations

from erlang._awaiting import ask_and_await
from erlang._callbacks import ask_for
from erlang._exceptions import Closed
from erlang._terms import Atom, Pid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

_CHANNEL = Atom("channel")
_LONGEST = 4_294_967_295  # milliseconds


class Channel:
    """A channel of Elixir's, `Py.Channel`: that of a process, or of a name.

    It iterates over its items until it is closed and empty, in `for` and in `async for`.
    """

    __slots__ = ("pid",)
    __module__ = "erlang"
    pid: Pid

    def __init__(self, where: Pid | str) -> None:
        if not isinstance(where, (Pid, str)):
            raise TypeError(
                "Channel() expects a registered name (str) or an erlang.Pid, "
                f"got {type(where).__qualname__}"
            )
        self.pid = ask_for(_question("find", str(where) if isinstance(where, str) else where))

    @classmethod
    def at(cls, pid: Pid) -> Self:
        """The channel whose process is known to be one."""
        if type(pid) is not Pid:
            raise TypeError("its pid is no pid")
        channel = cls.__new__(cls)
        channel.pid = pid
        return channel

    def put(self, item: object, timeout: float | None = None) -> None:
        """Put an item at the end; wait while there is no room, for so many seconds."""
        ask_for(_question("put", self.pid, item, _milliseconds(timeout)))

    def get(self, timeout: float | None = None) -> object:
        """Take the first item; wait for one where there is none, for so many seconds."""
        return ask_for(_question("get", self.pid, _milliseconds(timeout)))

    async def aput(self, item: object, timeout: float | None = None) -> None:
        """`put` in a coroutine: the event loop goes on meanwhile."""
        await self._exchange("put", [item], _milliseconds(timeout))

    async def aget(self, timeout: float | None = None) -> object:
        """`get` in a coroutine: the event loop goes on meanwhile."""
        return await self._exchange("get", [], _milliseconds(timeout))

    async def _exchange(self, operation: str, items: list[object], limit: int | None) -> object:
        import asyncio

        # What can be done at once takes one question, what is awaited three. A coroutine that
        # never has to wait must not keep others from running, or from cancelling it.
        await asyncio.sleep(0)
        try:
            return ask_for(_question(operation, self.pid, *items, 0))
        except TimeoutError:
            if limit == 0:
                raise
        return await ask_and_await(_question(operation, self.pid, *items, limit))

    def close(self) -> None:
        """Let nothing more in. What is there can still be taken."""
        ask_for(_question("close", self.pid))

    @property
    def size(self) -> int:
        """How many items are there now."""
        return int(self._info()["size"])

    @property
    def closed(self) -> bool:
        """Whether it takes nothing more."""
        return bool(self._info()["closed"])

    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = ask_for(_question("info", self.pid))
        return info

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> object:
        try:
            return self.get()
        except Closed:
            raise StopIteration from None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> object:
        try:
            return await self.aget()
        except Closed:
            raise StopAsyncIteration from None

    def __eq__(self, other: object) -> bool:
        return self.pid == other.pid if isinstance(other, Channel) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.pid)

    def __repr__(self) -> str:
        return f"<erlang.Channel {self.pid!r}>"


def _question(operation: str, *arguments: object) -> tuple[object, ...]:
    return (_CHANNEL, operation, list(arguments))


def _milliseconds(timeout: float | None) -> int | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        got = type(timeout).__qualname__
        raise TypeError(f"a timeout is seconds (int or float) or None for no limit, got {got}")
    if not timeout >= 0:
        raise ValueError(f"a timeout is seconds, 0 or more, got {timeout}")
    return -int(-min(timeout * 1000, _LONGEST) // 1)
