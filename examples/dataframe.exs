# A data frame of polars' that stays in Python: Elixir filters and aggregates it by its methods, and gets a small result and
# a picture. Run with: mix run examples/dataframe.exs

defmodule Sales do
  @cities ["Berlin", "Lyon", "Oslo", "Porto", "Turin"]
  @rows 200_000

  def run(kind) do
    pool = Module.concat(Sales, kind)
    options = [in: kind, size: 1, paths: [Path.expand("python", __DIR__)], init: "import frames"]
    {:ok, _pool} = Py.Pool.start_link([name: pool] ++ options)

    sales = Py.call!(:polars, :read_csv, [csv()], on: pool)

    IO.puts(
      "#{kind}: #{Py.Object.type(sales)} of #{Enum.join(Tuple.to_list(Py.getattr!(sales, :shape)), " x ")}"
    )

    # Expressions are objects as well. What a frame gives is one where it has no Elixir value.
    large = Py.call!(sales, :filter, [column(pool, "amount") |> Py.call!(:gt, [400])])

    totals =
      large
      |> Py.call!(:group_by, ["city"])
      |> Py.call!(:agg, [
        column(pool, "amount") |> Py.call!(:sum),
        Py.call!(:polars, :len, [], on: pool)
      ])
      |> Py.call!(:sort, ["city"])

    # Small, and made of plain values: a list of maps.
    rows = Py.call!(totals, :to_dicts)
    for row <- rows, do: IO.puts("  #{row["city"]}: #{row["len"]} sales, #{row["amount"]} in all")
    ^rows = expected()

    path = Path.expand("../_build/sales_#{kind}.png", __DIR__)
    File.write!(path, Py.call!(:frames, :bars, [totals, "city", "amount"], on: pool))
    IO.puts("  #{Path.relative_to_cwd(path)}: #{File.stat!(path).size} bytes")
  end

  defp column(pool, name), do: Py.call!(:polars, :col, [name], on: pool)

  defp csv do
    path = Path.expand("../_build/sales.csv", __DIR__)
    File.mkdir_p!(Path.dirname(path))

    File.write!(path, [
      "city,amount\n" | for({city, amount} <- sales(), do: "#{city},#{amount}\n")
    ])

    path
  end

  # The same in each run.
  defp sales,
    do: for(n <- 1..@rows, do: {Enum.at(@cities, rem(n * n, 5)), rem(n * 7919, 500) + 1})

  defp expected do
    sales()
    |> Enum.filter(fn {_city, amount} -> amount > 400 end)
    |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
    |> Enum.sort()
    |> Enum.map(fn {city, amounts} ->
      %{"city" => city, "amount" => Enum.sum(amounts), "len" => length(amounts)}
    end)
  end
end

Sales.run(:thread)
Sales.run(:process)
IO.puts("dataframe: done")
