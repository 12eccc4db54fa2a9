defmodule Py.ErlangTest do
  # The Erlang module `py`.
  use Py.Case, on: [:thread, :process], pool: :default

  test "4. names as atoms, binaries and charlists" do
    assert :py.call(:math, :sqrt, [16]) == {:ok, 4.0}
    assert :py.call("math", "sqrt", [16]) == {:ok, 4.0}
    assert :py.call(~c"math", ~c"sqrt", [16]) == {:ok, 4.0}
    assert :py.call(:os, ~c"path.join", ["a", "b"]) == {:ok, "a/b"}
  end

  test "kwargs and options as maps and proplists" do
    for kwargs <- [%{indent: 2}, [indent: 2], %{~c"indent" => 2}, [{"indent", 2}]] do
      assert :py.call(:json, :dumps, [[1]], kwargs) == {:ok, "[\n  1\n]"}
    end

    assert {:error, %{kind: :timeout}} = :py.call(:time, :sleep, [5], [], timeout: 10)
    assert {:error, %{kind: :timeout}} = :py.call(:time, :sleep, [5], %{}, %{timeout: 10})
    assert {:error, %{kind: :encode}} = :py.call(:json, :dumps, [1], indent: 1, indent: 2)
  end

  test "eval and exec" do
    assert :py.eval(~c"1 + 1") == {:ok, 2}
    assert :py.eval("x * y", %{x: 5, y: 5}) == {:ok, 25}
    assert :py.eval("x * y", [{~c"x", 5}, {"y", 5}]) == {:ok, 25}
    assert {:error, %{kind: :timeout}} = :py.eval("while True: pass", [], timeout: 10)
    assert :py.exec("1") == :ok
    assert :py.exec("x", x: 1) == :ok

    assert {:error, %{traceback: [%{file: "a.erl", line: 7}]}} =
             :py.exec("1/0", [], file: "a.erl", line: 7)
  end

  test "errors are maps without the marks of a struct, all the way down" do
    code =
      "try:\n  1/0\nexcept ZeroDivisionError as e:\n  raise ExceptionGroup('g', [ValueError('v')]) from e"

    assert {:error, error} = :py.eval(code)
    refute is_map_key(error, :__struct__) or is_map_key(error, :__exception__)
    assert %{type: "ExceptionGroup", cause: cause, exceptions: [member]} = error
    refute is_map_key(cause, :__struct__)
    refute is_map_key(member, :__struct__)
  end

  test "async_call and await" do
    assert {:ok, ref} = :py.async_call(:math, :sqrt, [16])
    assert is_reference(ref)
    assert :py.await(ref) == {:ok, 4.0}
    assert_raise ArgumentError, fn -> :py.await(ref) end

    assert {:ok, ref} = :py.async_call(:builtins, :int, ["ff"], %{base: 16})
    assert_receive {:py_result, ^ref, {:ok, 255}}, 5_000

    assert {:ok, ref} = :py.async_call(:time, :sleep, [60])
    assert {:error, %{kind: :timeout}} = :py.await(ref, 10)
  end

  test "a process that receives its results itself keeps few of its futures", %{in: kind} do
    Py.Case.default_pool(kind, timeout: 1)

    for _ <- 1..2_500 do
      {:ok, ref} = :py.async_call(:builtins, :abs, [1])
      assert_receive {:py_result, ^ref, _result}, 5_000
    end

    {_limit, futures} = Process.get(:"$py_futures")
    assert map_size(futures) <= 1_000
  end

  test "async_gather and parallel" do
    assert :py.async_gather([{:math, :sqrt, [16]}, {:builtins, :int, ["ff"], [base: 16]}]) ==
             {:ok, [4.0, 255]}

    assert :py.parallel([{:math, :sqrt, [4]}]) == {:ok, [2.0]}

    assert {:error, %{type: "ValueError"}} =
             :py.parallel([{:math, :sqrt, [4]}, {:math, :sqrt, [-1]}])

    assert :py.async_gather([]) == {:ok, []}
    refute_received {:py_result, _ref, _result}
  end

  test "functions that Python calls" do
    assert :py.register_function(:erlang_test_add, fn a, b -> a + b end) == :ok
    assert :py.eval("import erlang; erlang.erlang_test_add(1, 2)") == {:ok, 3}
    assert :py.register_function("erlang_test_add", {Enum, :sum}) == :ok
    assert :py.eval("import erlang; erlang.erlang_test_add([1, 2, 3])") == {:ok, 6}
    assert :py.unregister_function(~c"erlang_test_add") == :ok

    assert {:error, %{type: "AttributeError"}} =
             :py.eval("import erlang; erlang.erlang_test_add(1)")
  end

  test "cast and execution_mode", %{in: kind} do
    assert :py.cast(:math, :sqrt, [16]) == :ok
    assert :py.cast(:builtins, :int, ["ff"], %{base: 16}) == :ok
    assert :py.execution_mode() == kind
  end

  test "streams are lists" do
    assert :py.stream(:builtins, :range, [3]) == {:ok, [0, 1, 2]}
    assert :py.stream(:builtins, :sorted, [[1, 2]], %{reverse: true}) == {:ok, [2, 1]}
    assert :py.async_stream(:builtins, :range, [2]) == {:ok, [0, 1]}
    assert {:error, %{kind: :python, type: "TypeError"}} = :py.stream(:builtins, :abs, [1])
  end

  test "89. a session that is bound to the calling process" do
    assert :py.unbind() == :ok
    assert :py.bind() == :ok
    assert :py.bind() == :ok
    assert :py.exec("x = 1\ndef f(n): return x + n") == :ok
    assert :py.eval("x += 1\nx") == {:ok, 2}
    assert :py.call(:__main__, :f, [1]) == {:ok, 3}
    {:ok, ref} = :py.async_call(:__main__, :f, [2])
    assert :py.await(ref) == {:ok, 4}
    assert :py.stream(:__main__, :range, [2]) == {:ok, [0, 1]}
    # Others are in none, and a call that says where it is to run is there.
    assert Task.await(Task.async(fn -> :py.eval("x") end)) |> elem(0) == :error
    assert {:error, %{type: "NameError"}} = :py.eval("x", [], on: Py)
    assert :py.unbind() == :ok
    assert {:error, %{type: "NameError"}} = :py.eval("x")
  end

  test "89. a function in a session of its own" do
    inner = fn -> {:py.exec("y = 5"), :py.eval("y")} end
    assert :py.with_context(inner) == {:ok, {:ok, 5}}
    assert {:error, %{type: "NameError"}} = :py.eval("y")
    assert :py.bind() == :ok
    assert :py.exec("y = 6") == :ok
    assert :py.with_context(inner) == {:ok, {:ok, 5}}
    assert catch_throw(:py.with_context(fn -> throw(:ball) end)) == :ball
    assert :py.eval("y") == {:ok, 6}
    assert :py.unbind() == :ok
  end

  test "89. what is bound ends with its process" do
    me = self()

    process =
      spawn(fn ->
        :ok = :py.bind()
        send(me, {:session, Process.get(:"$py_session")})
        receive(do: (:never -> :ok))
      end)

    assert_receive {:session, session}, 20_000
    Process.exit(process, :kill)
    eventually(fn -> not Process.alive?(session) end)
  end
end
