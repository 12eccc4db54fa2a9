defmodule Py.Cases.CallsTest do
  # CASES.md, A: call, eval, exec; P-A 1, 3, 4.
  use Py.Case, on: [:thread, :process]

  test "1. plain functions", %{pool: pool} do
    assert call(pool, :math, :sqrt, [16]) == {:ok, 4.0}
    assert call(pool, :math, :factorial, [5]) == {:ok, 120}
    assert call(pool, :math, :gcd, [48, 18]) == {:ok, 6}
  end

  test "2. json.loads", %{pool: pool} do
    assert call(pool, :json, :loads, [~s({"a": 1, "b": [1,2,3]})]) ==
             {:ok, %{"a" => 1, "b" => [1, 2, 3]}}
  end

  test "3. keyword arguments, as keywords, as maps, with strings", %{pool: pool} do
    for kwargs <- [[indent: 2], %{indent: 2}, %{"indent" => 2}, [{"indent", 2}]] do
      assert call(pool, :json, :dumps, [%{a: 1}], kwargs) == {:ok, "{\n  \"a\": 1\n}"}
    end
  end

  test "3. a keyword that is given twice is an error", %{pool: pool} do
    assert error(call(pool, :json, :dumps, [1], indent: 2, indent: 4)).kind == :encode
    assert error(call(pool, :json, :dumps, [1], %{:indent => 2, "indent" => 4})).kind == :encode
  end

  test "4. names as strings and atoms", %{pool: pool} do
    assert call(pool, "math", "sqrt", [16]) == {:ok, 4.0}
    assert call(pool, :math, "sqrt", [16]) == {:ok, 4.0}
    assert call(pool, "math", :sqrt, [16]) == {:ok, 4.0}
  end

  test "5. dotted names", %{pool: pool} do
    assert call(pool, :os, "path.join", ["a", "b"]) == {:ok, "a/b"}
    assert call(pool, "os.path", :join, ["a", "b"]) == {:ok, "a/b"}
    assert call(pool, :builtins, "str.upper", ["a"]) == {:ok, "A"}
    assert Py.getattr(:os, "path.sep", on: pool) == {:ok, "/"}
  end

  test "6. eval with variables", %{pool: pool} do
    assert eval(pool, "sum(range(10))") == {:ok, 45}
    assert eval(pool, "x*y", %{x: 5, y: 5}) == {:ok, 25}
    assert eval(pool, "x*y", %{"x" => 5, "y" => 5}) == {:ok, 25}
  end

  test "7. a comprehension", %{pool: pool} do
    assert eval(pool, "[x**2 for x in range(5)]") == {:ok, [0, 1, 4, 9, 16]}
  end

  test "8. lambdas and comprehensions see the variables", %{pool: pool} do
    variables = %{m: 2, items: [1, 2, 3]}
    assert eval(pool, "list(map(lambda x: x*m, items))", variables) == {:ok, [2, 4, 6]}
    assert eval(pool, "[x*m for x in items]", variables) == {:ok, [2, 4, 6]}
  end

  test "9. a method with a keyword", %{pool: pool} do
    assert eval(pool, "'a-b-c-d'.split('-', maxsplit=2)") == {:ok, ["a", "b", "c-d"]}
  end

  test "10. an assignment has no value, and leaves nothing behind", %{pool: pool} do
    assert eval(pool, "x = 1") == {:ok, nil}
    assert error(eval(pool, "x")).type == "NameError"
  end

  test "11. no code, a comment, several statements", %{pool: pool} do
    assert eval(pool, "") == {:ok, nil}
    assert eval(pool, "# c") == {:ok, nil}
    assert eval(pool, "x=1\nx+1") == {:ok, 2}
    assert eval(pool, "x=1;x+1") == {:ok, 2}
    assert eval(pool, "for i in range(3):\n  pass") == {:ok, nil}
    assert eval(pool, "def f():\n  return 7\nf()") == {:ok, 7}
    assert exec(pool, "1 + 1") == :ok
  end

  test "13. await at top level", %{pool: pool} do
    assert eval(pool, "import asyncio\nawait asyncio.sleep(0.01)\n7") == {:ok, 7}
    assert eval(pool, "import asyncio\nawait asyncio.sleep(0, 'v')") == {:ok, "v"}
    assert exec(pool, "import asyncio\nawait asyncio.sleep(0)") == :ok
  end

  test "13. a coroutine function is awaited", %{pool: pool} do
    assert call(pool, :asyncio, :sleep, [0.01, "slept"]) == {:ok, "slept"}
  end

  test "14. errors have their types", %{pool: pool} do
    assert error(eval(pool, "undefined_variable")).type == "NameError"
    assert error(eval(pool, "if True")).type == "SyntaxError"

    assert %{type: "ZeroDivisionError", module: "builtins", message: "division by zero"} =
             error(eval(pool, "1/0"))

    assert error(call(pool, :nonexistent, :f)).type == "ModuleNotFoundError"
    assert error(call(pool, :math, :nope)).type == "AttributeError"
    assert error(Py.getattr(:math, :nope, on: pool)).type == "AttributeError"
  end

  test "15. null bytes", %{pool: pool} do
    assert %{kind: :python, message: message} = error(eval(pool, "1\0+1"))
    assert message =~ "null bytes"
    assert error(call(pool, "os\0x", :getcwd)).kind == :python
    assert error(call(pool, "", :f)).kind == :python
    assert error(call(pool, :math, "")).kind == :python
    assert eval(pool, "import sys\nany('\\0' in name for name in sys.modules)") == {:ok, false}
  end

  test "20. StopIteration is an error like others", %{pool: pool} do
    assert %{kind: :python, type: "StopIteration"} = error(eval(pool, "next(iter([]))"))
    assert error(eval(pool, "raise StopIteration(3)")).message == "3"
  end

  test "21. without a session nothing persists", %{pool: pool} do
    assert exec(pool, "x = 1") == :ok
    assert exec(pool, "x = 2") == :ok
    assert error(eval(pool, "x")).type == "NameError"
  end

  @tag pool: [init: "limit = 10\ndef double(x):\n  return 2 * x\n"]
  test "21. names of init are seen and cannot be changed by assignment", %{pool: pool} do
    assert eval(pool, "double(limit)") == {:ok, 20}
    assert eval(pool, "limit = 3\nlimit") == {:ok, 3}
    assert eval(pool, "limit") == {:ok, 10}
    assert call(pool, :__main__, :double, [21]) == {:ok, 42}
    assert Py.getattr(:__main__, :limit, on: pool) == {:ok, 10}
  end

  test "23. tracebacks point into the Elixir file", %{pool: pool} do
    code = ~P"""
    def f():
      return 1 / 0
    f()
    """

    line = __ENV__.line - 5
    frames = error(eval(pool, code)).traceback
    assert [%{function: "<module>"} = outer, %{function: "f"} = inner] = frames
    assert outer.file =~ "test/cases/calls_test.exs"
    assert {outer.line, inner.line} == {line + 2, line + 1}
    assert String.trim(inner.source) == "return 1 / 0"

    frames = error(eval(pool, "\n1/0", %{}, file: "lib/a.ex", line: 40)).traceback
    assert [%{file: "lib/a.ex", line: 41}] = frames
  end

  test "24. ten thousand snippets do not grow memory", %{pool: pool} do
    memory = fn ->
      eval(pool, "import tracemalloc, gc; gc.collect(); tracemalloc.get_traced_memory()[0]")
    end

    snippets = fn from ->
      for n <- from..(from + 9_999), do: {:ok, ^n} = eval(pool, "x = #{n}\nx")
    end

    snippets.(0)
    :ok = exec(pool, "import tracemalloc; tracemalloc.start()")
    {:ok, before} = memory.()
    snippets.(10_000)
    {:ok, now} = memory.()
    :ok = exec(pool, "import tracemalloc; tracemalloc.stop()")
    # Replacing every entry of a full cache: what is new was traced, what it replaced was not.
    assert now - before < 10_000_000
  end

  test "P-A 1. gather answers in order", %{pool: pool} do
    calls = for n <- 1..50, do: {:builtins, :int, ["#{n}"], %{base: 10}}
    assert Py.gather(calls, on: pool) == for(n <- 1..50, do: {:ok, n})
  end

  test "P-A 3. a missing module, function or attribute leaves the pool as it was", %{
    pool: pool,
    pool_pid: pid
  } do
    assert %{type: "ModuleNotFoundError", message: "No module named 'nope_nope'"} =
             error(call(pool, :nope_nope, :f))

    assert error(call(pool, :os, "path.nope", [])).type == "AttributeError"
    assert call(pool, :math, :sqrt, [4]) == {:ok, 2.0}
    assert Py.Pool.fetch(pool) |> elem(1) |> Map.get(:pid) == pid
  end

  test "P-A 4. what cannot be called, wrong arguments", %{pool: pool} do
    assert error(call(pool, :math, :pi)).type == "TypeError"
    assert error(call(pool, :math, :sqrt, [])).type == "TypeError"
    assert error(call(pool, :math, :sqrt, ["four"])).type == "TypeError"
    assert error(call(pool, :math, :sqrt, [4], nope: 1)).type == "TypeError"
  end

  test "reload", %{pool: pool} do
    assert call(pool, :colorsys, :rgb_to_hsv, [0, 0, 0]) == {:ok, {0.0, 0.0, 0}}
    assert exec(pool, "import colorsys; colorsys.ONE_THIRD = 5") == :ok
    assert Py.reload(:colorsys, on: pool) == :ok
    assert Py.getattr(:colorsys, :ONE_THIRD, on: pool) == {:ok, 1.0 / 3.0}
  end

  test "return: :object and inline:", %{pool: pool} do
    assert {:ok, %Py.Object{type: "int"}} = eval(pool, "1", %{}, return: :object)
    assert eval(pool, "1", %{}, inline: true) == {:ok, 1}
  end
end
