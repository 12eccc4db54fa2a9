defmodule Py.Cases.FairnessTest do
  # A caller waits for a share of what others asked, never for all of it.
  use Py.Case, on: [:thread, :process]

  @moduletag :fairness
  @moduletag pool: [size: 1, max_queue: 30_000]

  # About three seconds of Python.
  @flood 10_000

  defp flood(pool) do
    me = self()

    pid =
      spawn(fn ->
        for _ <- 1..@flood,
            do: Py.async_call(:builtins, :sum, [1..20_000], on: pool, timeout: :infinity)

        send(me, :flooding)
        Process.sleep(:infinity)
      end)

    assert_receive :flooding, 10_000
    pid
  end

  defp dry_up(pool, flood) do
    Process.exit(flood, :kill)
    eventually(fn -> match?(%{queued: 0, running: 0}, Py.Pool.info(pool)) end)
  end

  test "a flood of ten thousand calls, and twenty of another caller", %{pool: pool} do
    flood = flood(pool)
    for n <- 1..20, do: assert(eval(pool, "n", %{n: n}) == {:ok, n})
    assert Py.Pool.info(pool).queued > div(@flood, 4)
    dry_up(pool, flood)
  end

  # As many callers as make sure that some of them look like the flood to whatever tells callers apart by few bits.
  test "whoever the caller is, it is not taken for the one that floods", %{pool: pool} do
    flood = flood(pool)

    one = fn n ->
      assert call(pool, :operator, :add, [n, 0], [], timeout: :infinity) == {:ok, n}
      Py.Pool.info(pool).queued
    end

    left =
      1..4_096
      |> Task.async_stream(one, max_concurrency: 400, timeout: :infinity, ordered: false)
      |> Enum.map(fn {:ok, left} -> left end)

    # How far the flood was worked off when the unluckiest was answered.
    starved = Enum.count(left, &(&1 < div(@flood, 20)))
    assert starved == 0, "#{starved} of 4,096 callers waited for nearly all of the flood"
    dry_up(pool, flood)
  end
end
