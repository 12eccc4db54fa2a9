"""What stands for values of a type, where Python code says so itself."""

from __future__ import annotations

from erlang._callbacks import Function
from erlang._terms import Atom, Pid, Port, Ref
from erlang._text import type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar, overload

    Encoder = Callable[[Any], object]
    Given = TypeVar("Given", bound=Encoder)

# By the address of the class, which is kept with it: a metaclass may have its own `__hash__`.
encoders: dict[int, tuple[type, Encoder]] = {}

_bases_of = type.__dict__["__mro__"].__get__
_MISSING: Any = object()

# The native side converts these and looks no further.
_PLAIN = {
    *map(id, (str, int, float, bool, type(None), bytes, bytearray, memoryview)),
    *map(id, (list, tuple, dict, set, frozenset, Atom, Pid, Port, Ref, Function)),
}

if TYPE_CHECKING:

    @overload
    def register_encoder(cls: type) -> Callable[[Given], Given]: ...
    @overload
    def register_encoder(cls: type, function: Encoder | None) -> None: ...


def register_encoder(cls: type, function: Encoder | None = _MISSING) -> object:
    """Have values of a class, and of its subclasses, converted as what `function` gives for them.

    Of several classes the nearest in the order of method resolution counts. With None for a
    function the class has none any more; without one this is a decorator.
    """
    if not isinstance(cls, type):
        raise TypeError(f"register_encoder() expects a class, got {_kind(cls)}")
    if id(cls) in _PLAIN:
        raise TypeError(
            f"register_encoder() cannot change how {type_name(cls)[1]} is converted; "
            "a subclass of it can have an encoder"
        )
    if function is _MISSING:
        return _decorator(cls)
    if function is None:
        encoders.pop(id(cls), None)
    elif callable(function):
        encoders[id(cls)] = (cls, function)
    else:
        raise TypeError(f"register_encoder() expects a function or None, got {_kind(function)}")
    return None


def _decorator(cls: type) -> Callable[[Encoder], Encoder]:
    def register(function: Encoder) -> Encoder:
        register_encoder(cls, function)
        return function

    return register


def _kind(value: object) -> str:
    return type_name(type(value))[1]


def encoder_of(cls: type) -> Encoder | None:
    """What was registered for this very class."""
    registered = encoders.get(id(cls))
    return registered and registered[1]


def has_encoder(cls: type) -> bool:
    """Whether an encoder is nearer to a class than a type that is plain."""
    for base in _bases_of(cls):
        if id(base) in encoders:
            return True
        if id(base) in _PLAIN:
            return False
    return False
