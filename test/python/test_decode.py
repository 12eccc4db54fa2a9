from __future__ import annotations

import datetime
import decimal
import math
import pathlib
import sys
import unittest
import uuid
import zoneinfo
from datetime import timedelta, timezone
from types import ModuleType
from unittest import mock

import beam
from erlang import Atom, DecodeError, _objects, _types
from erlang._terms import Struct

_ISO = Atom("Elixir.Calendar.ISO")
_DAY = {"calendar": _ISO, "year": 2021, "month": 10, "day": 31}
_NOON = {"hour": 12, "minute": 0, "second": 0, "microsecond": (0, 0)}

try:
    import numpy
except ImportError:
    numpy = None  # type: ignore[assignment]


class Case(beam.Case):
    def setUp(self) -> None:
        super().setUp()
        _types.configure(with_decimal=True)

    def referred(self, value: object) -> None:
        reference = _types.describe(value)
        assert isinstance(reference, _objects.Reference)
        self.assertIs(reference.target, value)

    def refused(self, value: object, text: str) -> None:
        with self.assertRaisesRegex(DecodeError, text):
            _types.describe(value)


class PlainTest(Case):
    def test_bytes_of_all_kinds(self) -> None:
        self.assertEqual(_types.describe(bytearray(b"a\0b")), b"a\0b")
        self.assertEqual(_types.describe(memoryview(b"abcdef")[::2]), b"ace")

    def test_uuid(self) -> None:
        text = "12345678-1234-5678-1234-567812345678"
        self.assertEqual(_types.describe(uuid.UUID(text)), text)

    def test_ranges(self) -> None:
        for value, first, last in (
            (range(0, 10, 3), 0, 9),
            (range(5, 0, -2), 5, 1),
            (range(0), 0, -1),
        ):
            fields: dict[str, object] = {"first": first, "last": last, "step": value.step}
            self.assertEqual(_types.describe(value), Struct("Elixir.Range", fields))


class DatesTest(Case):
    def test_date(self) -> None:
        expected = Struct("Elixir.Date", _DAY)
        self.assertEqual(_types.describe(datetime.date(2021, 10, 31)), expected)

    def test_time_has_precision_6_or_none(self) -> None:
        noon = Struct("Elixir.Time", {"calendar": _ISO, **_NOON})
        self.assertEqual(_types.describe(datetime.time(12)), noon)
        noon.fields["microsecond"] = (120, 6)
        self.assertEqual(_types.describe(datetime.time(12, microsecond=120)), noon)

    def test_time_with_a_zone(self) -> None:
        self.refused(datetime.time(12, tzinfo=datetime.UTC), "drop the tzinfo")

    def test_naive_and_a_subclass_of_it(self) -> None:
        class Moment(datetime.datetime):
            pass

        for cls in (datetime.datetime, Moment):
            expected = Struct("Elixir.NaiveDateTime", {**_DAY, **_NOON})
            self.assertEqual(_types.describe(cls(2021, 10, 31, 12)), expected)

    def zone(self, tzinfo: datetime.tzinfo, **options: int) -> tuple[object, ...]:
        moment = datetime.datetime(2021, 10, 31, 2, 30, tzinfo=tzinfo).replace(**options)  # type: ignore[arg-type]
        described = _types.describe(moment)
        assert isinstance(described, Struct)
        self.assertEqual(described.name, "Elixir.DateTime")
        names = ("time_zone", "zone_abbr", "utc_offset", "std_offset")
        return tuple(described.fields[name] for name in names)

    def test_fixed_zones(self) -> None:
        self.assertEqual(self.zone(datetime.UTC), ("Etc/UTC", "UTC", 0, 0))
        for offset, name in (
            (timedelta(hours=5, minutes=30), "+05:30"),
            (-timedelta(hours=3), "-03:00"),
            (timedelta(hours=1, seconds=7), "+01:00:07"),
        ):
            seconds = int(offset.total_seconds())
            self.assertEqual(self.zone(timezone(offset)), (name, name, seconds, 0))

    def test_named_zone_in_the_hour_that_comes_twice(self) -> None:
        berlin = zoneinfo.ZoneInfo("Europe/Berlin")
        self.assertEqual(self.zone(berlin), ("Europe/Berlin", "CEST", 3600, 3600))
        self.assertEqual(self.zone(berlin, fold=1), ("Europe/Berlin", "CET", 3600, 0))

    def test_zone_from_a_file_has_no_name(self) -> None:
        path = pathlib.Path("/usr/share/zoneinfo/Europe/Berlin")
        if not path.exists():
            self.skipTest(f"no {path}")
        with path.open("rb") as file:
            zone = zoneinfo.ZoneInfo.from_file(file)
        self.assertEqual(self.zone(zone), ("+02:00", "+02:00", 7200, 0))

    def test_offset_with_a_fraction(self) -> None:
        zone = timezone(timedelta(microseconds=1))
        self.refused(datetime.datetime(2021, 1, 1, tzinfo=zone), "fraction of a second")

    def test_what_pandas_makes_of_datetime(self) -> None:
        class Timestamp(datetime.datetime):
            nanosecond = 1

        class NaT(datetime.datetime):
            year = property(lambda _self: math.nan)

        self.refused(Timestamp(2021, 1, 1), "nanoseconds")
        self.referred(NaT(2021, 1, 1))

    def test_a_zone_that_raises(self) -> None:
        class Zone(datetime.tzinfo):
            error: Exception = OSError("no zones today")

            def utcoffset(self, _moment: object) -> timedelta:
                raise self.error

            dst = tzname = None  # type: ignore[assignment]

        class Unspeakable(Exception):
            def __str__(self) -> str:
                raise RuntimeError("__str__ was asked")

        moment = datetime.datetime(2021, 1, 1, tzinfo=Zone())
        self.refused(moment, "datetime.datetime cannot be read: no zones today")
        Zone.error = Unspeakable()
        self.refused(
            moment, r"cannot be read: <str\(\) of this .*Unspeakable raised RuntimeError>"
        )


class DecimalTest(Case):
    def decoded(self, text: str) -> tuple[object, ...]:
        described = _types.describe(decimal.Decimal(text))
        assert isinstance(described, Struct)
        self.assertEqual(described.name, "Elixir.Decimal")
        return tuple(described.fields[name] for name in ("sign", "coef", "exp"))

    def test_numbers(self) -> None:
        self.assertEqual(self.decoded("-1.50"), (-1, 150, -2))
        self.assertEqual(self.decoded("-0"), (-1, 0, 0))
        self.assertEqual(self.decoded("7E+5"), (1, 7, 5))

    def test_special_values(self) -> None:
        self.assertEqual(self.decoded("NaN"), (1, Atom("NaN"), 0))
        self.assertEqual(self.decoded("sNaN"), (1, Atom("NaN"), 0))
        self.assertEqual(self.decoded("-Infinity"), (-1, Atom("inf"), 0))

    def test_more_digits_than_int_takes_from_text(self) -> None:
        digits = sys.get_int_max_str_digits() + 100
        self.assertEqual(self.decoded("9" * digits), (1, 10**digits - 1, 0))

    def test_without_the_library(self) -> None:
        _types.configure(with_decimal=False)
        self.referred(decimal.Decimal(1))


class Buffer(bytearray):
    """One of Arrow's."""

    is_mutable = False
    parent: Buffer | None = None


class ArrowTest(Case):
    def setUp(self) -> None:
        super().setUp()
        arrow = ModuleType("pyarrow.lib")
        arrow.Buffer = Buffer  # type: ignore[attr-defined]
        Buffer.__module__ = "pyarrow.lib"
        self.enterContext(mock.patch.dict(sys.modules, {"pyarrow.lib": arrow}))

    def is_frozen(self, buffer: Buffer) -> bool:
        view = _types.describe(buffer)
        assert isinstance(view, memoryview)
        self.assertIs(view.obj, buffer)
        frozen = view in beam.native.frozen
        beam.native.frozen.clear()
        return frozen

    def test_what_nobody_can_change_is_not_copied(self) -> None:
        buffer, part = Buffer(b"whole"), Buffer(b"part")
        part.parent = buffer
        self.assertTrue(self.is_frozen(buffer))
        self.assertTrue(self.is_frozen(part))
        buffer.is_mutable = True
        self.assertFalse(self.is_frozen(buffer))
        self.assertFalse(self.is_frozen(part))


class OthersTest(Case):
    def test_an_object_is_named_and_not_asked(self) -> None:
        class Loud(metaclass=beam.HostileMeta):
            def __repr__(self) -> str:
                raise RuntimeError("repr was asked")

        self.referred(type.__call__(Loud))
        self.referred(Loud)

    def test_a_class_that_only_says_it_is_a_date(self) -> None:
        fake = type("date", (), {"__module__": "datetime"})
        self.referred(fake())

    def test_a_hostile_name(self) -> None:
        cls = type("C", (), {"__qualname__": beam.Hostile("C")})
        self.referred(cls())

    @unittest.skipIf(numpy is None, "no numpy here")
    def test_numpy_scalars(self) -> None:
        for value, plain in (
            (numpy.int8(-3), -3),
            (numpy.uint64(2**64 - 1), 2**64 - 1),
            (numpy.float32(0.5), 0.5),
            (numpy.bool_(True), True),
        ):
            described = _types.describe(value)
            self.assertEqual((type(described), described), (type(plain), plain))
        for other in (numpy.datetime64("2021-01-01"), numpy.complex128(1j), numpy.longdouble(1)):
            self.referred(other)
        self.referred(numpy.zeros(2))
