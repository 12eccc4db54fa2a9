defmodule Py.Bench.Start do
  @moduledoc "How long a pool takes to start: the first of a node, which boots Python, and one beside it."

  alias Py.Bench.{Case, Measure}

  # In a node of its own, since a node boots Python once.
  @first """
  {:ok, _} = Application.ensure_all_started(:py)
  start = System.monotonic_time(:nanosecond)
  {:ok, _} = Py.Pool.start_link(name: Py.Bench.First)
  IO.write(System.monotonic_time(:nanosecond) - start)
  """

  def cases do
    [
      %Case{
        id: "start first",
        unit: "ms",
        what: "the first pool of a node: Python boots",
        ways: [{"queue", &first/0}]
      },
      %Case{id: "start", unit: "ms", what: "a pool beside others", ways: [{"queue", &beside/0}]}
    ]
  end

  defp first do
    elixir = System.find_executable("elixir")
    {text, 0} = System.cmd(elixir, ["-pa", Application.app_dir(:py, "ebin"), "-e", @first])
    String.to_integer(text) / 1.0e6
  end

  defp beside do
    Measure.milliseconds(fn -> {:ok, _} = Py.Pool.start_link(name: Py.Bench.Beside) end)
  after
    GenServer.stop(Py.Bench.Beside)
  end
end
