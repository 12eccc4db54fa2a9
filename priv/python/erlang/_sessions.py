"""Namespaces that outlive a call. `Py.Session` is the process that each belongs to."""

from __future__ import annotations

from contextvars import ContextVar
from time import monotonic

import _erlang
from erlang._exceptions import SessionLostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    from erlang._threads import SessionThread


class Session:
    """A namespace above the base of its pool, and perhaps a thread."""

    def __init__(self, base: ModuleType, thread: SessionThread | None) -> None:
        # Not the module itself, which ends sessions when nobody has it.
        self.base: dict[str, object] = vars(base)
        self.namespace: dict[str, object] = {"__name__": "__main__", "__builtins__": self.base}
        self.thread = thread
        self.uses: set[int] = set()
        self.used = monotonic()

    def end(self) -> None:
        if self.thread is not None:
            self.thread.stop(self.namespace.clear)


class _Use:
    """A session in a context: it is in use for as long as somebody has that."""

    __slots__ = ("session",)

    def __init__(self, session: Session) -> None:
        self.session = session
        session.uses.add(id(self))

    def __del__(self) -> None:
        self.session.used = monotonic()
        self.session.uses.discard(id(self))


_sessions: dict[int, Session] = {}
_current: ContextVar[_Use | None] = ContextVar("erlang_session", default=None)
# Keys, by the base namespace of a pool.
_pools: dict[ModuleType, set[int]] = {}


def begin(key: int, threaded: bool) -> None:
    """Begin a session of the pool that asks."""
    from erlang._streams import table_of

    base = _erlang.base()
    table_of(base)
    _pools.setdefault(base, set()).add(key)
    _sessions[key] = Session(base, _new_thread() if threaded else None)


def _new_thread() -> SessionThread:
    from erlang._threads import SessionThread

    return SessionThread()


def forget(base: ModuleType) -> None:
    """End all sessions of a pool: it was stopped."""
    for key in list(_pools.pop(base, ())):
        close(key)


def close(key: int) -> None:
    """End a session. What runs in it runs on."""
    for keys in list(_pools.values()):
        keys.discard(key)
    session = _sessions.pop(key, None)
    if session is not None:
        session.end()


def close_unused(key: int, seconds: float) -> float | None:
    """End a session that was not used for so long; else, in how many seconds to ask again."""
    session = _sessions.get(key)
    if session is None:
        return None
    left = seconds if session.uses else session.used + seconds - monotonic()
    if left > 0:
        return left
    close(key)
    return None


def find(key: int) -> Session:
    """The session of that key."""
    session = _sessions.get(key)
    if session is None:
        raise SessionLostError("this session was closed")
    return session


def enter(key: int | Session) -> None:
    """Have what runs in this context be in the session."""
    _current.set(_Use(key if isinstance(key, Session) else find(key)))


def current() -> Session | None:
    """The session of this context."""
    use = _current.get()
    return None if use is None else use.session


def call(name: str, args: list[Any], /, **kwargs: Any) -> object:
    """Call what has that name in the session, or below it."""
    from erlang._targets import resolve

    return resolve("__main__", name)(*args, **kwargs)


def attribute(name: str) -> object:
    """What has that name in the session, or below it."""
    from erlang._targets import resolve

    return resolve("__main__", name)


def put(values: dict[str, object]) -> None:
    """Set names of the session."""
    if "__builtins__" in values:
        raise ValueError("no variable may be called __builtins__")
    _namespace().update({str(name): value for name, value in values.items()})


def get(names: list[str]) -> dict[str, object]:
    """The values of names of the session."""
    namespace = _namespace()
    for name in names:
        if name not in namespace:
            raise NameError(f"name {str(name)!r} is not defined in this session", name=str(name))
    return {name: namespace[name] for name in names}


def fork(key: int, names: list[str], threaded: bool) -> None:
    """Begin another session with these names of this one."""
    values = get(names)
    begin(key, threaded)
    find(key).namespace.update({str(name): value for name, value in values.items()})


def _namespace() -> dict[str, object]:
    session = current()
    if session is None:
        raise SessionLostError("this is for sessions: give one as on:")
    return session.namespace
