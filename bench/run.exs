# make bench: the table and the chart of the README, from several runs.
#
#     mix run bench/run.exs [--runs 7] [--only T1,L1]

for file <- ~w(floor pools case measure calls data scheduling start memory report) do
  Code.require_file("lib/#{file}.exs", __DIR__)
end

defmodule Py.Bench do
  @moduledoc false

  alias Py.Bench.{Calls, Case, Data, Memory, Report, Scheduling, Start}

  def main(arguments) do
    {options, []} = OptionParser.parse!(arguments, strict: [runs: :integer, only: :string])
    runs = Keyword.get(options, :runs, 5)
    only = options[:only] && String.split(options[:only], ",")
    prepare()
    cases = Enum.concat([Start.cases(), Calls.cases(), Data.cases(), Scheduling.cases()])
    check!(only, cases)
    # Before what takes hundreds of megabytes and gives them back.
    memory = Memory.growth(only)
    rows = for one <- cases, Case.wanted?(one.id, only), row <- Case.run(one, runs), do: row
    Report.write(rows, memory, runs, only == nil)
  end

  defp prepare do
    {:ok, _} = Application.ensure_all_started(:py)
    :ok = Py.Bench.Floor.load(System.fetch_env!("PY_FLOOR"))
    Py.Bench.Pools.start()
  end

  defp check!(nil, _cases), do: :ok

  defp check!(only, cases) do
    ids = Enum.map(cases, & &1.id) ++ Memory.ids()

    for name <- only, not Enum.any?(ids, &Case.wanted?(&1, [name])) do
      Mix.raise("--only #{name}: there are #{Enum.join(ids, ", ")}")
    end
  end
end

Py.Bench.main(System.argv())
