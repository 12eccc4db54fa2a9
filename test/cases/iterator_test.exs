defmodule Py.Cases.IteratorTest do
  # Elixir enumerables that Python iterates over: `Py.iter`.
  use Py.Case, on: [:thread, :process]

  # An endless enumerable that tells when it begins, what it gives and when it ends.
  defp watched do
    me = self()

    Stream.resource(
      fn -> send(me, {:begun, self()}) && 0 end,
      fn n -> send(me, {:gave, n}) && {[n], n + 1} end,
      fn _n -> send(me, :ended) end
    )
  end

  test "it is iterated over, once, as it is asked for", %{pool: pool} do
    assert call(pool, :builtins, :list, [Py.iter(1..1000)]) == {:ok, Enum.to_list(1..1000)}
    assert call(pool, :builtins, :list, [Py.iter([])]) == {:ok, []}
    assert call(pool, :builtins, :sum, [Py.iter(Stream.map(1..10, &(&1 * 2)))]) == {:ok, 110}

    assert eval(pool, "list(x), list(x)", %{x: Py.iter([nil, {1, "a"}])}) ==
             {:ok, {[nil, {1, "a"}], []}}

    assert eval(pool, "iter(x) is x and next(x)", %{x: Py.iter([5])}) == {:ok, 5}
    zip = "[a + b for a, b in zip(x, y)]"

    assert eval(pool, zip, %{x: Py.iter(1..3), y: Py.iter(Stream.cycle([10]))}) ==
             {:ok, [11, 12, 13]}
  end

  test "nothing is taken before it is asked for, and little more than that", %{pool: pool} do
    assert eval(pool, "1", %{x: Py.iter(watched())}) == {:ok, 1}
    refute_received {:begun, _process}
    assert eval(pool, "next(x)", %{x: Py.iter(watched())}) == {:ok, 0}
    assert_received {:gave, 0}
    refute_received {:gave, 1}
    assert eval(pool, "[next(x) for _ in range(500)][-1]", %{x: Py.iter(watched())}) == {:ok, 499}
    refute_received {:gave, 600}
  end

  test "it ends when Python lets go of it", %{pool: pool} do
    assert eval(pool, "next(x)", %{x: Py.iter(watched())}) == {:ok, 0}
    assert_receive :ended, 20_000

    assert eval(pool, "x.close(), next(x, 'none')", %{x: Py.iter(watched())}) ==
             {:ok, {nil, "none"}}

    assert error(eval(pool, "next(x)\n1/0", %{x: Py.iter(watched())})).type == "ZeroDivisionError"
    assert_receive :ended, 20_000
  end

  test "it ends with its call, and with the process that made it", %{pool: pool} do
    code = "next(x)\nimport time\nwhile True: time.sleep(0.01)"
    assert error(eval(pool, code, %{x: Py.iter(watched())}, timeout: 300)).kind == :timeout
    assert_receive {:begun, process}, 20_000
    eventually(fn -> not Process.alive?(process) end)

    stream = watched()
    caller = spawn(fn -> eval(pool, code, %{x: Py.iter(stream)}, timeout: :infinity) end)
    assert_receive {:begun, process}, 20_000
    Process.exit(caller, :kill)
    eventually(fn -> not Process.alive?(process) end)
  end

  test "files, and what else belongs to a process", %{pool: pool} do
    path = Path.join(System.tmp_dir!(), "py_iter_#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm(path) end)
    File.write!(path, Enum.map(1..500, &"line #{&1}\n"))

    assert eval(pool, "[len(list(x)), next(y)]", %{
             x: Py.iter(File.stream!(path)),
             y: Py.iter(File.stream!(path))
           }) ==
             {:ok, [500, "line 1\n"]}
  end

  test "it runs in the name of whoever made the call", %{pool: pool} do
    me = self()
    stream = Stream.repeatedly(fn -> hd(Process.get(:"$callers")) end)
    assert eval(pool, "next(x)", %{x: Py.iter(stream)}) == {:ok, me}
  end

  test "errors of the enumerable, and items without a value", %{pool: pool} do
    boo = Stream.map(1..3, fn n -> if n == 3, do: raise(ArgumentError, "boo"), else: n end)

    code =
      "import erlang\ntaken = []\ntry:\n  for i in x: taken.append(i)\nexcept erlang.ElixirError as e: taken.append(e.reason)\ntaken, next(x, 'over')"

    assert {:ok, {taken, "over"}} = eval(pool, code, %{x: Py.iter(boo)})
    assert List.last(taken) == "boo"

    assert_raise ArgumentError, "boo", fn ->
      Py.call!(:builtins, :list, [Py.iter(boo)], on: pool)
    end

    assert %{type: "TypeError"} = error(call(pool, :builtins, :list, [Py.iter([<<1::3>>])]))
    assert_raise ArgumentError, ~r/takes an enumerable/, fn -> Py.iter(5) end
    dying = Stream.map([1], fn _ -> Process.exit(self(), :kill) end)

    assert %{type: "ElixirError", message: message} =
             error(call(pool, :builtins, :list, [Py.iter(dying)]))

    assert message =~ "killed"
  end

  test "in coroutines, many at once", %{pool: pool} do
    code = """
    import asyncio
    async def total(x):
        sum = 0
        async for i in x: sum += i
        return sum
    await asyncio.gather(*map(total, xs))
    """

    xs = for n <- 1..50, do: Py.iter(1..n)
    assert eval(pool, code, %{xs: xs}) == {:ok, Enum.map(1..50, &Enum.sum(1..&1))}
  end

  test "through Python and back again", %{pool: pool} do
    stream =
      Py.stream(:builtins, :map, [&(&1 + 1), Py.iter(Stream.iterate(0, &(&1 + 1)))], on: pool)

    assert Enum.take(stream, 5) == [1, 2, 3, 4, 5]
  end

  @tag on: [:process]
  test "it ends with its worker", %{pool: pool} do
    code = "next(x)\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    assert error(eval(pool, code, %{x: Py.iter(watched())})).kind == :crashed
    assert_receive {:begun, process}, 20_000
    eventually(fn -> not Process.alive?(process) end)
  end
end
