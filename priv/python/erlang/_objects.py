"""References: what has no Elixir value crosses as one, and comes back as the object itself.

`Py.Object` is the other half. In the node a reference holds its object; of a worker process an
object has a number, under which it is kept here until no reference is left.
"""

from __future__ import annotations

import itertools

from erlang._classes import per_class
from erlang._exceptions import ElixirError, NotHereError
from erlang._text import type_name, utf8

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from erlang._terms import Atom, Pid

    Place = tuple[Pid, int]


class Reference:
    """Has an object cross as a reference, whatever it is."""

    __slots__ = ("target",)

    def __init__(self, target: object) -> None:
        self.target = target


# Which worker process of which pool this is; none in the node.
_pool: Atom | None = None
_place: Place | None = None
_kept: dict[int, object] = {}
_numbers = itertools.count(1)


def settle(pool: Atom, place: Place) -> None:
    """Say which worker process this is."""
    global _pool, _place
    _pool, _place = pool, place


def refer(value: object) -> tuple[str, Atom | None, Place | None, int | None]:
    """The type, pool, place and number of a reference; the native side knows the rest."""
    number = None
    if _place is not None:
        number = next(_numbers)
        _kept[number] = value
    return _shown(type(value)), _pool, _place, number


def drop(numbers: Iterable[int]) -> None:
    """Let go of objects: nobody refers to them any more."""
    # All of them, whatever the finalizer of one does, and also if it is interrupted.
    dead = [_kept.pop(number, None) for number in numbers]
    dead.clear()


def find(fields: dict[str, Any]) -> object:
    """The object that a reference is of, where that has a number."""
    place, shown = fields["place"], fields["type"]
    if place is None:
        raise NotHereError(f"the {shown} is an object of the node, or of another one: {_COPY}")
    if _place is None or place[0] != _place[0]:
        raise NotHereError(
            f"the {shown} is an object of a worker process of the pool {fields['pool']}: "
            f"call there (on: {fields['pool']}), or {_COPY}"
        )
    return numbered(place[1], fields["number"])


def numbered(worker: int, number: int) -> object:
    """The object of that number, of the worker process of that number."""
    if _place is None or worker != _place[1]:
        raise NotHereError(str(worker), elsewhere=True)
    try:
        return _kept[number]
    except KeyError:
        raise NotHereError("the object was let go of: nothing referred to it any more") from None


_COPY = "move it with Py.Object.copy(object, on: pool)"


def same(value: object) -> object:
    """The value."""
    return value


def show(value: object, limit: int) -> str:
    """What `repr` gives, or the beginning of that."""
    import reprlib

    short = reprlib.Repr()
    short.maxstring = short.maxlong = short.maxother = limit
    return utf8(short.repr(value))


def leave(manager: Any, kind: str, reason: str, stacktrace: str, name: str) -> bool:
    """Leave a context manager with what Elixir raised; whether that is to go no further."""
    error = ElixirError(kind, reason, stacktrace, name)
    return bool(type(manager).__exit__(manager, type(error), error, None))


@per_class
def _shown(cls: type) -> str:
    module, name = type_name(cls)
    return utf8(name if module == "builtins" else f"{module}.{name}")
