from __future__ import annotations

import datetime
import decimal
import sys
import zoneinfo
from datetime import timedelta
from unittest import mock

import beam
from erlang import Atom, EncodeError
from erlang._terms import Struct
from erlang._types import configure, describe, from_struct

_ISO = Atom("Elixir.Calendar.ISO")
_DAY = {"calendar": _ISO, "year": 2021, "month": 10, "day": 31}
_NIGHT = {"hour": 2, "minute": 30, "second": 1, "microsecond": (9, 6)}
_UTC = {"time_zone": "Etc/UTC", "zone_abbr": "UTC", "utc_offset": 0, "std_offset": 0}


class Case(beam.Case):
    def refused(self, name: str, fields: dict[str, object], text: str) -> None:
        with self.assertRaisesRegex(EncodeError, text):
            from_struct(name, fields)


class DatesTest(Case):
    def test_without_a_zone(self) -> None:
        time = datetime.time(2, 30, 1, 9)
        date = datetime.date(2021, 10, 31)
        self.assertEqual(from_struct("Elixir.Date", {**_DAY}), date)
        self.assertEqual(from_struct("Elixir.Time", {"calendar": _ISO, **_NIGHT}), time)
        naive = from_struct("Elixir.NaiveDateTime", {**_DAY, **_NIGHT})
        self.assertEqual(naive, datetime.datetime.combine(date, time))

    def moment(self, zone: str, offset: int, daylight: int) -> datetime.datetime:
        fields = {"time_zone": zone, "utc_offset": offset, "std_offset": daylight}
        moment = from_struct("Elixir.DateTime", {**_DAY, **_NIGHT, **_UTC, **fields})
        assert isinstance(moment, datetime.datetime)
        self.assertEqual(moment.utcoffset(), timedelta(seconds=offset + daylight))
        return moment

    def test_utc_and_fixed(self) -> None:
        self.assertIs(self.moment("Etc/UTC", 0, 0).tzinfo, datetime.UTC)
        self.moment("+05:30", 19_800, 0)
        self.moment("-00:00:07", -7, 0)

    def test_the_hour_that_comes_twice(self) -> None:
        self.assertEqual(self.moment("Europe/Berlin", 3600, 3600).fold, 0)
        self.assertEqual(self.moment("Europe/Berlin", 3600, 0).fold, 1)

    def test_an_offset_that_python_does_not_know(self) -> None:
        with self.assertRaisesRegex(EncodeError, "its UTC offset is 60 s, .*databases differ"):
            self.moment("Europe/Berlin", 60, 0)

    def test_zones_that_are_not_there(self) -> None:
        for zone in ("Mars/Olympus", "Europe", "", "../../etc/passwd", "a\0b", "\udc80"):
            with self.assertRaisesRegex(EncodeError, "finds no time zone"):
                self.moment(zone, 0, 0)

    def test_the_name_of_a_folder_in_the_package_tzdata(self) -> None:
        with (
            mock.patch.object(zoneinfo, "ZoneInfo", side_effect=IsADirectoryError),
            self.assertRaisesRegex(EncodeError, "finds no time zone 'Europe'"),
        ):
            self.moment("Europe", 0, 0)

    def test_what_python_has_no_room_for(self) -> None:
        for year in (0, -1, 10_000, 10**30):
            fields = {**_DAY, "year": year}
            self.refused("Elixir.Date", fields, "^%Date{} does not fit into Python: ")
        other = {**_DAY, "calendar": Atom("Elixir.Mayan")}
        self.refused("Elixir.Date", other, "calendar Mayan: only Calendar.ISO")
        self.refused("Elixir.Time", {**other, **_NIGHT}, "calendar Mayan")

    def test_incomplete_and_of_other_types(self) -> None:
        self.refused("Elixir.Date", {"calendar": _ISO}, "^%Date{} lacks the field year$")
        self.refused("Elixir.Date", {**_DAY, "month": "May"}, "^%Date{} does not fit")


class NumbersTest(Case):
    def test_ranges(self) -> None:
        for first, last, step, expected in (
            (0, 9, 3, [0, 3, 6, 9]),
            (5, 1, -2, [5, 3, 1]),
            (1, 0, 1, []),
        ):
            fields: dict[str, object] = {"first": first, "last": last, "step": step}
            made = from_struct("Elixir.Range", fields)
            assert isinstance(made, range)
            self.assertEqual(list(made), expected)

    def decimal(self, sign: int, coef: object, exp: int) -> decimal.Decimal:
        made = from_struct("Elixir.Decimal", {"sign": sign, "coef": coef, "exp": exp})
        assert isinstance(made, decimal.Decimal)
        return made

    def test_decimals_are_exact(self) -> None:
        self.assertEqual(str(self.decimal(-1, 150, -2)), "-1.50")
        self.assertEqual(str(self.decimal(-1, 0, 0)), "-0")
        self.assertEqual(str(self.decimal(1, Atom("NaN"), 0)), "NaN")
        self.assertEqual(str(self.decimal(-1, Atom("inf"), 0)), "-Infinity")
        digits = sys.get_int_max_str_digits() + 100
        with decimal.localcontext(prec=3):
            self.assertEqual(self.decimal(1, 10**digits - 1, 0).adjusted(), digits - 1)

    def test_decimals_that_do_not_fit(self) -> None:
        for exp in (10**19, -(10**19), 10**30):
            with self.assertRaisesRegex(EncodeError, f"exponent {exp} is out of the range"):
                self.decimal(1, 1, exp)
        with self.assertRaisesRegex(EncodeError, "coef qNaN"):
            self.decimal(1, Atom("qNaN"), 0)


class OthersTest(Case):
    def test_sets(self) -> None:
        self.assertEqual(from_struct("Elixir.MapSet", {"map": {1: [], "a": []}}), {1, "a"})
        self.assertEqual(from_struct("Elixir.MapSet", {"map": {}}), set())
        equal = [1, 1.0]
        self.refused("Elixir.MapSet", {"map": equal}, "two of its members are equal in Python")
        self.refused("Elixir.MapSet", {"map": [[]]}, "unhashable")

    def test_a_struct_without_a_python_value(self) -> None:
        self.refused("Elixir.My.User", {}, r"^%My.User{} has no Python value; .*Py.Encoder")

    def test_there_and_back(self) -> None:
        configure(with_decimal=True)
        zone = {**_UTC, "time_zone": "Europe/Berlin", "zone_abbr": "CET", "utc_offset": 3600}
        for struct in (
            Struct("Elixir.Date", _DAY),
            Struct("Elixir.Time", {"calendar": _ISO, **_NIGHT}),
            Struct("Elixir.NaiveDateTime", {**_DAY, **_NIGHT}),
            Struct("Elixir.DateTime", {**_DAY, **_NIGHT, **_UTC}),
            Struct("Elixir.DateTime", {**_DAY, **_NIGHT, **zone}),
            Struct("Elixir.Decimal", {"sign": -1, "coef": 150, "exp": -2}),
            Struct("Elixir.Range", {"first": 5, "last": 1, "step": -2}),
        ):
            self.assertEqual(describe(from_struct(struct.name, struct.fields)), struct)
