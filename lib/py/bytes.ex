defmodule Py.Bytes do
  @moduledoc """
  A binary that becomes Python `bytes`. Made by `Py.bytes/1`.
  """

  @enforce_keys [:data]
  defstruct [:data]

  @type t :: %__MODULE__{data: binary}
end
