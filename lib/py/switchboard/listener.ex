defmodule Py.Switchboard.Listener do
  @moduledoc false

  # What workers say, frame by frame.

  alias Py.{Segments, Switchboard, Worker}
  alias Py.Switchboard.{Dealer, Homes, Loan, Request, Requests, Roster, Staff}
  alias Py.Worker.Frame

  @doc "Takes what a worker wrote."
  @spec hear(Worker.t(), binary, Switchboard.state()) :: Switchboard.state()
  def hear(worker, bytes, state) do
    :counters.add(worker.read, 1, byte_size(bytes))
    worker.partial |> joined(bytes) |> listen(worker.port, state)
  end

  defp joined("", bytes), do: bytes
  defp joined(partial, bytes), do: partial <> bytes

  defp keep_partial(state, port, bytes) do
    case Roster.fetch(state.roster, port) do
      {:ok, %{partial: ^bytes}} -> state
      {:ok, worker} -> Requests.put(state, %{worker | partial: bytes})
      :error -> state
    end
  end

  defp listen(bytes, port, state) do
    {bytes, state} = Dealer.answer(bytes, port, state)

    case Frame.first(bytes) do
      {frame, rest} -> listen_on(rest, port, frame(frame, port, state))
      nil -> keep_partial(state, port, bytes)
    end
  end

  # What it said may have been the end of it.
  defp listen_on(bytes, port, state) do
    case Roster.fetch(state.roster, port) do
      {:ok, _worker} -> listen(bytes, port, state)
      :error -> state
    end
  end

  @spec frame(tuple | atom, port, Switchboard.state()) :: Switchboard.state()
  # A caller that looks for its answer itself sends the request again; for others it is done here.
  def frame({:fault, id, _run, bytes} = fault, port, state) do
    with %{^id => %{mode: :result} = request} <- state.requests,
         {:elsewhere, number} <- Frame.fault(bytes) do
      redirect(id, request, number, state)
    else
      _answer -> answer(fault, port, state)
    end
  end

  def frame({kind, _id, _run, _bytes} = answer, port, state) when kind in [:reply, :referring],
    do: answer(answer, port, state)

  def frame({:shared, id, run, segment, len, begin}, port, state) do
    worker = receive_segment(Roster.worker(state.roster, port), segment)

    case Map.pop(state.requests, id) do
      {nil, _requests} ->
        Worker.control(worker, Frame.returned(segment))
        Requests.put(state, worker)

      {%{mode: :over} = request, requests} ->
        Worker.control(worker, Frame.returned(segment))
        Requests.relieved(Requests.put(%{state | requests: requests}, worker), request)

      {request, requests} ->
        reader =
          Request.lend(request, run, %Loan{
            board: self(),
            port: port,
            id: segment,
            segment: worker.segments[segment],
            len: len,
            begin: begin,
            stays?: begin != nil and Frame.mapped?(request.verb)
          })

        worker = %{worker | readers: Map.put(worker.readers, segment, Process.monitor(reader))}

        Requests.settle(Requests.put(%{state | requests: requests}, worker), id, request, fn ->
          :ok
        end)
    end
  end

  def frame({:returned, segment}, port, state) do
    {memory, worker} = Worker.returned(Roster.worker(state.roster, port), segment)
    if memory, do: Segments.put(state.pool.board.segments, segment, memory)
    Requests.put(state, worker)
  end

  def frame({:dropped, segment}, port, state),
    do: %{
      state
      | roster:
          Roster.update(state.roster, port, &%{&1 | segments: Map.delete(&1.segments, segment)})
    }

  def frame({:given_back, id}, port, state) do
    case state.requests do
      %{^id => %{mode: :over} = request} ->
        Requests.relieved(%{state | requests: Map.delete(state.requests, id)}, request)

      %{^id => request} ->
        state = state |> Requests.relieved(request) |> keep_lent(request, port)
        requests = Map.put(state.requests, id, %{request | port: nil, since: nil})
        %{state | requests: requests, returned: [id | state.returned]}

      _cancelled ->
        state
    end
  end

  def frame({:awaits, id}, port, state) do
    case state.requests do
      %{^id => request} ->
        state = Requests.relieved(state, request)

        state = %{
          state
          | roster: Roster.update(state.roster, port, &%{&1 | awaiting: &1.awaiting + 1})
        }

        %{state | requests: Map.put(state.requests, id, %{request | awaiting?: true})}

      _cancelled ->
        state
    end
  end

  def frame({:send, :name, "Elixir.Py.Callbacks", message}, port, state) do
    Worker.ask(message, port, state.requests)
    state
  end

  def frame({:send, _kind, _to, _message} = frame, _port, state) do
    Worker.deliver(frame)
    state
  end

  def frame({:forget, number}, port, state) do
    send(Py.Callbacks, {:py_forget, {:worker, self(), port, number}})
    state
  end

  def frame({:crowded, crowded}, port, state),
    do: %{state | roster: Roster.update(state.roster, port, &%{&1 | crowded: crowded})}

  def frame({:hello, os_pid, version}, port, state) do
    worker = Worker.met(Roster.worker(state.roster, port), os_pid, version)
    {id, state} = Requests.book(state, %Request{mode: :start, port: port, question?: true})
    frame = Worker.start_frame(worker, id, state.options, state.leader)
    Requests.put(state, %{worker | outgoing: [worker.outgoing | frame]})
  end

  def frame(:stuck, port, state),
    do: %{state | roster: Roster.update(state.roster, port, &%{&1 | stuck: true})}

  defp answer({kind, id, run, bytes}, port, state) do
    case Map.pop(state.requests, id) do
      # Nobody waits for it any more.
      {nil, _requests} ->
        unwanted(kind, bytes)
        state

      {%{mode: :over} = request, requests} ->
        unwanted(kind, bytes)
        Requests.relieved(%{state | requests: requests}, request)

      {%{mode: :start} = request, requests} ->
        Staff.started(%{state | requests: requests}, request, port, Frame.result(kind, bytes))

      {request, requests} ->
        Requests.settle(%{state | requests: requests}, id, request, fn ->
          Request.reply(request, kind, run, bytes)
        end)
    end
  end

  # Objects that nobody wants are let go of when what refers to them is collected, here.
  defp unwanted(:referring, bytes), do: Frame.result(:referring, bytes)
  defp unwanted(_kind, _bytes), do: :ok

  # An object that it has as an argument is in the worker of that number. Nothing of the request has run.
  defp redirect(id, request, number, state) do
    case Homes.at(request.home, number) do
      {:ok, home} when request.shared == nil ->
        state = state |> Requests.relieved(request) |> Homes.leave(request)
        requests = Map.put(state.requests, id, %{request | home: home, port: nil, since: nil})
        %{state | requests: requests, returned: [id | state.returned]}

      _it_cannot_go_there ->
        state = %{state | requests: Map.delete(state.requests, id)}
        answer = fn -> Request.answer(request, {:error, Homes.scattered()}) end
        Requests.settle(state, id, request, answer)
    end
  end

  # What it read is to be read again, and not to be used for another request meanwhile.
  defp keep_lent(state, %{shared: nil}, _port), do: state

  defp keep_lent(state, %{shared: {segment, _memory, _len}}, port),
    do: %{state | roster: Roster.update(state.roster, port, &Worker.unlend(&1, segment))}

  # A segment is sent before the frame that names it, on another way.
  defp receive_segment(worker, segment) do
    if is_map_key(worker.segments, segment), do: worker, else: Worker.receive_segments(worker)
  end
end
