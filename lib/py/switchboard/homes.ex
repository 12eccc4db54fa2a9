defmodule Py.Switchboard.Homes do
  @moduledoc false

  # Requests for one worker and no other, since it has the Python state that they are about: a session, a stream, an
  # object. The first one of a session or stream chooses the worker, whose guest its caller is from then on: a worker that
  # has guests is not replaced before they leave, and they are told when it ends.

  alias Py.{Error, Switchboard, Worker}
  alias Py.Switchboard.{Request, Requests, Roster}
  alias Py.Worker.Frame

  @type key :: pos_integer

  @doc "Has a request wait for its worker, behind the others or, if it was there before, in front of them."
  @spec put(Switchboard.state(), Frame.id(), Request.t(), :behind | :in_front) ::
          Switchboard.state()
  def put(state, id, request, place) do
    number = number(request)
    ids = Map.get(state.homes, number, :queue.new())
    ids = if place == :behind, do: :queue.in(id, ids), else: :queue.in_r(id, ids)
    %{state | homes: Map.put(state.homes, number, ids)}
  end

  @doc "Hands out what can be handed out."
  @spec hand_out(Switchboard.state()) :: Switchboard.state()
  def hand_out(%{homes: homes} = state) when homes == %{}, do: state

  def hand_out(state),
    do: Enum.reduce(Map.keys(state.homes), state, &hand_out(&2, &1, worker(&2, &1)))

  @doc "The one worker that a request, or one to a pool as its caller has it, is for, if there is one."
  @spec number(Request.t() | Py.Pool.t()) :: non_neg_integer | nil
  def number(%{home: number}) when is_integer(number), do: number
  def number(%{home: {number, _key}}) when is_integer(number), do: number
  def number(_any_worker_does), do: nil

  defp hand_out(state, number, worker) do
    case :queue.out(Map.fetch!(state.homes, number)) do
      {:empty, _ids} -> %{state | homes: Map.delete(state.homes, number)}
      {{:value, id}, ids} -> hand_out(state, number, worker, id, ids)
    end
  end

  defp hand_out(state, number, worker, id, ids) do
    rest = %{state | homes: Map.put(state.homes, number, ids)}

    case {state.requests, worker} do
      {%{^id => request}, nil} ->
        hand_out(Requests.fail(rest, id, lost(request)), number, nil)

      {%{^id => request}, worker} ->
        if takes?(worker, byte_size(request.body)),
          do: rest |> Requests.hand(id, worker.port) |> settle(id, worker.port) |> go_on(number),
          else: state

      # It was cancelled while it waited.
      {_requests, worker} ->
        hand_out(rest, number, worker)
    end
  end

  # One that is in shared memory and found its worker dead waits again, for that to be known.
  defp go_on(state, number) do
    case worker(state, number) do
      %{crowded: false} = worker -> hand_out(state, number, worker)
      _crowded_or_gone -> state
    end
  end

  defp takes?(%{stage: stage, crowded: false} = worker, size) when stage in [:ready, :draining],
    do: Worker.room?(worker.load, worker.bytes, size)

  defp takes?(_worker, _size), do: false

  defp worker(state, number), do: Enum.find(Roster.workers(state.roster), &(&1.number == number))

  @doc "Notes whose guest the caller of a request is that chose its worker just now, and tells it."
  @spec settle(Switchboard.state(), Frame.id(), port) :: Switchboard.state()
  def settle(state, id, port) do
    case state.requests do
      %{^id => %{home: {_choose, key}, port: ^port} = request} when key != :object ->
        worker = Roster.worker(state.roster, port)
        send(request.from, {:py_home, request.ref, worker.number})
        guests = Map.put(worker.guests, key, request.from)
        Requests.put(state, %{worker | guests: guests})

      _any_worker_does ->
        state
    end
  end

  @doc "Forgets that again, of a key or of a request that chose its worker."
  @spec leave(Switchboard.state(), key | Request.t()) :: Switchboard.state()
  def leave(state, %Request{home: {:choose, key}}), do: leave(state, key)
  def leave(state, %Request{}), do: state

  def leave(state, key) do
    state.roster
    |> Roster.workers()
    |> Enum.filter(&is_map_key(&1.guests, key))
    |> Enum.reduce(state, &Requests.put(&2, %{&1 | guests: Map.delete(&1.guests, key)}))
  end

  @doc "Tells the guests of a worker that it ended."
  @spec evict(Worker.t(), Error.t()) :: :ok
  def evict(worker, error),
    do: Enum.each(worker.guests, fn {key, pid} -> send(pid, {:py_evicted, key, error}) end)

  @doc "The home of a request that may have any worker, now that it is to have the one of this number."
  @spec at(term, non_neg_integer) :: {:ok, term} | :error
  def at(nil, number), do: {:ok, {number, :object}}
  def at({:choose, key}, number), do: {:ok, {number, key}}
  def at(_home, _number), do: :error

  @doc "What they are told whose arguments are objects of several workers."
  @spec scattered() :: Error.t()
  def scattered do
    Error.new(
      :not_available,
      "the objects of this call are in different worker processes, or not in the one of its session: " <>
        "Py.Object.copy/2 moves them"
    )
  end

  @doc "What they are told whose request came to another worker than the one of its home, and so does not find an object."
  @spec missing(term, non_neg_integer) :: Error.t()
  def missing({number, :object} = home, number), do: lost(%{home: home})
  def missing(_home, _number), do: scattered()

  @doc "What those are told who ask a worker that is no more."
  @spec lost(%{home: term}) :: Error.t()
  def lost(%{home: {_number, :object}}),
    do: Error.new(:not_available, "the worker process that had the object has ended")

  def lost(_request), do: Error.new(:session_lost, "the worker process that held it has ended")
end
