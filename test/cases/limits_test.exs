defmodule Py.Cases.LimitsTest do
  # Section 4 at its edges: depth, keys that become one, atoms, broken structs, names.
  use Py.Case, on: [:thread, :process]

  defp echo(pool, value), do: eval(pool, "x", %{x: value})

  defp nested(depth), do: Enum.reduce(2..depth, [], fn _, inner -> [inner] end)

  defp nested_code(depth, start, wrap),
    do: "x = #{start}\nfor _ in range(#{depth - 1}):\n  x = #{wrap}\nx"

  test "nesting of 10,000 crosses, of 10,001 is an error, in both directions", %{pool: pool} do
    assert echo(pool, nested(10_000)) == {:ok, nested(10_000)}
    assert error(eval(pool, "1", %{x: nested(10_001)})).kind == :encode
    assert error(call(pool, :builtins, :len, [nested(10_001)])).kind == :encode
    assert error(call(pool, :builtins, :dict, [], x: nested(10_001))).kind == :encode

    for {start, wrap} <- [{"[]", "[x]"}, {"()", "(x,)"}, {"{}", "{1: x}"}, {"{}", "[{1: x}][0]"}] do
      assert {:ok, _} = eval(pool, nested_code(10_000, start, wrap))
      assert error(eval(pool, nested_code(10_001, start, wrap))).kind == :decode
    end

    assert error(eval(pool, nested_code(10_001, "frozenset()", "frozenset([x])"))).kind == :decode
  end

  test "a million nested tuples, maps and arguments", %{pool: pool} do
    for wrap <- [&{&1}, &%{1 => &1}, &[0, &1]] do
      deep = Enum.reduce(1..1_000_000, [], fn _, inner -> wrap.(inner) end)
      assert error(echo(pool, deep)).kind == :encode
      assert error(call(pool, :builtins, :len, [deep])).kind == :encode
    end

    for wrap <- ["(x,)", "{1: x}", "[0, x]"] do
      assert error(eval(pool, nested_code(1_000_000, "[]", wrap))).kind == :decode
    end

    assert eval(pool, "1+1") == {:ok, 2}
  end

  test "the error tells the path to keys that become one", %{pool: pool} do
    assert %{kind: :encode, message: message} = error(echo(pool, [0, %{k: %{:a => 1, "a" => 2}}]))
    assert message =~ ~s|vars["x"][1]|
    assert %{kind: :decode, message: message} = error(eval(pool, "[{'k': {b'a': 1, 'a': 2}}]"))
    assert message =~ ~s|result[0]["k"]|

    # Equal in Python, however deep.
    assert error(echo(pool, %{{1, :a} => 1, {1.0, "a"} => 2})).kind == :encode
    assert error(echo(pool, MapSet.new([0, false]))).kind == :encode
    assert error(echo(pool, %{~T[01:02:03] => 1, ~T[01:02:03.000] => 2})).kind == :encode
    assert error(eval(pool, "{(b'a',): 1, ('a',): 2}")).kind == :decode

    assert eval(pool, "{1: 'a', 1.5: 'b', '1': 'c'}") ==
             {:ok, %{1 => "a", 1.5 => "b", "1" => "c"}}
  end

  test "ten thousand strings, and thousands of exception types, modules, keywords and files, make no atom",
       %{pool: pool} do
    run = fn run ->
      code =
        "import json\nx = [f'py_case_{run}_{n}' for n in range(10_000)]\n[x, {n: n for n in x}, json.loads(json.dumps(x))]"

      assert {:ok, [[_ | _], %{}, [_ | _]]} = eval(pool, code, %{run: run})

      for n <- 1..1_000 do
        name = "py_case_name_#{run}_#{n}"
        code = "raise type(name, (Exception,), {'__module__': name})(name)"
        assert %{type: ^name, module: ^name} = error(eval(pool, code, %{"name" => name}))
        assert error(call(pool, name, :f)).type == "ModuleNotFoundError"
        assert error(call(pool, :math, name)).type == "AttributeError"
        assert call(pool, :builtins, :dict, [], %{name => 1}) == {:ok, %{name => 1}}
        assert [%{file: ^name}] = error(eval(pool, "1/0", %{}, file: name)).traceback
      end
    end

    run.("warm")
    before = :erlang.system_info(:atom_count)
    run.("then")
    assert :erlang.system_info(:atom_count) == before
  end

  test "structs that are broken are :encode errors", %{pool: pool} do
    for struct <- [
          %{__struct__: Date},
          %{__struct__: Date, year: 1},
          %{__struct__: MapSet, map: 5},
          %{__struct__: Range, first: 1, last: 2},
          %{__struct__: Range, first: :a, last: 2, step: 1},
          %{__struct__: Range, first: 1, last: 2, step: 0},
          %{__struct__: Py.Bytes, data: 5},
          %{__struct__: Py.Bytes, data: <<1::3>>},
          %{__struct__: Py.Bytes},
          %{__struct__: NoSuchStruct, a: 1}
        ] do
      assert error(echo(pool, struct)).kind == :encode
    end
  end

  test "names that are none", %{pool: pool} do
    assert error(eval(pool, "1", %{1 => 2})).kind == :encode
    assert error(eval(pool, "1", %{<<255>> => 2})).kind == :encode
    assert error(eval(pool, <<"'", 255, "'">>)).kind == :encode
    assert error(call(pool, <<255>>, :f)).kind == :encode
    assert error(call(pool, :math, <<255>>)).kind == :encode
    assert error(call(pool, :math, "sqrt.")).kind == :python
    assert error(call(pool, :math, ".sqrt")).kind == :python
    assert error(call(pool, "..", :f)).kind == :python
    assert eval(pool, "1+1") == {:ok, 2}
  end

  test "a large argument that is wrong in its last place", %{pool: pool} do
    large = Enum.to_list(1..200_000) ++ [make_ref(), <<1::3>>]
    assert %{kind: :encode, message: message} = error(call(pool, :builtins, :len, [large]))
    assert message =~ "[200001]"
    assert call(pool, :builtins, :len, [Enum.to_list(1..200_000)]) == {:ok, 200_000}
  end
end
