"""DLPack: how arrays of other libraries are read, and how they get numbers that numpy lacks.

https://dmlc.github.io/dlpack/latest/python_spec.html
"""

from __future__ import annotations

import _erlang

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Array = Any
    Shape = tuple[int, ...]

# DLDeviceType: what the CPU reads, and the names of others.
_CPU = 1
_READABLE = {_CPU, 3, 11, 13}
_DEVICES = {
    2: "cuda",
    4: "opencl",
    7: "vulkan",
    8: "metal",
    10: "rocm",
    14: "oneapi",
    15: "webgpu",
}

# DLDataTypeCode
_KINDS = {0: "s", 1: "u", 2: "f", 5: "c", 6: "bool"}

# What Elixir has and numpy has not: the name that ml_dtypes gave it, and DLPack's code.
FOREIGN = {
    ("bf", 16): ("bfloat16", 4),
    ("f", 8): ("float8_e5m2", 12),
    ("f8_e4m3fn", 8): ("float8_e4m3fn", 10),
}

_VERSION = (1, 0)


class Tensor:
    """Numbers of a type that numpy lacks: what a `%Py.Array{}` of `{:bf, 16}` is in Python.

    Any library with DLPack makes an array of its own of it, on the same memory:
    `torch.from_dlpack(x)`. `bits` has the numbers as unsigned integers, an array of numpy's:
    `x.bits.view(ml_dtypes.bfloat16)`.
    """

    __slots__ = ("_type", "bits", "dtype")

    def __init__(self, kind: tuple[str, int], bits: Array) -> None:
        self._type = kind
        self.dtype = FOREIGN[kind][0]
        self.bits = bits

    @property
    def shape(self) -> Shape:
        """The sizes of the axes."""
        shape: Shape = self.bits.shape
        return shape

    def __dlpack__(
        self,
        *,
        stream: None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        """Give the numbers to another library."""
        if stream is not None or dl_device not in (None, (_CPU, 0)):
            raise BufferError("the numbers are in the memory of the CPU, and stay there")
        array = self.bits.copy() if copy else self.bits
        versioned = max_version is not None and max_version >= _VERSION
        if not (versioned or array.flags.writeable):
            raise BufferError(
                "the memory is read-only, and this library does not ask for DLPack 1.0, which "
                "can say so: take a newer one, or give the array with writable: true"
            )
        from erlang._arrays import dense

        array, memory = dense(array)
        code = FOREIGN[self._type][1]
        return _erlang.to_dlpack(
            memory, code, self._type[1], array.shape, array.strides, versioned
        )

    def __dlpack_device__(self) -> tuple[int, int]:
        """Where the numbers are: on the CPU."""
        return _CPU, 0

    def __repr__(self) -> str:
        return f"erlang.Tensor({self.dtype}, {self.shape})"


def read(value: Any) -> tuple[tuple[str, int], Shape, Shape, memoryview]:
    """Tell the type, shape, strides in bytes and memory of what has `__dlpack__`."""
    try:
        capsule = value.__dlpack__(max_version=_VERSION)
    except TypeError:
        # Of before version 1.
        capsule = value.__dlpack__()
    data, code, bits, shape, strides = _erlang.from_dlpack(capsule)
    for kind, (_name, foreign) in FOREIGN.items():
        if code == foreign and bits == kind[1]:
            return kind, shape, strides, data
    if code not in _KINDS:
        raise TypeError(
            f"its numbers are of the type {code} of DLPack, which Elixir does not know"
        )
    return (_KINDS[code], bits), shape, strides, data


def check_device(value: Any) -> None:
    """Refuse what is on a GPU, and tell where it is."""
    device, number = value.__dlpack_device__()
    if device not in _READABLE:
        where = f"{_DEVICES.get(int(device), f'device type {int(device)}')}:{number}"
        raise TypeError(
            f"the numbers of this {type(value).__name__} are on {where}: copy them to the CPU "
            "first, or leave them there and give the object to other Python functions"
        )
