from __future__ import annotations

import gc
import unittest
import weakref
from typing import NoReturn

import beam
from erlang import _types
from erlang._classes import per_class
from erlang._text import type_name


class Hostile(type):
    def __hash__(cls) -> NoReturn:
        raise RuntimeError("nobody hashes this class")

    def __eq__(cls, other: object) -> NoReturn:
        raise RuntimeError("nobody compares this class")


class PerClassTest(unittest.TestCase):
    def setUp(self) -> None:
        self.worked_out: list[type] = []

        def work(cls: type) -> str:
            self.worked_out.append(cls)
            return type_name(cls)[1]

        self.name_of = per_class(work)

    def test_it_is_worked_out_once(self) -> None:
        assert [self.name_of(cls) for cls in (int, str, int, int)] == ["int", "str", "int", "int"]
        assert self.worked_out == [int, str]

    def test_classes_are_not_asked(self) -> None:
        cls = Hostile("A", (), {})
        assert [self.name_of(cls), self.name_of(cls)] == ["A", "A"]
        assert len(self.worked_out) == 1

    def test_it_keeps_no_class(self) -> None:
        classes: weakref.WeakSet[type] = weakref.WeakSet()
        for n in range(100):
            cls = type(f"A{n}", (), {})
            assert self.name_of(cls) == f"A{n}"
            classes.add(cls)
        self.worked_out.clear()
        del cls
        gc.collect()
        assert not classes
        cells = [cell.cell_contents for cell in getattr(self.name_of, "__closure__")]  # noqa: B009
        assert {} in cells


class DescribeTest(beam.Case):
    def test_an_encoder_counts_from_when_it_is_registered(self) -> None:
        class Thing:
            pass

        from erlang import _encoders, register_encoder

        self.addCleanup(_encoders.encoders.clear)
        before = _types.describe(Thing())
        register_encoder(Thing, lambda _thing: "thing")
        between = _types.describe(Thing())
        register_encoder(Thing, None)
        assert between == "thing"
        assert type(before) is type(_types.describe(Thing()))
