defmodule Py.Bench.Measure do
  @moduledoc "The clock and what is made of its readings."

  @probe 20
  @seconds 0.5
  @most_readings 1_000_000

  @doc "Runs `fun` in a process of its own: what else a heap holds is not to be measured."
  def apart(fun) do
    {pid, monitor} = spawn_monitor(fn -> exit({:measured, fun.()}) end)

    receive do
      {:DOWN, ^monitor, :process, ^pid, {:measured, value}} -> value
      {:DOWN, ^monitor, :process, ^pid, reason} -> exit(reason)
    end
  end

  @doc "How long `fun` takes, in nanoseconds."
  def nanoseconds(fun) do
    start = :erlang.monotonic_time()
    fun.()
    :erlang.convert_time_unit(:erlang.monotonic_time() - start, :native, :nanosecond)
  end

  def milliseconds(fun), do: nanoseconds(fun) / 1.0e6

  @doc "Percentiles of how long `fun` takes, called `count` times in a row, in microseconds."
  def latency(fun, percents, count \\ 20_000), do: read(fun, percents, count, nil)

  @doc "The same with five milliseconds before each call, in which everything goes to sleep."
  def cold_latency(fun, percents, count \\ 100) do
    read(fun, percents, count, fn -> Process.sleep(5) end)
  end

  @doc "The same for so many milliseconds."
  def latency_over(fun, percents, milliseconds) do
    readings = :atomics.new(@most_readings, [])
    until = System.monotonic_time(:millisecond) + milliseconds
    figures(readings, read_until(fun, readings, until, 0), percents)
  end

  # Not kept on the heap: to collect a long list would be a long reading.
  defp read(fun, percents, count, before) do
    readings = :atomics.new(count, [])

    for index <- 1..count do
      before && before.()
      :atomics.put(readings, index, nanoseconds(fun))
    end

    figures(readings, count, percents)
  end

  defp read_until(_fun, _readings, _until, @most_readings), do: @most_readings

  defp read_until(fun, readings, until, count) do
    :atomics.put(readings, count + 1, nanoseconds(fun))

    if System.monotonic_time(:millisecond) < until,
      do: read_until(fun, readings, until, count + 1),
      else: count + 1
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

  defp figures(readings, count, percents) do
    sorted = for(index <- 1..count, do: :atomics.get(readings, index)) |> sorted()
    for percent <- percents, do: {name(percent), at(sorted, percent) / 1_000}
  end

  def percentile(values, percent), do: values |> sorted() |> at(percent)

  defp sorted(values), do: values |> Enum.sort() |> List.to_tuple()

  defp at(sorted, percent) do
    size = tuple_size(sorted)
    elem(sorted, min(size - 1, trunc(size * percent / 100)))
  end

  defp name(100), do: "max"
  defp name(percent), do: "p#{percent}"
end
