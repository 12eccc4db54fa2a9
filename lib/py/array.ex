defmodule Py.Array do
  @moduledoc """
  An array of numbers: memory with a type and a shape, as numpy, Nx and others have them.

  Given to Python it is an array of numpy's on the memory of the binary, read-only and, in the node and from 64 KB up in
  worker processes, without a copy. With `writable: true` it is one on a copy.

      iex> array = Py.Array.new(<<1.0::float-32-native, 2.5::float-32-native>>, {:f, 32}, {2})
      iex> Py.eval("x.dtype.name, x.shape, x.sum().item()", %{x: array})
      {:ok, {"float32", {2}, 3.5}}

  An array of numpy's that comes back is a `Py.Object`, of which `from/2` makes an array; or Python gives one with
  `erlang.array(value)`. Both take anything with DLPack (on the CPU: tensors of torch and JAX, Arrow's arrays), the buffer
  protocol, `__array_interface__` or `__array__`:

      iex> Py.eval("import numpy as np, erlang; erlang.array(np.arange(3, dtype='u1').reshape(1, 3))")
      {:ok, %Py.Array{dtype: {:u, 8}, shape: {1, 3}, data: <<0, 1, 2>>}}

  Its elements are copied once. In the node they are not copied where nobody can change them: in a read-only array that
  lies in Python's `bytes` or in a binary of Elixir's, such as a slice or another shape of an array that came from there.
  `from(object, copy: false)` and `erlang.array(value, copy=False)` say so of any array: then the binary is the array's own
  memory, and **it changes when Python writes there**. Nothing in Elixir expects that of a binary: it is for arrays that
  Python is done with. From a worker process a call has to be told so too, see `copy:` of `Py.call/4`.

  ## Fields

    * `dtype` a type as Nx has it, `{kind, bits}` with `:s`, `:u`, `:f`, `:c` (complex) or `:bool` as kind: `{:f, 32}`,
      `{:s, 64}`, `{:bool, 8}`. The byte order is the machine's; for the other one `:big` or `:little` stands behind:
      `{:f, 32, :big}`. Of the types `{:bf, 16}`, `{:f, 8}` and `{:f8_e4m3fn, 8}`, see below
    * `shape` a tuple of sizes; `{}` for a single number
    * `data` the binary, from the element with the lowest address on
    * `strides` for each axis how many bytes one element is behind the one before, negative ones for axes that run towards
      lower addresses; `nil` where the last axis varies fastest and nothing is between, as it is as a rule (row-major order)
    * `writable` whether Python gets a copy to write to

  ## Types that numpy lacks

  numpy has no bfloat16 (`{:bf, 16}`) and no numbers of 8 bits with a point (`{:f, 8}`, which is e5m2, and `{:f8_e4m3fn, 8}`). Such an array
  is an `erlang.Tensor` in Python, of which any library with DLPack makes one of its own, on the same memory: `torch.from_dlpack(x)`. One that
  does not ask for DLPack 1.0, such as JAX, wants it with `writable: true`. Its `bits` are the numbers as unsigned
  integers, an array of numpy's, and `x.bits.view(ml_dtypes.bfloat16)` one of that type.

      iex> ones = Py.Array.new(<<0x3F80::16-native, 0x3F80::16-native>>, {:bf, 16}, {2})
      iex> Py.eval("import erlang; x.dtype, x.bits.tolist(), erlang.array(x)", %{x: ones})
      {:ok, {"bfloat16", [16256, 16256], ones}}

  The other way `from/2` and `erlang.array` read them from any library. What is on a GPU stays there: such a tensor is a
  `Py.Object`, to be handed on to other functions of Python's, and `from/2` says where it is instead of copying it.

  ## Nx

  `to_nx/1` and `from_nx/1` convert tensors, without a copy of a tensor of `Nx.BinaryBackend`. Such a tensor can be an argument itself, and
  is an array of numpy's then; one of another backend, on a GPU perhaps, goes by `from_nx/1`. Nx is no dependency of Py: it has to be
  one of the application's.
  """

  @compile {:no_warn_undefined, Nx}

  @enforce_keys [:dtype, :shape, :data]
  defstruct [:dtype, :shape, :data, strides: nil, writable: false]

  @type kind :: :s | :u | :f | :c | :bool | :bf | :f8_e4m3fn
  @type dtype :: {kind, bits :: pos_integer} | {kind, bits :: pos_integer, :big | :little}

  @type t :: %__MODULE__{
          dtype: dtype,
          shape: tuple,
          data: binary,
          strides: tuple | nil,
          writable: boolean
        }

  @kinds [:s, :u, :f, :c, :bool, :bf, :f8_e4m3fn]

  @doc """
  An array on a binary in row-major order; raises ArgumentError where their sizes differ. The one option is `writable:`.

      iex> Py.Array.new(<<1, 0, 0, 1>>, {:bool, 8}, {2, 2}).shape
      {2, 2}
      iex> Py.Array.new(<<1, 2, 3>>, {:u, 8}, {2, 2})
      ** (ArgumentError) {2, 2} of {:u, 8} takes 4 bytes, and the binary has 3
  """
  @spec new(binary, dtype, tuple, writable: boolean) :: t
  def new(data, dtype, shape, options \\ []) when is_binary(data) and is_tuple(shape) do
    options = Keyword.validate!(options, writable: false)
    wanted = item_size(dtype) * Tuple.product(shape)

    if byte_size(data) != wanted do
      raise ArgumentError,
            "#{inspect(shape)} of #{inspect(dtype)} takes #{wanted} bytes, and the binary has #{byte_size(data)}"
    end

    %__MODULE__{dtype: dtype, shape: shape, data: data, writable: options[:writable]}
  end

  @doc """
  The array that an object of Python's is, or makes of itself; the elements are copied, but where nobody can change them.

      iex> numbers = Py.eval!("import numpy as np; np.arange(4, dtype='i2')")
      iex> {:ok, array} = Py.Array.from(numbers)
      iex> {array.dtype, array.shape, Py.call!(numbers, :sum, [], kwargs: [dtype: "i8"])}
      {{:s, 16}, {4}, 6}

  ## Options

    * `copy:` with `false` they are not copied out of Python's memory at all, see above; in a worker process, they stay in shared memory. Default: `true`
    * `timeout:` as that of `Py.call/4`
  """
  @spec from(Py.Object.t(), keyword) :: {:ok, t} | {:error, Py.Error.t()}
  def from(%Py.Object{} = object, options \\ []) do
    options = Keyword.validate!(options, [:timeout, copy: true])
    {copy, options} = Keyword.pop!(options, :copy)
    on = [on: Py.Object.pool(object), kwargs: [copy: copy], copy: copy]
    Py.call("erlang", "array", [object], on ++ options)
  end

  @doc "Like `from/2`, but returns the array or raises `Py.Error`."
  @spec from!(Py.Object.t(), keyword) :: t
  def from!(%Py.Object{} = object, options \\ []) do
    case from(object, options) do
      {:ok, array} -> array
      {:error, error} -> Py.Error.raise(error)
    end
  end

  @doc """
  The elements in row-major order and the machine's byte order: the binary itself where they are that already.

      iex> transposed = Py.eval!("import numpy as np, erlang; erlang.array(np.array([[1, 2], [3, 4]], 'u1').T)")
      iex> {transposed.data, transposed.strides, Py.Array.to_binary(transposed)}
      {<<1, 2, 3, 4>>, {1, 2}, <<1, 3, 2, 4>>}
  """
  @spec to_binary(t) :: binary
  def to_binary(%__MODULE__{} = array), do: array |> row_major() |> native(array.dtype)

  defp row_major(%{strides: nil, data: data}), do: data

  defp row_major(%{strides: strides, shape: shape, data: data, dtype: dtype}) do
    axes = Enum.zip(Tuple.to_list(shape), Tuple.to_list(strides))

    if Enum.any?(axes, &match?({0, _stride}, &1)),
      do: "",
      else: axes |> collect(lowest(axes), item_size(dtype), data) |> IO.iodata_to_binary()
  end

  # Where the first element is: an axis that goes down begins at its end.
  defp lowest(axes),
    do: Enum.sum(for {size, stride} <- axes, stride < 0, do: (size - 1) * -stride)

  defp collect([], at, item, data), do: binary_part(data, at, item)
  # All that is left lies side by side.
  defp collect([{size, item}], at, item, data), do: binary_part(data, at, size * item)

  defp collect([{size, stride} | axes], at, item, data),
    do: for(index <- 0..(size - 1), do: collect(axes, at + index * stride, item, data))

  defp native(data, {_kind, _bits}), do: data

  # Of a complex number each half is turned.
  defp native(data, {kind, bits, order}) do
    size = if kind == :c, do: div(bits, 2), else: bits

    if order == System.endianness(), do: data, else: turned(data, size)
  end

  defp turned(data, 8), do: data

  for size <- [16, 32, 64, 128] do
    defp turned(data, unquote(size)) do
      for <<item::little-unquote(size) <- data>>, into: "", do: <<item::big-unquote(size)>>
    end
  end

  @doc """
  A tensor of Nx with the elements of the array. Those of a `:bool` become `{:u, 8}`, as Nx has them.
  """
  @spec to_nx(t) :: struct
  def to_nx(%__MODULE__{} = array) do
    nx!(:from_binary, 2)
    array |> to_binary() |> Nx.from_binary(nx_type!(array.dtype)) |> Nx.reshape(array.shape)
  end

  @doc """
  An array with the elements of a tensor of Nx, of any backend. Names of axes are left behind, and vectorized axes come
  first in its shape.
  """
  @spec from_nx(struct) :: t
  def from_nx(%{__struct__: Nx.Tensor} = tensor) do
    nx!(:to_binary, 1)

    tensor =
      if Map.get(tensor, :vectorized_axes, []) == [], do: tensor, else: Nx.devectorize(tensor)

    new(Nx.to_binary(tensor), Nx.type(tensor), Nx.shape(tensor))
  end

  defp nx!(function, arity) do
    unless Code.ensure_loaded?(Nx) and function_exported?(Nx, function, arity) do
      raise ArgumentError, "the application has no Nx: add {:nx, \"~> 0.9\"} to its dependencies"
    end
  end

  defp nx_type!(dtype) do
    case {elem(dtype, 0), elem(dtype, 1)} do
      {:bool, 8} -> {:u, 8}
      type when type in [{:f, 8}, {:bf, 16}, {:f8_e4m3fn, 8}] -> type
      {:f, bits} = type when bits in [16, 32, 64] -> type
      {:c, bits} = type when bits in [64, 128] -> type
      {kind, bits} = type when kind in [:s, :u] and bits in [8, 16, 32, 64] -> type
      _other -> raise ArgumentError, "Nx has no type #{inspect(dtype)}"
    end
  end

  defp item_size({kind, bits}) when kind in @kinds and is_integer(bits) and rem(bits, 8) == 0,
    do: div(bits, 8)

  defp item_size({kind, bits, order}) when order in [:big, :little], do: item_size({kind, bits})

  defp item_size(other) do
    raise ArgumentError,
          "a type of numpy's is {kind, bits}, like {:f, 32}, got: #{inspect(other)}"
  end
end
