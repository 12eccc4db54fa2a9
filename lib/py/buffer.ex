defmodule Py.Buffer do
  @moduledoc """
  A binary that Python sees through a read-only `memoryview`, in the node without a copy. Made by `Py.buffer/1`.
  """

  @enforce_keys [:data]
  defstruct [:data]

  @type t :: %__MODULE__{data: binary}
end
