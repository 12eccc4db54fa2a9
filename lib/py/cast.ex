defmodule Py.Cast do
  @moduledoc false

  # Submits what nobody waits for, in the order it was asked, and tells Logger of the failures.

  use GenServer

  require Logger

  alias Py.{Caller, Error, Pool, Telemetry}
  alias Py.Switchboard.Request

  @spec start_link(term) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @spec cast(Caller.request(), map) :: :ok
  def cast(request, options) do
    told = {:cast, request, options, Process.group_leader(), Telemetry.current()}
    GenServer.cast(__MODULE__, told)
  end

  @impl true
  def init(nil), do: {:ok, %{}}

  # The state: what runs, by its tag.
  @impl true
  def handle_cast({:cast, request, %{on: name} = options, leader, parent}, running) do
    case is_atom(name) && Pool.lookup(name) do
      %Pool{} = pool ->
        {tag, asked} = submit(pool, request, options.timeout || pool.timeout, leader, parent)
        {:noreply, if(asked, do: Map.put(running, tag, asked), else: running)}

      _elsewhere_or_not_there ->
        spawn(fn -> run(request, options, leader) end)
        {:noreply, running}
    end
  end

  @impl true
  def handle_info({:py_result, tag, result}, running) do
    {{span, ticket, request, leader}, running} = Map.pop(running, tag)
    Telemetry.stop(span, ticket, result)
    report(result, request, leader)
    {:noreply, running}
  end

  def handle_info(_other, running), do: {:noreply, running}

  defp submit(pool, request, timeout, leader, parent) do
    tag = make_ref()
    span = Telemetry.start(pool, request, tag, parent)

    case Caller.submit(pool, tag, leader, request, timeout) do
      {:error, _error} = refused ->
        Telemetry.stop(span, nil, refused)
        report(refused, request, leader)
        {tag, nil}

      ticket ->
        {tag, {span, ticket, request, leader}}
    end
  end

  # A pool that has to be waited for must not hold up the casts to the others.
  defp run(request, options, leader) do
    Process.group_leader(self(), leader)

    report(Caller.run(request, options), request, leader)
  end

  defp report({:error, %Error{} = error}, request, leader) do
    Logger.error("Py.cast of #{Request.subject(request)} failed: #{Exception.message(error)}",
      domain: [:python],
      gl: leader,
      crash_reason: {error, []}
    )
  end

  defp report(_done, _request, _leader), do: :ok
end
