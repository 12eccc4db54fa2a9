defmodule Py.Aside do
  @moduledoc false

  # Runs a function in a process of its own, whose mailbox takes what comes too late and which ends with the caller. A
  # caller that traps exits gets no message of it.

  @doc "What the function returns; nil where that takes longer than `timeout` milliseconds."
  @spec run((-> result), timeout) :: {:ok, result} | nil when result: term
  def run(function, timeout \\ :infinity) do
    task = Task.async(function)
    outcome = Task.yield(task, timeout) || Task.shutdown(task, :brutal_kill)
    Process.unlink(task.pid)

    receive do
      {:EXIT, pid, _reason} when pid == task.pid -> :ok
    after
      0 -> :ok
    end

    with {:exit, reason} <- outcome, do: exit(reason)
  end
end
