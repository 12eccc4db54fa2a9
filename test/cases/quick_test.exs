defmodule Py.Cases.QuickTest do
  # Inline, calls of few plain values have a way of their own: what it takes and what it does not, against the queue.
  use Py.Case, on: [:thread]

  import ExUnit.CaptureIO

  @moduletag :own_vm
  @moduletag pool: [
               init: """
               import sys, types

               quick = types.ModuleType("quick_cases")
               sys.modules["quick_cases"] = quick

               def told(*args, **kwargs):
                   # Types as well: 1, 1.0 and True are the same otherwise, and so are 0.0 and -0.0.
                   return [(type(x).__name__, repr(x)) for x in args], sorted(kwargs)

               def back(x):
                   return x

               def fail(x):
                   raise ValueError(x)

               def leave(x):
                   raise SystemExit(x)

               async def later(x):
                   return x

               async def later_fail(x):
                   raise ValueError(x)

               def prints(x):
                   print(x, end="")
                   return x

               def deep(n):
                   return 0 if n == 0 else 1 + deep(n - 1)

               def limit_within(n):
                   before = sys.getrecursionlimit()
                   sys.setrecursionlimit(n)
                   try:
                       return deep(n // 2)
                   finally:
                       sys.setrecursionlimit(before)

               for name in "told back fail leave later later_fail prints deep limit_within".split():
                   setattr(quick, name, globals()[name])
               """
             ]

  @values [
    0,
    -1,
    2 ** 59 - 1,
    2 ** 59,
    -(2 ** 59),
    -(2 ** 59) - 1,
    2 ** 63 - 1,
    2 ** 63,
    -(2 ** 63),
    -(2 ** 63) - 1,
    2 ** 64,
    2 ** 200,
    0.0,
    -0.0,
    1.5,
    5.0e-324,
    1.7976931348623157e308,
    nil,
    true,
    false,
    :nan,
    :infinity,
    :neg_infinity,
    :other,
    "",
    "ü",
    "a\0b",
    "\u{10FFFF}",
    <<255>>,
    <<0xED, 0xA0, 0x80>>,
    <<5::3>>,
    {},
    [],
    [[1], [[2.0, "x"]]],
    [1 | 2],
    %{"a" => [1]}
  ]

  test "values of every kind", %{pool: pool} do
    bytes = for data <- ["", <<255>>, "text"], do: Py.bytes(data)

    for value <- @values ++ bytes ++ [self(), make_ref(), &is_atom/1] do
      everywhere(pool, :quick_cases, :told, [value])
      everywhere(pool, :quick_cases, :told, [1, value, "last"])
      everywhere(pool, :quick_cases, :back, [value])
    end
  end

  test "texts at the border", %{pool: pool} do
    for bytes <- 1_022..1_026, text <- [String.duplicate("x", bytes), border(bytes)] do
      assert {:ok, ^text} = everywhere(pool, :quick_cases, :back, [text])
    end

    invalid = String.duplicate("x", 1_023) <> <<255>>
    assert {:encode, _, _} = everywhere(pool, :quick_cases, :back, [invalid])
    part = binary_part(border(3_000), 2_000, 1_000)
    assert {:ok, ^part} = everywhere(pool, :quick_cases, :back, [part])
  end

  defp border(bytes), do: String.duplicate("x", bytes - 2) <> "ü"

  test "more and fewer arguments", %{pool: pool} do
    for count <- 0..9, value <- [1, 2.5, "text", 2 ** 70] do
      arguments = List.duplicate(value, count)
      assert {:ok, {told, []}} = everywhere(pool, :quick_cases, :told, arguments)
      assert length(told) == count
    end

    assert {:python, "TypeError", _} = everywhere(pool, :quick_cases, :back, [])
    assert {:python, "TypeError", _} = everywhere(pool, :quick_cases, :back, [1, 2])
    assert {:encode, _, _} = everywhere(pool, :quick_cases, :told, [1, <<255>>, 3])
  end

  test "keywords", %{pool: pool} do
    assert {:ok, {[_], ["k", "l"]}} = everywhere(pool, :quick_cases, :told, [1], k: 1, l: "x")
    assert {:ok, {[_], ["k"]}} = everywhere(pool, :quick_cases, :told, [1], %{"k" => 1})
    assert {:ok, {[_], []}} = everywhere(pool, :quick_cases, :told, [1], %{})
    assert {:ok, 5} = everywhere(pool, :quick_cases, :back, [], x: 5)
    assert {:python, "TypeError", _} = everywhere(pool, :quick_cases, :back, [1], x: 5)
  end

  test "exceptions", %{pool: pool} do
    assert everywhere(pool, :quick_cases, :fail, ["x"]) == {:python, "ValueError", "x"}
    assert everywhere(pool, :quick_cases, :leave, [3]) == {:python, "SystemExit", "3"}
    assert everywhere(pool, :quick_cases, :fail, [2 ** 80]) |> elem(1) == "ValueError"
    # And the next call feels nothing of it.
    assert everywhere(pool, :quick_cases, :back, [1]) == {:ok, 1}
  end

  test "coroutine functions", %{pool: pool} do
    assert everywhere(pool, :quick_cases, :later, [1]) == {:ok, 1}
    assert everywhere(pool, :quick_cases, :later_fail, ["x"]) == {:python, "ValueError", "x"}
    eventually(fn -> Py.Pool.info(pool).awaiting == 0 end)
  end

  test "functions that print", %{pool: pool} do
    for text <- ["", "one", "ü\n", String.duplicate("x", 1_000)] do
      assert capture_io(fn -> everywhere(pool, :quick_cases, :prints, [text]) end) ==
               String.duplicate(text, 5)
    end
  end

  test "recursion limits that are set within a call, and from call to call", %{pool: pool} do
    {:ok, before} = call(pool, :sys, :getrecursionlimit)
    assert everywhere(pool, :quick_cases, :limit_within, [3_000]) == {:ok, 1_500}
    assert everywhere(pool, :sys, :getrecursionlimit) == {:ok, before}
    assert {:python, "ValueError", _} = everywhere(pool, :sys, :setrecursionlimit, [-1])

    for limit <- [500, 5_000, before] do
      assert everywhere(pool, :sys, :setrecursionlimit, [limit]) == {:ok, nil}
      assert everywhere(pool, :sys, :getrecursionlimit) == {:ok, limit}
      assert everywhere(pool, :quick_cases, :deep, [div(limit, 2)]) == {:ok, div(limit, 2)}
      assert {:python, "RecursionError", _} = everywhere(pool, :quick_cases, :deep, [limit + 100])
    end
  end
end
