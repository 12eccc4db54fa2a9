defmodule Py.Bench.Measure do
  @moduledoc "The clock and what is made of its readings."

  @probe 20
  @seconds 0.5

  # In words: a million readings, so that no collection of the measuring process is measured.
  @room 4_000_000

  @doc "Runs `fun` in a process of its own: what else a heap holds is not to be measured."
  def apart(fun, options \\ []) do
    {pid, monitor} = :erlang.spawn_opt(fn -> exit({:measured, fun.()}) end, [:monitor | options])

    receive do
      {:DOWN, ^monitor, :process, ^pid, {:measured, value}} -> value
      {:DOWN, ^monitor, :process, ^pid, reason} -> exit(reason)
    end
  end

  @doc "The same with room for many readings."
  def roomy(fun), do: apart(fun, min_heap_size: @room)

  @doc "How long `fun` takes, in nanoseconds."
  def nanoseconds(fun) do
    start = :erlang.monotonic_time()
    fun.()
    :erlang.convert_time_unit(:erlang.monotonic_time() - start, :native, :nanosecond)
  end

  def milliseconds(fun), do: nanoseconds(fun) / 1.0e6

  @doc "Percentiles of how long `fun` takes, called `count` times in a row, in microseconds."
  def latency(fun, percents, count \\ 20_000) do
    roomy(fn -> figures(for(_ <- 1..count, do: nanoseconds(fun)), percents) end)
  end

  @doc "The same with five milliseconds before each call, in which everything goes to sleep."
  def cold_latency(fun, percents, count \\ 100) do
    times =
      for _ <- 1..count do
        Process.sleep(5)
        nanoseconds(fun)
      end

    figures(times, percents)
  end

  @doc "Calls per second of so many processes, over about half a second."
  def rate(fun, processes) do
    wanted = rate(fun, processes, @probe) * @seconds
    rate(fun, processes, max(1, round(wanted / processes)))
  end

  defp rate(fun, processes, each) do
    parent = self()
    workers = for _ <- 1..processes, do: spawn_link(fn -> work(parent, fun, each) end)

    time =
      nanoseconds(fn ->
        Enum.each(workers, &send(&1, :go))
        for _ <- workers, do: receive(do: (:done -> :ok))
      end)

    each * processes * 1.0e9 / time
  end

  defp work(parent, fun, each) do
    receive do: (:go -> repeat(fun, each))
    send(parent, :done)
  end

  defp repeat(_fun, 0), do: :ok

  defp repeat(fun, times) do
    fun.()
    repeat(fun, times - 1)
  end

  @doc "Figures of nanoseconds, in microseconds, by their names: `[{\"p50\", 5.1}]`."
  def figures(times, percents) do
    sorted = times |> Enum.sort() |> List.to_tuple()
    for percent <- percents, do: {name(percent), at(sorted, percent) / 1_000}
  end

  def percentile(values, percent), do: values |> Enum.sort() |> List.to_tuple() |> at(percent)

  defp at(sorted, percent) do
    size = tuple_size(sorted)
    elem(sorted, min(size - 1, trunc(size * percent / 100)))
  end

  defp name(100), do: "max"
  defp name(percent), do: "p#{percent}"
end
