defmodule Py.PoolTest do
  use ExUnit.Case, async: false

  doctest Py.Pool

  setup do
    # The doctests start pools that fail, as their own callers.
    Process.flag(:trap_exit, true)
    :ok
  end

  test "kinds that are not there yet say so" do
    for kind <- [:subinterpreter] do
      assert {:error, %Py.Error{kind: :not_available, message: message}} =
               Py.Pool.start_link(in: kind)

      assert message =~ "later version"
    end
  end

  test "a supervisor sees the error" do
    pool = {Py.Pool, name: :py_supervised, init: "1/0"}

    assert {:error,
            {:shutdown,
             {:failed_to_start_child, :py_supervised, %Py.Error{type: "ZeroDivisionError"}}}} =
             Supervisor.start_link([pool], strategy: :one_for_one)
  end

  test "a supervisor restarts it, with its init" do
    {:ok, supervisor} =
      Supervisor.start_link([{Py.Pool, name: :py_restarted, init: "x = 1"}],
        strategy: :one_for_one
      )

    pid = Process.whereis(:py_restarted)
    Process.exit(pid, :kill)

    Py.Case.eventually(fn ->
      Process.whereis(:py_restarted) not in [nil, pid] and
        Py.eval("x", %{}, on: :py_restarted) == {:ok, 1}
    end)

    Supervisor.stop(supervisor)
  end

  test "another python: than the node's is an error that names both" do
    {:ok, python} = Py.Pool.fetch(Py)
    executable = python.python.executable
    assert {:ok, pid} = Py.Pool.start_link(name: :py_same, python: executable)
    GenServer.stop(pid)

    assert {:error, %Py.Error{kind: :not_available, message: message}} =
             Py.Pool.start_link(name: :py_other, python: "/nowhere/python3")

    assert message =~ "/nowhere/python3"
    assert message =~ "mix py.doctor"

    with {:ok, other} when other.executable != executable <- Py.Python.find("/usr/bin/python3") do
      {:error, error} = Py.Pool.start_link(name: :py_other, python: "/usr/bin/python3")
      assert error.kind == :not_available
      assert error.message =~ executable and error.message =~ other.executable
    end
  end

  test "info counts" do
    {:ok, pid} = Py.Pool.start_link(name: :py_info, size: 3, max_queue: 7)
    for _ <- 1..5, do: Py.eval!("1", %{}, on: :py_info)

    assert %{size: 3, max_queue: 7, running: 0, queued: 0, in: :thread, name: :py_info} =
             Py.Pool.info(:py_info)

    assert Py.Pool.info(:py_info).calls >= 5
    GenServer.stop(pid)
    assert_raise Py.Error, ~r/the pool was stopped/, fn -> Py.Pool.info(:py_info) end
  end

  test "the default pool is started by its first use, again after its end, and not where it is turned off" do
    Py.eval!("1")
    GenServer.stop(Py)
    Py.Case.eventually(fn -> Py.eval("1") == {:ok, 1} end)

    DynamicSupervisor.terminate_child(Py.DefaultPool, Process.whereis(Py))
    Application.put_env(:py, :default, false)
    assert {:error, %Py.Error{kind: :no_pool, message: message}} = Py.eval("1")
    assert message =~ "config :py, default: false"
    Application.put_env(:py, :default, size: 2, init: "x = 5")
    assert Py.eval("x") == {:ok, 5}
    assert Py.Pool.info(Py).size == 2

    DynamicSupervisor.terminate_child(Py.DefaultPool, Process.whereis(Py))
    Application.put_env(:py, :default, init: "1/0")
    assert {:error, %Py.Error{type: "ZeroDivisionError"}} = Py.eval("1")
    Application.delete_env(:py, :default)
    assert Py.eval("1") == {:ok, 1}
  end

  test "many first users at once start one default pool" do
    Py.eval!("1")
    DynamicSupervisor.terminate_child(Py.DefaultPool, Process.whereis(Py))

    results =
      1..20 |> Enum.map(fn _ -> Task.async(fn -> Py.eval("1") end) end) |> Task.await_many(30_000)

    assert Enum.all?(results, &(&1 == {:ok, 1}))
  end
end
