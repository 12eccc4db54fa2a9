"""The exceptions of the package. Users know them by their public name, `erlang.X`."""

from __future__ import annotations


class Cancelled(BaseException):
    """Raised into a call that timed out, was cancelled, or whose caller died.

    No `Exception`, so that a plain `except Exception` does not keep a call alive that nobody
    waits for.
    """

    __module__ = "erlang"


class Closed(Exception):  # noqa: N818 - the end of a channel is no error
    """A channel is closed: it takes nothing more, or has nothing more to give."""

    __module__ = "erlang"


class ElixirError(Exception):
    """An Elixir function that Python called raised, threw or exited.

    `kind` is "error", "throw" or "exit", `type` the exception's module, `reason` its message, and
    `stacktrace` Elixir's own, as text.
    """

    __module__ = "erlang"

    def __init__(self, kind: str, reason: str, stacktrace: str = "", name: str = "") -> None:
        super().__init__(kind, reason, stacktrace, name)
        self.kind = kind
        self.reason = reason
        self.stacktrace = stacktrace
        self.type = name or kind
        self._again: object = None  # what raises it in Elixir

    def __str__(self) -> str:
        return f"({self.type}) {self.reason}"


class EncodeError(ValueError):
    """An Elixir value has no Python value."""

    __module__ = "erlang"


class NotHereError(EncodeError):
    """An object is not where a reference to it is used; `elsewhere` if another worker has it."""

    __module__ = "erlang"

    def __init__(self, message: str, *, elsewhere: bool = False) -> None:
        super().__init__(message)
        self.kind = "elsewhere" if elsewhere else "not_available"


class DecodeError(ValueError):
    """A Python value has no Elixir value."""

    __module__ = "erlang"


class SessionLostError(RuntimeError):
    """The session that a call was to run in has ended."""

    __module__ = "erlang"
