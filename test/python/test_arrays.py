from __future__ import annotations

import sys
import unittest
from typing import Any
from unittest import mock

import beam
from erlang import Atom, EncodeError, array
from erlang._terms import Struct
from erlang._types import from_struct

try:
    import numpy
except ImportError:
    raise unittest.SkipTest("numpy is not installed") from None

_OTHER = "big" if sys.byteorder == "little" else "little"


def fields(data: bytes, dtype: object, shape: object, **more: object) -> dict[str, object]:
    parts = {"strides": None, "writable": False, **more}
    return {"data": memoryview(data), "dtype": dtype, "shape": shape, **parts}


class ArgumentTest(beam.Case):
    def made(self, *arguments: Any, **more: Any) -> Any:
        made = from_struct("Elixir.Py.Array", fields(*arguments, **more))
        self.assertIsInstance(made, numpy.ndarray)
        return made

    def test_it_is_read_only_and_on_the_memory(self) -> None:
        data = bytes(range(8))
        made = self.made(data, (Atom("u"), 16), (2, 2))
        self.assertEqual((made.shape, made.dtype.itemsize), ((2, 2), 2))
        self.assertFalse(made.flags.writeable)
        self.assertFalse(made.flags.owndata)
        self.assertEqual(made.tobytes(), data)

    def test_a_copy_to_write_to_keeps_the_order(self) -> None:
        made = self.made(bytes(6), (Atom("u"), 8), (2, 3), strides=(1, 2), writable=True)
        made[0, 0] = 1
        self.assertTrue(made.flags.f_contiguous)

    def test_the_byte_order_of_other_machines(self) -> None:
        made = self.made(b"\0\1\0\2", (Atom("s"), 16, Atom("big")), (2,))
        self.assertEqual(made.tolist(), [1, 2])

    def test_axes_that_run_backwards(self) -> None:
        made = self.made(bytes(range(6)), (Atom("u"), 8), (3, 2), strides=(-2, -1))
        self.assertEqual(made.tolist(), [[5, 4], [3, 2], [1, 0]])

    def test_what_does_not_fit(self) -> None:
        for wrong, text in (
            (fields(bytes(3), (Atom("u"), 8), (2, 2)), r"3 bytes, and the shape \(2, 2\)"),
            (fields(bytes(4), (Atom("u"), 8), (2, 2), strides=(4, 1)), "strides"),
            (fields(bytes(4), (Atom("bf"), 8), (4,)), "numpy has no type {bf, 8}"),
            (fields(bytes(6), (Atom("f"), 24), (2,)), "numpy has no type {f, 24}"),
            (fields(bytes(4), Atom("f32"), (1,)), "its type is no tuple"),
            ({**fields(b"", (Atom("u"), 8), (0,)), "data": "text"}, "no binary"),
        ):
            with self.assertRaisesRegex(EncodeError, text):
                from_struct("Elixir.Py.Array", wrong)

    def test_without_numpy(self) -> None:
        with (
            mock.patch.dict(sys.modules, {"numpy": None}),
            self.assertRaisesRegex(EncodeError, "pip install numpy"),
        ):
            from_struct("Elixir.Py.Array", fields(b"", (Atom("u"), 8), (0,)))

    def test_tensors(self) -> None:
        state = memoryview(bytes(range(6)))
        data = from_struct("Elixir.Nx.BinaryBackend", {"state": state})
        tensor = {
            "data": data,
            "type": (Atom("u"), 8),
            "shape": (2,),
            "names": [None],
            "vectorized_axes": [(Atom("rows"), 3)],
        }
        made: Any = from_struct("Elixir.Nx.Tensor", tensor)
        self.assertEqual(made.tolist(), [[0, 1], [2, 3], [4, 5]])


class ResultTest(beam.Case):
    def parts(self, value: object, **more: bool) -> tuple[Any, ...]:
        made = array(value, **more)
        self.assertIsInstance(made, Struct)
        self.assertEqual(made.name, "Elixir.Py.Array")
        parts: Any = made.fields
        self.assertIs(type(parts["data"]), memoryview)
        return parts["dtype"], parts["shape"], parts["strides"], bytes(parts["data"])

    def test_types(self) -> None:
        for code, expected in (
            ("b1", ("bool", 8)),
            ("=i8", ("s", 64)),
            ("=u2", ("u", 16)),
            ("=f4", ("f", 32)),
            ("=c16", ("c", 128)),
            (("<" if _OTHER == "little" else ">") + "f8", ("f", 64, _OTHER)),
        ):
            dtype, shape, strides, data = self.parts(numpy.zeros(2, code))
            self.assertEqual((dtype, shape, strides), (expected, (2,), None))
            self.assertTrue(all(type(part) in (Atom, int) for part in dtype))
            self.assertEqual(data, bytes(2 * expected[1] // 8))

    def test_memory_without_gaps_is_taken_as_it_lies(self) -> None:
        grid = numpy.arange(6, dtype="u1").reshape(2, 3)
        for value, strides in ((grid.T, (1, 3)), (grid[::-1, ::-1], (-3, -1)), (grid, None)):
            self.assertEqual(self.parts(value)[2:], (strides, bytes(range(6))))
        made: Any = array(grid[::-1].T).fields["data"]
        self.assertIs(made.obj.base, grid.base)

    def test_gaps_are_left_out(self) -> None:
        self.assertEqual(
            self.parts(numpy.arange(5, dtype="u1")[::2])[1:], ((3,), None, b"\0\2\4")
        )

    def test_what_is_no_array_of_numbers(self) -> None:
        masked = numpy.ma.masked_array([1, 2], [False, True])
        for value in ([1], "text", None, numpy.array(["a"]), numpy.zeros(1, "M8[s]"), masked):
            with self.assertRaises(TypeError):
                array(value)

    def test_copy_false_asks_for_the_memory_itself(self) -> None:
        own = numpy.zeros(3, "u1")
        self.assertEqual(self.parts(own, copy=False)[3], bytes(3))
        self.assertEqual([view.nbytes for view in beam.native.frozen], [3])
