"""Values for oracle_test.exs: `sample(number)` is one, and what it must be in Elixir."""

import collections
import datetime
import enum
import struct
import uuid
from collections.abc import Hashable
from random import Random
from types import ModuleType
from typing import Any, NamedTuple

numpy: ModuleType | None
try:
    import numpy
except ImportError:
    numpy = None

# A value, and what it must be.
Sample = tuple[Any, str]


class Whole(int):
    pass


class Real(float):
    pass


class Text(str):
    pass


class Raw(bytes):
    pass


class Row(list[Any]):
    pass


class Pair(tuple[Any, ...]):
    pass


class Table(dict[Any, Any]):
    pass


class Level(enum.IntEnum):
    HIGH = 7


class Named(NamedTuple):
    a: Any
    b: Any


def whole(n: int) -> str:
    return f"i{n}"


def real(x: float) -> str:
    if x != x:
        return "anan"
    if x in (float("inf"), float("-inf")):
        return "ainfinity" if x > 0 else "aneg_infinity"
    return "f" + struct.pack(">d", x).hex()


def binary(data: bytes) -> str:
    return "b" + data.hex()


def number(r: Random) -> Sample:
    bits = r.choice([1, 7, 31, 53, 62, 63, 64, 65, 128, 2040])
    n = r.choice([1, -1]) * ((1 << bits) + r.choice([-1, 0, 1]))
    x = r.choice(
        [
            0.0,
            -0.0,
            5e-324,
            1.7976931348623157e308,
            float("nan"),
            float("inf"),
            -float("inf"),
            r.gauss(0, 1e9),
        ]
    )
    return r.choice(
        [
            (n, whole(n)),
            (Whole(n), whole(n)),
            (x, real(x)),
            (Real(x), real(x)),
            (Level.HIGH, "i7"),
        ]
    )


def text(r: Random) -> Sample:
    # All of Unicode but surrogates.
    points = [
        r.choice([r.randrange(128), r.randrange(0xD800), r.randrange(0xE000, 0x110000)])
        for _ in range(r.randrange(9))
    ]
    s = "".join(map(chr, points))
    return r.choice([s, Text(s)]), binary(s.encode())


def raw(r: Random) -> Sample:
    data = r.randbytes(r.choice([0, 1, 63, 64, 65, 300, 65_535, 65_536, 65_537]))
    part = memoryview(data + data[::-1])[: len(data)]
    made = [data, Raw(data), bytearray(data), memoryview(data), part]
    return r.choice(made), binary(data)


def moment(r: Random) -> Sample:
    micro = r.choice([0, 1, 999_999, 500_000])
    day = datetime.date.fromordinal(r.randrange(1, datetime.date.max.toordinal() + 1))
    time = datetime.time(r.randrange(24), r.randrange(60), r.randrange(60), micro)
    fraction = f".{micro:06}" if micro else ""
    clock = time.strftime("%H:%M:%S") + fraction
    date = f"{day.year:04}-{day.month:02}-{day.day:02}"
    both = datetime.datetime.combine(day, time)
    return r.choice(
        [
            (day, "d" + date),
            (time, "t" + clock),
            (both, f"n{date} {clock}"),
            (both.replace(tzinfo=datetime.UTC), f"u{date} {clock}"),
        ]
    )


def plain(r: Random) -> Sample:
    u = uuid.UUID(int=r.getrandbits(128))
    start, stop, step = r.randrange(-99, 99), r.randrange(-99, 99), r.choice([-7, -1, 1, 3])
    made: list[Sample] = [
        (None, "anil"),
        (True, "atrue"),
        (False, "afalse"),
        (u, binary(str(u).encode())),
    ]
    if numpy is not None:
        n, x = r.randrange(-128, 128), r.gauss(0, 1)
        made += [
            (numpy.int8(n), whole(n)),
            (numpy.uint64(2**64 - 1), whole(2**64 - 1)),
            (numpy.float64(x), real(x)),
            (numpy.float32(0.5), real(0.5)),
            (numpy.bool_(n > 0), "atrue" if n > 0 else "afalse"),
        ]
    items = list(range(start, stop, step))
    made.append((range(start, stop, step), "r" + ",".join(map(str, items))))
    return r.choice(made)


# No two of these are equal, in Python or in Elixir: strings, and whole numbers from 2 on.
def keys(r: Random, count: int) -> list[tuple[Hashable, str]]:
    found: dict[str, Hashable] = {}
    while len(found) < count:
        n, k = r.randrange(2, 10**30), r.randrange(99)
        pair = f"({binary(b'k')} {whole(k)})"
        value, told = r.choice([text(r), (n, whole(n)), (("k", k), pair)])
        found[told] = value
    return [(value, told) for told, value in found.items()]


def sequence(r: Random, depth: int) -> Sample:
    parts = [sample_of(r, depth - 1) for _ in range(r.randrange(5))]
    values, told = [value for value, _ in parts], " ".join(told for _, told in parts)
    kind = r.choice([list, Row, tuple, Pair])
    if kind in (tuple, Pair):
        return kind(values), f"({told})"
    return kind(values), f"[{told}]"


def mapping(r: Random, depth: int) -> Sample:
    made, told = r.choice([dict, Table, collections.OrderedDict])(), []
    for key, key_told in keys(r, r.randrange(5)):
        value, value_told = sample_of(r, depth - 1)
        made[key] = value
        told.append(f"{key_told}={value_told}")
    return made, "{" + " ".join(sorted(told)) + "}"


def members(r: Random, _depth: int) -> Sample:
    found = keys(r, r.randrange(5))
    return r.choice([set, frozenset])(value for value, _ in found), "<" + " ".join(
        sorted(told for _, told in found)
    ) + ">"


def shared(r: Random, depth: int) -> Sample:
    value, told = sample_of(r, depth - 1)
    return r.choice(
        [([value, value], f"[{told} {told}]"), (Named(value, value), f"({told} {told})")]
    )


def sample_of(r: Random, depth: int) -> Sample:
    if depth <= 0 or r.random() < 0.3:
        return r.choice([number, text, raw, moment, plain])(r)
    return r.choice([sequence, sequence, mapping, members, shared])(r, depth)


def sample(seed: int) -> Sample:
    return sample_of(Random(seed), 4)
