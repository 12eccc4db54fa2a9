"""Arrays: memory with a type and a shape, `%Py.Array{}` in Elixir and an array of numpy's here.

A type is `{kind, bits}` as in Nx, `{:f, 32}`, with `:big` or `:little` behind it where the byte
order is not the machine's.
"""

from __future__ import annotations

import math
import sys

import _erlang
from erlang._dlpack import FOREIGN, Tensor, check_device, read
from erlang._terms import Atom, Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Array = Any
    Shape = tuple[int, ...]

_KINDS = {"bool": "b", "s": "i", "u": "u", "f": "f", "c": "c"}
_LETTERS = {letter: kind for kind, letter in _KINDS.items()}
_FOREIGN = {name: kind for kind, (name, _code) in FOREIGN.items()}
_ORDERS = ("big", "little")


def array(value: object, *, copy: bool = True) -> Struct:
    """Return what comes to Elixir as a `%Py.Array{}`.

    The value is an array of numbers: one of numpy's, or anything with DLPack (in the memory of
    the CPU), the buffer protocol, `__array_interface__` or `__array__`. In the node it is not
    copied where nobody can change it: where it lies in `bytes`, or in a binary that came from
    Elixir. With `copy=False` no other is either that has no gaps: the binary is its own memory
    then, and changes if Python writes there, which no binary may.
    """
    (kind, *rest), source = _numbers(value)
    source, data = dense(source)
    fields = {
        "dtype": (Atom(kind), *rest),
        "shape": source.shape,
        "strides": None if source.flags.c_contiguous else source.strides,
        "data": data if copy else _erlang.freeze(data),
        "writable": False,
    }
    return Struct("Elixir.Py.Array", fields)


def from_array(fields: dict[str, Any]) -> Array | Tensor:
    """Make an array of numpy's on the memory of a `%Py.Array{}`, or a copy to write to."""
    made = _build(fields["dtype"], fields["shape"], fields["strides"], fields["data"])
    return _named(fields["dtype"], made.copy(order="K") if fields["writable"] else made)


def from_tensor(fields: dict[str, Any]) -> Array | Tensor:
    """The same for a `%Nx.Tensor{}` of the backend that keeps its numbers in a binary."""
    vectorized = tuple(size for _name, size in fields.get("vectorized_axes", ()))
    made = _build(fields["type"], vectorized + fields["shape"], None, fields["data"])
    return _named(fields["type"], made)


def _named(parts: Any, made: Array) -> Array | Tensor:
    return Tensor(parts, made) if parts in FOREIGN else made


def _numbers(value: Any) -> tuple[tuple[object, ...], Array]:
    """The type, and an array of numpy's; of unsigned integers, where numpy lacks the type."""
    if isinstance(value, Tensor):
        return _FOREIGN[value.dtype], value.bits
    import numpy

    own = isinstance(value, (numpy.ndarray, numpy.generic))
    if not own and hasattr(value, "__dlpack_device__"):
        check_device(value)
        try:
            kind, shape, strides, data = read(value)
        except Exception:
            # Arrow makes arrays of what DLPack has no word for, such as missing numbers.
            if not hasattr(value, "__array__"):
                raise
        else:
            return kind, _build(kind, shape, strides, data)
    source = _as_numpy(value)
    foreign = _FOREIGN.get(source.dtype.name)
    if foreign is not None:
        return foreign, source.view(f"u{foreign[1] // 8}")
    return _type_of(source.dtype), source


def _as_numpy(value: Any) -> Array:
    import numpy

    if numpy.ma.isMaskedArray(value):
        raise TypeError(
            "an array with a mask: Elixir would not see the mask; fill it first, with filled()"
        )
    if isinstance(value, (numpy.ndarray, numpy.generic)):
        return numpy.asarray(value)
    try:
        # A view, since numpy takes bytes for text.
        return numpy.asarray(memoryview(value))
    except TypeError:
        pass
    if hasattr(value, "__array_interface__") or hasattr(value, "__array__"):
        return numpy.asarray(value)
    raise TypeError(f"a {type(value).__name__} is no array: make one of it with numpy.asarray")


def dense(source: Array) -> tuple[Array, memoryview]:
    """Return the array, and its memory in the order in which it lies; copies if it has gaps."""
    source, block = _dense(source)
    return source, memoryview(block.reshape(-1).view("u1"))


def _dense(source: Array) -> tuple[Array, Array]:
    import numpy

    if source.ndim == 0:
        return source, source
    # The lowest address first, then the longest strides first.
    upwards = source[tuple(slice(None, None, -1 if step < 0 else 1) for step in source.strides)]
    axes = sorted(range(source.ndim), key=lambda axis: -upwards.strides[axis])
    block = upwards.transpose(axes)
    if block.flags.c_contiguous:
        return source, block
    source = numpy.ascontiguousarray(source)
    return source, source


def _type_of(dtype: Any) -> tuple[object, ...]:
    if dtype.kind not in _LETTERS:
        raise TypeError(f"an array of {dtype} has no numbers that Elixir knows")
    kind = (_LETTERS[dtype.kind], 8 * dtype.itemsize)
    if dtype.isnative:
        return kind
    return (*kind, Atom("little" if sys.byteorder == "big" else "big"))


def _dtype(parts: object) -> Any:
    import numpy

    if not isinstance(parts, tuple) or not 2 <= len(parts) <= 3:
        raise TypeError(f"its type is no tuple like {{:f, 32}}: {parts!r}")
    if parts in FOREIGN:
        return numpy.dtype(f"u{parts[1] // 8}")
    kind, bits, *order = parts
    shown = "{" + ", ".join(str(part) for part in parts) + "}"
    if (
        kind not in _KINDS
        or type(bits) is not int
        or bits % 8
        or any(o not in _ORDERS for o in order)
    ):
        raise ValueError(f"numpy has no type {shown}")
    try:
        dtype: Any = numpy.dtype(f"{_KINDS[kind]}{bits // 8}")
    except TypeError:
        raise ValueError(f"numpy has no type {shown}") from None
    return dtype.newbyteorder(str(order[0])) if order else dtype


def _build(parts: object, shape: Any, strides: Any, data: object) -> Array:
    try:
        import numpy
    except ImportError:
        raise ValueError(
            "it is an array of numpy's here, which is missing: pip install numpy"
        ) from None
    dtype = _dtype(parts)
    if not isinstance(data, memoryview):
        raise TypeError("its data is no binary")
    for name, numbers in (("shape", shape), ("strides", strides)):
        if numbers is not None and not _are_numbers(numbers):
            raise TypeError(f"its {name} is no tuple of integers: {numbers!r}")
    if strides is None:
        _check_size(dtype, shape, data)
        return numpy.ndarray(shape, dtype, data)
    return numpy.ndarray(shape, dtype, data, _offset(shape, strides), strides)


def _are_numbers(value: object) -> bool:
    return isinstance(value, tuple) and all(type(number) is int for number in value)


def _check_size(dtype: Any, shape: Shape, data: memoryview) -> None:
    wanted = dtype.itemsize * math.prod(shape)
    if data.nbytes != wanted:
        raise ValueError(
            f"its data has {data.nbytes} bytes, and the shape {shape} of {dtype} takes {wanted}"
        )


def _offset(shape: Shape, strides: Shape) -> int:
    """Where the first element is: an axis that goes down begins at its end."""
    if len(strides) != len(shape):
        raise ValueError(f"it has {len(strides)} strides for {len(shape)} axes")
    if 0 in shape:
        return 0
    return sum((size - 1) * -step for size, step in zip(shape, strides, strict=True) if step < 0)
