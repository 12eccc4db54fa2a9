defmodule Py.Cases.CancelTest do
  # CASES.md 29, 91, P-A 12: what ends a call from outside, and what that leaves behind.
  use Py.Case, on: [:thread, :process]

  # A list in Python that calls leave marks in.
  defp marks(pool), do: eval(pool, "import builtins\nbuiltins.py_marks")
  defp clear(pool), do: :ok = exec(pool, "import builtins\nbuiltins.py_marks = []")

  @waiting """
  import asyncio, builtins
  try:
      builtins.py_marks.append("started")
      await asyncio.sleep(60)
  except asyncio.CancelledError:
      builtins.py_marks.append("cancelled")
      raise
  """

  defp idle(pool),
    do: eventually(fn -> match?(%{running: 0, queued: 0}, Py.Pool.info(pool)) end)

  test "29. a coroutine that is cancelled", %{pool: pool} do
    clear(pool)
    future = Py.async_call(:asyncio, :sleep, [60], on: pool)
    assert Py.yield(future, 20) == nil
    assert Py.cancel(future) == :ok
    idle(pool)
  end

  @tag pool: [size: 1]
  test "29. a call that is cancelled in the queue never runs", %{pool: pool} do
    clear(pool)
    blocker = Py.async_call(:time, :sleep, [60], on: pool)
    eventually(fn -> Py.Pool.info(pool).running == 1 end)
    queued = for _ <- 1..10, do: Py.async_call("builtins", "py_marks.append", ["ran"], on: pool)
    assert Enum.map(queued, &Py.cancel/1) == List.duplicate(:ok, 10)
    assert Py.Pool.info(pool).queued == 0
    assert Py.cancel(blocker) == :ok
    assert marks(pool) == {:ok, []}
  end

  @tag pool: [size: 1]
  test "29. a call whose time is up in the queue never runs", %{pool: pool} do
    clear(pool)
    blocker = Py.async_call(:time, :sleep, [60], on: pool)
    queued = Py.async_call("builtins", "py_marks.append", ["ran"], on: pool, timeout: 30)
    assert error(Py.await(queued)).kind == :timeout
    assert Py.cancel(blocker) == :ok
    assert marks(pool) == {:ok, []}
  end

  test "P-A 12. when the caller of an asynchronous coroutine dies, Python sees it cancelled", %{
    pool: pool
  } do
    clear(pool)
    caller = spawn(fn -> exec(pool, @waiting, %{}, timeout: :infinity) end)
    eventually(fn -> marks(pool) == {:ok, ["started"]} end)
    Process.exit(caller, :kill)
    eventually(fn -> marks(pool) == {:ok, ["started", "cancelled"]} end)
    idle(pool)
  end

  @tag parallel: 2
  test "P-A 12. when the owner of futures dies, all of them end", %{pool: pool} do
    owner =
      spawn(fn ->
        for _ <- 1..5, do: Py.async_call(:time, :sleep, [60], on: pool, timeout: :infinity)
        for _ <- 1..5, do: Py.async_call(:asyncio, :sleep, [60], on: pool, timeout: :infinity)
        Process.sleep(:infinity)
      end)

    eventually(fn -> Py.Pool.info(pool).running >= 2 end)
    Process.exit(owner, :kill)
    idle(pool)

    assert Py.gather([{:math, :sqrt, [4]}, {:asyncio, :sleep, [0, 1]}], on: pool) == [
             {:ok, 2.0},
             {:ok, 1}
           ]
  end

  test "P-A 12. a caller that has its answer and dies at once", %{pool: pool} do
    for _ <- 1..500, do: spawn(fn -> call(pool, :math, :sqrt, [4]) end)
    idle(pool)
    assert call(pool, :math, :sqrt, [4]) == {:ok, 2.0}
  end

  @tag pool: [size: 4, max_queue: 50]
  test "91. a storm of calls, timeouts, cancels and kills leaves every slot free", %{pool: pool} do
    # Not in the storm: an import that is interrupted is a case of its own, below.
    assert call(pool, :asyncio, :sleep, [0, 1]) == {:ok, 1}

    callers =
      for n <- 1..300 do
        {pid, monitor} = spawn_monitor(fn -> storm(pool, n) end)
        if rem(n, 3) == 0, do: Process.exit(pid, :kill)
        {monitor, pid}
      end

    for {monitor, pid} <- callers do
      assert_receive {:DOWN, ^monitor, :process, ^pid, reason}, 30_000
      assert reason in [:normal, :killed, :noproc]
    end

    idle(pool)
    assert %{size: 4, running: 0, queued: 0} = Py.Pool.info(pool)

    assert Py.gather(for(n <- 1..40, do: {:builtins, :abs, [-n]}), on: pool) ==
             for(n <- 1..40, do: {:ok, n})
  end

  defp storm(pool, n) do
    case rem(n, 5) do
      0 -> allowed(call(pool, :time, :sleep, [0.005], [], timeout: 5))
      1 -> allowed(call(pool, :asyncio, :sleep, [0.005], [], timeout: 5))
      2 -> allowed(eval(pool, "while True: pass", %{}, timeout: 10))
      3 -> pool |> async_sleep() |> Py.cancel() |> allowed()
      4 -> allowed(call(pool, :math, :factorial, [100]))
    end

    assert Process.info(self(), :message_queue_len) == {:message_queue_len, 0}
  end

  defp async_sleep(pool), do: Py.async_call(:time, :sleep, [0.002], on: pool)

  defp allowed(:ok), do: :ok
  defp allowed({:ok, _value}), do: :ok
  defp allowed(other), do: assert(error(other).kind in [:timeout, :overloaded])

  @tag pool: [grace: 100]
  test "an interrupt never hits the call that comes after", %{pool: pool} do
    code = "n = 0\nfor i in range(2_000): n += i\nn"

    for _ <- 1..300 do
      doomed = Py.async_call(:builtins, :sum, [1..20_000], on: pool, timeout: 1)
      assert eval(pool, code) == {:ok, 1_999_000}
      assert {_, _} = Py.await(doomed)
    end
  end

  # C code that neither yields nor looks for signals: the GIL is away for seconds.
  @blocking "sum(range(300_000_000))"

  @tag pool: [grace: 100]
  test "coroutines live through C code that holds the GIL on a thread", %{pool: pool, in: kind} do
    assert call(pool, :asyncio, :sleep, [0, 0]) == {:ok, 0}
    waiting = Py.async_call(:asyncio, :sleep, [1, "slept"], on: pool)
    assert error(eval(pool, @blocking, %{}, timeout: 100)).kind == :timeout

    for n <- 1..5 do
      assert call(pool, :asyncio, :sleep, [0, n], [], timeout: 60_000) == {:ok, n}
    end

    # A process that has to be killed takes with it what else it was at.
    result = Py.await(waiting)

    if kind == :process,
      do: assert(error(result).kind == :crashed),
      else: assert(result == {:ok, "slept"})
  end

  @tag pool: [grace: 100]
  test "a coroutine that holds the GIL in C code costs those beside it at most, and no later one",
       %{pool: pool} do
    for _ <- 1..2 do
      code = "import asyncio\nawait asyncio.sleep(0)\n" <> @blocking
      assert error(eval(pool, code, %{}, timeout: 100)).kind == :timeout
      beside = call(pool, :asyncio, :sleep, [0, 0], [], timeout: 60_000)
      assert beside == {:ok, 0} or error(beside).kind == :crashed

      for n <- 1..5 do
        assert call(pool, :asyncio, :sleep, [0, n], [], timeout: 60_000) == {:ok, n}
      end
    end
  end

  # In nodes of their own: a node imports asyncio once.
  @tag on: [:thread]
  test "a timeout while the first coroutine of a node imports asyncio leaves asyncio whole" do
    for ms <- [12, 16, 20, 24] do
      {:ok, peer, _node} = :peer.start_link(%{connection: :standard_io})
      :ok = :peer.call(peer, :code, :add_paths, [:code.get_path()])
      {:ok, _apps} = :peer.call(peer, :application, :ensure_all_started, [:py])

      run = fn args, options ->
        :peer.call(peer, Py, :call, [:asyncio, :sleep, args, options], 60_000)
      end

      assert :peer.call(peer, Py, :eval, ["1"], 60_000) == {:ok, 1}

      assert error(run.([60], timeout: ms)).kind == :timeout
      assert {ms, run.([0, 1], timeout: 10_000)} == {ms, {:ok, 1}}
      :peer.stop(peer)
    end
  end
end
