defmodule Py.OptionsTest do
  use ExUnit.Case, async: true

  alias Py.Options

  test "an unknown option is named, and so are the known ones" do
    message =
      "unknown options :nope, :no for Py.call; known are :kwargs, :timeout, :on, :return, :inline, " <>
        ":copy, :progress, :traceparent"

    assert_raise ArgumentError, message, fn -> Py.call(:math, :sqrt, [4], nope: 1, no: 2) end

    assert_raise ArgumentError, ~r/unknown option :kwargs for Py.eval/, fn ->
      Py.eval("1", %{}, kwargs: [])
    end

    assert_raise ArgumentError, ~r/unknown option :nope for Py.Pool/, fn ->
      Py.Pool.start_link(nope: 1)
    end
  end

  test "a wrong value is told with what was expected" do
    for {options, expected} <- [
          {[timeout: -1], "milliseconds (0 to 4294967295) or :infinity"},
          {[timeout: 1.5], "milliseconds (0 to 4294967295) or :infinity"},
          {[on: "Py"], "the name of a pool, {pool, node}, or a session"},
          {[return: :nope], "one of :value, :object"},
          {[inline: 1], "true or false"},
          {[progress: &abs/1], "a function of arity 3"},
          {[progress: :yes], "a function of arity 3"},
          {[traceparent: "00-0-0-00"],
           "like \"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\""},
          {[kwargs: [1]], "a keyword list or a map, with atoms or strings as keys"},
          {[kwargs: %{1 => 2}], "a keyword list or a map, with atoms or strings as keys"},
          {[kwargs: [{:a, 1} | :b]], "a keyword list or a map, with atoms or strings as keys"}
        ] do
      error = assert_raise ArgumentError, fn -> Py.call(:math, :sqrt, [4], options) end
      [{key, value}] = options

      assert error.message ==
               "option #{key}: of Py.call must be #{expected}, got: #{inspect(value)}"
    end

    assert_raise ArgumentError, ~r/must be a keyword list, got: %{}/, fn ->
      apply(Py, :call, [:math, :sqrt, [4], %{}])
    end
  end

  test "options in the place of the arguments" do
    error = assert_raise ArgumentError, fn -> Py.call(:time, :time, timeout: 5) end
    assert error.message =~ "give the arguments first, Py.call(target, name, [], timeout: 5)"

    for fun <- [&Py.cast/3, &Py.async_call/3] do
      assert_raise ArgumentError, ~r/in the place of the arguments/, fn ->
        fun.(:time, :time, timeout: 5)
      end
    end

    # What is no option is an argument: a list of pairs.
    refute Options.misplaced?([timeout: 5, other: 1], :call)
    refute Options.misplaced?([{"timeout", 5}], :call)
    refute Options.misplaced?([], :call)
  end

  test "variables that are no map, with what to write instead" do
    error = assert_raise ArgumentError, fn -> apply(Py, :eval, ["1", [timeout: 5]]) end
    assert error.message =~ "the variables of Py.eval must be a map, got: [timeout: 5]"
    assert error.message =~ "Py.eval(code, %{}, options)"
    assert_raise ArgumentError, fn -> apply(Py, :exec, ["1", MapSet.new()]) end
    assert_raise ArgumentError, fn -> apply(Py, :eval, ["1", nil]) end
  end

  test "targets, names, arguments and code of the wrong type" do
    assert_raise ArgumentError, ~r/the target must be/, fn ->
      apply(Py, :call, [nil, :sqrt, []])
    end

    assert_raise ArgumentError, ~r/the name must be/, fn -> apply(Py, :call, [:math, 5, []]) end

    assert_raise ArgumentError, ~r/the arguments of Py.call must be a list/, fn ->
      apply(Py, :call, [:math, :sqrt, 4])
    end

    assert_raise ArgumentError, ~r/the arguments of Py.call must be a list/, fn ->
      apply(Py, :call, [:math, :sqrt, [4 | 5]])
    end

    assert_raise ArgumentError, ~r/the code of Py.eval must be/, fn ->
      apply(Py, :eval, [:code])
    end

    assert_raise ArgumentError, ~r/a call of Py.gather is/, fn ->
      apply(Py, :gather, [[{:math, :sqrt}]])
    end

    assert_raise FunctionClauseError, fn -> apply(Py, :bytes, [:a]) end
  end

  test "the options of a pool" do
    for options <- [
          [size: 0],
          [max_queue: -1],
          [grace: -1],
          [timeout: :never],
          [start_timeout: "1"],
          [init: :x],
          [paths: "a"],
          [paths: [:a]],
          [env: %{"A" => 1}],
          [env: :a],
          [python: :python3],
          [name: "a"],
          [in: :nope]
        ] do
      assert_raise ArgumentError, ~r/^option #{options |> hd() |> elem(0)}: of Py.Pool/, fn ->
        Py.Pool.start_link(options)
      end
    end

    assert Options.check!([env: [A: "1"]], :pool, "x").env == %{"A" => "1"}
  end

  test "every option is documented, with its default" do
    for schema <- [:call, :code, :cast, :gather, :pool] do
      docs = Options.docs(schema)
      for key <- schema |> Options.defaults() |> Map.keys(), do: assert(docs =~ "`#{key}:`")
    end

    assert Options.docs(:pool) =~ "Default: `16`"
  end
end
