"""Values that Python code and Elixir share by name."""

from __future__ import annotations

from erlang._callbacks import ask_for
from erlang._terms import Atom

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_STATE = Atom("state")


def state_get(key: str, default: object = None) -> object:
    """The value of `key`, or `default` where there is none."""
    found, value = _state("get", key)
    return value if found else default


def state_set(key: str, value: object) -> None:
    """Set the value of `key`."""
    _state("set", key, value)


def state_delete(key: str) -> None:
    """Forget `key`."""
    _state("delete", key)


def state_keys() -> list[str]:
    """The keys that have a value, in no order."""
    keys: list[str] = _state("keys")
    return keys


def state_incr(key: str, by: int = 1) -> int:
    """Add to the integer of `key`, 0 where there is none, and return the sum."""
    if not isinstance(by, int):
        raise TypeError(f"state_incr() adds integers, got {type(by).__qualname__}")
    total: int = _state("incr", key, by)
    return total


def state_decr(key: str, by: int = 1) -> int:
    """Take from the integer of `key`, as `state_incr` adds."""
    return state_incr(key, -by)


def state_clear() -> None:
    """Forget all keys."""
    _state("clear")


def _state(operation: str, *arguments: object) -> Any:
    if arguments and not isinstance(arguments[0], str):
        raise TypeError(f"keys of the state are str, got {type(arguments[0]).__qualname__}")
    return ask_for((_STATE, operation, list(arguments)))
