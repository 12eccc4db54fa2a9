defmodule Py.Survivor do
  @moduledoc false

  # Answers the asynchronous requests of a switchboard that was killed: whoever waits for the message of a future by
  # hand watches no pool. What is in the table is owed a message.

  use GenServer

  alias Py.Pool
  alias Py.Pool.Startup

  @spec start_link(term) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "Looks after the requests of the calling process, the switchboard of a pool, from now on."
  @spec watch(atom) :: :ok
  def watch(name), do: GenServer.call(__MODULE__, {:watch, self(), name}, :infinity)

  @doc "Notes that the calling process is to get a message from a switchboard."
  @spec owe(reference, pid) :: true
  def owe(ref, board), do: :ets.insert(__MODULE__, {ref, self(), board})

  @doc "The message was sent, or will not be missed."
  @spec settle(reference) :: true
  def settle(ref), do: :ets.delete(__MODULE__, ref)

  @doc """
  To be asked once the request is sent: false where the switchboard was dead before that, and nobody will answer.
  """
  @spec answers?(reference, pid) :: boolean
  def answers?(ref, board), do: Process.alive?(board) or :ets.take(__MODULE__, ref) == []

  @impl true
  def init(nil) do
    :ets.new(__MODULE__, [:named_table, :public, write_concurrency: true])
    {:ok, %{}}
  end

  @impl true
  def handle_call({:watch, board, name}, _from, names),
    do: {:reply, :ok, Map.put(names, Process.monitor(board), name)}

  @impl true
  def handle_info({:DOWN, monitor, :process, board, _reason}, names) do
    {name, names} = Map.pop!(names, monitor)
    if match?(%Pool{pid: ^board}, Pool.lookup(name)), do: Pool.mark(name, :stopped)
    result = {:error, Startup.stopped(name)}

    for {ref, _from, _board} <- :ets.match_object(__MODULE__, {:_, :_, board}),
        do: answer(ref, result)

    {:noreply, names}
  end

  # Whoever takes it from the table answers.
  defp answer(ref, result) do
    for {^ref, from, _board} <- :ets.take(__MODULE__, ref),
        do: send(from, {:py_result, ref, result})
  end
end
