defmodule Py.Switchboard.Casualties do
  @moduledoc false

  # What becomes of the requests of a worker that died: those that it answered are answered, those that had begun are
  # lost, the others run elsewhere.

  alias Py.{Error, Lane, Segments, Switchboard, Worker}
  alias Py.Switchboard.{Homes, Listener, Request, Requests, Roster, Staff}
  alias Py.Worker.{Frame, Output}

  @spec facts_of(Worker.t(), Switchboard.state()) :: map
  def facts_of(worker, state), do: %{pool: state.pool.name, os_pid: worker.os_pid}

  # A worker died. What it had is lost; what it did not begin is not.
  @spec ended(Worker.t(), {:code | :signal, non_neg_integer} | nil, Switchboard.state()) ::
          Switchboard.state()
  def ended(worker, exit, state) do
    Lane.close(state.pool.board.lanes, worker)
    {_output, words} = Output.last_words(worker.output, facts_of(worker, state))
    worker = Worker.receive_segments(worker)
    {begun, frames} = Worker.last_page(worker)
    # What it had answered and not written counts as answered.
    state = Enum.reduce(frames, Requests.put(state, worker), &Listener.frame(&1, worker.port, &2))
    error = crash(worker, exit, words)

    Homes.evict(worker, error)
    state = bury(Requests.requeue(state), worker, begun, error)
    state = lost(%{state | roster: Roster.remove(state.roster, worker)}, worker, begun, error)

    cond do
      worker.stage == :starting -> Staff.worker_failed(state, worker, error)
      worker.stuck -> state
      true -> died(state, worker, error)
    end
  end

  # Milliseconds for which it is known of what a worker died: a caller that was about to leave its lane says so within
  # microseconds, if the system lets it.
  @known 5_000

  defp bury(state, worker, begun, error),
    do: %{state | buried: [{worker.number, error, begun, Worker.now()} | state.buried]}

  @doc "Forgets of what workers died long ago."
  @spec forget_old(Switchboard.state()) :: Switchboard.state()
  def forget_old(state) do
    limit = Worker.now() - @known
    recent = for {_, _, _, at} = grave <- state.buried, at > limit, do: grave
    %{state | buried: recent}
  end

  @doc "A request that a worker had which died before its caller could tell of it."
  @spec late(Switchboard.state(), non_neg_integer, Frame.id(), Request.t()) :: Switchboard.state()
  def late(state, number, id, request) do
    {_number, error, begun, _at} =
      List.keyfind(state.buried, number, 0, {number, unknown(), :unknown, 0})

    if begun?(id, request, begun),
      do: give_up(state, id, request, error),
      else: wait_again(state, id, request)
  end

  defp unknown, do: Error.new(:crashed, "the worker process ended")

  # What it had of ours goes with the garbage: descriptors too.
  defp died(state, worker, error) do
    send(self(), :collect)
    {delay, roster} = Roster.died(state.roster, worker, error)
    if delay, do: Process.send_after(self(), :staff, delay)
    %{state | roster: roster}
  end

  defp lost(state, worker, begun, error) do
    Worker.stop(worker)
    port = worker.port
    had = for {id, %{port: ^port} = request} <- state.requests, do: {id, request}
    {over, waiting} = Enum.split_with(had, fn {id, request} -> begun?(id, request, begun) end)
    take_in(state, worker, waiting)

    state =
      Enum.reduce(over, state, fn {id, request}, state -> give_up(state, id, request, error) end)

    waiting
    |> Enum.sort(:desc)
    |> Enum.reduce(state, fn {id, request}, state -> wait_again(state, id, request) end)
  end

  defp begun?(_id, %{question?: true}, _begun), do: true
  defp begun?(_id, %{mode: :over}, _begun), do: true
  defp begun?(_id, %{awaiting?: true}, _begun), do: true
  defp begun?(_id, _request, :unknown), do: true
  defp begun?(id, _request, begun), do: MapSet.member?(begun, id)

  # The segments that it read, but for those of requests that are to run elsewhere.
  defp take_in(state, worker, waiting) do
    kept = for {_id, %{shared: {segment, _memory, _len}}} <- waiting, do: segment

    for {segment, memory} <- Map.drop(worker.lent, kept),
        do: Segments.put(state.pool.board.segments, segment, memory)
  end

  defp give_up(state, id, request, error) do
    Request.answer(request, {:error, error})
    Requests.forget(%{state | requests: Map.delete(state.requests, id)}, id, request)
  end

  defp wait_again(state, id, request) do
    requests = Map.put(state.requests, id, %{request | port: nil, since: nil})
    Requests.put_back(%{state | requests: requests}, id, request)
  end

  defp crash(worker, exit, words) do
    cause =
      if worker.stuck,
        do: "was ended because another call of it did not stop within grace:",
        else: Worker.cause(exit)

    words = if words == "", do: "", else: "\n" <> words
    %{Error.new(:crashed, "the worker process #{worker.os_pid} #{cause}#{words}") | exit: exit}
  end
end
