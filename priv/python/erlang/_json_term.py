"""Decodes JSON for `Py.run_script`: JSON on stdin; `{ok, Term}` or `{error, Text}`, as an
external term, on stdout.

A program of its own, which the Python of the script runs when the script has ended: what JSON
means is what Python's `json` makes of it, and a script sees nothing of it.
"""

from __future__ import annotations

import gc
import json
import math
import struct
import sys
from collections.abc import Callable
from typing import Any

VERSION = 131
SMALL_INTEGER, INTEGER, SMALL_BIG, LARGE_BIG = 97, 98, 110, 111
FLOAT, ATOM, BINARY = 70, 119, 109
TUPLE, NIL, LIST, MAP = 104, 106, 108, 116

BITS_32 = 1 << 31


class End:
    """Stands behind the elements of a list."""


END = End()


def header(tag: int, size: int) -> bytes:
    return struct.pack(">BI", tag, size)


def atom(name: str) -> bytes:
    return bytes((ATOM, len(name))) + name.encode()


def write_atom(value: bool | None, out: bytearray, _todo: list[object]) -> None:
    out += atom("nil" if value is None else "true" if value else "false")


def write_int(value: int, out: bytearray, _todo: list[object]) -> None:
    if 0 <= value < 256:
        out += bytes((SMALL_INTEGER, value))
    elif -BITS_32 <= value < BITS_32:
        out += struct.pack(">Bi", INTEGER, value)
    else:
        size = (value.bit_length() + 7) // 8
        out += bytes((SMALL_BIG, size)) if size < 256 else header(LARGE_BIG, size)
        out.append(value < 0)
        out += abs(value).to_bytes(size, "little")


def write_float(value: float, out: bytearray, _todo: list[object]) -> None:
    if math.isfinite(value):
        out += struct.pack(">Bd", FLOAT, value)
    else:
        out += atom("nan" if value != value else "infinity" if value > 0 else "neg_infinity")


def write_str(value: str, out: bytearray, _todo: list[object]) -> None:
    data = value.encode()
    out += header(BINARY, len(data))
    out += data


def write_list(value: list[object], out: bytearray, todo: list[object]) -> None:
    if value:
        out += header(LIST, len(value))
    todo.append(END)
    todo.extend(reversed(value))


def write_end(_value: End, out: bytearray, _todo: list[object]) -> None:
    out.append(NIL)


def write_dict(value: dict[str, object], out: bytearray, todo: list[object]) -> None:
    out += header(MAP, len(value))
    for key, item in reversed(value.items()):
        todo.append(item)
        todo.append(key)


WRITERS: dict[type, Callable[[Any, bytearray, list[object]], None]] = {
    type(None): write_atom,
    bool: write_atom,
    int: write_int,
    float: write_float,
    str: write_str,
    list: write_list,
    dict: write_dict,
    End: write_end,
}


def term(value: object) -> bytearray:
    """The term without its version; a list of what is still to write stands for recursion."""
    out = bytearray()
    todo = [value]
    while todo:
        item = todo.pop()
        WRITERS[type(item)](item, out, todo)
    return out


def decode(source: bytes) -> tuple[str, bytearray]:
    try:
        return "ok", term(json.loads(source))
    except UnicodeEncodeError as error:
        reason = f"a string with a lone surrogate is not text: {error.object[:60]!a}"
    except RecursionError:
        reason = "it is nested too deeply for Python's json"
    except MemoryError:
        reason = "there is not enough memory to decode it (memory_limit: holds for that too)"
    except ValueError as error:
        reason = str(error)
    return "error", term(reason.encode(errors="backslashreplace").decode())


def main() -> None:
    # All of it lives until the end.
    gc.disable()
    sys.set_int_max_str_digits(0)
    result, value = decode(sys.stdin.buffer.read())
    sys.stdout.buffer.write(bytes((VERSION, TUPLE, 2)) + atom(result))
    sys.stdout.buffer.write(value)


if __name__ == "__main__":
    main()
