"""Erlang terms that Python has no type for."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_LOCAL_NODE = "nonode@nohost"


class Atom(str):
    """An Erlang atom. A plain `str` never becomes one."""

    __module__ = "erlang"
    __slots__ = ()

    def __repr__(self) -> str:
        return f"Atom({str.__repr__(self)})"


class Struct:
    """An Elixir struct on its way out: `name` is the module, the keys of `fields` are atoms."""

    __slots__ = ("fields", "name")

    def __init__(self, name: str, fields: dict[str, object]) -> None:
        self.name = name
        self.fields = fields

    def __eq__(self, other: object) -> bool:
        if type(other) is not Struct:
            return NotImplemented
        return self.name == other.name and self.fields == other.fields

    def __repr__(self) -> str:
        return f"Struct({self.name!r}, {self.fields!r})"


class _Term:
    """An opaque term, held in Erlang's external term format. Equal bytes are equal terms."""

    __slots__ = ("etf",)
    etf: bytes

    def __init__(self, etf: bytes) -> None:
        if type(etf) is not bytes:
            raise TypeError(f"expected bytes in external term format, got {type(etf).__name__}")
        object.__setattr__(self, "etf", etf)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return bool(self.etf == other.etf)

    def __hash__(self) -> int:
        return hash(self.etf)

    def __reduce__(self) -> tuple[type[_Term], tuple[bytes]]:
        return type(self), (self.etf,)

    def __repr__(self) -> str:
        try:
            shown = self._shown()
        except IndexError:
            shown = repr(self.etf)
        return f"{type(self).__name__}({shown})"

    def _shown(self) -> str:
        raise NotImplementedError


class Pid(_Term):
    """An Erlang process."""

    __module__ = "erlang"
    __slots__ = ()

    def _shown(self) -> str:
        _expect(self.etf, _PID_EXT, _NEW_PID_EXT)
        node, rest = _node(self.etf, 2)
        return f"<{node}.{_integer(rest, 0, 4)}.{_integer(rest, 4, 4)}>"


class Ref(_Term):
    """An Erlang reference."""

    __module__ = "erlang"
    __slots__ = ()

    def _shown(self) -> str:
        _expect(self.etf, _NEWER_REFERENCE_EXT)
        node, rest = _node(self.etf, 4)
        words = [_integer(rest, 4 + 4 * i, 4) for i in range(_integer(self.etf, 2, 2))]
        return "<" + ".".join(map(str, [node, *reversed(words)])) + ">"


class Port(_Term):
    """An Erlang port."""

    __module__ = "erlang"
    __slots__ = ()

    def _shown(self) -> str:
        _expect(self.etf, _NEW_PORT_EXT, _V4_PORT_EXT)
        node, rest = _node(self.etf, 2)
        return f"<{node}.{_integer(rest, 0, 8 if self.etf[1] == _V4_PORT_EXT else 4)}>"


# Tags of the external term format: https://www.erlang.org/doc/apps/erts/erl_ext_dist.html
_NEW_PID_EXT = 88
_NEW_PORT_EXT = 89
_NEWER_REFERENCE_EXT = 90
_PID_EXT = 103
_V4_PORT_EXT = 120
_ATOM_EXT = 100
_ATOM_UTF8_EXT = 118


def _expect(etf: bytes, *tags: int) -> None:
    if etf[1] not in tags:
        raise IndexError("not the external format of such a term")


def _integer(data: bytes, start: int, length: int) -> int:
    part = data[start : start + length]
    if len(part) < length:
        raise IndexError("the external format ends early")
    return int.from_bytes(part, "big")


def _node(etf: bytes, start: int) -> tuple[str, bytes]:
    """The node's name, as the number 0 where it is no distributed one, and what follows it."""
    length_bytes = 2 if etf[start] in (_ATOM_EXT, _ATOM_UTF8_EXT) else 1
    begin = start + 1 + length_bytes
    end = begin + _integer(etf, start + 1, length_bytes)
    name = etf[begin:end].decode("utf-8", "replace")
    return ("0" if name == _LOCAL_NODE else name), etf[end:]
