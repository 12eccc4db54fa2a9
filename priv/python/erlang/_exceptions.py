"""The exceptions of the package. Users know them by their public name, `erlang.X`."""

from __future__ import annotations


class Cancelled(BaseException):
    """Raised into a call that timed out, was cancelled, or whose caller died.

    No `Exception`, so that a plain `except Exception` does not keep a call alive that nobody
    waits for.
    """

    __module__ = "erlang"


class EncodeError(ValueError):
    """An Elixir value has no Python value."""

    __module__ = "erlang"


class DecodeError(ValueError):
    """A Python value has no Elixir value."""

    __module__ = "erlang"
