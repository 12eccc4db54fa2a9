defmodule Py.Cases.StateTest do
  # CASES.md 93: state that Python code and Elixir share; names of processes.
  use Py.Case, on: [:thread, :process]

  setup context do
    Py.State.clear()
    on_exit(&Py.State.clear/0)
    context
  end

  defp python(pool, code, variables \\ %{}), do: eval(pool, "import erlang\n" <> code, variables)

  test "both sides see what either sets", %{pool: pool} do
    for value <- [1, nil, "text", [1, %{"a" => {1, 2.5}}], self(), :atom] do
      assert python(pool, "erlang.state_set('key', value)", %{value: value}) == {:ok, nil}
      assert Py.State.get("key", :missing) == value
      Py.State.set("key", [value])
      assert python(pool, "erlang.state_get('key')") == {:ok, [value]}
    end

    assert python(pool, "erlang.state_keys()") == {:ok, ["key"]}
    assert python(pool, "erlang.state_delete('key')") == {:ok, nil}
    assert Py.State.keys() == []
  end

  test "missing is not None", %{pool: pool} do
    assert python(pool, "erlang.state_get('none', 'missing')") == {:ok, "missing"}

    assert python(pool, "erlang.state_set('none', None)\nerlang.state_get('none', 'missing')") ==
             {:ok, nil}

    assert python(pool, "erlang.state_get('other')") == {:ok, nil}
  end

  test "counters are exact, however many count", %{pool: pool} do
    code =
      "for n in range(100): erlang.state_incr('count')\nfor n in range(50): erlang.state_decr('count', 2)\n1"

    plus = "for n in range(200): erlang.state_incr('count')\n1"

    tasks =
      for n <- 1..10,
          do: Task.async(fn -> python(pool, if(rem(n, 2) == 0, do: code, else: plus)) end)

    for _ <- 1..500, do: Py.State.incr("count")
    assert Enum.all?(Task.await_many(tasks, 30_000), &(&1 == {:ok, 1}))
    assert Py.State.get("count") == 500 + 5 * 200
  end

  test "what cannot be counted, or is no key", %{pool: pool} do
    Py.State.set("text", "x")

    assert %{type: "RuntimeError", message: message} =
             error(python(pool, "erlang.state_incr('text')"))

    assert message == ~s(the value of "text" is no integer)
    assert_raise ArgumentError, ~r/is no integer/, fn -> Py.State.incr("text") end
    assert error(python(pool, "erlang.state_set(1, 2)")).type == "TypeError"
    assert error(python(pool, "erlang.state_incr('n', 1.5)")).type == "TypeError"
  end

  test "it is bounded", %{pool: pool} do
    Application.put_env(:py, :max_entries, 3)
    on_exit(fn -> Application.delete_env(:py, :max_entries) end)
    for key <- ~w(a b c), do: Py.State.set(key, 1)

    assert error(python(pool, "erlang.state_set('d', 1)")).message =~
             "Py.State is full: it has 3 entries"

    assert_raise ArgumentError, ~r/max_entries/, fn -> Py.State.incr("d") end
    assert python(pool, "erlang.state_set('a', 2)\nerlang.state_get('a')") == {:ok, 2}

    assert python(pool, "erlang.state_clear()\nerlang.state_set('d', 1)\nerlang.state_keys()") ==
             {:ok, ["d"]}
  end

  test "processes by name, here and elsewhere", %{pool: pool} do
    Process.register(self(), :py_state_test)
    assert python(pool, "erlang.whereis('py_state_test')") == {:ok, self()}
    assert python(pool, "erlang.whereis('py_nobody_' + 'at all')") == {:ok, nil}
    node = Atom.to_string(node())

    assert python(pool, "erlang.send(('py_state_test', node), 'hello')", %{node: node}) ==
             {:ok, true}

    assert_receive "hello"

    assert python(pool, "erlang.send(('no such name' + '!', node), 1)", %{node: node}) ==
             {:ok, false}
  end
end
