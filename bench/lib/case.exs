defmodule Py.Bench.Case do
  @moduledoc """
  One thing that is measured, in one way or several: floor, queue and inline, or idle and loaded.

  The ways take turns, and each is compared with the first one of the same round: what else the machine does then hits
  both. A way gives a number, or a list of figures: `[{"p50", 5.1}, {"p99", 18.0}]`.
  """

  @enforce_keys [:id, :unit, :what, :ways]
  defstruct [:id, :unit, :what, :ways, compare: nil]

  @type t :: %__MODULE__{
          id: String.t(),
          unit: String.t(),
          what: String.t(),
          ways: [{String.t(), (-> number | [{String.t(), number}])}],
          compare: :share | :added | nil
        }

  @doc "Does `--only` ask for it? By its whole id, or by the first word of that."
  def wanted?(_id, nil), do: true
  def wanted?(id, only), do: id in only or hd(String.split(id)) in only

  @doc "A row for each figure of each way, with the values of all runs in order."
  def run(%__MODULE__{ways: ways} = one, runs) do
    round = fn -> for {_way, fun} <- ways, do: figures(Py.Bench.Measure.apart(fun)) end
    round.()
    rounds = for _ <- 1..runs, do: round.()

    rows =
      for {name, _value} <- rounds |> hd() |> hd(),
          {{way, _fun}, index} <- Enum.with_index(ways) do
        values = Enum.map(rounds, &value(&1, index, name))
        first = if index > 0, do: Enum.map(rounds, &value(&1, 0, name))
        row(one, name, way, values, compared(one, values, first))
      end

    Enum.each(rows, &IO.puts("  " <> Enum.join(Py.Bench.Report.cells(&1), "  ")))
    rows
  end

  defp row(one, name, way, values, compared) do
    %{
      name: String.trim("#{one.id} #{name}"),
      way: way,
      unit: one.unit,
      what: one.what,
      values: values,
      compare: compared && one.compare,
      compared: compared
    }
  end

  defp figures(number) when is_number(number), do: [{"", number}]
  defp figures(figures), do: figures

  defp value(round, index, name) do
    {^name, value} = round |> Enum.at(index) |> List.keyfind(name, 0)
    value
  end

  defp compared(%{compare: compare}, _values, first) when compare == nil or first == nil, do: nil

  defp compared(one, values, first) do
    Enum.zip_with(values, first, &compare(one.compare, one.unit, &1, &2))
    |> Py.Bench.Measure.percentile(50)
  end

  # Of the speed of the first, in per cent.
  defp compare(:share, "calls/s", rate, first), do: 100 * rate / first
  defp compare(:share, _time, time, first), do: 100 * first / time
  defp compare(:added, _unit, value, first), do: value - first
end
