defmodule Py.Cases.ArraysTest do
  # CASES.md 51: arrays of numpy's in either direction.
  use Py.Case, on: [:thread, :process]

  alias Py.Array

  @mega 1_000_000

  setup %{pool: pool} do
    case exec(pool, "import numpy") do
      :ok -> :ok
      {:error, %{type: "ModuleNotFoundError"}} -> %{pool: nil}
    end
  end

  # The tests of this file need numpy.
  defmacrop numpy(pool, do: body), do: quote(do: if(unquote(pool), do: unquote(body)))

  @types [
    {{:bool, 8}, "|b1"},
    {{:s, 8}, "|i1"},
    {{:s, 16}, "<i2"},
    {{:s, 32}, "<i4"},
    {{:s, 64}, "<i8"},
    {{:u, 8}, "|u1"},
    {{:u, 16}, "<u2"},
    {{:u, 32}, "<u4"},
    {{:u, 64}, "<u8"},
    {{:f, 16}, "<f2"},
    {{:f, 32}, "<f4"},
    {{:f, 64}, "<f8"},
    {{:f, 128}, "<f16"},
    {{:c, 64}, "<c8"},
    {{:c, 128}, "<c16"},
    {{:c, 256}, "<c32"},
    {{:s, 16, :big}, ">i2"},
    {{:u, 64, :big}, ">u8"},
    {{:f, 32, :big}, ">f4"},
    {{:c, 128, :big}, ">c16"}
  ]

  defp bytes(n), do: :binary.copy(<<1>>, n)

  test "every type of numbers, there and back", %{pool: pool} do
    numpy pool do
      for {dtype, name} <- @types do
        array = Array.new(bytes(6 * div(elem(dtype, 1), 8)), dtype, {2, 3})
        code = "import numpy, erlang\n[x.dtype.str, x.shape, x.flags.writeable, erlang.array(x)]"

        assert {dtype, eval(pool, code, %{x: array})} ==
                 {dtype, {:ok, [name, {2, 3}, false, array]}}

        made = eval(pool, "import numpy, erlang\nerlang.array(numpy.zeros(2, '#{name}'))")
        zeros = :binary.copy(<<0>>, 2 * div(elem(dtype, 1), 8))
        assert made == {:ok, Array.new(zeros, dtype, {2})}
      end
    end
  end

  test "numbers arrive as what they are", %{pool: pool} do
    numpy pool do
      data = for n <- [1.5, -2.0, 1.0e30], into: "", do: <<n::float-32-native>>
      assert eval(pool, "x.tolist()", %{x: Array.new(data, {:f, 32}, {3})}) |> elem(0) == :ok
      big = for n <- [1, -2, 300], into: "", do: <<n::signed-big-16>>

      assert eval(pool, "x.tolist(), (x + 1).tolist()", %{x: Array.new(big, {:s, 16, :big}, {3})}) ==
               {:ok, {[1, -2, 300], [2, -1, 301]}}

      assert eval(pool, "x.tolist()", %{x: Array.new(<<1, 0>>, {:bool, 8}, {2})}) ==
               {:ok, [true, false]}

      assert eval(pool, "x.item()", %{x: Array.new(<<7>>, {:u, 8}, {})}) == {:ok, 7}
    end
  end

  test "orders of axes, and axes that run backwards", %{pool: pool} do
    numpy pool do
      make = "import numpy, erlang\na = numpy.arange(24, dtype='i2').reshape(2, 3, 4)\n"
      all = for n <- 0..23, into: "", do: <<n::signed-native-16>>

      for {code, strides} <- [
            {"a", nil},
            {"numpy.asfortranarray(a)", {2, 4, 12}},
            {"a.T", {2, 8, 24}},
            {"a.transpose(1, 0, 2)", {8, 24, 2}},
            {"a[::-1]", {-24, 8, 2}},
            {"a[:, ::-1, ::-1].T", {-2, -8, 24}}
          ] do
        assert {:ok, {array, list}} =
                 eval(pool, make <> "b = #{code}\nerlang.array(b), b.tolist()")

        assert {code, array.strides} == {code, strides}
        assert byte_size(array.data) == 48
        if code =~ "a[", do: assert(array.data == all)
        back = eval(pool, "x.tolist(), x.strides, x.flags.writeable", %{x: array})
        assert {:ok, {^list, there, false}} = back
        if strides, do: assert(there == strides)
        rows = for <<n::signed-native-16 <- Array.to_binary(array)>>, do: n
        assert rows == List.flatten(list)
      end
    end
  end

  test "what has gaps, or repeats itself, is copied in row-major order", %{pool: pool} do
    numpy pool do
      for {code, shape, numbers} <- [
            {"numpy.arange(10, dtype='u1')[::2]", {5}, [0, 2, 4, 6, 8]},
            {"numpy.arange(9, dtype='u1').reshape(3, 3)[:, 1:]", {3, 2}, [1, 2, 4, 5, 7, 8]},
            {"numpy.broadcast_to(numpy.array([1, 2], 'u1'), (2, 2))", {2, 2}, [1, 2, 1, 2]},
            {"numpy.arange(4, dtype='u1').reshape(2, 2).diagonal()", {2}, [0, 3]}
          ] do
        assert eval(pool, "import numpy, erlang\nerlang.array(#{code})") ==
                 {:ok, Array.new(:binary.list_to_bin(numbers), {:u, 8}, shape)}
      end
    end
  end

  test "no elements, and a single one", %{pool: pool} do
    numpy pool do
      for shape <- [{0}, {0, 3}, {3, 0, 2}] do
        array = Array.new("", {:f, 64}, shape)

        assert eval(pool, "import erlang\nerlang.array(x), x.size", %{x: array}) ==
                 {:ok, {array, 0}}

        assert Array.to_binary(%{
                 array
                 | strides: List.to_tuple(for _ <- 1..tuple_size(shape), do: 8)
               }) == ""
      end

      array = Array.new(<<3::64-native>>, {:s, 64}, {})

      assert eval(pool, "import erlang\nerlang.array(x), x.ndim", %{x: array}) ==
               {:ok, {array, 0}}

      assert eval(pool, "import erlang, numpy\nerlang.array(numpy.float32(0.5))") ==
               {:ok, Array.new(<<0.5::float-32-native>>, {:f, 32}, {})}

      assert eval(pool, "import erlang, numpy\nerlang.array(numpy.zeros((1, 1, 1)).T)") ==
               {:ok, Array.new(<<0::64>>, {:f, 64}, {1, 1, 1})}
    end
  end

  test "writable: true is a copy to write to", %{pool: pool} do
    numpy pool do
      data = bytes(@mega)
      array = Array.new(data, {:u, 8}, {1000, 1000}, writable: true)

      assert eval(pool, "x += 1\nx.flags.writeable, x.sum().item()", %{x: array}) ==
               {:ok, {true, 2 * @mega}}

      assert data == bytes(@mega)
      fortran = %{array | strides: {1, 1000}}

      assert eval(pool, "x.flags.f_contiguous, x.flags.owndata", %{x: fortran}) ==
               {:ok, {true, true}}

      assert error(eval(pool, "x[0] = 1", %{x: %{array | writable: false}})).type == "ValueError"
    end
  end

  test "other things that are arrays", %{pool: pool} do
    numpy pool do
      for {code, array} <- [
            {"import array\nx = array.array('i', [1, 2])",
             Array.new(<<1::32-native, 2::32-native>>, {:s, 32}, {2})},
            {"x = b'ab'", Array.new("ab", {:u, 8}, {2})},
            {"x = memoryview(b'abcd').cast('B', (2, 2))", Array.new("abcd", {:u, 8}, {2, 2})},
            {"import numpy\nx = numpy.matrix([[1, 2]], 'u1')",
             Array.new(<<1, 2>>, {:u, 8}, {1, 2})},
            {"import numpy\nclass X: __array_interface__ = numpy.arange(2, dtype='u1').__array_interface__\nx = X()",
             Array.new(<<0, 1>>, {:u, 8}, {2})},
            {"import numpy\nclass X:\n  def __init__(self): self.a = numpy.arange(2, dtype='u1')\n  def __dlpack__(self, **more): return self.a.__dlpack__(**more)\n  def __dlpack_device__(self): return self.a.__dlpack_device__()\nx = X()",
             Array.new(<<0, 1>>, {:u, 8}, {2})}
          ] do
        assert {code, eval(pool, code <> "\nimport erlang\nerlang.array(x)")} ==
                 {code, {:ok, array}}
      end
    end
  end

  test "arrays that are objects", %{pool: pool} do
    numpy pool do
      {:ok, object} = eval(pool, "import numpy\nnumpy.zeros((1000, 1000), 'u1')")
      zeros = Array.new(:binary.copy(<<0>>, @mega), {:u, 8}, {1000, 1000})
      assert {:ok, ^zeros} = Array.from(object)
      shared = Array.from!(object, copy: false, timeout: 5_000)
      assert shared == zeros
      assert {:ok, nil} = Py.call(object, :fill, [1])

      # In the node that is this very memory: the documented hazard. In a worker it is what was there.
      {:ok, in_node} = eval(pool, "__import__('os').getpid()")
      shared? = Integer.to_string(in_node) == System.pid()
      assert :binary.at(shared.data, 7) == if(shared?, do: 1, else: 0)
      assert zeros.data == :binary.copy(<<0>>, @mega)
      {:ok, none} = eval(pool, "object()")
      assert error(Array.from(none)).type == "TypeError"
      assert_raise Py.Error, fn -> Array.from!(none) end
      assert_raise ArgumentError, fn -> Array.from(object, copied: false) end
    end
  end

  test "what is no array of numbers is an error", %{pool: pool} do
    numpy pool do
      for code <- [
            "[1, 2]",
            "object()",
            "numpy.array(['a'])",
            "numpy.array([object()])",
            "numpy.zeros(2, 'i4,f8')",
            "numpy.zeros(2, 'M8[s]')",
            "numpy.ma.masked_array([1, 2], [0, 1])"
          ] do
        assert {code, error(eval(pool, "import numpy, erlang\nerlang.array(#{code})")).type} ==
                 {code, "TypeError"}
      end
    end
  end

  test "what is no array in Elixir is an :encode error", %{pool: pool} do
    numpy pool do
      array = Array.new(<<1, 2, 3, 4>>, {:u, 8}, {4})

      for {wrong, text} <- [
            {%{array | shape: {5}}, "4 bytes"},
            {%{array | shape: {-1}}, "bytes"},
            {%{array | shape: {3}, strides: {3}}, "strides"},
            {%{array | shape: {5}, strides: {1}}, "strides"},
            {%{array | shape: {2}, strides: {-4}}, "strides"},
            {%{array | shape: {5}, strides: {-1}}, "strides"},
            {%{array | shape: {2}, strides: {1, 1}}, "strides"},
            {%{array | strides: [1]}, "its strides is no tuple"},
            {%{array | dtype: {:bf, 8}}, "no type"},
            {%{array | dtype: {:f, 24}}, "no type"},
            {%{array | dtype: {:bf, 16, :big}}, "no type"},
            {%{array | dtype: {:s, 4}}, "no type"},
            {%{array | dtype: {:u, 8, :middle}}, "no type"},
            {%{array | dtype: "<f4"}, "type"},
            {%{array | shape: 4}, "its shape is no tuple"},
            {%{array | shape: {:a}}, "its shape is no tuple"},
            {%{array | data: nil}, "no binary"},
            {%{array | data: <<1::3>>}, "bitstring"},
            {Map.delete(array, :shape), "lacks the field shape"}
          ] do
        assert %{kind: :encode, message: message} = error(eval(pool, "x", %{x: [wrong]}))
        assert {wrong, message =~ text, message} == {wrong, true, message}
        assert message =~ "[0]"
      end
    end
  end

  test "arrays in requests of every size, and beside other structs", %{pool: pool} do
    numpy pool do
      for n <- [1, 1_000, 1_024, 10_000, 65_536, @mega] do
        array = Array.new(bytes(n), {:u, 8}, {n})
        plain = %{state: "s", data: "text"}
        variables = %{x: [array, plain, %{a: {array}}, "text"], y: Enum.to_list(1..10_000)}

        assert eval(
                 pool,
                 "import erlang\na, p, m, t = x\nerlang.array(a), p, erlang.array(m['a'][0]), t",
                 variables
               ) ==
                 {:ok, {array, plain, array, "text"}}
      end
    end
  end

  @tag on: [:thread]
  test "no copy is made where nobody can write", %{pool: pool} do
    numpy pool do
      :erlang.garbage_collect()
      array = Array.new(:binary.copy(<<1>>, 50 * @mega), {:u, 8}, {50, 1000, 1000})
      before = :erlang.memory(:binary)

      code =
        "import erlang\nerlang.array(x), erlang.array(x[1:]), erlang.array(x.T), erlang.array(x.reshape(-1).view('f8'))"

      assert {:ok, {same, slice, turned, view}} = eval(pool, code, %{x: array})
      assert :erlang.memory(:binary) - before < @mega
      assert same == array
      assert slice.shape == {49, 1000, 1000} and byte_size(slice.data) == 49 * @mega
      assert turned.strides == {1, 1000, @mega} and turned.data == array.data
      assert view.dtype == {:f, 64} and view.data == array.data
    end
  end

  test "copy=False hands out what Python has", %{pool: pool} do
    numpy pool do
      code =
        "import sys, numpy, erlang\nsys.py_own = numpy.zeros(1_000_000, 'u1')\nerlang.array(sys.py_own, copy=False)"

      assert {:ok, array} = eval(pool, code)
      assert array == Array.new(:binary.copy(<<0>>, @mega), {:u, 8}, {@mega})
      assert exec(pool, "import sys\nsys.py_own[7] = 9") == :ok
      # In the node that is this very memory: the documented hazard.
      {:ok, in_node} = eval(pool, "__import__('os').getpid()")
      shared? = Integer.to_string(in_node) == System.pid()
      assert :binary.at(array.data, 7) == if(shared?, do: 9, else: 0)

      assert exec(
               pool,
               "import weakref, sys\nsys.py_weak = weakref.ref(sys.py_own)\ndel sys.py_own"
             ) == :ok

      assert eval(pool, "import sys\nsys.py_weak() is None") == {:ok, not shared?}
      assert :binary.at(array.data, 6) == 0
    end
  end

  test "tensors of Nx", %{pool: pool} do
    numpy pool do
      data = for n <- 1..6, into: "", do: <<n::float-32-native>>
      tensor = Array.to_nx(Array.new(data, {:f, 32}, {2, 3}))
      assert %{__struct__: Nx.Tensor, type: {:f, 32}, shape: {2, 3}} = tensor
      assert Array.from_nx(tensor) == Array.new(data, {:f, 32}, {2, 3})

      assert eval(pool, "x.dtype.str, x.tolist()", %{x: tensor}) ==
               {:ok, {"<f4", [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]}}

      vectorized = Nx.vectorize(tensor, :rows)
      assert eval(pool, "x[0].shape", %{x: [vectorized]}) == {:ok, {2, 3}}
      assert Array.from_nx(vectorized) == Array.new(data, {:f, 32}, {2, 3})
      large = Array.to_nx(Array.new(bytes(@mega), {:u, 8}, {1000, 1000}))
      assert eval(pool, "x.sum().item()", %{x: large}) == {:ok, @mega}

      {:ok, turned} =
        eval(
          pool,
          "import numpy, erlang\nerlang.array(numpy.arange(6, dtype='>i2').reshape(2, 3).T[::-1])"
        )

      assert for(<<n::signed-native-16 <- Nx.to_binary(Array.to_nx(turned))>>, do: n) == [
               2,
               5,
               1,
               4,
               0,
               3
             ]

      assert Array.to_nx(Array.new(<<1>>, {:bool, 8}, {1})).type == {:u, 8}

      assert_raise ArgumentError, ~r/Nx has no type/, fn ->
        Array.to_nx(Array.new(<<0::128>>, {:f, 128}, {1}))
      end
    end
  end

  test "properties: random arrays, there and back", %{pool: pool} do
    numpy pool do
      code = """
      import random, numpy, erlang
      def step(r): return r.choice([1, 1, -1, 2])
      def make(r):
          dtype = r.choice(['b1', 'i1', 'i2', '>i4', 'i8', 'u4', 'f2', '>f4', 'f8', 'c8', 'g'])
          shape = [r.randrange(0, 5) if r.random() < 0.1 else r.randrange(1, 7) for _ in range(r.randrange(0, 5))]
          a = numpy.frombuffer(r.randbytes(16 * numpy.dtype(dtype).itemsize), 'u1')
          a = numpy.resize(a % 64, numpy.prod(shape, dtype=int) * numpy.dtype(dtype).itemsize).view(dtype).reshape(shape)
          if r.random() < 0.5: a = numpy.frombuffer(a.tobytes() + b'-', 'u1')[:-1].view(dtype).reshape(shape)
          if a.ndim and r.random() < 0.5: a = a[tuple(slice(None, None, step(r)) for _ in shape)]
          return a.transpose(r.sample(range(a.ndim), a.ndim))
      a = make(random.Random(seed))
      erlang.array(a), a.tobytes(), a.shape, a.dtype.itemsize
      """

      for seed <- 1..400 do
        assert {:ok, {array, bytes, shape, size}} = eval(pool, code, %{seed: seed})
        assert {seed, array.shape, div(elem(array.dtype, 1), 8)} == {seed, shape, size}
        assert {seed, byte_size(array.data)} == {seed, byte_size(bytes)}
        plain = %{array | dtype: {elem(array.dtype, 0), elem(array.dtype, 1)}}
        assert {seed, Array.to_binary(plain)} == {seed, bytes}
        assert {seed, eval(pool, "x.tobytes()", %{x: array})} == {seed, {:ok, bytes}}

        assert {seed, eval(pool, "import erlang\nerlang.array(x)", %{x: array})} ==
                 {seed, {:ok, array}}
      end
    end
  end
end
