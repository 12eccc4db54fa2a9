defmodule Py.Cases.StopwatchTest do
  # Which calls inline are told to take too long, and which functions take the queue for it.
  use Py.Case, on: [:thread]

  @moduletag :own_vm
  @moduletag timeout: 120_000
  @moduletag pool: [
               init: """
               import sys, time, types

               # Functions are known by their names, whichever pool has them: each test has its own.
               sys.modules["stopwatch_cases"] = cases = types.ModuleType("stopwatch_cases")

               def work(ms):
                   end = time.thread_time() + ms / 1000
                   while time.thread_time() < end:
                       pass
                   return ms

               for name in "once_2 once_5 once_20 often_2 often_5 dense hidden rare work".split():
                   setattr(cases, name, lambda ms: work(ms))
               """
             ]

  setup %{pool: pool} do
    :telemetry.listen(self())
    on_exit(fn -> :telemetry.listen(nil) end)
    {:ok, 0} = call(pool, :stopwatch_cases, :work, [0])
    opens(pool)
  end

  defp work(pool, name, ms) do
    opens(pool)
    {:ok, ^ms} = call(pool, :stopwatch_cases, name, [ms], [], inline: true)
  end

  defp banned?(pool, name), do: "stopwatch_cases.#{name}" in Py.Pool.info(pool).inline_overrun

  defp overrun(name) do
    receive do
      {:telemetry, [:py, :inline, :overrun], %{duration: duration}, %{name: ^name}} ->
        System.convert_time_unit(duration, :native, :microsecond)
    after
      0 -> nil
    end
  end

  # With nothing else in its tick, and after whatever suspicion there was.
  defp alone(pool, name, ms) do
    Process.sleep(150)
    work(pool, name, ms)
    overrun(name)
  end

  defp forget do
    receive do
      {:telemetry, _event, _measurements, _metadata} -> forget()
    after
      0 -> :ok
    end
  end

  test "an overrun is seen, and a long one is enough", %{pool: pool} do
    for {name, ms} <- [once_2: 2, once_5: 5, once_20: 20] do
      # Where the watch waits for a core, there is no tick to tell it.
      duration = Enum.find_value(1..5, fn _ -> alone(pool, name, ms) end)
      assert {name, is_integer(duration) and duration >= 1000 * ms - 1_000} == {name, true}
      assert {name, banned?(pool, name)} == {name, ms >= 10}
    end

    forget()
  end

  test "one that takes too long again is banned within a few calls", %{pool: pool} do
    for {name, ms} <- [often_2: 2, often_5: 5] do
      calls = Enum.find(1..4, fn _ -> work(pool, name, ms) && banned?(pool, name) end)
      assert {name, is_integer(calls)} == {name, true}
    end

    forget()
  end

  test "one of a millisecond and a half that is called densely is found", %{pool: pool} do
    assert Enum.find(1..10, fn _ -> work(pool, :dense, 1.5) && banned?(pool, :dense) end)
    forget()
  end

  test "one that hides among short calls is found", %{pool: pool} do
    found =
      Enum.find(1..4, fn _ ->
        for _ <- 1..200, do: call(pool, :math, :sqrt, [4.0], [], inline: true)
        work(pool, :hidden, 20)
        banned?(pool, :hidden)
      end)

    assert found
    refute "math.sqrt" in Py.Pool.info(pool).inline_overrun
    forget()
  end

  test "who is long now and then only is not banned", %{pool: pool} do
    for _ <- 1..5 do
      work(pool, :rare, 2)
      for _ <- 1..50, do: work(pool, :rare, 0)
    end

    refute banned?(pool, :rare)
    forget()
  end

  test "short calls that wait for a core are not banned", %{pool: pool} do
    :telemetry.listen(nil)
    loops = for _ <- 1..(3 * System.schedulers_online()), do: start_loop()
    stop_at = System.monotonic_time(:millisecond) + 4_000

    callers =
      for _ <- 1..64 do
        Task.async(fn ->
          Stream.repeatedly(fn ->
            {:ok, 4.0} = call(pool, :math, :sqrt, [16.0], [], inline: true)
          end)
          |> Enum.find(fn _ -> System.monotonic_time(:millisecond) >= stop_at end)
        end)
      end

    banned =
      Stream.repeatedly(fn ->
        Process.sleep(20)
        Py.Pool.info(pool).inline_overrun
      end)
      |> Enum.find(&("math.sqrt" in &1 or System.monotonic_time(:millisecond) >= stop_at))

    Task.await_many(callers, 60_000)
    Enum.each(loops, &Port.close/1)
    refute "math.sqrt" in banned
  end

  # It ends with its standard input.
  defp start_loop do
    code = """
    import os, sys, threading
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0))).start()
    while True: pass
    """

    Port.open({:spawn_executable, System.find_executable("python3")}, args: ["-c", code])
  end
end
