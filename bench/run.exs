# make bench: the table of the README, each figure as minimum, median and maximum of several runs.
#
#     mix run bench/run.exs [--runs 7] [--only T1,L1]

defmodule Py.Bench.Floor do
  @moduledoc "What a call costs before any Python: see bench/floor."

  def load(path), do: :erlang.load_nif(path |> Path.rootname(".so") |> String.to_charlist(), 0)
  def submit(_tag, _request), do: :erlang.nif_error(:not_loaded)

  def call(args) do
    ref = make_ref()
    :ok = submit(ref, {:call, :math, :sqrt, args, []})

    receive do
      {:py_result, ^ref, result} -> result
    end
  end
end

defmodule Py.Bench do
  @moduledoc false

  @calls 100_000

  def main(arguments) do
    {options, []} = OptionParser.parse!(arguments, strict: [runs: :integer, only: :string])
    runs = Keyword.get(options, :runs, 5)
    only = options[:only] && String.split(options[:only], ",")

    rows =
      for {name, unit, text, fun} <- cases(),
          only == nil or name in only,
          do: measure(name, unit, text, fun, runs)

    report(rows, runs, only)
  end

  defp cases do
    Enum.concat([latency(), throughput(), coroutines(), binaries(), terms(), errors()])
  end

  defp latency do
    floor = fn -> Py.Bench.Floor.call([16.0]) end

    [
      {"L1 floor p50", "us", "one call after another, no Python",
       fn -> percentile(floor, 50) end},
      {"L1 p50", "us", "one `math.sqrt` after another", fn -> percentile(&sqrt/0, 50) end},
      {"L1 p99", "us", "the same", fn -> percentile(&sqrt/0, 99) end},
      {"L1 cold p50", "us", "the same with 5 ms between them", fn -> cold(&sqrt/0) end}
    ]
  end

  defp throughput do
    floor = fn -> Py.Bench.Floor.call([16.0]) end

    [
      {"T1 floor", "calls/s", "64 processes, no Python", fn -> rate(floor, 64) end},
      {"T1", "calls/s", "64 processes calling `math.sqrt`", fn -> rate(&sqrt/0, 64) end},
      {"T2 floor", "calls/s", "1,000 processes, no Python", fn -> rate(floor, 1_000) end},
      {"T2", "calls/s", "1,000 processes calling `math.sqrt`", fn -> rate(&sqrt/0, 1_000) end},
      {"A1", "calls/s", "10,000 `async_call`s, then awaited", &async/0}
    ]
  end

  defp coroutines do
    [{"A2", "ms", "1,000 `asyncio.sleep(0.1)` at once", &sleepers/0}]
  end

  defp binaries do
    echoes =
      for megabytes <- [1, 10, 100] do
        bytes = :binary.copy(<<7>>, megabytes * 1_000_000)
        echo = fn -> Py.eval!("x", %{x: Py.bytes(bytes)}) end

        {"B1 #{megabytes} MB", "ms", "bytes echoed: copied in, not copied out",
         fn -> milliseconds(echo) end}
      end

    Py.exec!("import builtins; builtins.py_bench = bytes(100_000_000)")
    out = fn -> Py.getattr!(:builtins, :py_bench) end

    echoes ++
      [
        {"B1 100 MB out", "us", "bytes that Python holds, as a binary",
         fn -> percentile(out, 50, 100) end}
      ]
  end

  # Each value is made in a process of its own: what else a heap holds is not to be measured.
  defp terms do
    make_map =
      &%{
        "id" => &1,
        "name" => "name #{&1}",
        "score" => &1 / 7,
        "tags" => ["a", "b"],
        "ok" => true
      }

    [
      {"a million ints", fn -> Enum.to_list(1..1_000_000) end},
      {"a million floats", fn -> Enum.map(1..1_000_000, &(&1 / 3)) end},
      {"10,000 maps of five keys", fn -> Enum.map(1..10_000, make_map) end}
    ]
    |> Enum.map(fn {text, make} -> {"B2 #{text}", "ms", "echoed", fn -> echo_apart(make) end} end)
  end

  defp echo_apart(make) do
    Task.async(fn ->
      value = make.()
      milliseconds(fn -> Py.eval!("x", %{x: value}) end)
    end)
    |> Task.await(:infinity)
  end

  defp errors do
    raising = fn -> {:error, _} = Py.eval("1/0") end
    [{"X1", "us", "an exception with its traceback", fn -> percentile(raising, 50) end}]
  end

  defp sqrt, do: {:ok, 4.0} = Py.call(:math, :sqrt, [16.0])

  defp percentile(fun, percent, count \\ 20_000) do
    for(_ <- 1..count, do: nanoseconds(fun))
    |> Enum.sort()
    |> Enum.at(div(count * percent, 100))
    |> Kernel./(1_000)
  end

  defp cold(fun) do
    times =
      for _ <- 1..200,
          do:
            (
              Process.sleep(5)
              nanoseconds(fun)
            )

    times |> Enum.sort() |> Enum.at(100) |> Kernel./(1_000)
  end

  defp rate(fun, processes) do
    each = div(@calls, processes)

    work = fn ->
      for(_ <- 1..processes, do: Task.async(fn -> for(_ <- 1..each, do: fun.()) && :ok end))
      |> Task.await_many(60_000)
    end

    each * processes * 1.0e9 / nanoseconds(work)
  end

  defp async do
    work = fn ->
      for(_ <- 1..10_000, do: Py.async_call(:math, :sqrt, [16.0])) |> Py.await_many()
    end

    10_000 * 1.0e9 / nanoseconds(work)
  end

  defp sleepers do
    milliseconds(fn ->
      for(_ <- 1..1_000, do: Py.async_call(:asyncio, :sleep, [0.1])) |> Py.await_many()
    end)
  end

  defp milliseconds(fun), do: nanoseconds(fun) / 1.0e6

  defp nanoseconds(fun) do
    start = System.monotonic_time(:nanosecond)
    fun.()
    System.monotonic_time(:nanosecond) - start
  end

  defp measure(name, unit, text, fun, runs) do
    fun.()

    values =
      for(
        _ <- 1..runs,
        do:
          (
            :erlang.garbage_collect()
            fun.()
          )
      )
      |> Enum.sort()

    row = {name, unit, text, List.first(values), Enum.at(values, div(runs, 2)), List.last(values)}
    IO.puts("  " <> Enum.join(Tuple.to_list(row) |> Enum.map(&shown/1), "  "))
    row
  end

  defp report(rows, runs, only) do
    lines =
      for row <- rows, do: "| " <> Enum.map_join(Tuple.to_list(row), " | ", &shown/1) <> " |"

    table =
      Enum.join(
        [
          "| | unit | what | minimum | median | maximum |",
          "|---|---|---|---:|---:|---:|" | lines
        ] ++ ["", "#{runs} runs; #{machine()}."],
        "\n"
      )

    IO.puts("\n" <> table)
    unless only, do: File.write!(Path.join(__DIR__, "results/latest.md"), table <> "\n")
  end

  defp machine do
    "#{System.schedulers_online()} cores, Elixir #{System.version()}, OTP #{System.otp_release()}, " <>
      "Python #{Py.eval!("import platform; platform.python_version()")}, #{Date.utc_today()}"
  end

  defp shown(number) when is_float(number) and number >= 1_000,
    do: number |> round() |> Integer.to_string() |> grouped()

  defp shown(number) when is_float(number),
    do: :erlang.float_to_binary(number, decimals: if(number < 10, do: 2, else: 1))

  defp shown(text), do: text

  defp grouped(digits), do: String.replace(digits, ~r/\B(?=(\d{3})+$)/, ",")
end

{:ok, _} = Application.ensure_all_started(:py)
:ok = Py.Bench.Floor.load(System.fetch_env!("PY_FLOOR"))
Py.Bench.main(System.argv())
