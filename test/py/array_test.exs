defmodule Py.ArrayTest do
  use ExUnit.Case, async: false

  alias Py.Array

  # Its examples are arrays of numpy's.
  if Py.exec("import numpy") == :ok, do: doctest(Array)

  test "the binary and the shape must agree" do
    assert %Array{shape: {2}, writable: true} =
             Array.new(<<0::64>>, {:f, 32}, {2}, writable: true)

    for {data, dtype, shape} <- [
          {<<0>>, {:f, 32}, {1}},
          {"", {:u, 8}, {}},
          {<<0>>, {:u, 8}, {1, 2}},
          {<<0>>, {:f, 4}, {2}},
          {<<0>>, :f8, {1}},
          {<<0>>, {:bf, 16}, {1}},
          {<<0>>, {:u, 8, :middle}, {1}}
        ] do
      assert_raise ArgumentError, fn -> Array.new(data, dtype, shape) end
    end

    assert_raise ArgumentError, fn -> Array.new(<<0>>, {:u, 8}, {1}, writeable: true) end
  end

  test "elements in row-major order" do
    data = <<0, 1, 2, 3, 4, 5>>
    array = Array.new(data, {:u, 8}, {2, 3})

    for {shape, strides, expected} <- [
          {{2, 3}, nil, [0, 1, 2, 3, 4, 5]},
          {{2, 3}, {3, 1}, [0, 1, 2, 3, 4, 5]},
          {{3, 2}, {1, 3}, [0, 3, 1, 4, 2, 5]},
          {{2, 3}, {-3, 1}, [3, 4, 5, 0, 1, 2]},
          {{6}, {-1}, [5, 4, 3, 2, 1, 0]},
          {{3}, {2}, [0, 2, 4]},
          {{0, 3}, {3, 1}, []},
          {{}, {}, [0]}
        ] do
      assert Array.to_binary(%{array | shape: shape, strides: strides}) ==
               :binary.list_to_bin(expected)
    end
  end

  test "elements in the byte order of the machine" do
    other = if System.endianness() == :little, do: :big, else: :little

    array = fn kind, bits ->
      %Array{dtype: {kind, bits, other}, shape: {1}, data: <<1, 2, 3, 4>>}
    end

    assert Array.to_binary(array.(:u, 32)) == <<4, 3, 2, 1>>
    assert Array.to_binary(array.(:c, 32)) == <<2, 1, 4, 3>>
    assert Array.to_binary(%{array.(:u, 32) | dtype: {:u, 32}}) == <<1, 2, 3, 4>>
  end
end
