defmodule Py.ShutdownTest do
  # Each test ends a BEAM of its own while Python is at something.
  use ExUnit.Case, async: false

  alias Py.Child

  @busy %{
    "idle" => "Py.eval!(\"1\")",
    "asleep" => "Py.async_call(:time, :sleep, [600], timeout: :infinity)",
    "in a loop" => "spawn(fn -> Py.exec(\"while True: pass\", %{}, timeout: :infinity) end)",
    "in C that keeps the GIL" =>
      "spawn(fn -> Py.eval(\"import re; re.match('(a*)*b', 'a' * 40)\", %{}, timeout: :infinity) end)",
    "in coroutines" =>
      "for _ <- 1..10, do: Py.async_call(:asyncio, :sleep, [600], timeout: :infinity)",
    "in an import" =>
      "spawn(fn -> Py.exec(\"import sys\\nclass Slow:\\n  def find_spec(*_):\\n    import time; time.sleep(600)\\nsys.meta_path.insert(0, Slow)\\nimport no_such\", %{}, timeout: :infinity) end)",
    "with threads" =>
      "Py.exec!(\"import threading, time\\nfor _ in range(3): threading.Thread(target=time.sleep, args=(600,)).start()\")",
    "in a loop inline" =>
      "Py.eval!(\"1\"); spawn(fn -> Py.exec(\"while True: pass\", %{}, timeout: :infinity, inline: true) end)"
  }

  @ready "Process.sleep(100); IO.puts(\"ready\"); Process.sleep(:infinity)"

  @start "{:ok, _} = Application.ensure_all_started(:py);"

  defp ends_well(result, status \\ 0) do
    assert result.status == status, result.output
    assert result.ms < 40_000, "it took #{result.ms} ms"
    refute result.output =~ ~r/Fatal|Segmentation|dump|\[error\]|panicked/
  end

  for {name, code} <- @busy do
    @tag code: code
    test "SIGTERM while Python is #{name}", %{code: code} do
      tell = fn os_pid -> System.cmd("kill", ["-TERM", to_string(os_pid)]) end
      ends_well(Child.run(@start <> code <> ";" <> @ready, tell))
    end
  end

  for {name, stop} <- [
        {"System.stop", "System.stop(3)"},
        {"init:stop", ":init.stop(3)"},
        {"System.halt", "System.halt(3)"}
      ] do
    @tag stop: stop
    test "#{name} while Python is at all that", %{stop: stop} do
      busy =
        Enum.map_join(
          ["asleep", "in a loop", "in coroutines", "with threads", "in C that keeps the GIL"],
          ";",
          &@busy[&1]
        )

      code =
        @start <>
          busy <> "; Process.sleep(100); IO.puts(\"ready\"); #{stop}; Process.sleep(:infinity)"

      ends_well(Child.run(code), 3)
    end
  end

  test "when the application stops, all callers hear of it" do
    code = """
    #{@start}
    kinds = fn futures -> futures |> Py.await_many() |> Enum.map(fn {:error, error} -> error.kind end) end
    sleeping = for _ <- 1..20, do: Py.async_call(:time, :sleep, [600], timeout: :infinity)
    awaiting = for _ <- 1..5, do: Py.async_call(:asyncio, :sleep, [600], timeout: :infinity)
    looping = Task.async(fn -> Py.exec("while True: pass", %{}, timeout: :infinity) end)
    Process.sleep(200)
    Application.stop(:py)
    IO.inspect({Enum.uniq(kinds.(sleeping)), Enum.uniq(kinds.(awaiting)), elem(Task.await(looping), 1).kind})
    IO.inspect(elem(Py.eval("1"), 1).kind)
    IO.puts("ready")
    System.halt(0)
    """

    result = Child.run(code)
    ends_well(%{result | output: String.replace(result.output, "[error]", "")})
    assert result.output =~ "{[:stopped], [:stopped], :stopped}"
    assert result.output =~ ~r/^:(stopped|no_pool|not_available)$/m
  end

  # None of it ends by itself but what is inline, which holds a scheduler, and has five seconds for that.
  @callers %{
    "in C that keeps the GIL" => {"sum(range(10 ** 15))", "", ":stopped"},
    "in an import" =>
      {"import sys, time\nclass Slow:\n  def find_spec(*_): time.sleep(600)\nsys.meta_path.insert(0, Slow)\nimport no_such",
       "", ":stopped"},
    "in a loop inline" => {"while True: pass", ", inline: true", ":(timeout|stopped)"}
  }

  for {name, {python, options, kind}} <- @callers do
    @tag python: python, options: options, kind: kind
    test "when the application stops while Python is #{name}, its caller hears of it", context do
      code = """
      #{@start}
      Py.eval!("1")
      caller = Task.async(fn -> Py.exec(#{inspect(context.python)}, %{}, timeout: :infinity#{context.options}) end)
      Process.sleep(200)
      :ok = Application.stop(:py)
      {:error, error} = Task.await(caller, 20_000)
      IO.inspect({error.kind, elem(Py.eval("1"), 1).kind})
      IO.puts("ready")
      System.halt(0)
      """

      result = Child.run(code)
      ends_well(result)
      assert result.output =~ ~r/{#{context.kind}, :not_available}/
    end
  end

  test "twenty times stopped and started: nothing grows" do
    code = """
    {:ok, _} = Application.ensure_all_started(:logger)
    Logger.configure(level: :none)
    facts = fn ->
      :erlang.garbage_collect()
      [_, rss] = Regex.run(~r/VmRSS:\\s+(\\d+)/, File.read!("/proc/self/status"))
      {length(File.ls!("/proc/self/task")), :erlang.system_info(:atom_count), length(Process.list()), String.to_integer(rss)}
    end
    cycle = fn n ->
      {:ok, _} = Application.ensure_all_started(:py)
      {:ok, ^n} = Py.eval("n", %{n: n})
      {:ok, nil} = Py.call(:asyncio, :sleep, [0.001])
      :ok = Py.cancel(Py.async_call(:time, :sleep, [600]))
      :ok = Application.stop(:py)
    end
    for n <- 1..5, do: cycle.(n)
    before = facts.()
    for n <- 6..20, do: cycle.(n)
    IO.inspect({before, facts.()}, label: "facts")
    IO.puts("ready")
    System.halt(0)
    """

    result = Child.run(code)
    assert result.status == 0, result.output
    [facts] = Regex.run(~r/facts: (.*)/, result.output, capture: :all_but_first)

    {{{threads, atoms, processes, rss}, {threads2, atoms2, processes2, rss2}}, []} =
      Code.eval_string(facts)

    assert threads2 <= threads + 2
    assert atoms2 <= atoms + 10
    assert processes2 <= processes
    assert rss2 <= rss + 10_000
  end

  @mixed """
  {:ok, _} = Application.ensure_all_started(:py)
  one = fn n ->
    {:ok, ^n} = Py.eval("n", %{n: n})
    {:ok, ^n} = Py.call(:operator, :add, [n, 0], inline: true)
    {:error, %{kind: :timeout}} = Py.eval("while True: pass", %{}, timeout: 5)
    {:error, %{type: "ZeroDivisionError"}} = Py.eval("1/0")
    {:ok, nil} = Py.call(:asyncio, :sleep, [0.001])
    :ok = Py.cancel(Py.async_call(:time, :sleep, [600]))
    {:ok, [_ | _]} = Py.eval("list(range(1000))")
    caller = spawn(fn -> Py.call(:time, :sleep, [600], timeout: :infinity) end)
    Process.exit(caller, :kill)
    n
  end
  results = 1..40 |> Task.async_stream(one, max_concurrency: 8, timeout: 60_000) |> Enum.map(&elem(&1, 1))
  true = results == Enum.to_list(1..40)
  wait = fn wait, left -> info = Py.Pool.info(Py); if {info.running, info.queued, info.awaiting} != {0, 0, 0}, do: (true = left > 0; Process.sleep(20); wait.(wait, left - 1)) end
  wait.(wait, 250)
  IO.puts("ready")
  System.halt(0)
  """

  # Delays inside the emulator bring other orders of events; one scheduler brings others again.
  for flags <- ["+T 9", "+S 1", "+sbwt none"] do
    test "calls of all kinds with erl #{flags}" do
      ends_well(Child.run(@mixed, fn _ -> :ok end, unquote(flags)))
    end
  end

  @flat """
  {:ok, _} = Application.ensure_all_started(:py)
  call = fn n, options ->
    {:ok, ^n} = Py.call(:operator, :add, [n, 0], options)
    if rem(n, 100) == 0, do: {:error, _} = Py.eval("1/0", %{}, options)
    if rem(n, 50) == 0, do: {:ok, [_ | _]} = Py.call(:builtins, :list, ["text \#{n}"], options)
  end
  facts = fn ->
    :erlang.garbage_collect()
    [_, rss] = Regex.run(~r/VmRSS:\\s+(\\d+)/, File.read!("/proc/self/status"))
    {length(File.ls!("/proc/self/task")), :erlang.system_info(:atom_count), length(Process.list()), String.to_integer(rss)}
  end
  calls = fn from, to, options -> Enum.each(from..to, &call.(&1, options)) end
  calls.(1, 30_000, []); calls.(1, 30_000, [inline: true])
  before = facts.()
  calls.(30_000, 100_000, []); calls.(30_000, 100_000, [inline: true])
  IO.inspect({before, facts.()}, label: "facts")
  IO.puts("ready")
  System.halt(0)
  """

  test "20. a hundred thousand calls, and as many inline: nothing grows" do
    result = Child.run(@flat)
    assert result.status == 0, result.output
    [facts] = Regex.run(~r/facts: (.*)/, result.output, capture: :all_but_first)

    {{{threads, atoms, processes, rss}, {threads2, atoms2, processes2, rss2}}, []} =
      Code.eval_string(facts)

    # A call that is kept waiting for a millisecond brings another thread, whenever that is.
    assert threads2 <= threads + 2
    assert processes2 == processes
    assert atoms2 <= atoms + 5
    assert rss2 <= rss + 8_000
  end
end
