"""The objects of fuzz_test.exs: `graph(number)` is one, and the same each time but for addresses."""

import array
import asyncio
import collections
import ctypes
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import io
import itertools
import random
import threading
import types
import uuid
import weakref
import zoneinfo

import erlang

try:
    import numpy
except ImportError:
    numpy = None


def same(x):
    return x


class Whole(int):
    pass


class Real(float):
    pass


class Text(str):
    pass


class Raw(bytes):
    pass


class Row(list):
    pass


class Pair(tuple):
    pass


class Table(dict):
    pass


class Bag(set):
    pass


class Day(datetime.datetime):
    pass


class Colour(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    ONE = 1


class Bits(enum.IntFlag):
    A = 1
    B = 2


@dataclasses.dataclass
class Point:
    x: object
    y: object


Named = collections.namedtuple("Named", "a b")


class Slots:
    __slots__ = ("a",)


class Zone(datetime.tzinfo):
    def __init__(self, offset):
        self.offset = offset

    def utcoffset(self, _when):
        if self.offset is None:
            raise RuntimeError("no offset")
        return self.offset

    def tzname(self, _when):
        return self.offset and "x" * 300

    def dst(self, _when):
        return None


# What a hostile method does when it is called.
def answers(r):
    def raises(error):
        def method(*_args):
            raise error

        return method

    def forever(self, *args):
        return forever(self, *args)

    return r.choice(
        [
            raises(ValueError("hostile")),
            raises(SystemExit(1)),
            raises(KeyboardInterrupt()),
            raises(StopIteration()),
            raises(AttributeError("hostile")),
            raises(BaseException("\ud800")),
            forever,
            lambda *_: None,
            lambda *_: -1,
            lambda *_: 10**30,
            lambda *_: "\ud800",
            lambda *_: NotImplemented,
            lambda *_: object(),
            lambda self, *_: self,
            lambda *_: iter([1]),
        ]
    )


HOSTILE = (
    "__eq__ __len__ __iter__ __getattr__ __getattribute__ __repr__ __str__ __bool__ __index__ __int__ __float__ "
    "__getitem__ __contains__ __next__ __reduce__ __format__ __bytes__ __buffer__ __await__ __aiter__ __call__ "
    "__array__ __array_interface__ keys items values encode hex timestamp isoformat utcoffset __instancecheck__ __dir__"
).split()


# With a hash of the base, or of its own: what is hashed while it is made must not raise.
def hostile_class(r):
    base = r.choice(
        [
            object,
            int,
            float,
            str,
            bytes,
            list,
            tuple,
            dict,
            set,
            frozenset,
            datetime.date,
            decimal.Decimal,
        ]
    )
    body = {name: answers(r) for name in r.sample(HOSTILE, r.randrange(1, 6))}
    if r.random() < 0.3:
        lie = r.choice([int, str, list, dict, float, bytes, bool, type(None), datetime.date, 7])
        body["__class__"] = property(lambda self: lie)
    if r.random() < 0.2:
        body["__module__"] = r.choice([None, 5, "\ud800", "a.b", [], "x" * 10_000])
    if r.random() < 0.3:
        body["__qualname__"] = r.choice(["é", "a\0b"[0], "x" * 1000])
    if r.random() < 0.3:
        body["__hash__"] = r.choice([None, lambda self: 1, lambda self: -1])
    if r.random() < 0.2:
        # One that raises would only be printed.
        body["__del__"] = lambda self: sum(range(100))
    meta = type
    if r.random() < 0.2:
        wicked = {
            "__instancecheck__": answers(r),
            "__repr__": answers(r),
            "__name__": property(answers(r)),
        }
        meta = type("Meta", (type,), wicked)
    return meta("Hostile", (base,), body)


def hostile(r, _more):
    kind = hostile_class(r)
    try:
        return kind.__new__(kind)
    except BaseException:
        return None


# A part that changes its parent while that is read.
def traitor(r, more):
    parent = [more() for _ in range(5)]

    class Traitor:
        @property
        def __class__(self):
            parent.clear()
            return int

        def __repr__(self):
            parent.clear()
            return "traitor"

    parent.insert(r.randrange(5), Traitor())
    return parent


def cycle(r, more):
    made = r.choice([[], {}, Row(), Table()])
    inner = [more(), (made,)]
    if isinstance(made, dict):
        made["inner"] = inner
    else:
        made.append(inner)
    return made


def shared(r, more):
    part = more()
    for _ in range(r.randrange(9)):
        part = r.choice([[part, part], (part, part), {"a": part, "b": part}])
    return part


def deep(r, more):
    part = more()
    for _ in range(r.choice([50, 900, 9_000, 11_000, 100_000])):
        part = [part]
    return part


def texts(r, _more):
    text = "".join(
        chr(r.choice([r.randrange(128), r.randrange(0x110000)])) for _ in range(r.randrange(12))
    )
    return r.choice(
        [
            text,
            Text(text),
            text.encode("utf-8", "replace"),
            Raw(b"\xff" * r.randrange(9)),
            bytearray(b"ab"),
        ]
    )


def numbers(r, _more):
    whole = r.choice([1, -1]) * r.getrandbits(r.choice([1, 31, 63, 64, 65, 2000, 40_000]))
    real = r.choice([0.0, -0.0, 1e308, 5e-324, float("nan"), float("inf"), r.random()])
    return r.choice(
        [
            whole,
            Whole(whole),
            real,
            Real(real),
            True,
            None,
            1j,
            Number.ONE,
            Bits.A | Bits.B,
            Bits(0),
        ]
    )


def moments(r, _more):
    zone = r.choice(
        [
            None,
            datetime.UTC,
            datetime.timezone(datetime.timedelta(microseconds=r.randrange(-(10**10), 10**10))),
            zoneinfo.ZoneInfo("UTC"),
            Zone(None),
            Zone(datetime.timedelta(hours=r.randrange(-23, 24))),
            Zone(datetime.timedelta(days=9)),
            Zone("noon"),
        ]
    )
    kind = r.choice([datetime.datetime, Day])
    when = kind(
        r.choice([1, 2024, 9999]),
        1,
        1,
        r.randrange(24),
        0,
        0,
        r.randrange(10**6),
        zone,
        fold=r.randrange(2),
    )
    date = r.choice([datetime.date.min, datetime.date.max])
    time = datetime.time(1, 2, 3, r.randrange(10**6), zone)
    return r.choice([when, date, time, datetime.timedelta(1), zone])


def containers(r, more):
    items = [more() for _ in range(r.randrange(5))]
    return r.choice([list, tuple, Row, Pair, collections.deque, iter])(items)


def mappings(r, more):
    items = {}
    for _ in range(r.randrange(5)):
        key, value = more(), more()
        try:
            items[key] = value
        except BaseException:
            items[r.randrange(9)] = value
    kinds = [dict, Table, collections.OrderedDict, types.MappingProxyType, collections.ChainMap]
    return r.choice(kinds)(items)


def sets(r, more):
    made = set()
    for _ in range(r.randrange(5)):
        try:
            made.add(more())
        except BaseException:
            pass
    return r.choice([set, frozenset, Bag])(made)


def buffers(r, _more):
    view = memoryview(bytearray(24))
    released = memoryview(b"abc")
    released.release()
    return r.choice(
        [
            view[:: r.choice([1, 2, -1, -5])],
            view.cast("d"),
            view.cast("B", (2, 3, 4)),
            view[24:],
            released,
            array.array("d", [1.5]),
            memoryview(array.array("i", [1, 2])),
            memoryview((ctypes.c_int * 3)(1, 2, 3)),
            memoryview(bytes(70_000))[1:],
            bytes(r.choice([0, 64, 65_535, 65_536, 70_000])),
        ]
    )


def arrays(r, _more):
    if numpy is None:
        return None
    return r.choice(
        [
            numpy.int8(-3),
            numpy.uint64(2**64 - 1),
            numpy.float16(0.1),
            numpy.longdouble("1e4000"),
            numpy.float32("nan"),
            numpy.complex64(1j),
            numpy.bool_(True),
            numpy.str_("a\ud800"),
            numpy.bytes_(b"\xff"),
            numpy.datetime64("2024-01-01"),
            numpy.datetime64("NaT"),
            numpy.timedelta64(3, "s"),
            numpy.void(b"abc"),
            numpy.zeros((2, 2)),
            numpy.zeros(0),
            numpy.array(1),
            numpy.array([object()], dtype=object),
            numpy.zeros(2, dtype="i4,f8")[0],
            numpy.ma.masked,
            numpy.zeros(9)[::2].data,
        ]
    )


def oddities(r, more):
    async def later():
        return 1

    async def several():
        yield 1

    def kept():
        yield more()

    dead = weakref.proxy(Bag())
    return r.choice(
        [
            lambda: kept(),
            lambda: several(),
            lambda: Point(more(), more()),
            lambda: Point,
            lambda: Named(more(), more()),
            lambda: Colour.RED,
            lambda: Slots(),
            lambda: dead,
            lambda: weakref.ref(Colour),
            lambda: range(r.getrandbits(99), -r.getrandbits(99), -r.randrange(1, 9)),
            lambda: slice(1, more()),
            lambda: decimal.Decimal(
                r.choice(["NaN", "sNaN", "-0", "1E+999999", "1.50", "-Infinity"])
            ),
            lambda: fractions.Fraction(1, 3),
            lambda: uuid.UUID(int=r.getrandbits(128)),
            lambda: erlang.Atom(
                r.choice(
                    [
                        "ok",
                        "nil",
                        "true",
                        "é",
                        "",
                        "x" * 300,
                        "\ud800",
                        "Elixir.Enum",
                        "never seen",
                    ]
                )
            ),
            lambda: erlang.Pid.__new__(erlang.Pid),
            lambda: erlang.Ref.__new__(erlang.Ref),
            lambda: ExceptionGroup("a", [ValueError("\ud800"), KeyError(more())]),
            lambda: NotImplemented,
            lambda: types,
            lambda: type,
            lambda: len,
            lambda: functools.partial(len, more()),
            lambda: io.BytesIO(b"a").getbuffer(),
            lambda: threading.Lock(),
            lambda: collections.Counter("abca"),
            lambda: collections.defaultdict(list, a=more()),
            lambda: {1: more()}.items(),
            lambda: types.SimpleNamespace(a=more()),
            lambda: (later().close(), asyncio.Future.__new__(asyncio.Future))[0],
            lambda: ctypes.py_object(),
            lambda: ctypes.c_int(3),
        ]
    )()


def makers():
    return [
        hostile,
        hostile,
        traitor,
        cycle,
        shared,
        deep,
        texts,
        texts,
        numbers,
        numbers,
        moments,
        containers,
        containers,
        containers,
        mappings,
        mappings,
        sets,
        buffers,
        arrays,
        oddities,
        oddities,
    ]


# A part that is met again is converted again, in each round of a cycle down to the depth where it is refused. Graphs of
# more steps than this may take longer than a call has; they have their bound too, the hundred million values of the table.
MOST_STEPS = 200_000
MAX_DEPTH = 10_000


def parts(value):
    # Not isinstance: that asks the value, which may be hostile.
    bases = type(value).__mro__
    if dict in bases:
        return itertools.chain.from_iterable(dict.items(value))
    containers = (base for base in (list, tuple, set, frozenset) if base in bases)
    return next((base.__iter__(value) for base in containers), iter(()))


def is_moderate(value):
    path = [iter((value,))]
    for _ in range(MOST_STEPS):
        inner = next(path[-1], path)
        if inner is not path:
            path.append(parts(inner))
        else:
            path.pop()
        if not 0 < len(path) <= MAX_DEPTH:
            return True
    return False


def graph(number):
    r = random.Random(number)
    while not is_moderate(made := draw(r)):
        pass
    # In a list: what is awaitable itself would be awaited.
    return [made]


def draw(r):
    left = r.randrange(40)

    def more():
        nonlocal left
        left -= 1
        if left <= 0:
            return r.randrange(9)
        maker = r.choice(makers())
        try:
            return maker(r, more)
        except Exception as error:
            return type(error).__name__

    return more()
