defmodule Py.Generator do
  @moduledoc """
  Random terms of the type table, from a seed: the same seed gives the same terms.

      for {term, seed} <- Py.Generator.terms(100), do: ...
  """

  # What a seed was drawn from is printed by ExUnit (`mix test --seed`), so a failure can be seen again.
  def terms(count) do
    first = ExUnit.configuration()[:seed] || 0
    for number <- 1..count, do: {seeded(first * 10_000 + number, fn -> term(3) end), number}
  end

  def seeded(seed, fun) do
    :rand.seed(:exsss, seed)
    fun.()
  end

  @doc "A term of the table, nested at most `depth` deep."
  def term(0), do: scalar()

  def term(depth) do
    case pick(10) do
      1 -> list(fn -> term(depth - 1) end)
      2 -> list(fn -> term(depth - 1) end) |> List.to_tuple()
      3 -> map(fn -> term(depth - 1) end)
      4 -> MapSet.new(keys())
      5 -> calendar()
      6 -> range()
      _ -> scalar()
    end
  end

  @doc "What a term is after it has been to Python and back."
  def returned(:undefined), do: nil
  def returned(%{__struct__: _, microsecond: {0, _}} = time), do: %{time | microsecond: {0, 0}}

  def returned(%{__struct__: _, microsecond: {micros, _}} = time),
    do: %{time | microsecond: {micros, 6}}

  def returned(%MapSet{} = set), do: MapSet.new(set, &returned/1)
  def returned(list) when is_list(list), do: Enum.map(list, &returned/1)

  def returned(tuple) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> returned() |> List.to_tuple()

  def returned(map) when is_map(map) and not is_struct(map),
    do: Map.new(map, fn {key, value} -> {returned(key), returned(value)} end)

  def returned(other), do: other

  @doc "A term that Python can hash."
  def key do
    case pick(8) do
      1 -> {scalar_key(), scalar_key()}
      2 -> {}
      _ -> scalar_key()
    end
  end

  def scalar do
    case pick(9) do
      1 -> Enum.random([nil, :undefined])
      2 -> Enum.random([:nan, :infinity, :neg_infinity])
      3 -> Enum.random([self(), make_ref()])
      _ -> scalar_key()
    end
  end

  def integer do
    bits = Enum.random([1, 7, 8, 16, 31, 32, 53, 62, 63, 64, 65, 128, 2040])
    edge = Bitwise.bsl(1, bits) + Enum.random([-1, 0, 1])
    Enum.random([edge, -edge, :rand.uniform(1000) - 500])
  end

  def float do
    <<float::float>> = <<pick(2) - 1::1, pick(2047) - 1::11, pick(0x10000000000000) - 1::52>>
    Enum.random([float, 0.5, -0.0, 5.0e-324, 2.225073858507201e-308, -2.5])
  end

  def text do
    characters = Enum.concat([?a..?z, ?à..?ü, [0, 0x7F, 0x20AC, 0x1F600, 0x10FFFF]])
    for _ <- 1..pick(12)//1, into: "", do: <<Enum.random(characters)::utf8>>
  end

  defp scalar_key do
    case pick(6) do
      1 -> integer()
      2 -> float()
      3 -> Enum.random([true, false])
      4 -> Enum.random([:ok, :error, :é, :"with space", :""])
      5 -> Enum.random([~D[2024-02-29], ~T[01:02:03], ~T[01:02:03.500], ""])
      6 -> text()
    end
  end

  defp list(element), do: for(_ <- 1..(pick(6) - 1)//1, do: element.())

  defp map(element), do: Map.new(keys(), &{&1, element.()})

  # Two that are equal in Python are one key there, and an error: 1, 1.0 and true; :ok and "ok".
  defp keys, do: fn -> key() end |> list() |> Enum.uniq_by(&(&1 |> returned() |> in_python()))

  defp in_python(key) when is_tuple(key), do: key |> Tuple.to_list() |> Enum.map(&in_python/1)
  defp in_python(true), do: 1
  defp in_python(false), do: 0
  defp in_python(key) when is_atom(key), do: Atom.to_string(key)

  defp in_python(key) when is_float(key),
    do: if(trunc(key) == key, do: trunc(key), else: key)

  defp in_python(key), do: key

  defp calendar do
    date = Date.add(~D[0001-01-01], pick(3_652_059) - 1)
    time = Time.from_seconds_after_midnight(pick(86_400) - 1, microsecond())

    case pick(4) do
      1 -> date
      2 -> time
      3 -> NaiveDateTime.new!(date, time)
      4 -> DateTime.new!(date, time)
    end
  end

  defp microsecond, do: Enum.random([{0, 0}, {0, 6}, {1000 * pick(999), 3}, {pick(999_999), 6}])

  defp range do
    Range.new(integer(), integer(), Enum.random([1, -1, 3, -7]))
  end

  defp pick(n), do: :rand.uniform(n)
end
