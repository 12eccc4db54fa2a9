"""The BEAM, as seen from Python that runs inside it."""

from __future__ import annotations

try:
    import _erlang  # noqa: F401
except ModuleNotFoundError:
    raise ImportError(
        "the module erlang is for code that Elixir called, in its own process: "
        "a child process has no way to the node, and its parent can ask for it"
    ) from None

from erlang._arrays import array
from erlang._callbacks import acall, call, whereis
from erlang._channel import Channel
from erlang._dlpack import Tensor
from erlang._encoders import register_encoder
from erlang._exceptions import (
    Cancelled,
    Closed,
    DecodeError,
    ElixirError,
    EncodeError,
    SessionLostError,
)
from erlang._messages import send
from erlang._progress import aprogress, progress
from erlang._state import (
    state_clear,
    state_decr,
    state_delete,
    state_get,
    state_incr,
    state_keys,
    state_set,
)
from erlang._telemetry import span, telemetry
from erlang._terms import Atom, Pid, Port, Ref
from erlang._trace import traceparent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "Atom",
    "Cancelled",
    "Channel",
    "Closed",
    "DecodeError",
    "ElixirError",
    "EncodeError",
    "Pid",
    "Port",
    "Ref",
    "SessionLostError",
    "Tensor",
    "acall",
    "aprogress",
    "array",
    "call",
    "progress",
    "register_encoder",
    "send",
    "span",
    "state_clear",
    "state_decr",
    "state_delete",
    "state_get",
    "state_incr",
    "state_keys",
    "state_set",
    "telemetry",
    "traceparent",
    "whereis",
]


def __getattr__(name: str) -> Any:
    """A registered Elixir function: `erlang.name(...)`, `from erlang import name`."""
    from erlang._callbacks import function

    return function(name)
