defmodule Py.Cases.SessionsTest do
  # CASES.md 10, 21, 85, 87, P-C 1 to 5; sessions with threads of their own.
  use Py.Case, on: [:thread, :process]

  alias Py.Session

  @moduletag :capture_log
  @moduletag pool: [
               size: 2,
               init: "import erlang, threading, time\nbase = 'base'\ndef who(): return 'init'"
             ]

  defp session(pool, options \\ []) do
    {:ok, session} = Session.start_link([on: pool] ++ options)
    session
  end

  # Whether an object that the session had is still there, as the thread of another call sees it.
  @traced """
  import builtins, weakref
  class Traced: pass
  traced = Traced()
  builtins.py_sessions_test = getattr(builtins, 'py_sessions_test', weakref.WeakSet())
  builtins.py_sessions_test.add(traced)
  """

  defp alive(pool),
    do:
      counted(
        pool,
        "import builtins, gc\ngc.collect()\nlen(getattr(builtins, 'py_sessions_test', ()))"
      )

  # In whatever worker: each may have had it.
  defp counted(pool, code) do
    List.duplicate({:builtins, :eval, ["1"]}, 2) |> Py.gather(on: pool)
    results = for _ <- 1..8, do: Task.async(fn -> eval(pool, code) end)
    results |> Task.await_many() |> Enum.map(fn {:ok, count} -> count end) |> Enum.max()
  end

  test "10, 21, P-C 1. names are kept, of each session its own", %{pool: pool} do
    [a, b] = [session(pool), session(pool)]
    assert exec(a, "x = 1") == :ok
    assert exec(b, "x = 2") == :ok
    for _ <- 1..100, do: eval(pool, "x = 3")
    assert eval(a, "x") == {:ok, 1}
    assert eval(b, "x") == {:ok, 2}
    for n <- 2..5, do: assert(eval(a, "x += 1\nx") == {:ok, n})
    assert error(eval(pool, "x")).type == "NameError"
    assert eval(a, "y = z", %{z: 7}) == {:ok, nil}
    assert eval(a, "y, z") == {:ok, {7, 7}}
    assert error(eval(a, "1", %{"__builtins__" => 1})).type == "ValueError"
  end

  test "functions, classes and imports of a session", %{pool: pool} do
    s = session(pool)

    :ok =
      exec(
        s,
        "import math\nclass C:\n  n = 5\ndef f(a, b=1): return a + b + C.n\nasync def g(a): return f(a)"
      )

    assert call(s, :__main__, :f, [1]) == {:ok, 7}
    assert call(s, "__main__", "f", [1], b: 2) == {:ok, 8}
    assert call(s, :__main__, :g, [1]) == {:ok, 7}
    assert call(s, :__main__, "math.sqrt", [16]) == {:ok, 4.0}
    assert Py.getattr(:__main__, "C.n", on: s) == {:ok, 5}
    assert call(s, :math, :sqrt, [16]) == {:ok, 4.0}
    assert eval(s, "await g(2)") == {:ok, 8}
    assert eval(s, "[f(i) for i in range(2)]") == {:ok, [6, 7]}
    assert error(call(s, :__main__, :nobody)).type == "AttributeError"
    assert error(call(s, :__main__, :f, [])).type == "TypeError"
    assert error(eval(s, "1/0")).type == "ZeroDivisionError"
  end

  test "the names of init are below those of a session", %{pool: pool} do
    s = session(pool)
    assert eval(s, "base, who()") == {:ok, {"base", "init"}}
    assert call(s, :__main__, :who) == {:ok, "init"}
    assert exec(s, "base = 'mine'") == :ok
    assert eval(s, "base") == {:ok, "mine"}
    assert Py.getattr(:__main__, :base, on: s) == {:ok, "mine"}
    assert exec(s, "del base") == :ok
    assert eval(s, "base") == {:ok, "base"}
    assert eval(pool, "base") == {:ok, "base"}
  end

  test "by its name, and every way to call", %{pool: pool} do
    name = :"session_#{System.unique_integer([:positive])}"
    s = session(pool, name: name)
    assert Py.exec!("x = 20\ndef double(n): return 2 * n", %{}, on: name) == :ok
    assert Py.eval!("x", %{}, on: name) == 20
    assert Py.await(Py.async_call(:__main__, :double, [3], on: name)) == {:ok, 6}
    assert Py.await(Py.async_call(:__main__, :double, [3], on: s)) == {:ok, 6}

    assert Py.gather([{:__main__, :double, [1]}, {:__main__, :double, [2]}], on: s) == [
             ok: 2,
             ok: 4
           ]

    assert Py.stream(:__main__, :range, [3], on: s) |> Enum.to_list() == [0, 1, 2]
    :ok = exec(s, "def numbers():\n  for i in range(x): yield i")
    assert Py.stream(:__main__, :numbers, [], on: s) |> Enum.to_list() == Enum.to_list(0..19)
    assert Py.stream(:__main__, :numbers, [], on: name, buffer: 1) |> Enum.take(2) == [0, 1]
    assert Py.cast(:__main__, :exec, ["x = 21"], on: s) == :ok
    :ok = exec(s, "import erlang\ndef tell(to): erlang.send(to, x)")
    assert Py.cast(:__main__, :tell, [self()], on: s) == :ok
    assert_receive 20, 20_000
    assert {:error, {:already_started, ^s}} = Session.start_link(on: pool, name: name)
    assert call(s, :math, :sqrt, [4], [], inline: true) == {:ok, 2.0}
  end

  test "names in bulk, and a session with names of another", %{pool: pool} do
    s = session(pool)
    assert Session.put(s, %{"b" => [1, nil], a: 1}) == :ok
    assert Session.get(s, [:a, "b"]) == {:ok, %{:a => 1, "b" => [1, nil]}}
    assert Session.get(s, []) == {:ok, %{}}
    assert %{type: "NameError", message: message} = error(Session.get(s, [:nope]))
    assert message =~ "nope"
    assert_raise ArgumentError, ~r/a map of names/, fn -> Session.put(s, a: 1) end
    assert_raise ArgumentError, ~r/a list of names/, fn -> Session.get(s, :a) end
    assert error(Session.put(s, %{"__builtins__" => 1})).type == "ValueError"

    assert {:ok, other} = Session.fork(s, [:b])
    assert eval(other, "b") == {:ok, [1, nil]}
    assert error(eval(other, "a")).type == "NameError"
    # The same object, until one of them assigns.
    assert exec(other, "b.append(3)") == :ok
    assert eval(s, "b") == {:ok, [1, nil, 3]}
    assert exec(other, "b = 0") == :ok
    assert eval(s, "b") == {:ok, [1, nil, 3]}
    GenServer.stop(s)
    assert eval(other, "b") == {:ok, 0}
    assert %{type: "NameError"} = error(Session.fork(other, [:a]))
  end

  test "P-C 4. it ends with its owner, in whatever way that ends, and frees its state", %{
    pool: pool
  } do
    for how <- [:normal, :kill, :shutdown, :stop] do
      me = self()

      owner =
        spawn(fn ->
          s = session(pool)
          :ok = exec(s, @traced)
          send(me, {:session, s})

          receive(
            do: (:stop -> GenServer.stop(s)),
            after: (0 -> receive(do: (reason -> exit(reason))))
          )
        end)

      assert_receive {:session, s}, 20_000
      assert alive(pool) == 1
      monitor = Process.monitor(s)
      if how == :kill, do: Process.exit(owner, :kill), else: send(owner, how)
      assert_receive {:DOWN, ^monitor, :process, ^s, _reason}, 20_000
      assert %{kind: :session_lost} = error(eval(s, "1"))
      eventually(fn -> alive(pool) == 0 end)
    end
  end

  test "who asks a session that has ended is told", %{pool: pool} do
    s = session(pool)
    GenServer.stop(s)

    for result <- [
          eval(s, "1"),
          exec(s, "1"),
          call(s, :math, :sqrt, [4]),
          Py.getattr(:math, :pi, on: s)
        ],
        do: assert(%{kind: :session_lost} = error(result))

    assert %{kind: :session_lost} = error(Py.await(Py.async_call(:math, :sqrt, [4], on: s)))
    assert_raise Py.Error, fn -> Enum.to_list(Py.stream(:builtins, :range, [1], on: s)) end
    assert %{kind: :session_lost} = error(Session.get(s, [:a]))
    assert %{kind: :session_lost} = error(Session.fork(s, []))
  end

  test "P-C 5. one that is not used ends by itself, once; one that is in use does not", %{
    pool: pool
  } do
    s = session(pool, idle_timeout: 100)
    :ok = exec(s, @traced)
    monitor = Process.monitor(s)
    busy = Py.async_call(:time, :sleep, [0.5], on: s)
    assert Py.await(busy) == {:ok, nil}
    assert eval(s, "1") == {:ok, 1}
    waiting = Py.async_call(:asyncio, :sleep, [0.5, "slept"], on: s)
    assert Py.await(waiting) == {:ok, "slept"}
    assert_receive {:DOWN, ^monitor, :process, ^s, :normal}, 20_000
    assert %{kind: :session_lost} = error(eval(s, "1"))
    eventually(fn -> alive(pool) == 0 end)
  end

  test "the session of a key", %{pool: pool} do
    me = self()
    starters = for _ <- 1..20, do: Task.async(fn -> Session.fetch_or_start(pool, {:user, me}) end)
    assert [{:ok, s}] = starters |> Task.await_many() |> Enum.uniq()
    # Linked to none of those who asked for it.
    assert exec(s, "x = 1") == :ok
    assert {:ok, other} = Session.fetch_or_start(pool, {:other, me}, idle_timeout: 50)
    assert other != s
    monitor = Process.monitor(other)
    assert_receive {:DOWN, ^monitor, :process, ^other, :normal}, 20_000
    assert {:ok, next} = Session.fetch_or_start(pool, {:other, me})
    assert next != other
    assert {:ok, ^s} = Session.fetch_or_start(pool, {:user, me})
    assert eval(s, "x") == {:ok, 1}
    for s <- [s, next], do: GenServer.stop(s)
    assert %{kind: :no_pool} = error(Session.fetch_or_start(:nobody, 1))
  end

  @tag pool: [max_sessions: 2]
  test "a pool has no more sessions than it may", %{pool: pool} do
    [a, _b] = [session(pool), session(pool)]
    assert %{kind: :overloaded, message: message} = error(Session.start_link(on: pool))
    assert message =~ "max_sessions: 2"
    assert %{kind: :overloaded} = error(Session.fetch_or_start(pool, 1))
    GenServer.stop(a)
    eventually(fn -> match?({:ok, _}, Session.start_link(on: pool)) end)
  end

  test "a callback may use the session that waits for it, to any depth", %{pool: pool} do
    for thread <- [false, true] do
      s = session(pool, thread: thread)
      :ok = exec(s, "def down(n, again): return 0 if n == 0 else again(n - 1) + 1")
      again = fn n, again -> Py.call!(:__main__, :down, [n, &again.(&1, again)], on: s) end
      assert call(s, :__main__, :down, [10, &again.(&1, again)]) == {:ok, 10}
    end
  end

  test "85. coroutines of a session call Elixir, which calls coroutines", %{pool: pool} do
    s = session(pool)
    name = "f#{System.unique_integer([:positive])}"
    Py.register(name, fn n -> Py.call!(:__main__, :inner, [n], on: s) end, owner: self())

    :ok =
      exec(
        s,
        "import asyncio, erlang\nasync def inner(n):\n  await asyncio.sleep(0)\n  return n * 2"
      )

    :ok = exec(s, "async def outer(n):\n  return await erlang.acall('#{name}', n) + 1")
    assert call(s, :__main__, :outer, [10]) == {:ok, 21}
  end

  test "what may be in no session", %{pool: pool} do
    assert_raise ArgumentError, ~r/on: of Py.Session/, fn -> Session.start_link(on: self()) end
    assert_raise ArgumentError, ~r/unknown option/, fn -> Session.start_link(pool: pool) end
    assert %{kind: :no_pool} = error(Session.start_link(on: :nobody))
    assert %{kind: :session_lost} = error(eval(self(), "1"))
  end

  # --- threads ------------------------------------------------------------------------------------

  @local """
  import sqlite3, threading
  connection = sqlite3.connect(":memory:")
  local = threading.local()
  local.value = 5
  ident = threading.get_ident()
  """

  test "with a thread of its own all runs there", %{pool: pool} do
    s = session(pool, thread: true)
    :ok = exec(s, @local)
    # Others keep the threads of the pool busy meanwhile.
    others = for _ <- 1..4, do: Py.async_call(:time, :sleep, [0.05], on: pool)

    for _ <- 1..20,
        do: assert(eval(s, "threading.get_ident() == ident and local.value") == {:ok, 5})

    assert eval(s, "connection.execute('select 40 + 2').fetchone()") == {:ok, {42}}
    :ok = exec(s, "def rows(): return connection.execute('select 1 union select 2')")
    assert Py.stream(:__main__, :rows, [], on: s, buffer: 1) |> Enum.to_list() == [{1}, {2}]
    assert call(s, :threading, :get_ident) == eval(s, "ident")
    assert error(eval(s, "1/0")).type == "ZeroDivisionError"
    assert [%{line: 2}] = error(eval(s, "\n1/0")).traceback
    Py.await_many(others)
  end

  test "calls of a thread run one after another", %{pool: pool} do
    s = session(pool, thread: true)
    :ok = exec(s, "import time\ninside = most = 0")
    code = "inside += 1\nmost = max(most, inside)\ntime.sleep(0.002)\ninside -= 1"
    1..20 |> Enum.map(fn _ -> Task.async(fn -> exec(s, code) end) end) |> Task.await_many(60_000)
    assert eval(s, "most") == {:ok, 1}
  end

  @tag pool: [grace: 60_000]
  test "a call on a thread is ended in its time, and the next one does not feel it", %{pool: pool} do
    s = session(pool, thread: true)

    for _ <- 1..5 do
      assert %{kind: :timeout} = error(exec(s, "while True: pass", %{}, timeout: 50))
      for n <- 1..20, do: assert(eval(s, "n", %{n: n}) == {:ok, n})
      waiting = Py.async_call(:__main__, :exec, ["while True: pass"], on: s, timeout: :infinity)
      late = Py.async_call(:builtins, :abs, [-1], on: s, timeout: 50)
      assert %{kind: :timeout} = error(Py.await(late))
      assert Py.cancel(waiting) == :ok
      assert eval(s, "1 + 1") == {:ok, 2}
    end
  end

  test "a callback from a thread ends with its call", %{pool: pool} do
    s = session(pool, thread: true)
    me = self()

    stuck = fn ->
      send(me, {:asked, self()})
      Process.sleep(:infinity)
    end

    assert %{kind: :timeout} = error(eval(s, "f()", %{f: stuck}, timeout: 200))
    assert_received {:asked, process}
    eventually(fn -> not Process.alive?(process) end)
    assert eval(s, "1 + 1") == {:ok, 2}
    callers = fn -> Process.get(:"$callers") end
    assert {:ok, [^me | _]} = eval(s, "f()", %{f: callers})
    assert %{type: "ElixirError"} = error(eval(s, "f()", %{f: fn -> raise "boo" end}))
  end

  test "a thread ends with its session", %{pool: pool} do
    # In a pool of processes both are in the same worker.
    watcher = session(pool)
    {:ok, s} = Session.fork(watcher, [], thread: true)
    {:ok, thread} = eval(s, "threading.get_ident()")
    there? = "any(t.ident == thread for t in threading.enumerate())"
    assert eval(watcher, there?, %{thread: thread}) == {:ok, true}
    :ok = exec(s, @traced)
    GenServer.stop(s)
    eventually(fn -> alive(pool) == 0 end)
    eventually(fn -> eval(watcher, there?, %{thread: thread}) == {:ok, false} end)
  end

  # --- workers ------------------------------------------------------------------------------------

  @tag on: [:process]
  test "P-C 2. always the same worker, however busy all are", %{pool: pool} do
    s = session(pool)
    {:ok, pid} = eval(s, "import os\nos.getpid()")
    load = for _ <- 1..50, do: Py.async_call(:time, :sleep, [0.01], on: pool)
    for _ <- 1..20, do: assert(call(s, :os, :getpid) == {:ok, pid})
    Py.await_many(load)
  end

  @tag on: [:process]
  test "87, P-C 3. it ends with its worker and says why", %{pool: pool} do
    Process.flag(:trap_exit, true)
    s = session(pool)
    :ok = exec(s, "x = 1")
    running = Py.async_call(:asyncio, :sleep, [60], on: s)
    eventually(fn -> Py.Pool.info(pool).awaiting == 1 end)

    assert %{kind: :crashed} =
             error(exec(s, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"))

    assert_receive {:EXIT, ^s, {:shutdown, %Py.Error{kind: :session_lost, exit: {:signal, 9}}}},
                   20_000

    assert %{kind: kind} = error(Py.await(running))
    assert kind in [:crashed, :session_lost]
    assert %{kind: :session_lost} = error(eval(s, "x"))
    assert eval(pool, "who()") == {:ok, "init"}
  end

  @tag on: [:process], pool: [size: 1, max_calls: 5]
  test "a worker that is to be replaced stays for its sessions", %{pool: pool} do
    s = session(pool)
    :ok = exec(s, "import os\nx = 1")
    {:ok, pid} = eval(s, "os.getpid()")

    eventually(fn ->
      for _ <- 1..5, do: eval(pool, "1")
      {:ok, other} = eval(pool, "import os\nos.getpid()")
      other != pid
    end)

    assert eval(s, "x, os.getpid()") == {:ok, {1, pid}}
    GenServer.stop(s)
    eventually(fn -> pid not in Enum.map(Py.Pool.info(pool).workers, & &1.os_pid) end)
  end

  test "it ends with its pool", %{pool: pool, pool_pid: pid} do
    Process.flag(:trap_exit, true)
    s = session(pool)
    Process.exit(pid, :kill)
    assert_receive {:EXIT, ^s, {:shutdown, %Py.Error{kind: :stopped}}}, 20_000
  end
end
