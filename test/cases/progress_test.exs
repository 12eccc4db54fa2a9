defmodule Py.Cases.ProgressTest do
  # CASES.md P-C 17: progress messages during a call arrive before the result.
  use Py.Case, on: [:thread, :process]

  import ExUnit.CaptureLog

  @loop "import erlang\nfor n in range(1, 6): erlang.progress(n, 5, note=f'step {n}')\n'done'"
  @steps for n <- 1..5, do: {n, 5, "step #{n}"}

  # Tells this process, and what it is itself.
  defp tell do
    me = self()
    fn done, total, note -> send(me, {:progress, {done, total, note}}) end
  end

  # What has arrived, in its order.
  defp told do
    receive do
      {:progress, step} -> [step | told()]
    after
      0 -> []
    end
  end

  test "arrives before the result, in order", %{pool: pool} do
    for _ <- 1..20 do
      assert Py.eval(@loop, %{}, on: pool, progress: tell()) == {:ok, "done"}
      assert told() == @steps
    end

    assert Py.exec(@loop, %{}, on: pool, progress: tell()) == :ok
    assert told() == @steps
    assert Py.call(:erlang, :progress, [1], on: pool, progress: tell()) == {:ok, nil}
    assert told() == [{1, nil, nil}]
    kwargs = [total: 2.5, note: %{a: [1]}]

    assert Py.call(:erlang, :progress, [1], on: pool, progress: tell(), kwargs: kwargs) ==
             {:ok, nil}

    assert told() == [{1, 2.5, %{a: [1]}}]
  end

  test "without a function it does nothing", %{pool: pool} do
    assert eval(pool, @loop) == {:ok, "done"}
    assert eval(pool, "import erlang\nawait erlang.aprogress(1)") == {:ok, nil}
    assert Py.call(:erlang, :progress, [1], on: pool, inline: true) == {:ok, nil}
    assert told() == []
  end

  test "of asynchronous calls, of casts and of each that is gathered", %{pool: pool} do
    future = Py.async_call(:erlang, :progress, [1], on: pool, progress: tell())
    assert Py.await(future) == {:ok, nil}
    assert told() == [{1, nil, nil}]

    :ok = Py.cast(:erlang, :progress, [2], on: pool, progress: tell())
    assert_receive {:progress, {2, nil, nil}}, 5_000

    calls = for n <- 1..3, do: {:erlang, :progress, [n]}
    assert Py.gather(calls, on: pool, progress: tell()) == List.duplicate({:ok, nil}, 3)
    assert Enum.sort(told()) == for(n <- 1..3, do: {n, nil, nil})
  end

  test "of streams, from the iterable", %{pool: pool} do
    code = """
    def rows(n):
        import erlang
        for row in range(n):
            erlang.progress(row, n)
            yield row
    """

    start_supervised!({Py.Pool, name: :py_progress_rows, init: code, size: 1, in: kind(pool)})
    stream = Py.stream(:__main__, :rows, [3], on: :py_progress_rows, progress: tell())
    assert Enum.to_list(stream) == [0, 1, 2]
    assert told() == for(n <- 0..2, do: {n, 3, nil})
  end

  defp kind(pool), do: Py.Pool.info(pool).in

  test "from coroutines, of each its own", %{pool: pool} do
    code =
      "import erlang\nfor n in range(1, 6): await erlang.aprogress(n, 5, f'step {n}')\n'done'"

    assert Py.eval(code, %{}, on: pool, progress: tell()) == {:ok, "done"}
    assert told() == @steps
    plain = "import asyncio, erlang\nawait asyncio.sleep(0)\nerlang.progress(1)"
    assert Py.eval(plain, %{}, on: pool, progress: tell()) == {:ok, nil}
    assert told() == [{1, nil, nil}]

    code = """
    import asyncio, erlang
    for n in range(5):
        await erlang.aprogress(n, note=who)
        await asyncio.sleep(0.001)
    """

    tasks =
      for who <- 1..8 do
        Task.async(fn ->
          {Py.eval(code, %{who: who}, on: pool, progress: tell()), told()}
        end)
      end

    expected = for who <- 1..8, do: {{:ok, nil}, for(n <- 0..4, do: {n, nil, who})}
    assert Task.await_many(tasks, 30_000) == expected
  end

  test "the event loop goes on while a function is at aprogress", %{pool: pool} do
    me = self()

    slow = fn _, _, _ ->
      send(me, {:slow, self()})
      receive(do: (:go -> :ok))
    end

    code = "import erlang\nawait erlang.aprogress(1)\n'done'"
    task = Task.async(fn -> Py.eval(code, %{}, on: pool, progress: slow) end)
    assert_receive {:slow, function}, 5_000
    assert eval(pool, "import asyncio\nawait asyncio.sleep(0, 5)") == {:ok, 5}
    send(function, :go)
    assert Task.await(task) == {:ok, "done"}
  end

  test "from threads and executors", %{pool: pool} do
    code = """
    import erlang, threading
    thread = threading.Thread(target=lambda: erlang.progress(1))
    thread.start(); thread.join()
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(1) as executor:
        list(executor.map(erlang.progress, [2, 3]))
    """

    assert Py.exec(code, %{}, on: pool, progress: tell()) == :ok
    assert told() == for(n <- 1..3, do: {n, nil, nil})
    code = "import asyncio, erlang\nawait asyncio.to_thread(erlang.progress, 1)"
    assert Py.exec(code, %{}, on: pool, progress: tell()) == :ok
    assert told() == [{1, nil, nil}]
  end

  test "a thread that outlives its call tells nobody of it", %{pool: pool} do
    code = """
    import builtins, erlang, threading
    def late():
        builtins.py_go.wait()
        erlang.progress(1)
        builtins.py_gone.set()
    builtins.py_go, builtins.py_gone = threading.Event(), threading.Event()
    threading.Thread(target=late).start()
    """

    assert Py.exec(code, %{}, on: pool, progress: tell()) == :ok
    assert exec(pool, "import builtins; builtins.py_go.set(); builtins.py_gone.wait()") == :ok
    assert told() == []
  end

  @tag :capture_log
  test "what the function raises is an exception in Python, and raised again", %{pool: pool} do
    fails = fn
      1, _, _ -> raise ArgumentError, "no more"
      2, _, _ -> throw(:ball)
    end

    caught = """
    import erlang
    try: erlang.progress(1)
    except erlang.ElixirError as error: caught = [error.type, error.reason]
    caught
    """

    assert Py.eval(caught, %{}, on: pool, progress: fails) ==
             {:ok, ["ArgumentError", "no more"]}

    options = [on: pool, progress: fails]
    assert_raise ArgumentError, "no more", fn -> Py.call!(:erlang, :progress, [1], options) end
    assert catch_throw(Py.call!(:erlang, :progress, [2], options)) == :ball

    assert error(Py.eval("import erlang\nawait erlang.aprogress(1)", %{}, options)).message ==
             "(ArgumentError) no more"
  end

  test "what it returns is nobody's, what it is given must have a value", %{pool: pool} do
    options = [on: pool, progress: fn _, _, _ -> <<1::3>> end]
    assert Py.call(:erlang, :progress, [1], options) == {:ok, nil}

    assert error(Py.eval("import erlang\nerlang.progress('\\ud800')", %{}, options)).type ==
             "TypeError"

    assert error(Py.eval("import erlang\nerlang.progress()", %{}, options)).type == "TypeError"
  end

  test "it runs in the name of the caller, and ends with the call", %{pool: pool} do
    me = self()
    Process.put(:"$callers", [:somebody])

    names = fn _, _, _ -> send(me, {:named, self(), Process.get(:"$callers")}) end
    code = "import asyncio, erlang\nerlang.progress(1)\nawait erlang.aprogress(2)"
    assert Py.eval(code, %{}, on: pool, progress: names) == {:ok, nil}

    for _ <- 1..2 do
      assert_receive {:named, process, [^me, :somebody]}
      refute process == me
    end

    stuck = fn _, _, _ ->
      send(me, {:stuck, self()})
      Process.sleep(:infinity)
    end

    assert error(Py.call(:erlang, :progress, [1], on: pool, progress: stuck, timeout: 100)).kind ==
             :timeout

    assert_receive {:stuck, function}
    eventually(fn -> not Process.alive?(function) end)
  end

  test "a call made by the function has none of it", %{pool: pool} do
    me = self()

    nested = fn done, _, _ ->
      send(me, {:progress, done})
      if done < 3, do: Py.call!(:erlang, :progress, [done + 1], on: pool)
    end

    assert Py.call(:erlang, :progress, [1], on: pool, progress: nested) == {:ok, nil}
    assert told() == [1]
  end

  test "a cast whose progress fails is logged", %{pool: pool} do
    fails = fn _, _, _ -> raise "no" end

    log =
      capture_log(fn ->
        Py.cast(:erlang, :progress, [1], on: pool, progress: fails)
        eventually(fn -> :sys.get_state(Py.Cast) == %{} end)
      end)

    assert log =~ "Py.cast of erlang.progress failed: "
    assert log =~ "(RuntimeError) no"
  end
end
