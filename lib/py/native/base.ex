defmodule Py.Native.Base do
  @moduledoc false

  @spec load(Path.t()) :: :ok | {:error, String.t()}
  def load(path) do
    case :erlang.load_nif(path |> Path.rootname(".so") |> String.to_charlist(), 0) do
      :ok -> :ok
      {:error, {:reload, _already_loaded}} -> :ok
      {:error, {_reason, text}} -> {:error, List.to_string(text)}
    end
  end

  def open(_libpython), do: :erlang.nif_error(:not_loaded)
end
