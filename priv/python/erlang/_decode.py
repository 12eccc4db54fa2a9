"""Python values -> what the native side converts.

A type is recognised by module and name and then compared with the real one, so that nothing is
imported for its sake: a value of `decimal.Decimal` can only come once decimal is imported.
"""

from __future__ import annotations

import sys

import _erlang
from erlang._classes import per_class
from erlang._encoders import encoder_of, encoders
from erlang._exceptions import DecodeError
from erlang._objects import Reference
from erlang._terms import Atom, Struct
from erlang._text import message_of, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    import datetime
    import decimal
    import enum
    from collections.abc import Callable, Iterable
    from typing import Any

    from erlang._channel import Channel

    # The class that is to be the one of that name, if one is, and what builds a value of it.
    Candidate = tuple[type | None, Callable[[Any], object]]

_ISO = Atom("Elixir.Calendar.ISO")
_bases_of = type.__dict__["__mro__"].__get__
_attributes_of = type.__dict__["__dict__"].__get__
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
        name, reason = _name(type(value)), message_of(error)
        raise DecodeError(f"a value of type {name} cannot be read: {reason}") from error


def _builder(cls: type) -> Callable[[Any], object] | None:
    """Goes by the classes themselves: attributes of `cls` may be user code."""
    # What is registered may change, and mostly nothing is.
    if not encoders:
        return _default(_candidates(cls))
    for base in _bases_of(cls):
        build = _registered(base) or _default(_candidates_of(base))
        if build is not None:
            return build
    return None


def _registered(cls: type) -> Callable[[Any], object] | None:
    encode = encoder_of(cls)
    if encode is None:
        return None

    def build(value: object) -> object:
        try:
            return encode(value)
        except Exception as error:
            raised, reason = type_name(type(error))[1], message_of(error)
            raise DecodeError(
                f"the encoder that is registered for {_name(cls)} failed on a value of type "
                f"{_name(type(value))}: {raised}: {reason}"
            ) from error

    return build


def _default(candidates: Iterable[Candidate]) -> Callable[[Any], object] | None:
    for cls, build in candidates:
        if cls is None or _is_genuine(cls, *type_name(cls)):
            return build
    return None


@per_class
def _candidates(cls: type) -> tuple[Candidate, ...]:
    """What may build its values: the nearest in the order of method resolution comes first."""
    return tuple(candidate for base in _bases_of(cls) for candidate in _candidates_of(base))


def _candidates_of(cls: type) -> Iterable[Candidate]:
    build = _BUILDERS.get(type_name(cls))
    if build is not None:
        yield cls, build
    attributes = _attributes_of(cls)
    for mark, build in _RECORDS.items():
        if mark in attributes:
            yield None, build


def _name(cls: type) -> str:
    return ".".join(type_name(cls))


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


def _enum(value: enum.Enum) -> object:
    return value.value


def _dataclass(value: Any) -> dict[str, object]:
    import dataclasses

    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _attrs(value: Any) -> dict[str, object]:
    return {field.name: getattr(value, field.name) for field in value.__attrs_attrs__}


def _pydantic(value: Any) -> object:
    """What the model makes of itself: aliases, exclusions and serializers are its own affair."""
    dump = getattr(value, "model_dump", None)
    return value.dict() if dump is None else dump()


_SPECIAL_DECIMALS: dict[object, Atom] = {"n": Atom("NaN"), "N": Atom("NaN"), "F": Atom("inf")}

_BUILDERS: dict[tuple[str, str], Callable[[Any], object]] = {
    ("builtins", "bytearray"): bytes,
    ("builtins", "memoryview"): memoryview.tobytes,
    ("builtins", "range"): _range,
    ("datetime", "date"): _date,
    ("datetime", "datetime"): _datetime,
    ("datetime", "time"): _time,
    ("decimal", "Decimal"): _decimal,
    ("enum", "Enum"): _enum,
    ("erlang", "Channel"): _channel,
    ("fractions", "Fraction"): str,
    ("erlang._objects", "Reference"): _same,
    ("numpy", "generic"): _numpy_scalar,
    # The bytes that the file system has, which need not be text.
    ("pathlib", "PurePath"): bytes,
    ("pathlib._local", "PurePath"): bytes,  # Python 3.13
    ("pyarrow.lib", "Buffer"): _arrow_buffer,
    ("pydantic.main", "BaseModel"): _pydantic,
    ("pydantic.v1.main", "BaseModel"): _pydantic,
    ("uuid", "UUID"): str,
}

# By an attribute that the decorator gives the class.
_RECORDS: dict[str, Callable[[Any], object]] = {
    "__dataclass_fields__": _dataclass,
    "__attrs_attrs__": _attrs,
}
