"""What a request names by a module and a name."""

from __future__ import annotations

from importlib import import_module

import _erlang

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def resolve(target: str, name: str) -> Any:
    """`target.name`, which may be dotted; `__main__` is the base namespace of the pool."""
    found: Any = _erlang.base() if target == "__main__" else _module(target)
    if not name:
        raise TypeError("the name of a function or attribute is empty")
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _module(name: str) -> object:
    if not name or "\0" in name:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return import_module(name)
