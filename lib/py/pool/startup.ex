defmodule Py.Pool.Startup do
  @moduledoc false

  # What happens to a call whose pool is not there: the default pool is started, one that starts is waited for, and the
  # rest is an error. Never on the path of a call whose pool runs.

  alias Py.{Error, Pool}

  @spec wait(atom, :starting | :stopped | nil, timeout) :: {:ok, Pool.t()} | {:error, Error.t()}
  def wait(name, :starting, timeout), do: await_ready(name, timeout)

  def wait(Py, _stopped_or_nil, timeout) do
    case Application.get_env(:py, :default, []) do
      false ->
        {:error,
         Error.new(:no_pool, "Py; the default pool is turned off by config :py, default: false")}

      options ->
        start_default(options, timeout)
    end
  end

  def wait(name, :stopped, _timeout), do: {:error, stopped(name)}

  def wait(name, nil, _timeout) do
    {:error,
     Error.new(
       :no_pool,
       "#{inspect(name)}; start it as a child: {Py.Pool, name: #{inspect(name)}}"
     )}
  end

  @spec stopped(atom) :: Error.t()
  def stopped(name), do: Error.new(:stopped, inspect(name))

  # In a process of its own, so that a caller's deadline holds while Python boots.
  defp start_default(options, timeout) do
    child = {Pool, [name: Py] ++ options}
    start = fn -> exit({:started, DynamicSupervisor.start_child(Py.DefaultPool, child)}) end
    {_pid, monitor} = spawn_monitor(start)

    receive do
      {:DOWN, ^monitor, :process, _pid, {:started, result}} -> started(result, timeout)
      {:DOWN, ^monitor, :process, _pid, _reason} -> {:error, not_running()}
    after
      timeout ->
        Process.demonitor(monitor, [:flush])
        {:error, starting(Py)}
    end
  end

  defp started({:ok, _pid}, _timeout), do: current(Py)
  defp started({:error, {:already_started, _pid}}, timeout), do: await_ready(Py, timeout)
  defp started({:error, %Error{} = error}, _timeout), do: {:error, error}

  defp await_ready(name, timeout) do
    GenServer.call(name, :ready, timeout)
    current(name)
  catch
    :exit, {:timeout, _call} -> {:error, starting(name)}
    :exit, _reason -> current(name)
  end

  defp current(name) do
    case Pool.lookup(name) do
      %Pool{} = pool -> {:ok, pool}
      _ended_meanwhile -> {:error, stopped(name)}
    end
  end

  defp starting(name), do: Error.new(:starting, inspect(name))

  defp not_running do
    Error.new(
      :not_available,
      "the application :py does not run: start it with Application.ensure_all_started(:py)"
    )
  end
end
