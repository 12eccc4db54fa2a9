defmodule Py.Bench.Memory do
  @moduledoc "What stays behind: of a million calls (M1), a million objects (M2), a thousand times 100 MB (M3)."

  alias Py.Bench.{Case, Pools}

  @calls 1_000_000
  @warm_up 100_000
  @processes 64
  @worker Pools.worker()

  def ids, do: ["M1", "M2", "M3"]

  @doc "For each case and quantity what it was before and after."
  def growth(only) do
    for {id, what, quantities, work} <- cases(), Case.wanted?(id, only) do
      work.(@warm_up, 0)
      before = quantities.()
      work.(@calls, @warm_up)

      taken =
        Enum.zip_with(before, quantities.(), fn {name, before}, {name, later} ->
          %{name: name, before: before, after: later}
        end)

      %{id: id, what: what, taken: taken}
    end
  end

  # Each gets a number of calls, and how many were made before.
  defp cases do
    [
      {"M1", "a million calls", &taken/0, &call_many/2},
      {"M2", "a million objects made and dropped, on either kind of pool", &both/0, &objects/2},
      {"M3", "1,000 times 100 MB in and out, on either kind of pool", &both/0, &round_trips/2}
    ]
  end

  defp objects(count, _first) do
    each(count, fn pool ->
      [%Py.Object{} | _] = Py.eval!("[object() for _ in range(1000)]", %{}, on: pool)
    end)
  end

  defp round_trips(count, _first) do
    buffer = Py.buffer(:binary.copy(<<7>>, 100_000_000))
    each(count, &(100_000_000 = byte_size(Py.eval!("x", %{x: buffer}, on: &1))))
  end

  # A thousand at a time.
  defp each(count, fun) do
    for pool <- [Py, @worker],
        do: Enum.each(1..div(count, 1_000), fn _ -> fun.(pool) end)
  end

  defp call_many(count, first) do
    each = div(count, @processes)

    for process <- 0..(@processes - 1) do
      Task.async(fn -> Enum.each(1..each, &call(first + process * each + &1)) end)
    end
    |> Task.await_many(:infinity)
  end

  # Text that was never seen before, structures, failures; none may stay.
  defp call(n) when rem(n, 10) == 0 do
    {:error, %Py.Error{}} = Py.call(:builtins, :int, ["no number #{n}"])
  end

  defp call(n) when rem(n, 10) == 1 do
    {:ok, %{"n" => ^n}} = Py.eval("{**x, 'seen': True}", %{x: %{"n" => n, "list" => [n, 1.5]}})
  end

  defp call(n) when rem(n, 10) in 2..5, do: {:ok, _} = Py.call(:builtins, :hex, [n])
  defp call(n), do: {:ok, _} = Py.call(:math, :sqrt, [n], inline: true)

  # What is dropped is let go of soon, not at once.
  defp both do
    Enum.each(Process.list(), &:erlang.garbage_collect/1)
    Process.sleep(500)

    Enum.flat_map([{"node", Py}, {"worker", @worker}], fn {who, pool} ->
      place = "/proc/#{Py.call!(:os, :getpid, [], on: pool)}"

      [
        {"RSS of the #{who}, MB", number(File.read!("#{place}/status"), "VmRSS") / 1_024},
        {"descriptors of the #{who}", length(File.ls!("#{place}/fd"))},
        {"Python objects of the #{who}", Py.call!(:py_bench, :count_objects, [], on: pool)}
      ]
    end) ++ [{"files in /dev/shm", length(File.ls!("/dev/shm"))}]
  end

  defp taken do
    Enum.each(Process.list(), &:erlang.garbage_collect/1)
    status = File.read!("/proc/self/status")

    [
      {"RSS, MB", number(status, "VmRSS") / 1_024},
      {"BEAM memory, MB", :erlang.memory(:total) / 1_048_576},
      {"atoms", :erlang.system_info(:atom_count)},
      {"processes", :erlang.system_info(:process_count)},
      {"threads", number(status, "Threads")},
      {"Python objects", Py.call!(:py_bench, :count_objects)}
    ]
  end

  defp number(status, name) do
    [_all, number] = Regex.run(~r/^#{name}:\s+(\d+)/m, status)
    String.to_integer(number)
  end
end
