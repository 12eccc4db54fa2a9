defmodule Py.Cases.DatesTest do
  # CASES.md 47: dates, times, offsets and zones.
  use Py.Case, on: [:thread, :process]

  defp echo(pool, value), do: eval(pool, "x", %{x: value})

  defp type(pool, value),
    do: eval(pool, "type(x).__module__ + '.' + type(x).__name__", %{x: value})

  test "47. dates and times", %{pool: pool} do
    import_ = "import datetime as d\n"
    assert eval(pool, import_ <> "d.date(2024, 1, 2)") == {:ok, ~D[2024-01-02]}
    assert eval(pool, import_ <> "d.datetime(2024, 1, 2)") == {:ok, ~N[2024-01-02 00:00:00]}

    assert eval(pool, import_ <> "d.datetime(2024, 1, 2, 3, 4, 5, 6)") ==
             {:ok, ~N[2024-01-02 03:04:05.000006]}

    assert eval(pool, import_ <> "d.time(1, 2, 3)") == {:ok, ~T[01:02:03]}

    assert eval(pool, import_ <> "d.datetime(2024, 1, 2, tzinfo=d.timezone.utc)") ==
             {:ok, ~U[2024-01-02 00:00:00Z]}

    for value <- [
          ~D[2024-02-29],
          ~T[23:59:59.999999],
          ~N[2024-01-02 03:04:05],
          ~U[2024-01-02 03:04:05.600000Z]
        ] do
      assert echo(pool, value) == {:ok, value}
    end

    assert type(pool, ~U[2024-01-02 03:04:05Z]) == {:ok, "datetime.datetime"}
    assert type(pool, ~D[2024-01-02]) == {:ok, "datetime.date"}
  end

  test "47. offsets and zones are kept", %{pool: pool} do
    code =
      "import datetime as d\nd.datetime(2024, 1, 2, 12, tzinfo=d.timezone(d.timedelta(hours=2)))"

    assert {:ok, %DateTime{hour: 12} = fixed} = eval(pool, code)
    assert fixed.utc_offset + fixed.std_offset == 7200
    assert echo(pool, fixed) == {:ok, fixed}

    code =
      "import datetime as d, zoneinfo\nd.datetime(2024, 7, 2, 12, tzinfo=zoneinfo.ZoneInfo('Europe/Berlin'))"

    assert {:ok, zoned} = eval(pool, code)

    assert %DateTime{
             time_zone: "Europe/Berlin",
             zone_abbr: "CEST",
             utc_offset: 3600,
             std_offset: 3600
           } = zoned

    assert echo(pool, zoned) == {:ok, zoned}
    assert eval(pool, "x.tzinfo.key", %{x: zoned}) == {:ok, "Europe/Berlin"}
  end

  test "47. UUID is text; timedelta, and Decimal without its library, are objects", %{pool: pool} do
    uuid = "12345678-1234-5678-1234-567812345678"
    assert eval(pool, "import uuid\nuuid.UUID(x)", %{x: uuid}) == {:ok, uuid}
    assert {:ok, delta} = eval(pool, "import datetime\ndatetime.timedelta(1)")
    assert Py.call(delta, :total_seconds) == {:ok, 86_400.0}
    assert {:ok, decimal} = eval(pool, "import decimal\ndecimal.Decimal('1.10')")
    assert Py.Object.type(decimal) == "decimal.Decimal"
  end

  test "47. precision is 0 where there are no microseconds, else 6", %{pool: pool} do
    assert echo(pool, ~T[01:02:03.500]) == {:ok, ~T[01:02:03.500000]}
    assert echo(pool, ~T[01:02:03.000]) == {:ok, ~T[01:02:03]}
    assert echo(pool, ~N[2024-01-02 03:04:05.1]) == {:ok, ~N[2024-01-02 03:04:05.100000]}
    assert echo(pool, ~U[2024-01-02 03:04:05.000000Z]) == {:ok, ~U[2024-01-02 03:04:05Z]}
  end

  test "47. the first and the last", %{pool: pool} do
    code = "import datetime as d\n[d.datetime.min, d.datetime.max, d.date.min, d.date.max]"

    ends = [
      ~N[0001-01-01 00:00:00],
      ~N[9999-12-31 23:59:59.999999],
      ~D[0001-01-01],
      ~D[9999-12-31]
    ]

    assert eval(pool, code) == {:ok, ends}
    assert echo(pool, ends) == {:ok, ends}
    assert eval(pool, "import datetime as d\nx[1] == d.datetime.max", %{x: ends}) == {:ok, true}
  end

  test "47. what Python's calendar does not have is an :encode error", %{pool: pool} do
    for {value, text} <- [
          {%Date{year: 10_000, month: 1, day: 1}, "10000"},
          {%Date{year: 0, month: 1, day: 1}, "year"},
          {%Date{year: 2024, month: 13, day: 1}, "month"},
          {%Time{hour: 23, minute: 59, second: 60}, "second"},
          {%{~D[2024-01-02] | calendar: Calendar.Other}, "Calendar.ISO"},
          {%{~D[2024-01-02] | year: "2024"}, "%Date{}"},
          {%{~U[2024-01-02 03:04:05Z] | time_zone: "Mars/Base", utc_offset: 1000}, "Mars/Base"}
        ] do
      assert %{kind: :encode, message: message} = error(echo(pool, [value]))
      assert message =~ text
      assert message =~ ~s|vars["x"][0]|
    end
  end

  test "47. an hour that comes twice keeps its place", %{pool: pool} do
    code = """
    import datetime as d, zoneinfo
    [d.datetime(2024, 10, 27, 2, 30, fold=f, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")) for f in (0, 1)]
    """

    assert {:ok, [first, second] = both} = eval(pool, code)
    assert %{zone_abbr: "CEST", utc_offset: 3600, std_offset: 3600} = first
    assert %{zone_abbr: "CET", utc_offset: 3600, std_offset: 0} = second
    assert eval(pool, "[y.fold for y in x]", %{x: both}) == {:ok, [0, 1]}
    assert echo(pool, both) == {:ok, both}
  end

  test "47. what would lose something is a :decode error", %{pool: pool} do
    for code <- [
          "d.time(1, 2, 3, tzinfo=d.timezone.utc)",
          "d.datetime(2024, 1, 1, tzinfo=d.timezone(d.timedelta(seconds=1, microseconds=5)))",
          "d.datetime(2024, 1, 1, tzinfo=type('T', (d.tzinfo,), {'utcoffset': lambda s, x: 1 / 0})())"
        ] do
      assert error(eval(pool, "import datetime as d\n" <> code)).kind == :decode
    end
  end
end
