defmodule Py.Bench.Data do
  @moduledoc "B and X: values on their way in and out, and exceptions."

  alias Py.Bench.{Case, Measure, Pools}

  def cases, do: Enum.concat([binaries(), terms(), errors()])

  defp binaries do
    echoes =
      for megabytes <- [1, 10, 100] do
        one("B1 #{megabytes} MB", "ms", "echoed as `bytes`", fn options ->
          bytes = Py.bytes(:binary.copy(<<7>>, megabytes * 1_000_000))
          Measure.milliseconds(fn -> Py.eval!("x", %{x: bytes}, options) end)
        end)
      end

    view = fn options ->
      buffer = Py.buffer(:binary.copy(<<7>>, 100_000_000))
      Measure.latency(fn -> Py.eval!("x", %{x: buffer}, options) end, [50], 20)
    end

    read = fn options ->
      Measure.latency(fn -> Py.getattr!(:py_bench, :held, options) end, [50], 20)
    end

    mapped = &read.([copy: false] ++ &1)

    echoes ++
      [
        one("B1 100 MB view", "us", "in by `Py.buffer`, out as a binary", view),
        one("B1 100 MB out", "us", "bytes that Python holds, as a binary", read),
        one("B1 100 MB mapped", "us", "the same with `copy: false`", mapped)
      ]
  end

  defp terms do
    for {text, make} <- [
          {"a million ints", fn -> Enum.to_list(1..1_000_000) end},
          {"a million floats", fn -> Enum.map(1..1_000_000, &(&1 / 3)) end},
          {"10,000 maps of five keys", fn -> Enum.map(1..10_000, &map/1) end}
        ] do
      one("B2 #{text}", "ms", "echoed", fn options ->
        value = make.()
        Measure.milliseconds(fn -> Py.eval!("x", %{x: value}, options) end)
      end)
    end
  end

  defp map(n) do
    %{"id" => n, "name" => "name #{n}", "score" => n / 7, "tags" => ["a", "b"], "ok" => true}
  end

  defp errors do
    raise_one = fn options ->
      {:error, %Py.Error{kind: :python}} = Py.eval("1/0", %{}, options)
    end

    [
      one("X1", "us", "an exception with its traceback", fn options ->
        Measure.latency(fn -> raise_one.(options) end, [50])
      end)
    ]
  end

  defp one(id, unit, what, fun), do: %Case{id: id, unit: unit, what: what, ways: Pools.both(fun)}
end
