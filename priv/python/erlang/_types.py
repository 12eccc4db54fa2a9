"""The Python half of the type table: what the native side asks when it meets a value that it
does not convert by itself."""

from __future__ import annotations

from erlang._decode import configure, describe
from erlang._encode import from_struct
from erlang._encoders import encoders, has_encoder
from erlang._terms import Atom, Pid, Port, Ref, Struct

__all__ = [
    "Atom",
    "Pid",
    "Port",
    "Ref",
    "Struct",
    "configure",
    "describe",
    "encoders",
    "from_struct",
    "has_encoder",
]
