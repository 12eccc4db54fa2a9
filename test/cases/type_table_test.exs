defmodule Py.Cases.TypeTableTest do
  # The type table of the README, row by row: what it says is what happens.
  use Py.Case, on: [:thread, :process]

  # What crosses, what is true of it in Python, what comes back; or a value of Python's and what comes of it. Where that
  # depends on what is installed, the file whose cases have it.
  defp examples("`nil`, `:undefined`", "`None`"),
    do: [{nil, "x is None", nil}, {:undefined, "x is None", nil}]

  defp examples("`true`, `false`", "`True`, `False`"),
    do: [{true, "x is True", true}, {false, "x is False", false}]

  defp examples("integer, any size", "`int`"),
    do: for(n <- [0, -1, 2 ** 64, -(2 ** 2000)], do: {n, "type(x) is int", n})

  defp examples("float", "`float`"),
    do: for(n <- [1.5, -1.0e-300], do: {n, "type(x) is float", n})

  defp examples("`:nan`, `:infinity`, `:neg_infinity`", "`nan`, `inf`, `-inf`") do
    [
      {:nan, "x != x", :nan},
      {:infinity, "x == float('inf')", :infinity},
      {:neg_infinity, "x == -float('inf')", :neg_infinity}
    ]
  end

  defp examples("other atom", "`erlang.Atom`, a `str`") do
    [
      {:other, "type(x).__name__ == 'Atom' and x == 'other'", :other},
      {"other", "type(x) is str", "other"}
    ]
  end

  defp examples("binary of UTF-8 text", "`str`"), do: [{"aé😀", "type(x) is str", "aé😀"}]

  defp examples("`Py.bytes(binary)`", "`bytes`") do
    [
      {Py.bytes(<<255>>), "type(x) is bytes", <<255>>},
      {:python, "[bytearray(b'a'), memoryview(b'b')]", ["a", "b"]}
    ]
  end

  defp examples("`Py.buffer(binary)`", "`memoryview`, read-only"),
    do: [{Py.buffer(<<255>>), "type(x) is memoryview and x.readonly", <<255>>}]

  defp examples("`Py.Array`, tensor of Nx", "array of numpy's, read-only"),
    do: [{:see, "arrays_test.exs"}]

  defp examples(
         "the same of a type that numpy lacks, such as `{:bf, 16}`",
         "`erlang.Tensor`, with DLPack"
       ),
       do: [{:see, "dlpack_test.exs"}]

  defp examples("list, tuple, map", "`list`, `tuple`, `dict`") do
    [
      {[1, [2]], "type(x) is list", [1, [2]]},
      {{1, {}}, "type(x) is tuple", {1, {}}},
      {%{"a" => %{}}, "type(x) is dict", %{"a" => %{}}}
    ]
  end

  defp examples("MapSet", "`set`") do
    [
      {MapSet.new([1]), "type(x) is set", MapSet.new([1])},
      {:python, "frozenset([1])", MapSet.new([1])}
    ]
  end

  defp examples("Range", "`range`"), do: [{1..9//2, "x == range(1, 10, 2)", 1..9//2}]

  defp examples("Date, Time, NaiveDateTime, DateTime", "the types of `datetime`") do
    for {value, type} <- [
          {~D[2024-02-29], "date"},
          {~T[01:02:03], "time"},
          {~N[2024-02-29 01:02:03], "datetime"},
          {~U[2024-02-29 01:02:03Z], "datetime"}
        ],
        do: {value, "type(x).__name__ == '#{type}'", value}
  end

  defp examples("Decimal, if the application has it", "`decimal.Decimal`"),
    do: [{:python, "__import__('decimal').Decimal(1)", %Py.Object{type: "decimal.Decimal"}}]

  defp examples("pid, reference, port", "`erlang.Pid`, `erlang.Ref`, `erlang.Port`") do
    port = hd(Port.list())
    ref = make_ref()

    for {value, type} <- [{self(), "Pid"}, {ref, "Ref"}, {port, "Port"}],
        do: {value, "type(x).__name__ == '#{type}'", value}
  end

  defp examples("`Py.Channel`", "`erlang.Channel`") do
    channel = Py.Channel.new()
    [{channel, "type(x).__name__ == 'Channel'", channel}]
  end

  defp examples("function", "a callable that calls it, see below") do
    function = &String.upcase/1
    [{function, "x('a') == 'A'", function}]
  end

  defp examples("`Py.Object`", "the object itself"),
    do: [{:python, "object()", %Py.Object{type: "object"}}]

  defp examples("other struct", "what its `Py.Encoder` gives"),
    do: [{%MyApp.Point{x: 1}, "x == {'x': 1, 'y': 0}", %{x: 1, y: 0}}]

  defp examples("", "numpy scalars, enums of numbers") do
    [{:see, "values_test.exs"}, {:python, enum("IntEnum"), 2}]
  end

  defp examples("", "`pyarrow.Buffer`"),
    do: [{:see, "arrow_test.exs"}, {:see, "../python/test_decode.py"}]

  defp examples("", "`UUID`, `Fraction`, paths of `pathlib`") do
    [
      {:python, "__import__('uuid').UUID(int=0)", "00000000-0000-0000-0000-000000000000"},
      {:python, "__import__('fractions').Fraction(1, 2)", "1/2"},
      {:python, "__import__('pathlib').Path('a', 'b')", "a/b"}
    ]
  end

  defp examples("", "other enums"), do: [{:python, enum("Enum"), 2}]

  defp examples("", "instances of dataclasses and attrs classes") do
    code = "import dataclasses\n@dataclasses.dataclass\nclass C:\n  a: int\nC(1)"
    [{:python, code, %{"a" => 1}}, {:see, "encoder_test.exs"}]
  end

  defp examples("", "pydantic models"), do: [{:see, "encoder_test.exs"}]

  defp examples("", "what has an encoder by `erlang.register_encoder`") do
    code =
      "import erlang\nclass C: pass\nerlang.register_encoder(C, lambda c: 'encoded')\nC()"

    [{:python, code, "encoded"}]
  end

  defp examples("", "anything else: arrays, data frames, models, open files"),
    do: [{:python, "open('/dev/null')", %Py.Object{type: "_io.TextIOWrapper"}}]

  defp enum(base), do: "import enum\nclass E(enum.#{base}):\n  A = 2\nE.A"

  test "each row of the README's table is what happens", %{pool: pool} do
    rows = rows()
    assert length(rows) > 20

    for {elixir, python} <- rows, example <- examples(elixir, python) do
      assert {python, check(pool, example)} == {python, :ok}
    end
  end

  defp rows do
    [_before, types] = "README.md" |> File.read!() |> String.split("\n## Types\n")
    [table | _after] = types |> String.trim() |> String.split("\n\n")
    [_heads, _line | rows] = String.split(table, "\n")

    for row <- rows do
      ["", elixir, python, _back, ""] = row |> String.split("|") |> Enum.map(&String.trim/1)
      {elixir, python}
    end
  end

  defp check(_pool, {:see, file}) do
    if __DIR__ |> Path.join(file) |> File.exists?(), do: :ok, else: {:no_file, file}
  end

  defp check(pool, {:python, code, expected}), do: same(eval(pool, code), expected)

  defp check(pool, {value, condition, back}) do
    case eval(pool, "(bool(#{condition}), x)", %{x: value}) do
      {:ok, {true, returned}} -> same({:ok, returned}, back)
      other -> {condition, other}
    end
  end

  defp same({:ok, %Py.Object{type: type}}, %Py.Object{type: type}), do: :ok
  defp same({:ok, value}, value), do: :ok
  defp same(result, expected), do: {result, expected}
end
