defmodule Py.Bench.Memory do
  @moduledoc "M1: what a million calls leave behind."

  @calls 1_000_000
  @warm_up 100_000
  @processes 64

  @doc "For each quantity what it was before and after."
  def growth do
    call_many(@warm_up, 0)
    before = taken()
    call_many(@calls, @warm_up)

    Enum.zip_with(before, taken(), fn {name, before}, {name, later} ->
      %{name: name, before: before, after: later}
    end)
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
