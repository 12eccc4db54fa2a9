defmodule Py.Cases.TimeoutsTest do
  # CASES.md, B: timeout and cancel; P-A 9 to 12.
  use Py.Case, on: [:thread, :process]

  @endless "sum(1 for _ in iter(int, 1))"

  test "25. a sleep beyond its timeout", %{pool: pool} do
    {ms, result} = timed(fn -> call(pool, :time, :sleep, [60], [], timeout: 100) end)
    assert error(result).kind == :timeout
    assert ms < 10_000
    assert eval(pool, "1+1") == {:ok, 2}
  end

  test "26. an endless loop", %{pool: pool} do
    {ms, result} = timed(fn -> eval(pool, @endless, %{}, timeout: 500) end)
    assert error(result).kind == :timeout
    assert ms < 10_000
    assert eval(pool, "1+1") == {:ok, 2}
  end

  test "what it does in the end, a quarter of a second long, is not interrupted", %{pool: pool} do
    path = Path.join(System.tmp_dir!(), "py_finally_#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm(path) end)

    code = """
    import time
    try:
        time.sleep(60)
    finally:
        begin = time.monotonic()
        while time.monotonic() < begin + 0.1: pass
        with open(path, "w") as file: file.write("done")
    """

    assert error(eval(pool, code, %{path: path}, timeout: 100)).kind == :timeout
    eventually(fn -> File.read(path) == {:ok, "done"} end)
    assert eval(pool, "1") == {:ok, 1}
  end

  test "26. a coroutine that waits is cancelled in Python", %{pool: pool} do
    code = """
    import asyncio, builtins
    builtins.py_case_26 = None
    try:
        await asyncio.sleep(60)
    except BaseException as error:
        builtins.py_case_26 = type(error).__name__
        raise
    """

    # To import it takes a fresh process long.
    assert exec(pool, "import asyncio") == :ok
    assert error(eval(pool, code, %{}, timeout: 100)).kind == :timeout
    seen = fn -> eval(pool, "import builtins\nbuiltins.py_case_26") end
    eventually(fn -> seen.() == {:ok, "CancelledError"} end)
  end

  @tag pool: [size: 1]
  test "26. a pool of one thread is free again after a loop", %{pool: pool} do
    for _ <- 1..3 do
      assert error(eval(pool, "while True: pass", %{}, timeout: 50)).kind == :timeout
      assert eval(pool, "1+1") == {:ok, 2}
    end
  end

  test "28. fifty short timeouts, and nothing comes late", %{pool: pool} do
    for _ <- 1..50, do: assert(error(eval(pool, @endless, %{}, timeout: 20)).kind == :timeout)
    assert eval(pool, "1+1") == {:ok, 2}
    assert Process.info(self(), :message_queue_len) == {:message_queue_len, 0}
  end

  test "28. timeouts that race with their results lose no message", %{pool: pool} do
    for _ <- 1..300 do
      result = call(pool, :time, :sleep, [0.002], [], timeout: 2)
      assert result == {:ok, nil} or error(result).kind == :timeout
    end

    assert eval(pool, "1+1") == {:ok, 2}
    assert Process.info(self(), :message_queue_len) == {:message_queue_len, 0}
  end

  test "29. cancel in flight, and cancel of what has ended", %{pool: pool} do
    future = Py.async_call(:time, :sleep, [60], on: pool)
    eventually(fn -> Py.Pool.info(pool).running == 1 end)
    assert Py.cancel(future) == :ok
    assert Py.cancel(future) == :ok
    assert_raise ArgumentError, ~r/already/, fn -> Py.await(future) end

    future = Py.async_call(:math, :sqrt, [16], on: pool)
    eventually(fn -> Process.info(self(), :message_queue_len) == {:message_queue_len, 1} end)
    assert Py.cancel(future) == {:ok, 4.0}
  end

  @tag pool: [size: 1]
  test "29. cancel never hits another request", %{pool: pool} do
    for n <- 1..200 do
      doomed = Py.async_call(:time, :sleep, [0.001], on: pool)
      kept = Py.async_call(:math, :factorial, [rem(n, 20)], on: pool)
      assert Py.cancel(doomed) in [:ok, {:ok, nil}]
      assert {:ok, number} = Py.await(kept)
      assert number == Enum.product(1..rem(n, 20)//1)
    end
  end

  test "30. a sleep that is cancelled is over", %{pool: pool} do
    future = Py.async_call(:time, :sleep, [60], on: pool)
    {ms, result} = timed(fn -> Py.await(future, 200) end)
    assert error(result).kind == :timeout
    assert ms < 10_000
    assert eval(pool, "1+1") == {:ok, 2}
  end

  @tag pool: [timeout: 100]
  test "32. :infinity is not cut at the pool's timeout, which rules where none is given", %{
    pool: pool
  } do
    assert call(pool, :time, :sleep, [0.4], [], timeout: :infinity) == {:ok, nil}
    assert error(call(pool, :time, :sleep, [5])).kind == :timeout
  end

  @tag pool: [size: 1, max_queue: 2]
  test "P-A 9, 91. a full queue refuses at once, and says how full it is", %{pool: pool} do
    running = Py.async_call(:time, :sleep, [60], on: pool)
    eventually(fn -> Py.Pool.info(pool).running == 1 end)
    queued = for _ <- 1..2, do: Py.async_call(:time, :sleep, [0], on: pool)
    refused = Py.async_call(:time, :sleep, [0], on: pool)

    assert %{kind: :overloaded, message: message} = error(Py.await(refused))
    assert message =~ "runs 1 calls (size: 1) and 2 wait (max_queue: 2)"
    assert %{running: 1, queued: 2} = Py.Pool.info(pool)

    assert Py.cancel(running) == :ok
    assert Py.await_many(queued) == [{:ok, nil}, {:ok, nil}]
  end

  @tag parallel: 3, pool: [max_queue: 3]
  test "91. ten callers of a pool of three", %{pool: pool} do
    :ok = exec(pool, "import builtins; builtins.py_case_91 = [0, 0]")

    code = """
    import builtins, time
    inside = builtins.py_case_91
    inside[0] += 1
    inside[1] = max(inside)
    time.sleep(0.2)
    inside[0] -= 1
    """

    results =
      1..10 |> Enum.map(fn _ -> Task.async(fn -> exec(pool, code) end) end) |> Task.await_many()

    {done, refused} = Enum.split_with(results, &(&1 == :ok))
    assert refused != [] and Enum.all?(refused, &(error(&1).kind == :overloaded))
    assert done != []
    assert {:ok, [0, most]} = eval(pool, "import builtins; builtins.py_case_91")
    assert most <= 3
  end

  @tag pool: [size: 1, max_queue: 0]
  test "91. a pool without a queue takes what it has a place for", %{pool: pool} do
    for n <- 1..200, do: assert(eval(pool, "n", %{n: n}) == {:ok, n})
    running = Py.async_call(:time, :sleep, [60], on: pool)
    assert error(eval(pool, "1")).kind == :overloaded
    assert Py.cancel(running) == :ok
    eventually(fn -> eval(pool, "1") == {:ok, 1} end)
  end

  @tag pool: [size: 1]
  test "P-A 11. time in the queue counts", %{pool: pool} do
    blocker = Py.async_call(:time, :sleep, [60], on: pool)
    {ms, result} = timed(fn -> call(pool, :math, :sqrt, [4], [], timeout: 100) end)
    assert error(result).kind == :timeout
    assert ms >= 100 and ms < 10_000
    assert Py.cancel(blocker) == :ok
    assert call(pool, :math, :sqrt, [4]) == {:ok, 2.0}
  end

  @tag pool: [size: 1]
  test "P-A 12, 91. a caller that is killed in the queue never runs; one that runs frees its slot",
       %{pool: pool} do
    :ok = exec(pool, "import builtins; builtins.py_case_12 = []")

    mark = fn ->
      exec(pool, "import builtins; builtins.py_case_12.append(1)", %{}, timeout: :infinity)
    end

    running = spawn(fn -> call(pool, :time, :sleep, [60], [], timeout: :infinity) end)
    eventually(fn -> Py.Pool.info(pool).running == 1 end)
    queued = spawn(mark)
    eventually(fn -> Py.Pool.info(pool).queued == 1 end)

    Process.exit(queued, :kill)
    eventually(fn -> Py.Pool.info(pool).queued == 0 end)
    Process.exit(running, :kill)

    {ms, result} = timed(fn -> eval(pool, "import builtins; builtins.py_case_12") end)
    assert result == {:ok, []}
    assert ms < 10_000
  end

  @tag parallel: 16
  test "91. a hundred killed callers leave all slots free", %{pool: pool} do
    callers =
      for _ <- 1..100,
          do: spawn(fn -> call(pool, :time, :sleep, [3], [], timeout: :infinity) end)

    eventually(fn -> Py.Pool.info(pool).running == 16 end)
    Enum.each(callers, &Process.exit(&1, :kill))
    eventually(fn -> match?(%{running: 0, queued: 0}, Py.Pool.info(pool)) end)
    assert eval(pool, "1+1") == {:ok, 2}
  end

  @tag parallel: 16
  test "many calls that block at once do not wait for each other", %{pool: pool} do
    calls = for _ <- 1..16, do: {:time, :sleep, [2]}
    {ms, results} = timed(fn -> Py.gather(calls, on: pool) end)
    assert Enum.all?(results, &(&1 == {:ok, nil}))
    assert ms < 20_000
  end

  test "a thousand coroutines sleep at once", %{pool: pool} do
    calls = for _ <- 1..1000, do: {:asyncio, :sleep, [1]}
    {ms, results} = timed(fn -> Py.gather(calls, on: pool) end)
    assert Enum.all?(results, &(&1 == {:ok, nil}))
    assert ms < 20_000
  end

  @slow_class """
  import datetime, time
  class Zone(datetime.tzinfo):
      def utcoffset(self, when):
          end = time.monotonic() + 20
          while time.monotonic() < end: pass
  """

  for {name, code} <- [
        {"user code", @slow_class <> "[datetime.datetime(2024, 1, 1, tzinfo=Zone())]"},
        {"what unfolds into millions", "x = []\nfor _ in range(24): x = [x, x]\nx"}
      ],
      way <- [[], [inline: true]] do
    @tag code: code, way: way
    test "the time is kept while a result is converted: #{name} #{inspect(way)}", context do
      {ms, result} =
        timed(fn -> eval(context.pool, context.code, %{}, [timeout: 100] ++ context.way) end)

      assert error(result).kind == :timeout
      assert ms < 10_000
      assert eval(context.pool, "1", %{}, context.way) == {:ok, 1}
      eventually(fn -> Py.Pool.info(context.pool).running == 0 end)
    end
  end

  test "a class derived from set is what it holds, whatever it iterates over", %{pool: pool} do
    code = "class S(set):\n  def __iter__(self):\n    while True: yield 7\nS([1])"
    assert eval(pool, code) == {:ok, MapSet.new([1])}
    frozen = "class S(frozenset):\n  def __iter__(self): return iter([7])\nS([1, 2])"
    assert eval(pool, frozen) == {:ok, MapSet.new([1, 2])}
  end
end
