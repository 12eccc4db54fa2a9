defmodule Py.Fuzz do
  @moduledoc "What the tests that draw their input share: how long they draw, and from which number on."

  @doc "Seconds of each test: PY_FUZZ_SECONDS."
  def seconds, do: "PY_FUZZ_SECONDS" |> System.get_env("2") |> String.to_integer()

  @doc "The number of the first round, from which all of it is drawn: PY_FUZZ_SEED."
  def first do
    case System.get_env("PY_FUZZ_SEED") do
      nil -> ExUnit.configuration()[:seed] * 100_000
      seed -> String.to_integer(seed)
    end
  end
end
