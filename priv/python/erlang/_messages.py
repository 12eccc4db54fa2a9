"""Messages to Erlang processes."""

from __future__ import annotations

import _erlang
from erlang._callbacks import send_elsewhere
from erlang._terms import Pid


def send(dest: Pid | str | tuple[str, str], message: object) -> bool:
    """Send `message` to a pid, a name or a `(name, node)`; False when nobody is there."""
    if isinstance(dest, tuple):
        name, node = dest
        return send_elsewhere(name, node, message)
    if not isinstance(dest, (Pid, str)):
        got = type(dest).__qualname__
        raise TypeError(f"send() expects an erlang.Pid or a registered name (str), got {got}")
    return _erlang.send(dest, message)
