"""What was worked out about classes, and is kept as long as they live."""

from __future__ import annotations

from _weakref import ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Result = TypeVar("Result")


def per_class(work: Callable[[type], Result]) -> Callable[[type], Result]:
    """Have `work` done once for each class.

    Classes are known by their addresses: a metaclass may have a `__hash__` of its own.
    """
    known: dict[int, tuple[ref[type], Result]] = {}

    def look_up(cls: type) -> Result:
        entry = known.get(id(cls))
        if entry is not None and entry[0]() is cls:
            return entry[1]
        result = work(cls)
        key = id(cls)
        known[key] = ref(cls, lambda _dead: known.pop(key, None)), result
        return result

    return look_up
