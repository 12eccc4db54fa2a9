"""What a request names by a module and a name."""

from __future__ import annotations

from importlib import import_module

import _erlang
from erlang._sessions import current

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def resolve(target: object, name: str) -> Any:
    """`target.name`, which may be dotted; `__main__` is the session, and the base of its pool.

    The target is the name of a module, or any other object itself.
    """
    if not name:
        raise TypeError("the name of a function or attribute is empty")
    first, *others = name.split(".")
    found: Any = _first(target, first)
    for part in others:
        found = getattr(found, part)
    return found


def _first(target: object, name: str) -> object:
    if not isinstance(target, str):
        return getattr(target, name)
    return _named(name) if target == "__main__" else getattr(_module(target), name)


def _named(name: str) -> object:
    session = current()
    if session is None:
        return getattr(_erlang.base(), name)
    for names in (session.namespace, session.base):
        if name in names:
            return names[name]
    raise AttributeError(f"this session, and the module '__main__', has no attribute {name!r}")


def _module(name: str) -> object:
    if not name or "\0" in name:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return import_module(name)
