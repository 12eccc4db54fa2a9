defmodule Py.Cases.StacksTest do
  # What a pool tells of the calls in progress.
  use Py.Case, on: [:thread, :process]

  @outer """
  import time
  def outer():
      inner()
  def inner():
      while True:
          time.sleep(0.01)
  """

  @waiting """
  import asyncio
  async def first():
      await second()
  async def second():
      await asyncio.sleep(60)
  """

  defp functions(call), do: Enum.map(call.frames, & &1.function)

  test "a call that runs, with its frames", %{pool: pool} do
    future = Py.async_call(:builtins, :exec, [@outer <> "outer()", %{}], on: pool)
    eventually(fn -> Py.Pool.info(pool).running == 1 end)
    Process.sleep(30)
    assert {:ok, [call]} = Py.Pool.stacktrace(pool)
    assert call.function == "builtins.exec" and not call.awaiting
    assert call.age_ms in 20..5_000
    assert functions(call) == ["<module>", "outer", "inner"]
    assert %{file: "<string>", line: 3} = Enum.at(call.frames, 1)

    assert [%{function: "builtins.exec", age_ms: age, awaiting: false}] =
             Py.Pool.info(pool).running_calls

    # A pool of processes knows it to about a tick, of a clock that stands still where others have the processor.
    assert age in 0..60_000
    assert Py.cancel(future) == :ok
    eventually(fn -> Py.Pool.info(pool).running_calls == [] end)
    eventually(fn -> Py.Pool.stacktrace(pool) == {:ok, []} end)
  end

  test "coroutines, the oldest first", %{pool: pool} do
    futures =
      for name <- ["first", "second"] do
        exec(pool, "import builtins\n" <> @waiting <> "builtins.stacks_#{name} = #{name}")
        future = Py.async_call(:builtins, "stacks_#{name}", [], on: pool)

        eventually(fn ->
          Enum.any?(Py.Pool.info(pool).running_calls, &(&1.function =~ name and &1.awaiting))
        end)

        Process.sleep(20)
        future
      end

    eventually(fn ->
      {:ok, calls} = Py.Pool.stacktrace(pool)
      Enum.map(calls, &Enum.take(functions(&1), 2)) == [["first", "second"], ["second", "sleep"]]
    end)

    assert %{awaiting: 2, running: 0} = Py.Pool.info(pool)
    assert Enum.map(futures, &Py.cancel/1) == [:ok, :ok]
    eventually(fn -> Py.Pool.info(pool).running_calls == [] end)
  end

  test "a coroutine that blocks the loop is seen where it is", %{pool: pool} do
    future = Py.async_call(:builtins, :eval, ["__import__('asyncio').sleep(0)", %{}], on: pool)
    assert Py.await(future) == {:ok, nil}

    code =
      "import asyncio, time\nasync def busy():\n  await asyncio.sleep(0)\n  while True: time.sleep(0.01)\nimport builtins\nbuiltins.stacks_busy = busy"

    exec(pool, code)
    future = Py.async_call(:builtins, :stacks_busy, [], on: pool)
    eventually(fn -> match?({:ok, [%{awaiting: true}]}, Py.Pool.stacktrace(pool)) end)

    eventually(fn ->
      {:ok, [call]} = Py.Pool.stacktrace(pool)
      "busy" in functions(call)
    end)

    assert Py.cancel(future) == :ok
    eventually(fn -> Py.Pool.info(pool).awaiting == 0 end)
  end

  test "names as they were given, of every kind of request", %{pool: pool} do
    sleep = "__import__('time').sleep"

    for {start, name} <- [
          {fn -> Py.async_call("time", "sleep", [1], on: pool) end, "time.sleep"},
          {fn -> Task.async(fn -> eval(pool, sleep <> "(1)") end) end, "eval"},
          {fn -> Task.async(fn -> exec(pool, sleep <> "(1)") end) end, "exec"},
          {fn -> Py.async_call(:time, :sleep, [1], on: pool, kwargs: %{}) end, "time.sleep"},
          {fn ->
             Py.async_call(:builtins, :eval, [sleep <> "(1)", %{"x" => Enum.to_list(1..50_000)}],
               on: pool
             )
           end, "builtins.eval"}
        ] do
      started = start.()
      eventually(fn -> match?([%{function: ^name}], Py.Pool.info(pool).running_calls) end)
      if is_struct(started, Task), do: Task.await(started), else: Py.cancel(started)
      eventually(fn -> Py.Pool.info(pool).running_calls == [] end)
    end
  end

  test "while C code keeps Python's lock, it says so", %{pool: pool} do
    # About half a second in one opcode.
    future = Py.async_call(:builtins, :eval, ["sum(range(20_000_000))", %{}], on: pool)
    eventually(fn -> match?([%{age_ms: age}] when age > 0, Py.Pool.info(pool).running_calls) end)
    assert %{kind: :timeout} = error(Py.Pool.stacktrace(pool, 50))
    assert {:ok, _sum} = Py.await(future)
    eventually(fn -> Py.Pool.stacktrace(pool) == {:ok, []} end)
  end

  test "a pool that is not there" do
    assert %{kind: :no_pool} = error(Py.Pool.stacktrace(:no_such_pool))
  end
end
