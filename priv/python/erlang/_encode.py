"""Elixir structs -> Python values, the modules that hold these imported on first use."""

from __future__ import annotations

from erlang._exceptions import EncodeError, NotHereError
from erlang._objects import find
from erlang._terms import Atom

TYPE_CHECKING = False
if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable
    from typing import Any

    from erlang._channel import Channel
    from erlang._iterator import Iterator

    Fields = dict[str, Any]

_ISO = "Elixir.Calendar.ISO"


def from_struct(name: str, fields: dict[str, object]) -> object:
    """The Python value of an Elixir struct whose fields are converted already."""
    build = _BUILDERS.get(name)
    if build is None:
        raise EncodeError(
            f"{_shown(name)} has no Python value; "
            "pass a map (Map.from_struct/1) or one of its fields"
        )
    try:
        return build(fields)
    except NotHereError:
        raise
    except KeyError as error:
        raise EncodeError(f"{_shown(name)} lacks the field {error.args[0]}") from None
    except (TypeError, ValueError, ArithmeticError) as error:
        raise EncodeError(f"{_shown(name)} does not fit into Python: {error}") from error


def _shown(name: str) -> str:
    return f"%{name.removeprefix('Elixir.')}{{}}"


def _set(fields: Fields) -> set[object]:
    keys = fields["map"]
    members = set(keys)
    if len(members) != len(keys):
        raise ValueError("two of its members are equal in Python")
    return members


def _range(fields: Fields) -> range:
    first, last, step = fields["first"], fields["last"], fields["step"]
    return range(first, last + (1 if step > 0 else -1), step)


def _date(fields: Fields) -> datetime.date:
    import datetime

    return datetime.date(*_date_parts(fields))


def _time(fields: Fields) -> datetime.time:
    import datetime

    _check_calendar(fields)
    return datetime.time(*_time_parts(fields))


def _naive_datetime(fields: Fields) -> datetime.datetime:
    import datetime

    return datetime.datetime(*_date_parts(fields), *_time_parts(fields))


def _datetime(fields: Fields) -> datetime.datetime:
    offset = fields["utc_offset"] + fields["std_offset"]
    naive = _naive_datetime(fields)
    zone = _zone(fields["time_zone"], offset)
    for fold in (0, 1):
        aware = naive.replace(tzinfo=zone, fold=fold)
        if _seconds(aware.utcoffset()) == offset:
            return aware
    raise ValueError(
        f"its UTC offset is {offset} s, but Python's time zone database has "
        f"{_seconds(naive.replace(tzinfo=zone).utcoffset())} s for {naive} in {zone}; "
        "the two databases differ: pip install -U tzdata"
    )


def _seconds(offset: datetime.timedelta | None) -> float | None:
    return None if offset is None else offset.total_seconds()


def _date_parts(fields: Fields) -> tuple[int, int, int]:
    _check_calendar(fields)
    return fields["year"], fields["month"], fields["day"]


def _time_parts(fields: Fields) -> tuple[int, int, int, int]:
    microsecond, _precision = fields["microsecond"]
    return fields["hour"], fields["minute"], fields["second"], microsecond


def _check_calendar(fields: Fields) -> None:
    calendar = fields["calendar"]
    if calendar != _ISO:
        raise ValueError(f"calendar {_module(calendar)}: only Calendar.ISO has a Python value")


def _module(atom: object) -> str:
    return str(atom).removeprefix("Elixir.")


def _zone(name: str, offset: int) -> datetime.tzinfo:
    import datetime

    if name == "Etc/UTC":
        return datetime.UTC
    if name[:1] in ("+", "-"):
        return datetime.timezone(datetime.timedelta(seconds=offset))
    return _named_zone(name)


def _named_zone(name: str) -> datetime.tzinfo:
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # OSError: the name of a folder of the database
        raise ValueError(
            f"Python finds no time zone {name!r}; "
            "to give it a time zone database: pip install tzdata"
        ) from None


def _decimal(fields: Fields) -> object:
    import decimal

    sign, coef, exp = int(fields["sign"] < 0), fields["coef"], fields["exp"]
    # A tuple is taken as it is, whatever the precision of the context, and an int of any size
    # gives its digits this way, while str() stops at sys.get_int_max_str_digits().
    context = decimal.Context(traps=[decimal.InvalidOperation])
    if isinstance(coef, Atom):
        return decimal.Decimal((sign, (), _special_exponent(coef)), context)
    digits = decimal.Decimal(coef, context).as_tuple().digits
    try:
        return decimal.Decimal((sign, digits, exp), context)
    except (decimal.InvalidOperation, OverflowError):
        raise ValueError(f"exponent {exp} is out of the range of decimal.Decimal") from None


def _special_exponent(coef: Atom) -> Any:
    if coef not in _SPECIAL_DECIMALS:
        raise ValueError(f"coef {coef} is unknown; known are {', '.join(_SPECIAL_DECIMALS)}")
    return _SPECIAL_DECIMALS[coef]


def _iterator(fields: Fields) -> Iterator:
    from erlang._iterator import Iterator

    return Iterator(fields["enumerable"])


def _channel(fields: Fields) -> Channel:
    from erlang._channel import Channel

    return Channel.at(fields["pid"])


def _array(fields: Fields) -> object:
    from erlang._arrays import from_array

    return from_array(fields)


def _tensor(fields: Fields) -> object:
    from erlang._arrays import from_tensor

    return from_tensor(fields)


def _tensor_data(fields: Fields) -> object:
    return fields["state"]


_SPECIAL_DECIMALS: dict[str, Any] = {"NaN": "n", "inf": "F"}

_BUILDERS: dict[str, Callable[[Fields], object]] = {
    "Elixir.Date": _date,
    "Elixir.DateTime": _datetime,
    "Elixir.Decimal": _decimal,
    "Elixir.MapSet": _set,
    "Elixir.NaiveDateTime": _naive_datetime,
    "Elixir.Nx.BinaryBackend": _tensor_data,
    "Elixir.Nx.Tensor": _tensor,
    "Elixir.Py.Array": _array,
    "Elixir.Py.Channel": _channel,
    "Elixir.Py.Iterator": _iterator,
    "Elixir.Py.Object": find,
    "Elixir.Range": _range,
    "Elixir.Time": _time,
}
