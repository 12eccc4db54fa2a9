defmodule Py.Awaiting do
  @moduledoc false

  # What the coroutines of one interpreter ask, each question answered by a process of its own. One thread of Python's hears
  # which of them have an answer, and the coroutine then fetches it; a coroutine that is cancelled takes its question back. An
  # answer that nobody fetched was never given: whoever has it is killed with it.

  use GenServer

  alias Py.{Asker, Callbacks}

  # Milliseconds for which the thread of Python's stays when nothing is asked: it keeps calls from running inline.
  @idle 1_000

  @doc "Starts it, for as long as whoever asks can."
  @spec open(Callbacks.asker()) :: pid
  def open(asker) do
    {:ok, pid} = GenServer.start(__MODULE__, asker)
    pid
  end

  # What Python asks.
  @spec perform(String.t(), list, Asker.t()) :: {:ok, term} | {:error, term}
  def perform("ask", [pid, number, question], asker),
    do: {call(pid, {:ask, number, Process.group_leader(), asker, question}), nil}

  def perform("hear", [pid, heard], _asker), do: {:ok, call(pid, {:hear, heard})}
  def perform("withdraw", [pid, number], _asker), do: {call(pid, {:withdraw, number}), nil}
  def perform("fetch", [pid, number], _asker), do: call(pid, {:fetch, number})
  def perform("close", [pid], _asker), do: {GenServer.cast(pid, :close), nil}

  defp call(pid, what), do: GenServer.call(pid, what, :infinity)

  @impl true
  def init(asker) do
    Process.flag(:trap_exit, true)
    watch(asker)

    # By number who answers, or what is to be said of who did, and who fetches that; by pid the number; numbers that nobody
    # has heard of.
    {:ok, %{answering: %{}, fetching: %{}, numbers: %{}, ready: [], hears: nil}}
  end

  # Whoever hears says when nobody does any more, but for a worker that dies.
  defp watch({:node, _number}), do: :ok
  defp watch({:worker, _board, port, _number}), do: Port.monitor(port)

  @impl true
  def handle_call({:ask, number, leader, asker, question}, _from, state) do
    awaiting = self()
    pid = spawn_link(fn -> answer(awaiting, number, leader, asker, question) end)
    answering = Map.put(state.answering, number, pid)
    {:reply, :ok, %{state | answering: answering, numbers: Map.put(state.numbers, pid, number)}}
  end

  def handle_call({:hear, heard}, from, state),
    do: {:noreply, %{state | ready: state.ready -- heard, hears: from} |> tell() |> rest()}

  def handle_call({:fetch, number}, from, state) do
    case state.answering do
      %{^number => pid} when is_pid(pid) ->
        send(pid, {:fetch, from})
        {:noreply, put_in(state.fetching[number], from)}

      %{^number => died} ->
        {:reply, died, %{state | answering: Map.delete(state.answering, number)}}

      _made_up ->
        {:reply, {:error, {:runtime, "nothing of that number was asked"}}, state}
    end
  end

  def handle_call({:withdraw, number}, _from, state) do
    {pid, answering} = Map.pop(state.answering, number)
    if is_pid(pid), do: end_now(pid)
    ready = List.delete(state.ready, number)
    {:reply, :ok, rest(%{state | answering: answering, ready: ready})}
  end

  @impl true
  def handle_cast(:close, state), do: {:stop, :shutdown, state}

  @impl true
  def handle_info({:ready, number}, state), do: {:noreply, ready(state, number)}

  def handle_info({:EXIT, pid, reason}, state) do
    {number, numbers} = Map.pop(state.numbers, pid)
    {from, fetching} = Map.pop(state.fetching, number)
    # It may have died while somebody fetched what it had.
    if from && reason != :normal, do: GenServer.reply(from, Callbacks.died(reason))
    state = %{state | numbers: numbers, fetching: fetching}
    {:noreply, state |> ended(number, reason) |> rest()}
  end

  def handle_info({:idle, hears}, %{hears: hears, answering: none} = state) when none == %{} do
    GenServer.reply(hears, [])
    {:noreply, %{state | hears: nil}}
  end

  def handle_info({:DOWN, _monitor, :port, _port, _reason}, state), do: {:stop, :shutdown, state}
  def handle_info(_other, state), do: {:noreply, state}

  # It is known not to be alive once it has told all who watch it: what it had is back before anything else is asked.
  defp end_now(pid) do
    Process.exit(pid, :kill)
    false = Process.alive?(pid)
  end

  defp ended(state, number, :normal),
    do: %{state | answering: Map.delete(state.answering, number)}

  defp ended(state, number, reason) when is_map_key(state.answering, number),
    do: ready(put_in(state.answering[number], Callbacks.died(reason)), number)

  defp ended(state, _withdrawn, _reason), do: state

  defp ready(state, number) when is_map_key(state.answering, number),
    do: tell(%{state | ready: [number | state.ready]})

  defp ready(state, _withdrawn), do: state

  # They stay ready until it says that it has heard of them: it may be gone.
  defp tell(%{ready: ready, hears: hears} = state) when ready == [] or hears == nil, do: state

  defp tell(state) do
    GenServer.reply(state.hears, Enum.reverse(state.ready))
    %{state | hears: nil}
  end

  defp rest(%{hears: hears, answering: none} = state) when none == %{} and hears != nil do
    Process.send_after(self(), {:idle, hears}, @idle)
    state
  end

  defp rest(state), do: state

  # --- the process of one question ----------------------------------------------------------------

  defp answer(awaiting, number, leader, asker, question) do
    Process.group_leader(self(), leader)
    Asker.impersonate(asker)
    answer = Callbacks.perform(question, asker)
    send(awaiting, {:ready, number})

    receive do
      {:fetch, from} -> GenServer.reply(from, answer)
    end
  end
end
