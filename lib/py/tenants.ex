defmodule Py.Tenants do
  @moduledoc false

  # Who has state in Python that is to end with them: sessions, and those who feed streams. Each is a process, watched
  # here: when it has ended, in whatever way, what it had is closed.

  use GenServer

  alias Py.{Caller, Error, Pool, Session, Telemetry}

  @typedoc "Names what a tenant has, in Python too."
  @type key :: pos_integer

  @typedoc """
  Where that is, and what closes it: the function `close` of `module`, which takes the key. With a span its end is an event.
  """
  @type tenancy :: %{pool: Pool.t(), key: key, module: String.t(), span: Telemetry.span() | nil}

  @spec start_link(term) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @spec new_key() :: key
  def new_key, do: System.unique_integer([:positive])

  @doc "Watches the calling process from now on, unless its pool has so many of its kind. Later calls say where it is."
  @spec move_in(tenancy, pos_integer | :infinity) :: :ok | {:error, Error.t()}
  def move_in(tenancy, limit \\ :infinity),
    do: GenServer.call(__MODULE__, {:move_in, self(), tenancy, limit}, :infinity)

  @doc "It has closed what it had."
  @spec move_out(tenancy) :: :ok
  def move_out(tenancy) do
    leave(tenancy)
    GenServer.call(__MODULE__, {:move_out, self()}, :infinity)
  end

  @doc "Closes what a tenant had, and waits for that."
  @spec close(tenancy) :: Caller.result()
  # Of what never came to a worker there is nothing.
  def close(%{pool: %{in: :process, home: {_any, _key}}}), do: {:ok, nil}

  def close(%{pool: pool, key: key, module: module}) do
    ref = make_ref()
    request = {:call, module, "close", [key], []}

    case Caller.submit(pool, ref, Process.group_leader(), request, pool.timeout) do
      {:error, _error} = refused -> refused
      _ticket -> receive(do: ({:py_result, ^ref, result} -> result))
    end
  end

  # --- the process --------------------------------------------------------------------------------

  defstruct tenants: %{}, counts: %{}

  @impl true
  def init(nil) do
    :ets.new(Session, [:named_table, :public, read_concurrency: true, write_concurrency: true])
    {:ok, %__MODULE__{}}
  end

  @impl true
  def handle_call({:move_in, pid, tenancy, limit}, _from, state) do
    kind = kind(tenancy)

    case state.tenants do
      %{^pid => {monitor, _before}} ->
        {:reply, :ok, put(state, pid, monitor, tenancy)}

      _new when :erlang.map_get(kind, state.counts) >= limit ->
        {:reply, full(tenancy, limit), state}

      _new ->
        {:reply, :ok, state |> count(kind, 1) |> put(pid, Process.monitor(pid), tenancy)}
    end
  end

  def handle_call({:move_out, pid}, _from, state) do
    case take(pid, state) do
      {{monitor, _tenancy}, state} ->
        Process.demonitor(monitor, [:flush])
        {:reply, :ok, state}

      {nil, state} ->
        {:reply, :ok, state}
    end
  end

  @impl true
  def handle_info({:DOWN, _monitor, :process, pid, reason}, state) do
    :ets.delete(Session, pid)

    case take(pid, state) do
      {{_monitor, tenancy}, state} ->
        spawn(fn -> clean_up(tenancy, reason) end)
        {:noreply, state}

      {nil, state} ->
        {:noreply, state}
    end
  end

  def handle_info(_other, state), do: {:noreply, state}

  defp put(state, pid, monitor, tenancy),
    do: %{state | tenants: Map.put(state.tenants, pid, {monitor, tenancy})}

  defp take(pid, state) do
    case Map.pop(state.tenants, pid) do
      {nil, _tenants} ->
        {nil, state}

      {{_, tenancy} = tenant, tenants} ->
        {tenant, count(%{state | tenants: tenants}, kind(tenancy), -1)}
    end
  end

  defp kind(tenancy), do: {tenancy.pool.pid, tenancy.module}

  defp count(state, kind, change) do
    case Map.get(state.counts, kind, 0) + change do
      0 -> %{state | counts: Map.delete(state.counts, kind)}
      count -> %{state | counts: Map.put(state.counts, kind, count)}
    end
  end

  defp full(%{pool: pool}, limit) do
    {:error,
     Error.new(
       :overloaded,
       "#{inspect(pool.name)} has #{limit} sessions (max_sessions: #{limit})"
     )}
  end

  defp clean_up(tenancy, reason) do
    close(tenancy)
    leave(tenancy)
    Telemetry.stop_session(tenancy.span, reason)
  end

  defp leave(%{pool: %{in: :process, pid: board}, key: key}), do: send(board, {:py_leave, key})
  defp leave(_in_the_node), do: :ok
end
