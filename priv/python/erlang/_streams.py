"""Iterables that are taken in pieces: each request takes what there is credit for.

A stream that nobody takes from is an iterator in a table, and no thread waits for it. An answer
has what came fast; it ends with an item that was slow, so that this is there at once. Where an
iterator stalls in the middle of what should have been fast, what it gave before is sent ahead.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Generator
from itertools import islice
from time import perf_counter

import _erlang
from erlang._sessions import current
from erlang._targets import resolve
from erlang._terms import Atom

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine
    from types import ModuleType
    from typing import Any

    from erlang._terms import Pid, Ref

    # What taking gives, or a coroutine for it: the items that are left to hand over, and whether
    # there may be more.
    Piece = tuple[list[object], bool]
    # Where items go that are sent ahead of an answer.
    Sink = tuple[Pid, Ref]

_ITEMS = Atom("py_items")

# Seconds: an item that takes longer is slow, and is not kept waiting for others.
_SLOW = 0.0005

_FASTEST = 1024

# Keys that are remembered of streams that were closed before they were there.
_MAX_NEVER = 1024


class _Table:
    """The streams of a pool."""

    def __init__(self, base: ModuleType) -> None:
        self.base = base
        self.lock = threading.Lock()
        self.streams: dict[int, _Stream] = {}
        self.never: OrderedDict[int, None] = OrderedDict()

    def add(self, key: int, stream: _Stream) -> bool:
        with self.lock:
            if key in self.never:
                del self.never[key]
                return False
            self.streams[key] = stream
            return True

    def remove(self, key: int) -> _Stream | None:
        with self.lock:
            stream = self.streams.pop(key, None)
            if stream is None:
                self.never[key] = None
                if len(self.never) > _MAX_NEVER:
                    self.never.popitem(last=False)
            return stream


# By the names of a pool's base, which nobody else has while it is here, as `id` has them.
_tables: dict[int, _Table] = {}
_running: dict[int, _Stream] = {}


def table_of(base: ModuleType) -> _Table:
    """The table of a pool."""
    key = id(vars(base))
    return _tables.get(key) or _tables.setdefault(key, _Table(base))


def forget(base: ModuleType) -> None:
    """Let go of the streams of a pool: it was stopped."""
    _tables.pop(id(vars(base)), None)


def _table() -> _Table:
    session = current()
    # The thread of a session is at no request of its own.
    return table_of(_erlang.base()) if session is None else _tables[id(session.base)]


def open_call(
    key: int,
    credit: int,
    sink: Sink,
    target: str,
    name: str,
    args: list[object],
    /,
    **kwargs: object,
) -> Any:
    """Call `target.name`, and take the first items of the iterable that it returns."""
    table = _table()
    value = resolve(target, name)(*args, **kwargs)
    if hasattr(type(value), "__await__"):
        return _open_awaited(table, key, credit, sink, value)
    return _new(table, key, value).take(credit, sink)


async def _open_awaited(
    table: _Table, key: int, credit: int, sink: Sink, value: Awaitable[Any]
) -> Piece:
    piece = _new(table, key, await value).take(credit, sink)
    return piece if isinstance(piece, tuple) else await piece


def _new(table: _Table, key: int, value: Any) -> _Stream:
    stream = (
        _AsyncStream(value.__aiter__())
        if hasattr(type(value), "__aiter__")
        else _Stream(iter(value))
    )
    if not table.add(key, stream):
        stream.close()
        raise RuntimeError("this stream was closed before it was there")
    return stream


def take(key: int, credit: int, sink: Sink) -> Any:
    """The next items of a stream."""
    stream = _table().streams.get(key)
    if stream is None:
        raise RuntimeError("this stream was closed")
    return stream.take(credit, sink)


def again(key: int, sink: Sink) -> None:
    """Send the items of the last answer one by one: they did not cross together."""
    stream = _table().streams.get(key)
    if stream is not None:
        for item in stream.last:
            _send(item, sink)


def close(key: int) -> Coroutine[Any, Any, None] | None:
    """End a stream. A generator runs what it has to run at its end."""
    stream = _table().remove(key)
    return None if stream is None else stream.close()


def flush() -> None:
    """Send ahead what iterators gave that stall now."""
    for stream in list(_running.values()):
        stream.flush(_SLOW)


def _send(item: object, sink: Sink) -> None:
    pid, ref = sink
    _erlang.send(pid, (_ITEMS, ref, [item]))


class _Stream:
    """An iterator, and what it gave that nobody has yet."""

    def __init__(self, iterator: Any) -> None:
        self.iterator = iterator
        self.ready: deque[object] = deque()
        self.last: list[object] = []
        self.closed = False
        self.taken = threading.Lock()  # by whoever takes items, or closes
        self.lock = threading.Lock()  # of what follows, and whoever takes from `ready`
        self.sink: Sink | None = None
        self.sent = 0
        self.pace = 1  # how many items are asked for in one go
        self.since = 0.0
        self.refused = False

    def take(self, credit: int, sink: Sink) -> Any:
        with self.taken:
            self.begin(sink)
            try:
                return self.answer(self.fill(credit))
            except BaseException:
                self.fail()
                self.finish()
                raise
            finally:
                self.end()

    def begin(self, sink: Sink) -> None:
        self.sink, self.sent, self.last = sink, 0, []
        _running[id(self)] = self

    def end(self) -> None:
        _running.pop(id(self), None)
        self.sink = None

    def fill(self, credit: int) -> bool:
        """Have the iterator give up to so many items; False when it has no more."""
        given = 0
        while given < credit and not (self.closed or self.refused):
            count = min(self.pace, credit - given)
            self.since = perf_counter()
            self.extend(count)
            if self.given() < given + count:
                return False
            if perf_counter() - self.since > _SLOW:
                self.pace = 1
                break
            given += count
            self.pace = min(self.pace * 2, _FASTEST)
        return True

    def extend(self, count: int) -> None:
        _erlang.may_stall(True)
        try:
            self.ready.extend(islice(self.iterator, count))
        finally:
            _erlang.may_stall(False)

    def given(self) -> int:
        with self.lock:
            return self.sent + len(self.ready)

    def answer(self, more: bool) -> Piece:
        with self.lock:
            self.sink = None
            self.last = list(self.ready)
            self.ready.clear()
        return self.last, more

    def fail(self) -> None:
        """What came before an error arrives before it."""
        self.flush(0.0)
        self.ready.clear()

    def flush(self, stalls: float) -> None:
        with self.lock:
            sink = self.sink
            if sink is None or self.refused or perf_counter() - self.since < stalls:
                return
            while self.ready:
                try:
                    _send(self.ready[0], sink)
                except Exception:
                    # The answer says why, when it cannot cross either.
                    self.refused = True
                    return
                self.ready.popleft()
                self.sent += 1

    def close(self) -> Any:
        self.closed = True
        with self.taken:
            return self.finish()

    def finish(self) -> Any:
        iterator, self.iterator = self.iterator, iter(())
        if isinstance(iterator, Generator):
            iterator.close()
        return None


class _AsyncStream(_Stream):
    """The same of an asynchronous iterator."""

    async def take(self, credit: int, sink: Sink) -> Piece:
        with self.taken:
            self.begin(sink)
            try:
                return self.answer(await self.fill_async(credit))
            except BaseException:
                self.fail()
                await self.finish_async()
                raise
            finally:
                self.end()

    async def fill_async(self, credit: int) -> bool:
        for _ in range(credit):
            if self.closed or self.refused:
                break
            self.since = perf_counter()
            try:
                self.ready.append(await self.next())
            except StopAsyncIteration:
                return False
            if perf_counter() - self.since > _SLOW:
                break
        return True

    async def next(self) -> object:
        if not self.ready:
            return await self.iterator.__anext__()
        _erlang.may_stall(True)
        try:
            return await self.iterator.__anext__()
        finally:
            _erlang.may_stall(False)

    def finish(self) -> Coroutine[Any, Any, None]:
        return self.finish_async()

    async def finish_async(self) -> None:
        close = getattr(self.iterator, "aclose", None)
        self.iterator = None
        if close is not None:
            await close()
