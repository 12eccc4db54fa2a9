"""The BEAM, as seen from Python that runs inside it."""

from __future__ import annotations

from erlang._exceptions import Cancelled, DecodeError, EncodeError
from erlang._messages import send
from erlang._terms import Atom, Pid, Port, Ref

__all__ = ["Atom", "Cancelled", "DecodeError", "EncodeError", "Pid", "Port", "Ref", "send"]
