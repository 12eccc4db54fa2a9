defmodule Py.Tenants do
  @moduledoc false

  # Who has state in Python that is to end with them: sessions, and those who feed streams. Each is a process, watched
  # here: when it has ended, in whatever way, what it had is closed.

  use GenServer

  alias Py.{Caller, Pool}

  @typedoc "Names what a tenant has, in Python too."
  @type key :: pos_integer

  @typedoc "Where that is, and what closes it: a function of that name in `module`, which takes the key."
  @type tenancy :: %{pool: Pool.t(), key: key, module: String.t()}

  @spec start_link(term) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @spec new_key() :: key
  def new_key, do: System.unique_integer([:positive])

  @doc "Watches the calling process from now on. Where its home is known later, it says so again."
  @spec move_in(tenancy) :: :ok
  def move_in(tenancy), do: GenServer.call(__MODULE__, {:move_in, self(), tenancy}, :infinity)

  @doc "It has closed what it had."
  @spec move_out(tenancy) :: :ok
  def move_out(tenancy) do
    leave(tenancy)
    GenServer.call(__MODULE__, {:move_out, self()}, :infinity)
  end

  @doc "Closes what a tenant had, and waits for that."
  @spec close(tenancy) :: Caller.result()
  # Of what never came to a worker there is nothing.
  def close(%{pool: %{in: :process, home: {:choose, _key}}}), do: {:ok, nil}

  def close(%{pool: pool, key: key, module: module}) do
    ref = make_ref()
    request = {:call, module, "close", [key], []}

    case Caller.submit(pool, ref, Process.group_leader(), request, pool.timeout) do
      {:error, _error} = refused -> refused
      _ticket -> receive(do: ({:py_result, ^ref, result} -> result))
    end
  end

  @impl true
  def init(nil), do: {:ok, %{}}

  # The state: by pid, the monitor of a tenant and what it has.
  @impl true
  def handle_call({:move_in, pid, tenancy}, _from, tenants) do
    monitor =
      case tenants do
        %{^pid => {monitor, _before}} -> monitor
        _new -> Process.monitor(pid)
      end

    {:reply, :ok, Map.put(tenants, pid, {monitor, tenancy})}
  end

  def handle_call({:move_out, pid}, _from, tenants) do
    {tenant, tenants} = Map.pop(tenants, pid)
    with {monitor, _tenancy} <- tenant, do: Process.demonitor(monitor, [:flush])
    {:reply, :ok, tenants}
  end

  @impl true
  def handle_info({:DOWN, _monitor, :process, pid, _reason}, tenants) do
    {tenant, tenants} = Map.pop(tenants, pid)

    with {_monitor, tenancy} <- tenant do
      spawn(fn ->
        close(tenancy)
        leave(tenancy)
      end)
    end

    {:noreply, tenants}
  end

  def handle_info(_other, tenants), do: {:noreply, tenants}

  defp leave(%{pool: %{in: :process, pid: board}, key: key}), do: send(board, {:py_leave, key})
  defp leave(_in_the_node), do: :ok
end
