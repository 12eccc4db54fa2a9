defmodule Py.Bench.Report do
  @moduledoc "The figures as a table, as JSON and as a chart."

  alias Py.Bench.Measure

  @results Path.expand("../results", __DIR__)
  @chart Path.expand("../chart.py", __DIR__)
  @python Path.expand("../../_build/bench/bin/python", __DIR__)

  def write(rows, memory, runs, whole?) do
    machine = machine()
    text = Enum.join([table(rows), memory(memory), legend(runs, machine)], "")
    IO.puts("\n" <> text)

    if whole? do
      File.write!(Path.join(@results, "latest.md"), text)
      File.write!(Path.join(@results, "latest.json"), json(rows, memory, runs, machine))
      {_, 0} = System.cmd(@python, [@chart, @results], into: IO.stream())
    end
  end

  @doc "A row as the cells of the table."
  def cells(row) do
    numbers = [Enum.min(row.values), Measure.percentile(row.values, 50), Enum.max(row.values)]
    [row.name, row.way, row.unit, row.what] ++ Enum.map(numbers, &shown/1) ++ [compared(row)]
  end

  defp table([]), do: ""

  defp table(rows) do
    lines(
      [
        "| | way | unit | what | minimum | median | maximum | compared |",
        "|---|---|---|---|---:|---:|---:|---:|"
      ] ++ Enum.map(rows, &line(cells(&1)))
    )
  end

  defp memory(cases) do
    Enum.map_join(cases, fn %{id: id, what: what, taken: taken} ->
      lines(
        ["| #{id}: #{what} | before | after |", "|---|---:|---:|"] ++
          Enum.map(taken, &line([&1.name, shown(&1.before), shown(&1.after)]))
      )
    end)
  end

  defp legend(runs, machine) do
    """
    Compared: the share of the floor's speed, or what is added to the first way; the median of comparisons within one round.
    #{runs} rounds; #{machine.cores} cores (#{machine.cpu}), Elixir #{machine.elixir}, OTP #{machine.otp}, Python \
    #{machine.python}, #{machine.date}.
    """
  end

  defp lines(lines), do: Enum.join(lines, "\n") <> "\n\n"
  defp line(cells), do: "| " <> Enum.join(cells, " | ") <> " |"

  defp compared(%{compare: nil}), do: ""
  defp compared(%{compare: :share, compared: share}), do: "#{shown(share * 1.0)} %"
  defp compared(%{compared: added}) when added < 0, do: "-#{shown(abs(added))}"
  defp compared(%{compared: added}), do: "+#{shown(added)}"

  defp json(rows, memory, runs, machine) do
    report = %{rows: rows, memory: memory, runs: runs, machine: machine}
    Py.call!(:json, :dumps, [report], kwargs: [indent: 1, sort_keys: true]) <> "\n"
  end

  defp machine do
    %{
      cores: System.schedulers_online(),
      cpu: cpu(),
      elixir: System.version(),
      otp: System.otp_release(),
      python: Py.call!(:platform, :python_version),
      date: Date.to_iso8601(Date.utc_today())
    }
  end

  defp cpu do
    with {:ok, text} <- File.read("/proc/cpuinfo"),
         [_all, name] <- Regex.run(~r/^model name\s*:\s*(.+)$/m, text) do
      name
    else
      _no_name -> "unknown processor"
    end
  end

  defp shown(number) when is_integer(number), do: grouped(Integer.to_string(number))
  defp shown(number) when number >= 1_000, do: number |> round() |> shown()

  defp shown(number),
    do: :erlang.float_to_binary(number, decimals: if(number < 10, do: 2, else: 1))

  defp grouped(digits), do: String.replace(digits, ~r/\B(?=(\d{3})+$)/, ",")
end
