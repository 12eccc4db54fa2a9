"""Python values -> what the native side converts.

A type is recognised by module and name and then compared with the real one, so that nothing is
imported for its sake: a value of `decimal.Decimal` can only come once decimal is imported.
"""

from __future__ import annotations

import sys

import _erlang
from erlang._exceptions import DecodeError
from erlang._objects import Reference
from erlang._terms import Atom, Struct
from erlang._text import message_of, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    import datetime
    import decimal
    from collections.abc import Callable
    from typing import Any

    from erlang._channel import Channel

_ISO = Atom("Elixir.Calendar.ISO")
_bases_of = type.__dict__["__mro__"].__get__
_with_decimal = False


def configure(*, with_decimal: bool) -> None:
    """Say whether the application has the Elixir library Decimal."""
    global _with_decimal
    _with_decimal = with_decimal


def describe(value: object) -> object:
    """Something that the native side converts by itself and that stands for `value`.

    What has no Elixir value is a reference.
    """
    build = _builder(type(value))
    if build is None:
        return Reference(value)
    try:
        return build(value)
    except DecodeError:
        raise
    except Exception as error:
        module, name = type_name(type(value))
        reason = message_of(error)
        raise DecodeError(f"a value of type {module}.{name} cannot be read: {reason}") from error


def _builder(cls: type) -> Callable[[Any], object] | None:
    """Goes by the classes themselves: attributes of `cls` may be user code."""
    for base in _bases_of(cls):
        name = type_name(base)
        build = _BUILDERS.get(name)
        if build is not None and _is_genuine(base, *name):
            return build
    return None


def _is_genuine(cls: type, module: str, name: str) -> bool:
    return getattr(sys.modules.get(module), name, None) is cls


def _range(value: range) -> Struct:
    last = value.stop - (1 if value.step > 0 else -1)
    return Struct("Elixir.Range", {"first": value.start, "last": last, "step": value.step})


def _date(value: datetime.date) -> Struct | Reference:
    if type(value.year) is not int:  # pandas.NaT is a datetime without a date
        return Reference(value)
    return Struct("Elixir.Date", _date_fields(value))


def _time(value: datetime.time) -> Struct:
    if value.tzinfo is not None:
        raise DecodeError("a datetime.time with tzinfo has no Elixir value: drop the tzinfo")
    return Struct("Elixir.Time", {"calendar": _ISO, **_time_fields(value)})


def _datetime(value: datetime.datetime) -> Struct | Reference:
    if type(value.year) is not int:
        return Reference(value)
    if getattr(value, "nanosecond", 0):  # pandas.Timestamp
        raise DecodeError("a timestamp with nanoseconds has no Elixir value: round it")
    fields = {**_date_fields(value), **_time_fields(value)}
    offset = value.utcoffset()
    if offset is None:
        return Struct("Elixir.NaiveDateTime", fields)
    return Struct("Elixir.DateTime", {**fields, **_zone_fields(value, _seconds(offset))})


def _date_fields(value: datetime.date) -> dict[str, object]:
    return {"calendar": _ISO, "year": value.year, "month": value.month, "day": value.day}


def _time_fields(value: datetime.time | datetime.datetime) -> dict[str, object]:
    return {
        "hour": value.hour,
        "minute": value.minute,
        "second": value.second,
        "microsecond": (value.microsecond, 6 if value.microsecond else 0),
    }


def _zone_fields(value: datetime.datetime, offset: int) -> dict[str, object]:
    if _is_zone_info(value.tzinfo):
        daylight = _seconds(value.dst())
        zone, abbreviation = value.tzinfo.key, value.tzname()  # type: ignore[union-attr]
    else:
        daylight = 0
        zone, abbreviation = _fixed_zone(offset)
    return {
        "time_zone": zone,
        "zone_abbr": abbreviation,
        "utc_offset": offset - daylight,
        "std_offset": daylight,
    }


def _is_zone_info(zone: datetime.tzinfo | None) -> bool:
    """Whether it has a name of the time zone database; one read from a file has none."""
    zoneinfo = sys.modules.get("zoneinfo")
    return zoneinfo is not None and isinstance(zone, zoneinfo.ZoneInfo) and zone.key is not None


def _fixed_zone(offset: int) -> tuple[str, str]:
    if offset == 0:
        return "Etc/UTC", "UTC"
    minutes, seconds = divmod(abs(offset), 60)
    name = f"{'-' if offset < 0 else '+'}{minutes // 60:02}:{minutes % 60:02}"
    name += f":{seconds:02}" if seconds else ""
    return name, name


def _seconds(offset: datetime.timedelta | None) -> int:
    if offset is None:
        return 0
    if offset.microseconds:
        raise DecodeError("a UTC offset with a fraction of a second has no Elixir value")
    return offset.days * 86_400 + offset.seconds


def _decimal(value: decimal.Decimal) -> Struct | Reference:
    if not _with_decimal:
        return Reference(value)
    import decimal

    sign, digits, exponent = value.as_tuple()
    coef: object = _SPECIAL_DECIMALS.get(exponent)
    if coef is None:
        # int() of a Decimal knows no limit of digits, int() of a str does.
        coef = int(decimal.Decimal((0, digits, 0)))
    else:
        exponent = 0
    return Struct("Elixir.Decimal", {"sign": -1 if sign else 1, "coef": coef, "exp": exponent})


def _numpy_scalar(value: Any) -> object:
    # Of dates item() gives the integer of a unit that nobody sees, of records a tuple.
    plain = value.item() if value.dtype.kind in "biuf" else None
    if type(plain) not in (bool, int, float):
        return Reference(value)
    return plain


def _arrow_buffer(value: Any) -> memoryview:
    """Arrow tells whether somebody may write there; a part may be one of what can be written."""
    view = memoryview(value)
    whole = value
    while whole is not None:
        if whole.is_mutable:
            return view
        whole = whole.parent
    return _erlang.freeze(view)


def _same(value: Reference) -> Reference:
    return value


def _channel(value: Channel) -> Struct:
    return Struct("Elixir.Py.Channel", {"pid": value.pid})


_SPECIAL_DECIMALS: dict[object, Atom] = {"n": Atom("NaN"), "N": Atom("NaN"), "F": Atom("inf")}

_BUILDERS: dict[tuple[str, str], Callable[[Any], object]] = {
    ("builtins", "bytearray"): bytes,
    ("builtins", "memoryview"): memoryview.tobytes,
    ("builtins", "range"): _range,
    ("datetime", "date"): _date,
    ("datetime", "datetime"): _datetime,
    ("datetime", "time"): _time,
    ("decimal", "Decimal"): _decimal,
    ("erlang", "Channel"): _channel,
    ("erlang._objects", "Reference"): _same,
    ("numpy", "generic"): _numpy_scalar,
    ("pyarrow.lib", "Buffer"): _arrow_buffer,
    ("uuid", "UUID"): str,
}
