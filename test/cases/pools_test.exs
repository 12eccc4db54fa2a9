defmodule Py.Cases.PoolsTest do
  # P-A 14 to 16: several pools, starting and ending them.
  use Py.Case, on: [:thread, :process]

  # A pool whose end does not end the test.
  defp start(options) do
    Process.flag(:trap_exit, true)
    Py.Pool.start_link(options)
  end

  @tag pool: [init: "name = 'one'"]
  test "P-A 14. pools have base namespaces of their own", %{pool: pool, in: kind} do
    start_supervised!({Py.Pool, name: :py_other, in: kind, init: "name = 'other'\nonly = 1"})
    assert eval(pool, "name") == {:ok, "one"}
    assert eval(:py_other, "name") == {:ok, "other"}
    assert error(eval(pool, "only")).type == "NameError"
  end

  test "88. a blocked pool does not delay another", %{pool: pool, in: kind} do
    start_supervised!({Py.Pool, name: :py_other, in: kind, size: 4})
    blocked = for _ <- 1..4, do: Py.async_call(:time, :sleep, [60], on: :py_other)
    {ms, result} = timed(fn -> eval(pool, "1+1") end)
    assert result == {:ok, 2}
    assert ms < 15_000
    Enum.each(blocked, &Py.cancel/1)
  end

  test "P-A 15. unknown, stopped and starting are three errors, and none ends its caller", %{
    in: kind
  } do
    assert %{kind: :no_pool} = error(Py.eval("1", %{}, on: :py_unknown))

    {:ok, pid} = start(name: :py_stopped, in: kind)
    GenServer.stop(pid)
    assert %{kind: :stopped} = error(Py.eval("1", %{}, on: :py_stopped))

    # What is killed before it serves goes on to look as if it started.
    name = :"py_starting_#{kind}"
    Task.start(fn -> start(name: name, in: kind, init: "import time; time.sleep(30)") end)
    eventually(fn -> Py.Pool.lookup(name) not in [nil, :stopped] end)
    assert %{kind: :starting} = error(Py.eval("1", %{}, on: name, timeout: 100))
    Process.exit(Process.whereis(name), :kill)
    eventually(fn -> error(Py.eval("1", %{}, on: name)).kind == :stopped end)
  end

  test "P-A 15. a pool that is killed answers :stopped, in the queue and while it runs", %{
    in: kind
  } do
    {:ok, pid} = start(name: :py_killed, in: kind, size: 1)
    futures = for _ <- 1..2, do: Py.async_call(:time, :sleep, [60], on: :py_killed)
    eventually(fn -> Py.Pool.info(:py_killed).running == 1 end)
    Process.exit(pid, :kill)
    assert [%{kind: :stopped}, %{kind: :stopped}] = Enum.map(Py.await_many(futures), &error/1)
    assert %{kind: :stopped} = error(Py.eval("1", %{}, on: :py_killed))
  end

  test "P-A 16. a call before the pool is ready waits", %{in: kind} do
    me = self()

    spawn(fn ->
      start(name: :py_waiting, in: kind, init: "import time; time.sleep(0.3); ready = 'yes'")
      send(me, :started)
      Process.sleep(:infinity)
    end)

    eventually(fn -> Py.Pool.lookup(:py_waiting) not in [nil, :stopped] end)
    assert Py.eval("ready", %{}, on: :py_waiting) == {:ok, "yes"}
    assert_receive :started, 5_000
    GenServer.stop(:py_waiting)
  end

  test "P-A 16. an init that raises is an error with its traceback", %{in: kind} do
    init = "x = 1\nraise ValueError('no model')"
    {ms, result} = timed(fn -> start(name: :py_failing, in: kind, init: init) end)
    assert {:error, %Py.Error{type: "ValueError", message: "no model"} = error} = result
    assert [%{line: 2}] = error.traceback
    assert ms < 15_000
    assert %{kind: :stopped} = error(Py.eval("1", %{}, on: :py_failing))
  end

  test "P-A 16. an init that never ends", %{in: kind} do
    {ms, result} =
      timed(fn ->
        start(name: :py_endless, in: kind, init: "while True: pass", start_timeout: 200)
      end)

    assert %{kind: kind} = error(result)
    assert kind in [:timeout, :starting]
    assert ms < 15_000
  end

  test "P-A 16. an init may await, and exit is an error", %{in: kind} do
    init = "import asyncio\nawait asyncio.sleep(0.01)\nx = 5"
    {:ok, pid} = start(name: :py_awaiting, in: kind, init: init)
    assert Py.eval("x", %{}, on: :py_awaiting) == {:ok, 5}
    GenServer.stop(pid)

    assert %{type: "SystemExit"} =
             error(start(name: :py_exiting, in: kind, init: "import sys; sys.exit(1)"))
  end

  test "an init in ~P has the place in this file", %{in: kind} do
    init = ~P"""
    1 / 0
    """

    line = __ENV__.line - 3
    assert %{traceback: [frame]} = error(start(name: :py_place, in: kind, init: init))
    assert frame.line == line
    assert frame.file =~ "pools_test.exs"
  end

  test "a pool can be started again under its name", %{in: kind} do
    for n <- 1..3 do
      {:ok, pid} = start(name: :py_again, in: kind, init: "n = #{n}")
      assert Py.eval("n", %{}, on: :py_again) == {:ok, n}
      GenServer.stop(pid)
    end
  end

  test "the name of a pool that runs is taken", %{pool: pool, pool_pid: pid} do
    assert {:error, {:already_started, ^pid}} = start(name: pool)
    assert eval(pool, "1") == {:ok, 1}
  end
end
