from __future__ import annotations

import datetime
import decimal
from typing import Any

import beam
import erlang
from erlang import DecodeError, _encoders, _types


class Case(beam.Case):
    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(_encoders.encoders.clear)


class RegisterTest(Case):
    def test_the_nearest_class_counts(self) -> None:
        class A: ...

        class B(A): ...

        class C(B): ...

        erlang.register_encoder(A, lambda _value: "a")
        erlang.register_encoder(C, lambda _value: "c")
        self.assertEqual([_types.describe(cls()) for cls in (A, B, C)], ["a", "a", "c"])
        erlang.register_encoder(C, None)
        erlang.register_encoder(C, None)
        self.assertEqual(_types.describe(C()), "a")

    def test_as_a_decorator(self) -> None:
        class A: ...

        @erlang.register_encoder(A)
        def encode(value: A) -> str:
            return type(value).__name__

        self.assertEqual(_types.describe(A()), encode(A()))

    def test_in_place_of_a_default(self) -> None:
        erlang.register_encoder(decimal.Decimal, str)
        self.assertEqual(_types.describe(decimal.Decimal("1.10")), "1.10")

    def test_a_default_that_is_nearer_counts(self) -> None:
        erlang.register_encoder(datetime.date, str)
        erlang.register_encoder(object, lambda value: value)
        self.assertEqual(_types.describe(datetime.date(2024, 1, 2)), "2024-01-02")
        moment = _types.describe(datetime.datetime(2024, 1, 2))
        self.assertEqual(getattr(moment, "name", None), "Elixir.NaiveDateTime")
        self.assertEqual(_types.describe(1j), 1j)

    def test_subclasses_of_what_is_plain(self) -> None:
        class Number(int): ...

        self.assertFalse(_types.has_encoder(Number))
        erlang.register_encoder(object, str)
        self.assertFalse(_types.has_encoder(Number))
        erlang.register_encoder(Number, str)
        self.assertTrue(_types.has_encoder(Number))
        self.assertFalse(_types.has_encoder(int))

    def test_what_cannot_have_one(self) -> None:
        wrong: Any
        for wrong in (str, int, bool, type(None), dict, bytearray, erlang.Atom, erlang.Pid):
            with self.assertRaisesRegex(TypeError, f"cannot change how {wrong.__name__} is"):
                erlang.register_encoder(wrong, str)
        for wrong in ("decimal.Decimal", None, 1):
            with self.assertRaisesRegex(TypeError, "expects a class, got "):
                erlang.register_encoder(wrong, str)
        wrong = "str"
        with self.assertRaisesRegex(TypeError, "expects a function or None, got str"):
            erlang.register_encoder(decimal.Decimal, wrong)

    def test_a_class_whose_metaclass_is_hostile(self) -> None:
        class Loud(metaclass=beam.HostileMeta): ...

        erlang.register_encoder(Loud, lambda _value: 1)
        self.assertEqual(_types.describe(type.__call__(Loud)), 1)

    def test_one_that_fails(self) -> None:
        class A: ...

        class B(A): ...

        def fail(_value: A) -> None:
            raise LookupError("nothing here")

        erlang.register_encoder(A, fail)
        text = r"registered for test_encoders\..*A failed on .*B: LookupError: nothing here"
        with self.assertRaisesRegex(DecodeError, text):
            _types.describe(B())
