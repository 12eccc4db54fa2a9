defmodule Py.Cases.AloneTest do
  # A caller that is alone looks for its answer itself (Py.Lane, `ask` in native/nif). Whatever comes of its call, it is
  # what a message would have brought.
  use Py.Case, on: [:thread, :process]

  import ExUnit.CaptureIO

  @moduletag :capture_log
  @moduletag pool: [size: 1]

  # After so many calls in a row its caller is alone, and the thread or process that answers looks for more.
  defp warm_up(pool), do: for(_ <- 1..50, do: {:ok, 4} = call(pool, :builtins, :abs, [-4]))

  defp lane_calls(pool) do
    [worker] = pool |> :sys.get_state() |> Map.fetch!(:roster) |> Py.Switchboard.Roster.workers()
    Py.Lane.calls(worker)
  end

  defp goes_on(pool), do: assert(eval(pool, "1 + 1", %{}, timeout: 10_000) == {:ok, 2})

  @tag on: [:process]
  test "its short calls do go the short way", %{pool: pool} do
    before = lane_calls(pool)
    eventually(fn -> warm_up(pool) && lane_calls(pool) > before end)
  end

  test "values, errors and nothing at all", %{pool: pool} do
    warm_up(pool)

    for n <- 1..200 do
      assert call(pool, :builtins, :int, ["#{n}"]) == {:ok, n}
      assert %{type: "ValueError"} = error(call(pool, :builtins, :int, ["x#{n}"]))
      assert exec(pool, "n = #{n}") == :ok
      assert %{kind: :encode} = error(call(pool, :builtins, :id, [<<1::3>>]))
      assert %{kind: :decode} = error(eval(pool, "'\\ud800'"))
    end

    assert_no_messages()
  end

  test "arguments and results of every size", %{pool: pool} do
    warm_up(pool)

    for size <- [0, 1, 1_000, 3_900, 4_000, 4_050, 4_096, 4_200, 20_000, 70_000, 300_000] do
      text = String.duplicate("x", size)
      warm_up(pool)
      assert call(pool, :builtins, :len, [text]) == {:ok, size}
      assert call(pool, :builtins, :str, [text]) == {:ok, text}
      assert eval(pool, "'y' * n", %{n: size}) == {:ok, String.duplicate("y", size)}
    end
  end

  test "what a call sends and prints is there before its answer", %{pool: pool} do
    warm_up(pool)
    send_it = "import erlang\nerlang.send(to, n)\nn"

    for n <- 1..200 do
      assert eval(pool, send_it, %{to: self(), n: n}) == {:ok, n}
      assert_received ^n
    end

    for n <- 1..100 do
      assert capture_io(fn -> {:ok, nil} = call(pool, :builtins, :print, [n]) end) == "#{n}\n"
    end
  end

  test "coroutines", %{pool: pool} do
    warm_up(pool)

    for n <- 1..100 do
      assert call(pool, :asyncio, :sleep, [0, n]) == {:ok, n}
      assert call(pool, :builtins, :abs, [-n]) == {:ok, n}
    end

    {ms, result} = timed(fn -> call(pool, :asyncio, :sleep, [60], [], timeout: 50) end)
    assert error(result).kind == :timeout
    assert ms < 15_000
    goes_on(pool)
  end

  test "calls of every length, one after another", %{pool: pool} do
    code =
      "import time\nend = time.perf_counter_ns() + us * 1000\nwhile time.perf_counter_ns() < end: pass\nus"

    for _ <- 1..10, us <- [0, 5, 10, 15, 18, 20, 22, 25, 50, 100, 500, 1_100, 3_000] do
      assert eval(pool, code, %{us: us}) == {:ok, us}
      assert call(pool, :builtins, :abs, [-us]) == {:ok, us}
    end

    assert_no_messages()
    assert %{running: 0, queued: 0, awaiting: 0} = Py.Pool.info(pool)
  end

  test "a call that takes too long is ended", %{pool: pool} do
    for _ <- 1..10 do
      warm_up(pool)
      {ms, result} = timed(fn -> call(pool, :time, :sleep, [60], [], timeout: 20) end)
      assert error(result).kind == :timeout
      assert ms < 15_000
    end

    goes_on(pool)
  end

  test "a caller that is killed at any moment leaves nothing that runs", %{pool: pool} do
    for n <- 1..40 do
      me = self()

      {caller, monitor} =
        spawn_monitor(fn ->
          warm_up(pool)
          send(me, :warm)
          call(pool, :time, :sleep, [60], [], timeout: :infinity)
        end)

      assert_receive :warm, 5_000
      # Somewhere between before the call and long after its caller has stopped looking.
      for _ <- 1..(n * 20), do: :erlang.yield()
      Process.exit(caller, :kill)
      assert_receive {:DOWN, ^monitor, :process, ^caller, :killed}
      goes_on(pool)
    end

    eventually(fn -> match?(%{running: 0, queued: 0, running_calls: []}, Py.Pool.info(pool)) end)
  end

  @tag pool: [size: 1, max_queue: 0]
  test "a pool that is full takes nothing by the short way either", %{pool: pool} do
    for _ <- 1..20 do
      # A place is counted free just after the answer is out.
      for _ <- 1..20, do: eventually(fn -> call(pool, :builtins, :abs, [-1]) == {:ok, 1} end)
      running = occupy(pool)
      assert error(call(pool, :builtins, :abs, [-1])).kind == :overloaded
      assert Py.cancel(running) == :ok
      eventually(fn -> eval(pool, "1") == {:ok, 1} end)
    end
  end

  defp occupy(pool) do
    future = Py.async_call(:time, :sleep, [60], on: pool)

    case Py.yield(future, 20) do
      nil -> future
      {:error, %{kind: :overloaded}} -> occupy(pool)
    end
  end

  @tag pool: [size: 1, init: "box = [0]\ndef put(n): box.append(n)\ndef last(): return box[-1]"]
  test "a call does not overtake what its caller asked before", %{pool: pool} do
    for n <- 1..20 do
      warm_up(pool)
      # What was asked is still on its way, for long.
      :sys.suspend(pool)
      future = Py.async_call(:__main__, :put, [n], on: pool)
      resumed = Task.async(fn -> Process.sleep(5) && :sys.resume(pool) end)
      assert call(pool, :__main__, :last) == {:ok, n}
      assert Py.await(future) == {:ok, nil}
      Task.await(resumed)
    end
  end

  test "alone and not alone in turns", %{pool: pool} do
    for round <- 1..20 do
      warm_up(pool)

      others =
        for n <- 1..rem(round, 4)//1,
            do: Task.async(fn -> {call(pool, :builtins, :abs, [-n]), n} end)

      for n <- 1..100, do: assert(call(pool, :builtins, :abs, [-n]) == {:ok, n})
      for {result, n} <- Task.await_many(others), do: assert(result == {:ok, n})
    end
  end

  test "it is told of, and counted", %{pool: pool} do
    before = Py.Pool.info(pool).calls
    warm_up(pool)
    assert Py.Pool.info(pool).calls == before + 50
    future = Py.async_call(:time, :sleep, [60], on: pool)
    eventually(fn -> match?([%{function: "time.sleep"}], Py.Pool.info(pool).running_calls) end)
    Py.cancel(future)

    warm_up(pool)
    caller = spawn(fn -> call(pool, :time, :sleep, [60], [], timeout: :infinity) end)
    eventually(fn -> match?([%{function: "time.sleep"}], Py.Pool.info(pool).running_calls) end)
    assert {:ok, [%{function: "time.sleep"}]} = Py.Pool.stacktrace(pool)
    Process.exit(caller, :kill)
    goes_on(pool)
  end

  @tag on: [:process]
  test "a crash is told, and what crashed does not run again", %{pool: pool} do
    file = Path.join(System.tmp_dir!(), "py-alone-#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm(file) end)

    for n <- 1..15 do
      warm_up(pool)
      File.rm(file)
      code = "import os\nwith open(file, 'a') as f: f.write('x')\n"
      wait = "import time; time.sleep(#{rem(n, 3) / 1000})\n"
      result = eval(pool, code <> wait <> "os.kill(os.getpid(), 9)", %{file: file})
      assert %{kind: :crashed, exit: {:signal, 9}} = error(result)
      goes_on(pool)
      assert File.read!(file) == "x"
    end

    assert Py.Pool.info(pool).restarts == 15
  end

  @tag on: [:process], pool: [size: 1, concurrency: 2]
  test "another thread answers while the first is busy", %{pool: pool} do
    warm_up(pool)
    running = Py.async_call(:time, :sleep, [60], on: pool)
    Process.sleep(20)
    for n <- 1..100, do: assert(call(pool, :builtins, :abs, [-n], [], timeout: 2_000) == {:ok, n})
    assert Py.cancel(running) == :ok
    goes_on(pool)
  end
end
