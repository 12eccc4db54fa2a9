# The `Nx` of an application that has it: the functions that Py uses, and the structs, on binaries.
defmodule Nx.Tensor do
  @moduledoc false
  defstruct [:data, :type, :shape, :names, vectorized_axes: []]
end

defmodule Nx.BinaryBackend do
  @moduledoc false
  defstruct [:state]
end

defmodule Nx do
  @moduledoc false

  def from_binary(binary, {_kind, bits} = type) do
    shape = {div(bit_size(binary), bits)}
    %Nx.Tensor{data: %Nx.BinaryBackend{state: binary}, type: type, shape: shape, names: [nil]}
  end

  def reshape(tensor, shape),
    do: %{tensor | shape: shape, names: List.duplicate(nil, tuple_size(shape))}

  def to_binary(%{vectorized_axes: [], data: %Nx.BinaryBackend{state: binary}}), do: binary
  def type(tensor), do: tensor.type
  def shape(tensor), do: tensor.shape

  def vectorize(tensor, name) do
    [size | shape] = Tuple.to_list(tensor.shape)
    axes = tensor.vectorized_axes ++ [{name, size}]
    %{tensor | shape: List.to_tuple(shape), names: tl(tensor.names), vectorized_axes: axes}
  end

  def devectorize(tensor) do
    sizes = for {_name, size} <- tensor.vectorized_axes, do: size
    shape = List.to_tuple(sizes ++ Tuple.to_list(tensor.shape))
    reshape(%{tensor | vectorized_axes: []}, shape)
  end
end
