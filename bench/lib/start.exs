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
      %Case{
        id: "start",
        unit: "ms",
        what: "a pool beside others, until its first reply",
        ways: [
          {"queue", fn -> beside([]) end},
          {"process", fn -> beside(in: :process, size: 1) end}
        ]
      },
      %Case{
        id: "K1",
        unit: "ms",
        what: "from a crash (`ctypes.string_at(0)`) to the next reply",
        ways: [{"process", &crash/0}]
      }
    ]
  end

  defp first do
    elixir = System.find_executable("elixir")
    {text, 0} = System.cmd(elixir, ["-pa", Application.app_dir(:py, "ebin"), "-e", @first])
    String.to_integer(text) / 1.0e6
  end

  defp beside(options) do
    Measure.milliseconds(fn ->
      {:ok, _} = Py.Pool.start_link([name: Py.Bench.Beside] ++ options)
      {:ok, 4.0} = Py.call(:math, :sqrt, [16.0], on: Py.Bench.Beside)
    end)
  after
    GenServer.stop(Py.Bench.Beside)
  end

  # What the dying process says is no part of a table.
  defp crash do
    Logger.configure(level: :error)
    {:ok, pid} = Py.Pool.start_link(name: Py.Bench.Beside, in: :process, size: 1)

    time =
      Measure.milliseconds(fn ->
        {:error, %{kind: :crashed}} = Py.call(:ctypes, :string_at, [0], on: Py.Bench.Beside)
        {:ok, 4.0} = Py.call(:math, :sqrt, [16.0], on: Py.Bench.Beside)
      end)

    GenServer.stop(pid)
    Logger.configure(level: :debug)
    time
  end
end
