defmodule Py.Cases.ProcessTest do
  # What Python code can do to the process that it runs in: the call tells, and the pool goes on.
  use Py.Case, on: [:process]

  import ExUnit.CaptureIO
  import ExUnit.CaptureLog

  @moduletag :capture_log

  # Whatever was done to its worker, the pool answers.
  defp assert_goes_on(pool), do: assert(eval(pool, "1+1", %{}, timeout: 10_000) == {:ok, 2})

  test "sys.exit is an error like others, os._exit a crash", %{pool: pool} do
    assert %{kind: :python, type: "SystemExit"} = error(eval(pool, "import sys\nsys.exit(3)"))
    assert Py.Pool.info(pool).restarts == 0
    assert %{kind: :crashed, exit: {:code, 3}} = error(eval(pool, "import os\nos._exit(3)"))
    assert_goes_on(pool)
  end

  test "signals that it sends itself", %{pool: pool} do
    kill = "import os, signal\nos.kill(os.getpid(), signal."
    assert error(eval(pool, kill <> "SIGTERM)\nwhile True: pass")).exit == {:signal, 15}
    assert error(eval(pool, kill <> "SIGKILL)")).exit == {:signal, 9}
    assert error(eval(pool, kill <> "SIGINT)\nwhile True: pass")).type == "KeyboardInterrupt"
    assert_goes_on(pool)
  end

  @tag pool: [grace: 100]
  test "a process that was stopped is killed after its time", %{pool: pool} do
    stop = "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)"
    {ms, result} = timed(fn -> eval(pool, stop, %{}, timeout: 200) end)
    assert error(result).kind in [:crashed, :timeout]
    assert ms < 15_000
    assert_goes_on(pool)
  end

  for fd <- 0..9 do
    @tag fd: fd
    test "closing file #{fd}", %{pool: pool, fd: fd} do
      close = "import os\ntry:\n  os.close(fd)\nexcept OSError:\n  pass\n"
      result = exec(pool, close, %{fd: fd}, timeout: :infinity)
      assert result == :ok or error(result).kind == :crashed
      assert_goes_on(pool)
      # Those that it would not notice before it is asked again.
      assert_goes_on(pool)
    end
  end

  test "closing all files", %{pool: pool} do
    result = eval(pool, "import os\nos.closerange(0, 1000)", %{}, timeout: :infinity)
    assert result == {:ok, nil} or error(result).kind == :crashed
    assert_goes_on(pool)
  end

  @fork "import os, sys\npid = os.fork()\nif pid == 0: "
  @wait "\nos.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])"

  test "a forked child that ends, returns, raises or exits is no worker", %{pool: pool} do
    for {child, status} <- [{"os._exit(7)", 7}, {"1 / 0", 1}, {"sys.exit(4)", 1}] do
      assert eval(pool, @fork <> child <> @wait) == {:ok, status}
    end

    assert eval(pool, "import os\npid = os.fork()\npid > 0") == {:ok, true}
    assert Py.Pool.info(pool).restarts == 0
    assert_goes_on(pool)
  end

  test "what a forked child prints is logged", %{pool: pool} do
    log =
      capture_log(fn ->
        assert eval(pool, @fork <> "print('a child', flush=True); os._exit(0)" <> @wait) ==
                 {:ok, 0}

        eventually(fn -> eval(pool, "1") == {:ok, 1} end)
        Process.sleep(50)
      end)

    assert log =~ "a child"
  end

  test "multiprocessing, by fork, spawn and forkserver", %{pool: pool} do
    for method <- ["fork", "spawn", "forkserver"] do
      code =
        "import multiprocessing as m\nwith m.get_context(method).Pool(2) as p: r = p.map(abs, [-1, -2])\nr"

      assert {method, eval(pool, code, %{method: method})} == {method, {:ok, [1, 2]}}
    end

    executor =
      "from concurrent.futures import ProcessPoolExecutor as E\nwith E(2) as e: r = list(e.map(abs, [-1]))\nr"

    assert eval(pool, executor) == {:ok, [1]}
  end

  test "a thread that prints after its call", %{pool: pool} do
    code = "import threading\nthreading.Timer(0.05, print, ['late']).start()"

    output =
      capture_io(fn ->
        :ok = exec(pool, code)
        Process.sleep(300)
      end)

    assert output == "late\n"
  end

  test "a program that takes its place", %{pool: pool} do
    assert error(exec(pool, "import os\nos.execv('/bin/true', ['true'])")).kind == :crashed
    assert_goes_on(pool)
  end

  @tag pool: [size: 1]
  test "cancelled in the queue, and read there by whoever reads", %{pool: pool} do
    :ok = exec(pool, "import builtins\nbuiltins.py_marks = []")

    for _ <- 1..100 do
      blocker = Py.async_call(:time, :sleep, [60], on: pool)
      queued = for _ <- 1..10, do: Py.async_call("builtins", "py_marks.append", ["ran"], on: pool)
      assert Enum.map(queued, &Py.cancel/1) == List.duplicate(:ok, 10)
      assert Py.cancel(blocker) == :ok
      assert eval(pool, "import builtins\nbuiltins.py_marks", %{}, timeout: 10_000) == {:ok, []}
    end
  end

  # --- counting -----------------------------------------------------------------------------------

  @tag pool: [size: 1, max_queue: 0]
  test "reloads take no places, and give none away", %{pool: pool} do
    for _ <- 1..5, do: assert(Py.reload(:colorsys, on: pool) == :ok)
    future = Py.async_call(:time, :sleep, [60], on: pool)
    assert error(eval(pool, "1")).kind == :overloaded
    assert Py.cancel(future) == :ok
  end

  @read """
  import time
  def read(n, view):
      assert view[:8] == n.to_bytes(8, 'big') and len(view) == 70_000, (n, bytes(view[:8]))
      return n
  """

  # A worker whose threads are all at something gives back what waits there. It returns the memory of that when another request may
  # have it already.
  @tag pool: [size: 1, concurrency: 2, max_queue: 500, init: @read]
  test "large requests that are given back, and cancelled, are read as they are", %{pool: pool} do
    stop_at = System.monotonic_time(:millisecond) + 4_000
    goes_on? = fn -> System.monotonic_time(:millisecond) < stop_at end

    naps =
      for _ <- 1..6 do
        Task.async(fn ->
          while(goes_on?, fn -> Py.call(:time, :sleep, [:rand.uniform(8) / 1000], on: pool) end)
        end)
      end

    readers =
      for number <- 1..60 do
        Task.async(fn ->
          while(goes_on?, fn ->
            n = number * 1_000_000_000 + :rand.uniform(999_999_999)
            view = Py.buffer(<<n::64, 0::size(69_992)-unit(8)>>)

            case call(pool, :__main__, :read, [n, view], [], timeout: :rand.uniform(60)) do
              {:error, %{kind: kind}} when kind in [:timeout, :overloaded] -> :ok
              result -> assert result == {:ok, n}
            end
          end)
        end)
      end

    Task.await_many(naps ++ readers, 60_000)
    assert Py.Pool.info(pool).restarts == 0
  end

  defp while(goes_on?, fun), do: if(goes_on?.(), do: fun.() && while(goes_on?, fun), else: :ok)

  @tag pool: [size: 1]
  test "a large request that is cancelled while it waits leaves its memory to the next", %{
    pool: pool
  } do
    table = Py.Pool.lookup(pool).board.segments.table
    running = Py.async_call(:time, :sleep, [60], on: pool)
    eventually(fn -> Py.Pool.info(pool).running == 1 end)
    # Beyond what a worker takes in advance while it is at a long call.
    eventually(fn -> match?([%{age_ms: age}] when age > 20, Py.Pool.info(pool).running_calls) end)
    waiting = Py.async_call(:builtins, :len, [String.duplicate("x", 1_000_000)], on: pool)
    assert Py.Pool.info(pool).queued == 1
    assert Py.cancel(waiting) == :ok
    assert :ets.info(table, :size) == 1
    assert Py.cancel(running) == :ok
  end
end
