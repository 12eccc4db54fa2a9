defmodule Py.Processes do
  @moduledoc "What the operating system knows of processes."

  @type facts :: %{pid: pos_integer, state: String.t(), parent: non_neg_integer, group: integer}

  @doc "All processes there are, zombies included."
  @spec all() :: [facts]
  def all do
    for name <- File.ls!("/proc"), name =~ ~r/^\d+$/, {:ok, facts} <- [facts(name)], do: facts
  end

  # The name of a program, in parentheses, may hold anything.
  defp facts(pid) do
    with {:ok, stat} <- File.read("/proc/#{pid}/stat") do
      [state, parent, group | _rest] =
        stat |> String.split(") ") |> List.last() |> String.split(" ")

      {:ok,
       %{
         pid: String.to_integer(pid),
         state: state,
         parent: String.to_integer(parent),
         group: String.to_integer(group)
       }}
    end
  end

  @doc "Those of the group of this process, zombies left out."
  @spec in_group(pos_integer) :: [pos_integer]
  def in_group(pid),
    do: for(%{group: ^pid, state: state, pid: pid} <- all(), state != "Z", do: pid)

  @doc "The descendants of the node: its workers, what they started, and what was not reaped."
  @spec descendants() :: [facts]
  def descendants, do: descendants(all(), [String.to_integer(System.pid())])

  defp descendants(all, parents) do
    case Enum.filter(all, &(&1.parent in parents)) do
      [] -> []
      children -> children ++ descendants(all, Enum.map(children, & &1.pid))
    end
  end

  @spec running?(pos_integer) :: boolean
  def running?(pid), do: match?({:ok, %{state: state}} when state not in ["Z", "X"], facts(pid))

  @doc "Milliseconds until none of these groups has a process left; fails after five seconds."
  @spec gone([pos_integer]) :: non_neg_integer
  def gone(groups) do
    {micros, :ok} = :timer.tc(fn -> wait_until_gone(groups, 500) end)
    div(micros, 1000)
  end

  defp wait_until_gone(groups, left) do
    case Enum.flat_map(groups, &in_group/1) do
      [] ->
        :ok

      pids when left == 0 ->
        ExUnit.Assertions.flunk("these processes are still there: #{inspect(pids)}")

      _some ->
        Process.sleep(10)
        wait_until_gone(groups, left - 1)
    end
  end

  @doc "Sends a signal to one process."
  @spec signal(pos_integer, pos_integer) :: :ok | {:error, term}
  def signal(pid, signal) when pid > 1 do
    :ok = Py.Native.Base.load(Py.Build.base_file())
    Py.Native.Base.kill(pid, signal)
  end
end
