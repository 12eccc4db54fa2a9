"""What stands for the BEAM in these tests: a native module that records what it is asked to do.

Import it before anything of `erlang`, which imports the native module.
"""

from __future__ import annotations

import queue
import sys
import unittest
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from erlang import Pid

Outcome = tuple[object, object, BaseException | None]


class Native(ModuleType):
    """`_erlang`."""

    def __init__(self) -> None:
        super().__init__("_erlang")
        self.reset()

    def reset(self) -> None:
        self.sent: list[tuple[object, Any]] = []
        self.outcomes: queue.Queue[Outcome] = queue.Queue()
        self.pending = 0
        self.must_stop: int | None = None
        self.reachable = True
        self.refusal: Exception | None = None
        self.asked: list[Any] = []
        self.askers: list[object] = []
        self.answer: tuple[str, Any] = ("ok", None)
        self.answers = True
        self.request: object = None
        self.frozen: list[memoryview] = []

    def send(self, dest: object, message: object) -> bool:
        if self.refusal is not None:
            raise self.refusal
        self.sent.append((dest, message))
        return self.reachable

    def ask(self, kind: object, what: Any, asker: object) -> tuple[str, Any]:
        leader, question, _span = what
        assert kind == "py_ask" and type(leader).__name__ == "Pid"
        self.asked.append(question)
        self.askers.append(asker)
        return self.answer

    def may_ask(self) -> bool:
        return self.answers

    def asker(self) -> object:
        return self.request

    def runs(self, asker: object) -> bool:
        return asker is self.request

    def finish(self, handle: object, value: object, error: BaseException | None) -> None:
        self.outcomes.put((handle, value, error))

    def freeze(self, view: memoryview) -> memoryview:
        self.frozen.append(view)
        return view

    def interrupted(self) -> int | None:
        return self.must_stop

    def pending_output(self) -> None:
        self.pending += 1

    def loop_waits(self) -> None: ...

    def loop_returns(self) -> None: ...


native = Native()
sys.modules["_erlang"] = native


class Case(unittest.TestCase):
    """A test case whose BEAM has seen nothing yet."""

    def setUp(self) -> None:
        native.reset()


def pid(number: int) -> Pid:
    from erlang import Pid

    return Pid(bytes.fromhex(f"835864000D6E6F6E6F6465406E6F686F7374{number:08X}0000000000000000"))


class Hostile(str):
    """A text whose own methods must not be asked."""

    def __str__(self) -> str:
        raise RuntimeError("__str__ was asked")

    __repr__ = __hash__ = encode = isascii = __eq__ = __len__ = __str__  # type: ignore[assignment]


class HostileMeta(type):
    """A class of classes whose attributes must not be asked."""

    def __getattribute__(cls, name: str) -> object:
        raise RuntimeError(f"{name} was asked")

    def __repr__(cls) -> str:
        raise RuntimeError("repr was asked")
