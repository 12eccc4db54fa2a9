defmodule Py.Bench.Floor do
  @moduledoc "What a call costs before any Python: see bench/floor."

  def load(path), do: :erlang.load_nif(path |> Path.rootname(".so") |> String.to_charlist(), 0)
  def submit(_tag, _request), do: :erlang.nif_error(:not_loaded)

  def call(args), do: args |> async_call() |> await()

  def async_call(args) do
    ref = make_ref()
    :ok = submit(ref, {:call, :math, :sqrt, args, []})
    ref
  end

  def await(ref) do
    receive do
      {:py_result, ^ref, result} -> result
    end
  end
end
