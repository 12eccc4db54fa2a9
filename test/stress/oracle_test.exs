defmodule Py.OracleTest do
  # Random values out of Python beside what each must be: the generator tells it from how it made the value, not from the
  # value, so that a conversion that is wrong in the same way each time is seen. For PY_FUZZ_SECONDS (2).
  use Py.Case, on: [:thread]

  import Py.Fuzz

  @moduletag :own_vm
  @moduletag timeout: :infinity
  @moduletag pool: [size: 4, init: File.read!(Path.join(__DIR__, "oracle.py"))]

  test "values out of Python are what the type table says", %{pool: pool} do
    # numpy is imported by the first.
    assert {:ok, _} = call(pool, :__main__, :sample, [0])
    stop_at = System.monotonic_time(:millisecond) + seconds() * 1_000
    done = check(pool, first(), stop_at, 0)
    if seconds() > 2, do: IO.puts("oracle: #{done} values from #{first()}")
    assert done > 100
  end

  defp check(pool, number, stop_at, done) do
    for inline <- [false, true] do
      assert {:ok, {value, told}} =
               call(pool, :__main__, :sample, [number], [], inline: inline, timeout: 20_000)

      assert {number, inline, tell(value)} == {number, inline, told}
    end

    if System.monotonic_time(:millisecond) < stop_at,
      do: check(pool, number + 1, stop_at, done + 1),
      else: done + 1
  end

  defp tell(integer) when is_integer(integer), do: "i#{integer}"
  defp tell(float) when is_float(float), do: "f" <> hex(<<float::float>>)
  defp tell(atom) when is_atom(atom), do: "a" <> Atom.to_string(atom)
  defp tell(binary) when is_binary(binary), do: "b" <> hex(binary)
  defp tell(list) when is_list(list), do: "[" <> Enum.map_join(list, " ", &tell/1) <> "]"
  defp tell(%Date{} = date), do: "d#{date}"
  defp tell(%Time{} = time), do: "t#{time}"
  defp tell(%NaiveDateTime{} = moment), do: "n#{moment}"

  defp tell(%DateTime{utc_offset: 0, std_offset: 0} = moment),
    do: "u#{DateTime.to_naive(moment)}"

  # Two ranges are the same when they have the same members.
  defp tell(%Range{} = range), do: "r" <> Enum.join(range, ",")
  defp tell(%MapSet{} = set), do: "<" <> (set |> Enum.map(&tell/1) |> sorted()) <> ">"

  defp tell(tuple) when is_tuple(tuple),
    do: "(" <> (tuple |> Tuple.to_list() |> Enum.map_join(" ", &tell/1)) <> ")"

  defp tell(map) when is_map(map) and not is_struct(map) do
    pairs = for {key, value} <- map, do: tell(key) <> "=" <> tell(value)
    "{" <> sorted(pairs) <> "}"
  end

  defp sorted(texts), do: texts |> Enum.sort() |> Enum.join(" ")
  defp hex(bytes), do: Base.encode16(bytes, case: :lower)
end
