"""Messages to Erlang processes."""

from __future__ import annotations

import _erlang
from erlang._terms import Pid


def send(dest: Pid | str, message: object) -> bool:
    """Send `message` to a pid or a registered name; False when nobody is there."""
    if not isinstance(dest, (Pid, str)):
        got = type(dest).__qualname__
        raise TypeError(f"send() expects an erlang.Pid or a registered name (str), got {got}")
    return _erlang.send(dest, message)
