defmodule Py.Bench.Calls do
  @moduledoc "L, T and A: how long a call takes, and how many there are in a second."

  alias Py.Bench.{Case, Floor, Measure, Pools}

  @many 10_000

  def cases, do: Enum.concat([latency(), throughput(), coroutines(), callbacks(), objects()])

  defp latency do
    [
      compared("L1", "us", "one `math.sqrt` after another", &Measure.latency(&1, [50, 99])),
      compared(
        "L1 cold",
        "us",
        "the same with 5 ms between them",
        &Measure.cold_latency(&1, [50])
      ),
      %Case{
        id: "L2",
        unit: "us",
        what: "one `eval` of `x + 1` after another",
        ways: [
          {"queue", fn -> Measure.latency(fn -> eval([]) end, [50, 99]) end},
          {"inline", fn -> Measure.latency(fn -> eval(inline: true) end, [50, 99]) end},
          {"process", fn -> Measure.latency(fn -> eval(on: Py.Bench.One) end, [50, 99]) end}
        ]
      }
    ]
  end

  defp throughput do
    [
      compared("T1", "calls/s", "64 processes calling `math.sqrt`", &Measure.rate(&1, 64)),
      compared("T2", "calls/s", "1,000 processes calling `math.sqrt`", &Measure.rate(&1, 1_000))
    ]
  end

  defp compared(id, unit, what, measure) do
    ways = [
      {"floor", fn -> measure.(fn -> {:ok, 4.0} = Floor.call([16.0]) end) end},
      {"queue", fn -> measure.(fn -> sqrt([]) end) end},
      {"inline", fn -> measure.(fn -> sqrt(inline: true) end) end},
      {"process", fn -> measure.(fn -> sqrt(on: Py.Bench.One) end) end}
    ]

    two = fn -> measure.(fn -> sqrt(on: Py.Bench.Two) end) end
    ways = if unit == "calls/s", do: ways ++ [{"2 processes", two}], else: ways
    %Case{id: id, unit: unit, what: what, ways: ways, compare: :share}
  end

  # Measured in Python: a function that Elixir answers, the process that runs it included.
  defp callbacks do
    code = """
    import erlang, time
    times = []
    for n in range(3000):
        begin = time.perf_counter_ns(); f(n); times.append(time.perf_counter_ns() - begin)
    times.sort()
    [times[len(times) // 2] / 1000, times[len(times) * 99 // 100] / 1000]
    """

    [
      %Case{
        id: "C1",
        unit: "us",
        what: "Python calls an Elixir function",
        ways:
          Pools.both(fn options ->
            [p50, p99] = Py.eval!(code, %{f: &(&1 + 1)}, options)
            [{"p50", p50}, {"p99", p99}]
          end)
      },
      %Case{
        id: "S1",
        unit: "items/s",
        what: "`Py.stream` of `range(1_000_000)`, counted",
        ways: Pools.both(&streamed/1)
      },
      %Case{
        id: "S2",
        unit: "us",
        what: "an item of a generator that yields every 10 ms, until it is there",
        ways: Pools.both(&slow_items/1)
      }
    ]
  end

  defp objects do
    [
      %Case{
        id: "O1",
        unit: "us",
        what:
          "one after another: a function that returns its argument, a method that does, one that returns an object",
        ways: Pools.both(&methods/1)
      }
    ]
  end

  defp methods(options) do
    code = """
    import builtins
    class Thing:
        def same(self, x): return x
        def other(self): return Thing()
    builtins.py_bench_same = lambda x: x
    builtins.py_bench_thing = Thing()
    """

    Py.exec!(code, %{}, options)
    thing = Py.getattr!(:builtins, :py_bench_thing, options)
    plain = fn -> {:ok, 1} = Py.call(:builtins, :py_bench_same, [1], options) end
    method = fn -> {:ok, 1} = Py.call(thing, :same, [1]) end
    object = fn -> {:ok, %Py.Object{}} = Py.call(thing, :other, []) end

    for {name, call} <- [{"function", plain}, {"method", method}, {"object", object}] do
      [{"p50", p50}] = Measure.latency(call, [50])
      {name, p50}
    end
  end

  defp streamed(options) do
    count = 1_000_000
    stream = Py.stream(:builtins, :range, [count], options)
    {micros, ^count} = :timer.tc(fn -> Enum.reduce(stream, 0, fn _item, sum -> sum + 1 end) end)
    round(count * 1_000_000 / micros)
  end

  # Both clocks are CLOCK_MONOTONIC.
  defp slow_items(options) do
    code =
      "def ticks():\n  import time\n  for _ in range(100):\n    time.sleep(0.01)\n    yield time.perf_counter_ns()"

    Py.exec!("import builtins\n#{code}\nbuiltins.py_bench_ticks = ticks", %{}, options)

    times =
      for at <- Py.stream(:builtins, :py_bench_ticks, [], options),
          do: (:os.perf_counter(:nanosecond) - at) / 1000

    sorted = Enum.sort(times)
    [{"p50", Enum.at(sorted, 50)}, {"p99", Enum.at(sorted, 98)}]
  end

  defp coroutines do
    [
      %Case{
        id: "A1",
        unit: "calls/s",
        what: "10,000 `async_call`s of `math.sqrt`, then awaited",
        ways: [{"floor", &floor_at_once/0} | Pools.both(&at_once/1)],
        compare: :share
      },
      %Case{
        id: "A2",
        unit: "ms",
        what: "1,000 `asyncio.sleep(0.1)` at once",
        ways: Pools.both(&sleepers/1)
      },
      %Case{
        id: "P1",
        unit: "ms",
        what: "two calls of `fib(27)` at once",
        ways: Pools.both(&fibs/1) ++ [{"2 processes", fn -> fibs(on: Py.Bench.Two) end}]
      }
    ]
  end

  defp sqrt(options), do: {:ok, 4.0} = Py.call(:math, :sqrt, [16.0], options)
  defp eval(options), do: {:ok, 2} = Py.eval("x + 1", %{x: 1}, options)

  defp floor_at_once do
    work = fn ->
      for(_ <- 1..@many, do: Floor.async_call([16.0])) |> Enum.map(&Floor.await/1)
    end

    @many * 1.0e9 / Measure.nanoseconds(work)
  end

  defp at_once(options) do
    work = fn ->
      for(_ <- 1..@many, do: Py.async_call(:math, :sqrt, [16.0], options)) |> Py.await_many!()
    end

    @many * 1.0e9 / Measure.nanoseconds(work)
  end

  defp sleepers(options) do
    Measure.milliseconds(fn ->
      for(_ <- 1..1_000, do: Py.async_call(:asyncio, :sleep, [0.1], options)) |> Py.await_many!()
    end)
  end

  defp fibs(options) do
    Measure.milliseconds(fn ->
      for(_ <- 1..2, do: Py.async_call(:py_bench, :fib, [27], options)) |> Py.await_many!()
    end)
  end
end
