defmodule Py.Output do
  @moduledoc false

  # Where Python's side effects enter the BEAM: what it logs goes to Logger, what it sends elsewhere is passed on, and
  # the answers that group leaders give to what it prints end here.

  use GenServer

  alias Py.Telemetry

  @spec start_link(term) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "Returns when what Python has sent so far was passed on."
  @spec flush() :: :ok
  def flush, do: GenServer.call(__MODULE__, :flush, :infinity)

  @impl true
  def init(nil), do: {:ok, nil}

  @impl true
  def handle_call(:flush, _from, state), do: {:reply, :ok, state}

  @impl true
  def handle_info({:py_log, level, message, facts}, state) do
    :logger.log(level, String.to_charlist(message), metadata(facts))
    {:noreply, state}
  end

  # What nobody waits for comes here, where it stays in its order.
  def handle_info({:py_tell, what, span}, state) do
    Telemetry.told(what, span)
    {:noreply, state}
  end

  def handle_info({:py_forward, {dest, message}}, state) do
    send(dest, message)
    {:noreply, state}
  end

  def handle_info(_io_reply, state), do: {:noreply, state}

  # Python's names stay binaries, under a key of their own: `module` and `function` of Logger are atoms.
  defp metadata(facts) do
    %{
      domain: [:python],
      file: facts |> Map.get(:file, "") |> String.to_charlist(),
      line: Map.get(facts, :line, 0),
      gl: Map.get(facts, :leader, Process.group_leader()),
      pid: self(),
      python: Map.take(facts, [:logger, :module, :function, :thread])
    }
  end
end
