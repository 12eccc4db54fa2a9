# The structs of the documentation of Py.Encoder, and others that its tests encode.

defimpl Py.Encoder, for: URI do
  def encode(uri), do: URI.to_string(uri)
end

defmodule MyApp.User do
  @moduledoc false

  @derive {Py.Encoder, only: [:name, :home]}
  defstruct [:name, :home, :password_hash]
end

defmodule MyApp.Point do
  @moduledoc false

  @derive Py.Encoder
  defstruct x: 0, y: 0
end

defmodule MyApp.Account do
  @moduledoc false

  @derive {Py.Encoder, except: [:__meta__]}
  defstruct [:__meta__, :id, :owner]
end

defmodule MyApp.Odd do
  @moduledoc false

  # Encoded as what its function gives for it.
  defstruct [:encode]

  defimpl Py.Encoder do
    def encode(%{encode: function} = odd), do: function.(odd)
  end
end
