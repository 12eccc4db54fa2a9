defmodule Py.Cases.InlineTest do
  # `inline: true` gives the result that the queue gives, whether the gate is open or not. In a VM of their own: a
  # thread that another test left in a long `time.sleep` keeps the gate closed.
  use Py.Case, on: [:thread]

  import ExUnit.CaptureIO

  @moduletag :own_vm

  # `where` is the name of the thread that runs it, as the operating system knows it.
  @moduletag pool: [
               init: """
               import asyncio, builtins, erlang, threading, time

               def where():
                   with open(f"/proc/self/task/{threading.get_native_id()}/comm") as file:
                       return file.read().strip()

               stop = threading.Event()

               def start_thread():
                   global thread
                   stop.clear()
                   thread = threading.Thread(target=stop.wait)
                   thread.start()

               def end_thread():
                   stop.set()
                   thread.join()
               """
             ]

  setup %{pool: pool} do
    # What runs for the first time may take longer than a call inline should.
    {:ok, "py-" <> _} = call(pool, :__main__, :where)
    opens(pool)
  end

  defp inline(pool, code, variables \\ %{}, options \\ []),
    do: eval(pool, code, variables, [inline: true] ++ options)

  defp where(pool) do
    {:ok, thread} = call(pool, :__main__, :where, [], [], inline: true)
    thread
  end

  defp inside?(pool), do: where(pool) =~ "sched"

  test "it runs on the calling scheduler", %{pool: pool} do
    assert where(pool) =~ "sched"
    assert {:ok, "py-" <> _} = call(pool, :__main__, :where)
  end

  test "every kind of request, and its errors", %{pool: pool} do
    options = [on: pool, inline: true]
    assert Py.call(:math, :sqrt, [16.0], options) == {:ok, 4.0}
    assert Py.call("math", "sqrt", [16.0], options) == {:ok, 4.0}
    assert Py.call(:builtins, :int, ["ff"], options ++ [kwargs: [base: 16]]) == {:ok, 255}

    assert Py.call(:builtins, :dict, [], options ++ [kwargs: %{"nan" => 1}]) ==
             {:ok, %{"nan" => 1}}

    assert Py.getattr(:math, :pi, options) == {:ok, :math.pi()}
    assert Py.getattr(:math, :nan, options) == {:ok, :nan}
    assert Py.eval("x + 1", %{x: 2 ** 70}, options) == {:ok, 2 ** 70 + 1}
    assert Py.exec("inline_test = [1]", %{}, options) == :ok

    assert %{type: "ZeroDivisionError", traceback: [_ | _]} = error(inline(pool, "1/0"))
    assert %{type: "SystemExit"} = error(inline(pool, "raise SystemExit(3)"))
    assert %{type: "ModuleNotFoundError"} = error(Py.call(:no_such, :f, [], options))
    assert %{type: "AttributeError"} = error(Py.call(:math, :no_such, [], options))
    assert %{kind: :encode} = error(Py.call(:math, :sqrt, [<<1::3>>], options))
    assert %{kind: :encode} = error(Py.call(:math, :sqrt, [[1 | 2]], options))
    assert %{kind: :decode} = error(inline(pool, "'\\ud800'"))
    assert %{kind: :decode} = error(inline(pool, "x = []; x.append(x); x"))
    assert_raise Py.Error, ~r/ZeroDivisionError/, fn -> Py.eval!("1/0", %{}, options) end
  end

  test "values of every shape", %{pool: pool} do
    for value <- [
          nil,
          true,
          -0.0,
          "",
          "ü",
          [1, [2, {3, %{"a" => [nil]}}]],
          %{1 => %{{1, 2} => 3.5}},
          {},
          2 ** 200,
          Enum.to_list(1..3_000),
          Map.new(1..500, &{&1, &1})
        ] do
      assert inline(pool, "x", %{x: value}) == {:ok, value}
    end

    assert inline(pool, "x", %{x: self()}) == {:ok, self()}
    assert {:ok, bytes} = inline(pool, "bytes(200_000)")
    assert bytes == :binary.copy(<<0>>, 200_000)
  end

  test "what is large takes the queue", %{pool: pool} do
    list = Enum.to_list(1..100_000)

    assert inline(pool, "(threading.current_thread().name, x)", %{x: list}) ==
             {:ok, {"MainThread", list}}
  end

  test "a coroutine is awaited elsewhere", %{pool: pool} do
    for _ <- 1..50 do
      assert inline(pool, "await asyncio.sleep(0.001)\n7") == {:ok, 7}
    end

    assert %{type: "ValueError"} = error(inline(pool, "await asyncio.sleep(0)\nraise ValueError"))
    assert %{kind: :timeout} = error(inline(pool, "await asyncio.sleep(60)", %{}, timeout: 50))
    eventually(fn -> Py.Pool.info(pool).awaiting == 0 and Py.Pool.info(pool).inline == :open end)
    assert inside?(pool)
  end

  test "messages and output", %{pool: pool} do
    assert inline(pool, "erlang.send(to, (1, 'two'))", %{to: self()}) == {:ok, true}
    assert_received {1, "two"}
    process = spawn_link(fn -> receive(do: ({from, message} -> send(from, {:got, message}))) end)
    assert inline(pool, "erlang.send(to, (me, 3))", %{to: process, me: self()}) == {:ok, true}
    assert_receive {:got, 3}

    for _ <- 1..3 do
      assert capture_io(fn -> inline(pool, "print('inline', end='')") end) == "inline"
    end
  end

  test "many processes at once, with calls of other kinds between them", %{pool: pool} do
    results =
      1..64
      |> Task.async_stream(
        fn n ->
          for k <- 1..200 do
            way = if rem(k, 7) == 0, do: [], else: [inline: true]
            call(pool, :operator, :add, [n, k], [], way) == {:ok, n + k}
          end
        end,
        max_concurrency: 64,
        timeout: 60_000
      )
      |> Enum.flat_map(fn {:ok, results} -> results end)

    assert length(results) == 64 * 200 and Enum.all?(results)
    eventually(fn -> match?(%{queued: 0, running: 0, inline: :open}, Py.Pool.info(pool)) end)
  end

  test "calls are counted and Python is left as it was", %{pool: pool} do
    before = Py.Pool.info(pool).calls
    for _ <- 1..100, do: call(pool, :math, :sqrt, [4.0], [], inline: true)
    assert Py.Pool.info(pool).calls == before + 100
    assert inline(pool, "import gc\ngc.isenabled()") == {:ok, true}
  end

  test "while Python is at work the queue serves, and then inline again", %{pool: pool} do
    sleeper = Py.async_call(:time, :sleep, [60], on: pool)
    eventually(fn -> Py.Pool.info(pool).running == 1 end)
    assert Py.Pool.info(pool).inline == {:closed, :busy}
    assert "py-" <> _ = where(pool)
    assert Py.cancel(sleeper) == :ok
    eventually(fn -> inside?(pool) end)
  end

  test "a thread that is not Py's closes the gate while it lives", %{pool: pool} do
    assert {:ok, nil} = call(pool, :__main__, :start_thread)
    eventually(fn -> Py.Pool.info(pool).inline == {:closed, :foreign_threads} end)
    assert where(pool) =~ "py-"
    assert {:ok, nil} = call(pool, :__main__, :end_thread)
    eventually(fn -> inside?(pool) end)

    # One that was started inline is seen at once.
    assert {:ok, nil} = call(pool, :__main__, :start_thread, [], [], inline: true)
    assert Py.Pool.info(pool).inline == {:closed, :foreign_threads}
    assert where(pool) =~ "py-"
    assert {:ok, nil} = call(pool, :__main__, :end_thread)
    eventually(fn -> inside?(pool) end)
  end

  test "a function that took too long takes the queue, others do not", %{pool: pool} do
    slow = fn -> call(pool, :time, :sleep, [0.03], [], inline: true) end
    # On a busy machine the gate may just be closed, by a thread of a test before.
    eventually(fn ->
      assert slow.() == {:ok, nil}
      "time.sleep" in Py.Pool.info(pool).inline_overrun
    end)

    tasks = for _ <- 1..4, do: Task.async(slow)
    # Were they inline, it would be busy with callers and not with threads.
    eventually(fn ->
      Enum.any?(Py.Pool.info(pool).running_calls, &(&1.function == "time.sleep"))
    end)

    assert Task.await_many(tasks) == List.duplicate({:ok, nil}, 4)
    eventually(fn -> inside?(pool) end)
  end

  test "one that is a little too long each time is found out as well", %{pool: pool} do
    eventually(fn ->
      for _ <- 1..3, do: call(pool, :time, :sleep, [0.003], [], inline: true)
      "time.sleep" in Py.Pool.info(pool).inline_overrun
    end)
  end

  test "a loop ends with its time, and does not close the VM", %{pool: pool} do
    {ms, result} = timed(fn -> inline(pool, "while True: pass", %{}, timeout: 100) end)
    assert %{kind: :timeout} = error(result)
    assert ms in 95..10_000
    # The next call on this thread does not feel it.
    for _ <- 1..50, do: assert(inline(pool, "sum(range(10))") == {:ok, 45})

    assert inline(pool, "try:\n  while True: pass\nexcept BaseException:\n  r = 5\nr", %{},
             timeout: 100
           )
           |> error()

    assert inline(pool, "1") == {:ok, 1}
  end

  test "without a timeout it has five seconds", %{pool: pool} do
    # Code of its own: what overran in another test takes the queue, where it has no end.
    {ms, result} =
      timed(fn -> inline(pool, "while True: 'five seconds'", %{}, timeout: :infinity) end)

    assert %{kind: :timeout, message: message} = error(result)
    assert message =~ "inline" and ms in 4_900..20_000
  end

  test "a pool that stops or is not there is the same error", %{pool: pool, pool_pid: pid} do
    GenServer.stop(pid, :shutdown)
    assert %{kind: kind} = error(inline(pool, "1"))
    assert kind in [:no_pool, :stopped]
    assert %{kind: :no_pool} = error(inline(:no_such_pool, "1"))
  end

  test "the scheduler is charged for its time", %{pool: pool} do
    # Each call takes half of what a process may run at a time: others get their turns between them.
    me = self()

    other =
      spawn_link(fn ->
        for n <- 1..5,
            do:
              (
                send(me, {:turn, n})
                :erlang.yield()
              )
      end)

    for _ <- 1..20,
        do:
          inline(
            pool,
            "end = time.perf_counter() + 0.0006\nwhile time.perf_counter() < end: pass"
          )

    for n <- 1..5, do: assert_received({:turn, ^n})
    _ = other
  end

  @errors ["RecursionError", "MemoryError", "SyntaxError"]

  for {name, code} <- Py.Recursion.cases() do
    @tag code: code
    test name, %{pool: pool, code: code} do
      case inline(pool, code) do
        {:ok, value} -> assert is_integer(value) or is_boolean(value)
        {:error, %{kind: :python, type: type}} -> assert type in @errors
        # Some take seconds where the stack is deep enough, and on a busy machine more than a call inline may have.
        {:error, %{kind: :timeout, message: message}} -> assert message =~ "inline"
      end

      assert inline(pool, "1+1") == {:ok, 2}
    end
  end

  test "a value nested as deeply as may be", %{pool: pool} do
    code = "x = []\nfor _ in range(n): x = [x]\nx"
    assert {:ok, [_]} = inline(pool, code, %{n: 9_000})
    assert %{kind: :decode} = error(inline(pool, code, %{n: 20_000}))
    deep = Enum.reduce(1..9_000, [], fn _, inner -> [inner] end)
    assert inline(pool, "x", %{x: deep}) == {:ok, deep}
  end
end
