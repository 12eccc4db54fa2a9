defmodule Py.Switchboard.Requests do
  @moduledoc false

  # Requests between the caller that asks and the worker that has them: booked, handed out, settled once.

  alias Py.{Error, Lane, Pool, Segments, Switchboard, Worker}
  alias Py.Switchboard.{Casualties, Dealer, Homes, Overdue, Queue, Request, Roster, Staff}
  alias Py.Worker.Frame

  # Requests that are taken in one go, and written with one write to each worker.
  @batch 256

  # How often requests that take long are looked at.
  @tick 10

  # Whoever was to read a segment is dead.
  @spec reader_died(Switchboard.state(), reference) :: Switchboard.state()
  def reader_died(state, monitor) do
    found =
      for worker <- Roster.workers(state.roster),
          {segment, ^monitor} <- worker.readers,
          do: {worker.port, segment}

    Enum.reduce(found, state, fn {port, segment}, state -> give_back(state, port, segment) end)
  end

  @spec give_back(Switchboard.state(), port, Segments.id() | {Segments.id(), reference}) ::
          Switchboard.state()
  def give_back(state, port, {segment, token}) do
    case Roster.fetch(state.roster, port) do
      {:ok, %{readers: %{^segment => {:kept, ^token}}} = worker} ->
        returned(state, worker, segment)

      # Dead, or returned when its reader died: it may be another loan by now.
      _other ->
        state
    end
  end

  def give_back(state, port, segment) do
    case Roster.fetch(state.roster, port) do
      {:ok, %{readers: %{^segment => monitor}} = worker} when is_reference(monitor) ->
        Process.demonitor(monitor, [:flush])
        returned(state, worker, segment)

      _dead_or_returned ->
        state
    end
  end

  defp returned(state, worker, segment) do
    Worker.control(worker, Frame.returned(segment))
    put(state, %{worker | readers: Map.delete(worker.readers, segment)})
  end

  # Its reader has made binaries of it: it comes back by the token, whatever becomes of that process.
  @spec keep(Switchboard.state(), port, Segments.id(), reference) :: Switchboard.state()
  def keep(state, port, segment, token) do
    case Roster.fetch(state.roster, port) do
      {:ok, %{readers: %{^segment => monitor} = readers} = worker} when is_reference(monitor) ->
        Process.demonitor(monitor, [:flush])
        put(state, %{worker | readers: %{readers | segment => {:kept, token}}})

      _dead ->
        state
    end
  end

  defp enqueue(request, state) do
    {id, state} = book(state, request)

    if Homes.number(request),
      do: Homes.put(state, id, request, :behind),
      else: %{state | queue: Queue.put(state.queue, id, request)}
  end

  @doc "Has a request wait that was in front of all that waits."
  @spec put_back(Switchboard.state(), Frame.id(), Request.t()) :: Switchboard.state()
  def put_back(state, id, %{home: nil} = request),
    do: %{state | queue: Queue.put_back(state.queue, id, request)}

  def put_back(state, id, %{home: {:choose, key}} = request),
    do: %{Homes.leave(state, key) | queue: Queue.put_back(state.queue, id, request)}

  def put_back(state, id, request), do: Homes.put(state, id, request, :in_front)

  @spec book(Switchboard.state(), Request.t()) :: {Frame.id(), Switchboard.state()}
  def book(state, request) do
    id = state.next_id
    {id, %{state | next_id: id + 1, requests: Map.put(state.requests, id, request)}}
  end

  # Its caller is in no lane any more, and waits as others do.
  @spec left(Switchboard.state(), non_neg_integer, Lane.left()) :: Switchboard.state()
  def left(state, number, {id, verb, deadline, from, ref, body}) do
    Pool.taken(state.pool)

    request = %Request{
      from: from,
      ref: ref,
      mode: :raw,
      verb: verb,
      deadline: deadline,
      body: body
    }

    case Enum.find(Roster.workers(state.roster), &(&1.number == number)) do
      nil ->
        Casualties.late(state, number, id, request)

      worker ->
        worker = %{worker | load: worker.load + 1, bytes: worker.bytes + byte_size(body)}
        request = %{request | port: worker.port, since: Frame.now()}
        requests = Map.put(state.requests, id, request)
        put(Overdue.grow_old(id, %{state | requests: requests}), worker)
    end
  end

  # Who asks at the same time is served with one write.
  @spec take(Request.t(), Switchboard.state()) :: Switchboard.state()
  def take(request, state), do: [request] |> more(@batch) |> take_all(state)

  defp more(requests, 0), do: :lists.reverse(requests)

  defp more(requests, left) do
    receive do
      {:py_call, request} -> more([request | requests], left - 1)
    after
      0 -> :lists.reverse(requests)
    end
  end

  defp take_all(requests, state) do
    if Queue.empty?(state.queue) do
      {left, state} = Dealer.deal(requests, state)
      Enum.reduce(left, state, &enqueue/2)
    else
      Enum.reduce(requests, state, &enqueue/2)
    end
  end

  # Hands out what can be handed out, and writes it.
  @spec dispatch(Switchboard.state()) :: Switchboard.state()
  def dispatch(state), do: state |> Homes.hand_out() |> hand_out() |> flush() |> keep_looking()

  defp hand_out(state) do
    if Queue.empty?(state.queue), do: state, else: state |> Dealer.deal_queued() |> hand_out_one()
  end

  # What the dealer leaves: requests in shared memory, and those that were cancelled while they waited.
  defp hand_out_one(state) do
    case Queue.pop(state.queue) do
      {id, queue} -> hand_out_one(id, queue, state)
      nil -> state
    end
  end

  defp hand_out_one(id, queue, state) do
    with {:ok, request} <- Map.fetch(state.requests, id),
         {:ok, port} <- Roster.choose(state.roster, byte_size(request.body)) do
      %{state | queue: queue} |> hand(id, port) |> Homes.settle(id, port) |> hand_out()
    else
      # It was cancelled while it waited.
      :error -> hand_out(%{state | queue: queue})
      :nobody -> Staff.staff_lazily(state)
    end
  end

  @spec hand(Switchboard.state(), Frame.id(), port) :: Switchboard.state()
  def hand(state, id, port) do
    case Map.fetch!(state.requests, id) do
      %{shared: nil} = request -> hand_through_pipe(state, id, request, port)
      request -> hand_in_memory(state, id, request, port)
    end
  end

  defp hand_in_memory(state, id, request, port) do
    case Worker.lend(Roster.worker(state.roster, port), request.shared) do
      {:ok, worker} ->
        frame = Frame.shared_request(id, request.verb, request.deadline, request.shared)
        roster = state.roster |> Roster.put(worker) |> Roster.give(port, frame, 0)
        %{state | roster: roster, requests: Map.put(state.requests, id, %{request | port: port})}

      # It is dead, which is on its way to us: another gets it.
      :error ->
        roster = Roster.update(state.roster, port, &%{&1 | crowded: true})
        put_back(%{state | roster: roster}, id, request)
    end
  end

  defp hand_through_pipe(state, id, request, port) do
    size = byte_size(request.body)
    frame = Frame.request(id, request.verb, request.deadline, request.body)
    roster = Roster.give(state.roster, port, frame, size)
    %{state | roster: roster, requests: Map.put(state.requests, id, %{request | port: port})}
  end

  @spec flush(Switchboard.state()) :: Switchboard.state()
  def flush(state), do: %{state | roster: Roster.flush(state.roster)}

  defp keep_looking(%{ticks?: false, requests: requests} = state) when requests != %{} do
    Process.send_after(self(), :tick, @tick)
    %{state | ticks?: true}
  end

  defp keep_looking(state), do: state

  # Those that were given back stood in front of all that waits.
  @spec requeue(Switchboard.state()) :: Switchboard.state()
  def requeue(%{returned: []} = state), do: state

  def requeue(state) do
    Enum.reduce(state.returned, %{state | returned: []}, &requeue/2)
  end

  defp requeue(id, state) do
    case state.requests do
      %{^id => request} -> put_back(state, id, request)
      _cancelled -> state
    end
  end

  @spec settle(Switchboard.state(), Frame.id(), Request.t(), (-> term)) :: Switchboard.state()
  def settle(state, id, request, answer) do
    answer.()
    state |> forget(id, request) |> relieved(request)
  end

  # It is no load of a worker any more. What no worker has to read is free at once.
  @spec relieved(Switchboard.state(), Request.t()) :: Switchboard.state()
  def relieved(state, %{port: nil, shared: nil}), do: state

  def relieved(state, %{port: nil, shared: {segment, memory, _len}}) do
    Segments.put(state.pool.board.segments, segment, memory)
    state
  end

  def relieved(state, %{question?: true}), do: state

  def relieved(state, %{port: port, awaiting?: true}),
    do: %{state | roster: Roster.update(state.roster, port, &%{&1 | awaiting: &1.awaiting - 1})}

  def relieved(state, %{port: port, body: body}),
    do: %{state | roster: Roster.update(state.roster, port, &Worker.relieve(&1, byte_size(body)))}

  @spec forget(Switchboard.state(), Frame.id(), Request.t()) :: Switchboard.state()
  def forget(state, id, request) do
    unless request.question? or request.mode == :over, do: Pool.settled(state.pool, 1)

    case state.old do
      %{^id => monitor} ->
        Process.demonitor(monitor, [:flush])
        %{state | old: Map.delete(state.old, id)}

      _young ->
        state
    end
  end

  @spec cancel(Switchboard.state(), Frame.id()) :: Switchboard.state()
  def cancel(state, id) do
    {request, requests} = Map.pop!(state.requests, id)
    Request.drop(request)
    state = if request.port, do: interrupt(state, id, request.port), else: state
    settle(%{state | requests: requests}, id, request, fn -> :ok end)
  end

  defp interrupt(state, id, port) do
    Worker.control(Roster.worker(state.roster, port), Frame.cancel(id))

    %{
      state
      | roster:
          Roster.update(state.roster, port, &%{&1 | interrupted: &1.interrupted || Worker.now()})
    }
  end

  @spec fail(Switchboard.state(), Frame.id(), Error.t()) :: Switchboard.state()
  def fail(state, id, error) do
    {request, requests} = Map.pop!(state.requests, id)

    settle(%{state | requests: requests}, id, request, fn ->
      Request.answer(request, {:error, error})
    end)
  end

  @spec put(Switchboard.state(), Worker.t()) :: Switchboard.state()
  def put(state, worker), do: %{state | roster: Roster.put(state.roster, worker)}
end
