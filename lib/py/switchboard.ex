defmodule Py.Switchboard do
  @moduledoc false

  # The process of a pool of worker processes: it owns their ports, hands requests to the one that has least to do, and
  # their answers to whoever asked. Callers encode and decode. Everything that waits for an answer is in `requests`, so
  # that nothing is answered twice and nothing is forgotten.

  use GenServer

  require Logger

  alias Py.{Build, Error, Native, Pool, Python, Reception, Segments, Survivor, Telemetry, Worker}
  alias Py.Switchboard.{Dealer, Loan, Queue, Report, Request, Roster}
  alias Py.Worker.{Frame, Output, Template}

  # Requests that are taken in one go, and written with one write to each worker.
  @batch 256

  # How often requests that take long are looked at: their callers are monitored from then on.
  @tick 10

  # How often workers are looked at.
  @round 1_000

  # How long a worker may go on after the end of its time before it is killed from outside: it does so by itself, if it
  # is not stopped as a process.
  @kill_after 1_000

  # A worker tells the end of a request's time within this, if it can tell anything.
  @tells_within 100_000_000

  # A template that has forked workers may die, and does no more harm than a worker that does; nor does one that a dead
  # template did not fork, or that was killed before it served. After so many in a row callers are told.
  @chances 3

  @enforce_keys [:pool, :options, :python, :facts, :leader, :roster]
  defstruct [
    :pool,
    :options,
    :python,
    :facts,
    :leader,
    :roster,
    requests: %{},
    queue: Queue.new(),
    returned: [],
    next_id: 1,
    # Requests below `young` have been there for a tick at least; `old` are those of them that still are, and the
    # monitors of their callers. Those below `newest` were there at the last tick.
    young: 1,
    newest: 1,
    old: %{},
    # Requests that were told the end of their time here, since their workers did not, and when those are killed.
    silent: %{},
    ticks?: false,
    # Of the workers, with `prefork: true`.
    template: nil,
    questions: %{}
  ]

  @spec start_link(map, Pool.t()) :: GenServer.on_start()
  def start_link(options, pool) do
    argument = {options, pool, Process.group_leader()}

    case GenServer.start_link(__MODULE__, argument, name: options.name) do
      {:error, {:shutdown, %Error{} = error}} -> {:error, error}
      other -> other
    end
  end

  # --- starting and stopping ----------------------------------------------------------------------

  @impl true
  def init({options, pool, leader}) do
    Process.flag(:trap_exit, true)
    Survivor.watch(options.name)
    Pool.mark(options.name, :starting)

    with {:ok, python} <- find(options.python),
         pool = put_in(pool.board.segments, Segments.new()),
         {:ok, state} <- open(options, %{pool | pid: self(), python: python}, leader) do
      Process.send_after(self(), :round, @round)
      Pool.mark(options.name, state.pool)
      {:ok, state}
    else
      {:error, error} ->
        Pool.mark(options.name, :stopped)
        {:stop, {:shutdown, error}}
    end
  end

  defp find(choice) do
    with {:ok, python} <- Python.find(choice),
         :ok <- Build.ensure(nil),
         :ok <- Native.Base.load(Build.base_file()) do
      {:ok, python}
    else
      {:error, text} ->
        {:error, Error.new(:not_available, text <> " Run mix py.doctor to see all that was looked at.")}
    end
  end

  defp open(options, pool, leader) do
    state = %__MODULE__{
      pool: pool,
      options: options,
      python: pool.python,
      facts: facts(options),
      leader: leader,
      template: if(options.prefork, do: :wanted),
      roster: Roster.new(if(options.lazy, do: 0, else: options.size))
    }

    await_workers(staff(state))
  end

  defp facts(options) do
    sink = Process.whereis(Py.Output)
    set_version? = Map.has_key?(MapSet.new(), :version)
    decimal? = Code.ensure_loaded?(Decimal)
    {sink, Process.group_leader(), decimal?, set_version?, options.concurrency, options.grace}
  end

  # A supervisor waits for its child: only what workers send is looked at until they serve.
  defp await_workers(%{roster: %{failure: %Error{} = error}} = state) do
    Template.stop(state.template)
    Roster.each(state.roster, &Worker.stop/1)
    {:error, error}
  end

  defp await_workers(state) do
    if Roster.complete?(state.roster) do
      {:ok, %{state | roster: Roster.served(state.roster)}}
    else
      receive do
        {port, _what} = message when is_port(port) -> message
        {:EXIT, port, _reason} = message when is_port(port) -> message
        {:py_socket, _token, _role, _socket} = message -> message
        {:tcp, _socket, _bytes} = message -> message
        {:tcp_closed, _socket} = message -> message
        {:start_timeout, _port} = message -> message
        {:py_template, _pid, _what} = message -> message
        {:EXIT, pid, _reason} = message when elem(state.template, 1) == pid -> message
      end
      |> handle_info(state)
      |> elem(1)
      |> await_workers()
    end
  end

  @impl true
  def terminate(_reason, state) do
    Pool.mark(state.pool.name, :stopped)
    error = Pool.Startup.stopped(state.pool.name)
    for {_id, request} <- state.requests, do: Request.answer(request, {:error, error})
    Template.stop(state.template)
    Roster.each(state.roster, &Worker.stop/1)
  end

  # --- questions ----------------------------------------------------------------------------------

  @impl true
  def handle_call(:ready, _from, state), do: {:reply, :ok, state}

  def handle_call({:cancel, ref}, _from, state) do
    case Enum.find(state.requests, fn {_id, request} -> request.ref == ref end) do
      nil -> {:reply, :replied, state}
      {id, _request} -> {:reply, :cancelled, state |> cancel(id) |> dispatch()}
    end
  end

  def handle_call(:info, _from, state), do: {:reply, Report.info(state), state}

  def handle_call({:resize, size}, _from, state) do
    state = %{state | options: %{state.options | size: size}}
    state = %{state | roster: Roster.resize(state.roster, size), pool: Pool.resized(state.pool, size)}
    Pool.mark(state.pool.name, state.pool)
    {:reply, :ok, state |> stop_idle() |> staff() |> dispatch()}
  end

  # Every worker is asked; the answers are put together by whoever asks.
  def handle_call({:broadcast, requests}, {from, _tag}, state) do
    ports = Roster.serving(state.roster)
    {refs, state} = Enum.map_reduce(ports, state, &broadcast(&1, &2, from, requests))
    {:reply, refs, flush(state)}
  end

  defp broadcast(port, state, from, {mode, verb, deadline, body}) do
    ref = make_ref()
    {id, state} = book(state, %Request{from: from, ref: ref, mode: mode, verb: verb, deadline: deadline, body: body})
    {ref, hand(state, id, port)}
  end

  defp broadcast(port, state, from, :stacks) do
    {id, state} = book(state, %Request{from: from, ref: ref = make_ref(), mode: :raw, port: port, question?: true})
    Worker.control(Roster.worker(state.roster, port), Frame.stacks(id))
    {ref, state}
  end

  # --- requests -----------------------------------------------------------------------------------

  @impl true
  def handle_info({:py_call, request}, state),
    do: {:noreply, [request] |> more(@batch) |> take_all(state) |> dispatch()}

  def handle_info({port, {:data, bytes}}, state) when is_port(port) do
    case Roster.fetch(state.roster, port) do
      {:ok, worker} ->
        {:noreply, worker.partial |> joined(bytes) |> listen(port, state) |> requeue() |> dispatch()}

      :error ->
        {:noreply, state}
    end
  end

  def handle_info({port, {:exit_status, status}}, state) when is_port(port) do
    case Roster.fetch(state.roster, port) do
      {:ok, worker} -> {:noreply, worker |> ended(Worker.exit(status), state) |> staff() |> dispatch()}
      :error -> {:noreply, state}
    end
  end

  # It cannot be asked any more. What failed to be written ends the port, and with it what would tell the exit status.
  def handle_info({:EXIT, port, _reason}, state) when is_port(port) do
    case Roster.fetch(state.roster, port) do
      {:ok, worker} ->
        Worker.kill(worker)
        {:noreply, worker |> ended(nil, state) |> staff() |> dispatch()}

      :error ->
        {:noreply, state}
    end
  end

  def handle_info({:py_socket, token, role, socket}, state) do
    case Enum.find(Roster.workers(state.roster), &(&1.token == token)) do
      nil ->
        :gen_tcp.close(socket)
        {:noreply, state}

      worker ->
        worker = Worker.connect(worker, role, socket)
        if worker.control && worker.output.socket, do: Reception.forget(token)
        {:noreply, state |> put(worker) |> dispatch()}
    end
  end

  def handle_info({:EXIT, pid, reason}, %{template: {_stage, pid, _socket}} = state) do
    error = Error.new(:crashed, "its process in the node exited with #{inspect(reason)}; this is a bug, please report it")
    handle_info({:py_template, pid, {:died, error}}, state)
  end

  def handle_info({:py_template, pid, what}, state),
    do: {:noreply, state |> template(pid, what) |> staff() |> dispatch()}

  def handle_info({:tcp, socket, bytes}, state) do
    case Enum.find(Roster.workers(state.roster), &(&1.output.socket == socket)) do
      nil -> {:noreply, state}
      worker -> {:noreply, put(state, %{worker | output: Output.take(worker.output, bytes, facts_of(worker, state))})}
    end
  end

  # As a rule that is heard before the port says how the worker ended.
  def handle_info({:tcp_closed, socket}, state) do
    case Enum.find(Roster.workers(state.roster), &(&1.output.socket == socket)) do
      nil -> {:noreply, state}
      worker -> {:noreply, put(state, %{worker | output: Output.closed(worker.output)})}
    end
  end

  def handle_info({{:py_dead, id}, _monitor, :process, _pid, _reason}, state),
    do: {:noreply, state |> cancel(id) |> dispatch()}

  def handle_info({:DOWN, monitor, :process, _pid, _reason}, state), do: {:noreply, reader_died(state, monitor)}

  def handle_info({:py_returned, port, segment}, state), do: {:noreply, give_back(state, port, segment)}

  def handle_info(:tick, state), do: {:noreply, %{state | ticks?: false} |> look() |> dispatch()}
  def handle_info(:round, state), do: {:noreply, state |> go_round() |> staff() |> dispatch()}

  def handle_info(:collect, state) do
    :erlang.garbage_collect()
    {:noreply, state}
  end

  def handle_info(:staff, state), do: {:noreply, %{state | roster: Roster.patient(state.roster)} |> staff() |> dispatch()}

  def handle_info({:start_timeout, port}, state) do
    case Roster.fetch(state.roster, port) do
      {:ok, %{stage: stage} = worker} when stage in [:starting, :unconnected] ->
        {:noreply, worker |> too_slow(state) |> staff() |> dispatch()}

      _serves_or_gone -> {:noreply, state}
    end
  end

  def handle_info(_other, state), do: {:noreply, state}

  # Whoever was to read a segment is dead.
  defp reader_died(state, monitor) do
    found =
      for worker <- Roster.workers(state.roster),
          {segment, ^monitor} <- worker.readers,
          do: {worker.port, segment}

    Enum.reduce(found, state, fn {port, segment}, state -> give_back(state, port, segment) end)
  end

  defp give_back(state, port, segment) do
    with {:ok, worker} <- Roster.fetch(state.roster, port),
         {monitor, readers} when monitor != nil <- Map.pop(worker.readers, segment) do
      Process.demonitor(monitor, [:flush])
      Worker.control(worker, Frame.returned(segment))
      put(state, %{worker | readers: readers})
    else
      _dead_or_returned -> state
    end
  end

  defp joined("", bytes), do: bytes
  defp joined(partial, bytes), do: partial <> bytes

  defp keep_partial(state, port, bytes) do
    case Roster.fetch(state.roster, port) do
      {:ok, %{partial: ^bytes}} -> state
      {:ok, worker} -> put(state, %{worker | partial: bytes})
      :error -> state
    end
  end

  defp take(state, %Request{} = request) do
    {id, state} = book(state, request)
    %{state | queue: Queue.put(state.queue, id, request)}
  end

  defp book(state, request) do
    id = state.next_id
    {id, %{state | next_id: id + 1, requests: Map.put(state.requests, id, request)}}
  end

  # Who asks at the same time is served with one write.
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
      Enum.reduce(left, state, &take(&2, &1))
    else
      Enum.reduce(requests, state, &take(&2, &1))
    end
  end

  defp listen(bytes, port, state) do
    {bytes, state} = Dealer.answer(bytes, port, state)

    case Frame.first(bytes) do
      {frame, rest} -> listen(rest, port, frame(frame, port, state))
      nil -> keep_partial(state, port, bytes)
    end
  end

  # Hands out what can be handed out, and writes it.
  defp dispatch(state), do: state |> hand_out() |> flush() |> keep_looking()

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
      hand_out(hand(%{state | queue: queue}, id, port))
    else
      # It was cancelled while it waited.
      :error -> hand_out(%{state | queue: queue})
      :nobody -> staff_lazily(state)
    end
  end

  defp hand(state, id, port) do
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
        %{state | roster: roster, queue: Queue.put_back(state.queue, id, request)}
    end
  end

  defp hand_through_pipe(state, id, request, port) do
    size = byte_size(request.body)
    frame = Frame.request(id, request.verb, request.deadline, request.body)
    roster = Roster.give(state.roster, port, frame, size)
    %{state | roster: roster, requests: Map.put(state.requests, id, %{request | port: port})}
  end

  defp flush(state), do: %{state | roster: Roster.flush(state.roster)}

  defp keep_looking(%{ticks?: false, requests: requests} = state) when requests != %{} do
    Process.send_after(self(), :tick, @tick)
    %{state | ticks?: true}
  end

  defp keep_looking(state), do: state

  # Those that were given back stood in front of all that waits.
  defp requeue(%{returned: []} = state), do: state

  defp requeue(state) do
    Enum.reduce(state.returned, %{state | returned: []}, &requeue/2)
  end

  defp requeue(id, state) do
    case state.requests do
      %{^id => request} -> %{state | queue: Queue.put_back(state.queue, id, request)}
      _cancelled -> state
    end
  end

  # --- what workers say ---------------------------------------------------------------------------

  defp frame({kind, id, run, bytes}, port, state) when kind in [:reply, :fault] do
    case Map.pop(state.requests, id) do
      # Nobody waits for it any more.
      {nil, _requests} -> state
      {%{mode: :over} = request, requests} -> relieved(%{state | requests: requests}, request)
      {%{mode: :start} = request, requests} -> started(%{state | requests: requests}, request, port, Frame.result(kind, bytes))
      {request, requests} -> settle(%{state | requests: requests}, id, request, fn -> Request.reply(request, kind, run, bytes) end)
    end
  end

  defp frame({:shared, id, run, segment, len}, port, state) do
    worker = receive_segment(Roster.worker(state.roster, port), segment)
    loan = %Loan{board: self(), port: port, id: segment, segment: worker.segments[segment], len: len}

    case Map.pop(state.requests, id) do
      {nil, _requests} ->
        Worker.control(worker, Frame.returned(segment))
        put(state, worker)

      {%{mode: :over} = request, requests} ->
        Worker.control(worker, Frame.returned(segment))
        relieved(put(%{state | requests: requests}, worker), request)

      {request, requests} ->
        reader = Request.lend(request, run, loan)
        worker = %{worker | readers: Map.put(worker.readers, segment, Process.monitor(reader))}
        settle(put(%{state | requests: requests}, worker), id, request, fn -> :ok end)
    end
  end

  defp frame({:returned, segment}, port, state) do
    worker = Roster.worker(state.roster, port)

    case Map.pop(worker.lent, segment) do
      {nil, _lent} ->
        state

      {memory, lent} ->
        Segments.put(state.pool.board.segments, segment, memory)
        put(state, %{worker | lent: lent})
    end
  end

  defp frame({:dropped, segment}, port, state),
    do: %{state | roster: Roster.update(state.roster, port, &%{&1 | segments: Map.delete(&1.segments, segment)})}

  defp frame({:given_back, id}, port, state) do
    case state.requests do
      %{^id => %{mode: :over} = request} ->
        relieved(%{state | requests: Map.delete(state.requests, id)}, request)

      %{^id => request} ->
        state = state |> relieved(request) |> keep_lent(request, port)
        requests = Map.put(state.requests, id, %{request | port: nil, since: nil})
        %{state | requests: requests, returned: [id | state.returned]}

      _cancelled ->
        state
    end
  end

  defp frame({:awaits, id}, port, state) do
    case state.requests do
      %{^id => request} ->
        state = relieved(state, request)
        state = %{state | roster: Roster.update(state.roster, port, &%{&1 | awaiting: &1.awaiting + 1})}
        %{state | requests: Map.put(state.requests, id, %{request | awaiting?: true})}

      _cancelled ->
        state
    end
  end

  defp frame({:send, _kind, _to, _message} = frame, _port, state) do
    Worker.deliver(frame)
    state
  end

  defp frame({:crowded, crowded}, port, state),
    do: %{state | roster: Roster.update(state.roster, port, &%{&1 | crowded: crowded})}

  defp frame({:hello, os_pid, version}, port, state) do
    worker = Worker.met(Roster.worker(state.roster, port), os_pid, version)
    {id, state} = book(state, %Request{mode: :start, port: port, question?: true})
    frame = Worker.start_frame(worker, id, state.options, state.leader)
    put(state, %{worker | outgoing: [worker.outgoing | frame]})
  end

  defp frame(:stuck, port, state),
    do: %{state | roster: Roster.update(state.roster, port, &%{&1 | stuck: true})}

  # What it read is to be read again, and not to be used for another request meanwhile.
  defp keep_lent(state, %{shared: nil}, _port), do: state

  defp keep_lent(state, %{shared: {segment, _memory, _len}}, port),
    do: %{state | roster: Roster.update(state.roster, port, &%{&1 | lent: Map.delete(&1.lent, segment)})}

  # A segment is sent before the frame that names it, on another way.
  defp receive_segment(worker, segment) do
    if is_map_key(worker.segments, segment), do: worker, else: Worker.receive_segments(worker)
  end

  # --- requests that end --------------------------------------------------------------------------

  defp settle(state, id, request, answer) do
    answer.()
    state |> forget(id, request) |> relieved(request)
  end

  # It is no load of a worker, and no load of the pool.
  defp relieved(state, %{port: nil}), do: state
  defp relieved(state, %{question?: true}), do: state

  defp relieved(state, %{port: port, awaiting?: true}),
    do: %{state | roster: Roster.update(state.roster, port, &%{&1 | awaiting: &1.awaiting - 1})}

  defp relieved(state, %{port: port, body: body}),
    do: %{state | roster: Roster.update(state.roster, port, &Worker.relieve(&1, byte_size(body)))}

  defp forget(state, id, request) do
    unless request.question? or request.mode == :over, do: Pool.settled(state.pool, 1)

    case state.old do
      %{^id => monitor} ->
        Process.demonitor(monitor, [:flush])
        %{state | old: Map.delete(state.old, id)}

      _young ->
        state
    end
  end

  defp cancel(state, id) do
    {request, requests} = Map.pop!(state.requests, id)
    Request.drop(request)
    state = if request.port, do: interrupt(state, id, request.port), else: state
    settle(%{state | requests: requests}, id, request, fn -> :ok end)
  end

  defp interrupt(state, id, port) do
    Worker.control(Roster.worker(state.roster, port), Frame.cancel(id))
    %{state | roster: Roster.update(state.roster, port, &%{&1 | interrupted: &1.interrupted || Worker.now()})}
  end

  defp fail(state, id, error) do
    {request, requests} = Map.pop!(state.requests, id)
    settle(%{state | requests: requests}, id, request, fn -> Request.answer(request, {:error, error}) end)
  end

  # --- looking after requests ---------------------------------------------------------------------

  defp look(state) do
    state = Enum.reduce(state.young..(state.newest - 1)//1, state, &grow_old/2)
    state = %{state | young: state.newest, newest: state.next_id}
    now = Frame.now()
    state = Enum.reduce(Map.keys(state.old), state, &look_at(&1, now, &2))
    Enum.reduce(state.silent, state, &kill_if_silent(&1, now, &2))
  end

  defp grow_old(id, state) do
    case state.requests do
      %{^id => %{from: from}} when from != nil -> %{state | old: Map.put(state.old, id, watch(from, id))}
      _settled -> state
    end
  end

  # The message of its death says which request it is about: a caller may have had thousands.
  defp watch(from, id), do: :erlang.monitor(:process, from, tag: {:py_dead, id})

  defp look_at(id, now, state) do
    case state.requests do
      %{^id => %{since: nil, port: port} = request} when port != nil ->
        %{state | requests: %{state.requests | id => %{request | since: now - 2 * @tick * 1_000_000}}}

      %{^id => request} ->
        look_at_time(id, request, now, state)

      # It went with a worker that was ended in this very round.
      _gone ->
        state
    end
  end

  # A worker tells the end of the time of what it has by itself.
  defp look_at_time(id, request, now, state) do
    case request do
      %{deadline: deadline} when deadline in [0, nil] or deadline > now -> state
      %{port: nil} -> fail(state, id, too_late(state))
      %{deadline: deadline} = request when now > deadline + @tells_within -> give_up_silent(state, id, request)
      _is_being_told -> state
    end
  end

  defp too_late(state) do
    text = "the time was up before it could run"

    if Roster.serving(state.roster) == [] and state.roster.last_failure,
      do: Error.new(:timeout, text <> ", since no worker serves: " <> Exception.message(state.roster.last_failure)),
      else: Error.new(:timeout, text)
  end

  # Its caller need not wait until it is sure that the worker will not tell. It keeps the worker busy until then.
  defp give_up_silent(state, id, request) do
    Request.answer(request, {:error, Error.new(:timeout, "its worker process does not answer")})
    over = %{request | mode: :over, from: nil, ref: nil}
    state = forget(state, id, request)
    limit = request.deadline + (state.options.grace + @kill_after) * 1_000_000
    %{state | requests: Map.put(state.requests, id, over), silent: Map.put(state.silent, id, limit)}
  end

  defp kill_if_silent({id, limit}, now, state) do
    case state.requests do
      %{^id => %{port: port}} when now > limit -> state |> kill(port) |> staff()
      %{^id => _request} -> state
      _it_did_answer -> %{state | silent: Map.delete(state.silent, id)}
    end
  end

  defp kill(state, port) do
    worker = Roster.worker(state.roster, port)
    Worker.kill(worker)
    ended(worker, {:signal, 9}, state)
  end

  # --- workers ------------------------------------------------------------------------------------

  defp put(state, worker), do: %{state | roster: Roster.put(state.roster, worker)}

  defp facts_of(worker, state), do: %{pool: state.pool.name, os_pid: worker.os_pid}

  # Starts as many workers as are missing, unless the last ones failed just now.
  defp staff(%{template: :wanted, roster: %{waits?: false, wanted: wanted}} = state) when wanted > 0,
    do: %{state | template: Template.start(state.python, state.options, state.facts, state.leader)}

  defp staff(%{template: template} = state) when template == :wanted or elem(template, 0) == :starting, do: state

  defp staff(state) do
    case Roster.missing(state.roster) do
      0 -> state
      count -> Enum.reduce(1..count, state, fn _, state -> start_worker(state) end)
    end
  end

  defp staff_lazily(%{roster: %{wanted: 0}, options: %{size: size}} = state),
    do: staff(%{state | roster: Roster.resize(state.roster, size)})

  defp staff_lazily(state), do: state

  defp start_worker(state) do
    role = Template.role(state.template)

    case Worker.start(state.roster.next_number, state.python, state.options, state.facts, role) do
      {:ok, worker} ->
        start_timer(worker, state.options.start_timeout)
        %{state | roster: Roster.add(state.roster, worker)}

      {:error, text} ->
        failed(state, Error.new(:not_available, text), "a worker of #{inspect(state.pool.name)} did not start", 1)
    end
  end

  defp start_timer(_worker, :infinity), do: :ok
  # `init` has its own deadline within that; what comes before it has none.
  defp start_timer(worker, timeout), do: Process.send_after(self(), {:start_timeout, worker.port}, timeout + @kill_after)

  defp started(state, request, port, :ok) do
    roster = state.roster |> Roster.update(request.port, &serves/1) |> Roster.served()
    %{state | roster: roster} |> retire_one() |> stop_when_idle(port)
  end

  defp started(state, _request, port, {:error, error}) do
    worker = Roster.worker(state.roster, port)
    Worker.stop(worker)
    worker_failed(%{state | roster: Roster.remove(state.roster, worker)}, worker, error)
  end

  defp stop_idle(state), do: Enum.reduce(Roster.draining(state.roster), state, &stop_when_idle(&2, &1))

  # One that is to go serves no more.
  defp serves(%{stage: :draining} = worker), do: worker
  defp serves(%{control: nil} = worker), do: %{worker | stage: :unconnected}
  defp serves(worker), do: %{worker | stage: :ready}

  # One that was to be replaced goes when its successor is there.
  defp retire_one(state) do
    case Roster.retire(state.roster) do
      {nil, roster} -> %{state | roster: roster}
      {worker, roster} -> stop_when_idle(%{state | roster: roster}, worker.port)
    end
  end

  defp stop_when_idle(state, port) do
    worker = Roster.worker(state.roster, port)

    if worker.stage == :draining and worker.load == 0 and worker.awaiting == 0 do
      Worker.stop(worker)
      without(state, worker)
    else
      state
    end
  end

  # What was asked of it by ourselves is answered by nobody.
  defp without(%{requests: requests} = state, %{port: port} = worker) do
    mine = for {id, %{port: ^port, question?: true}} <- requests, do: id
    error = Error.new(:stopped, "the worker process #{worker.os_pid}")
    for id <- mine, do: Request.answer(requests[id], {:error, error})
    %{state | requests: Map.drop(requests, mine), roster: Roster.remove(state.roster, worker)}
  end

  defp too_slow(worker, state) do
    Worker.stop(worker)
    text = "the worker did not begin to serve within #{state.options.start_timeout} ms (start_timeout:)"
    worker_failed(without(state, worker), worker, Error.new(:starting, text))
  end

  # A worker died. What it had is lost; what it did not begin is not.
  defp ended(worker, exit, state) do
    {_output, words} = Output.last_words(worker.output, facts_of(worker, state))
    worker = Worker.receive_segments(worker)
    {begun, frames} = Worker.last_page(worker)
    # What it had answered and not written counts as answered.
    state = Enum.reduce(frames, put(state, worker), &frame(&1, worker.port, &2))
    error = crash(worker, exit, words)
    state = lost(%{requeue(state) | roster: Roster.remove(state.roster, worker)}, worker, begun, error)

    cond do
      worker.stage == :starting -> worker_failed(state, worker, error)
      worker.stuck -> state
      true -> died(state, worker, error)
    end
  end

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

    state = Enum.reduce(over, state, fn {id, request}, state -> give_up(state, id, request, error) end)
    waiting |> Enum.sort(:desc) |> Enum.reduce(state, fn {id, request}, state -> wait_again(state, id, request) end)
  end

  defp begun?(_id, %{question?: true}, _begun), do: true
  defp begun?(_id, %{mode: :over}, _begun), do: true
  defp begun?(_id, %{awaiting?: true}, _begun), do: true
  defp begun?(_id, _request, :unknown), do: true
  defp begun?(id, _request, begun), do: MapSet.member?(begun, id)

  # The segments that it read, but for those of requests that are to run elsewhere.
  defp take_in(state, worker, waiting) do
    kept = for {_id, %{shared: {segment, _memory, _len}}} <- waiting, do: segment
    for {segment, memory} <- Map.drop(worker.lent, kept), do: Segments.put(state.pool.board.segments, segment, memory)
  end

  defp give_up(state, id, request, error) do
    Request.answer(request, {:error, error})
    forget(%{state | requests: Map.delete(state.requests, id)}, id, request)
  end

  defp wait_again(state, id, request) do
    requests = Map.put(state.requests, id, %{request | port: nil, since: nil})
    %{state | requests: requests, queue: Queue.put_back(state.queue, id, request)}
  end

  defp crash(worker, exit, words) do
    cause =
      if worker.stuck,
        do: "was ended because another call of it did not stop within grace:",
        else: Worker.cause(exit)

    words = if words == "", do: "", else: "\n" <> words
    %{Error.new(:crashed, "the worker process #{worker.os_pid} #{cause}#{words}") | exit: exit}
  end

  defp template(%{template: {_stage, pid, _socket}} = state, pid, what), do: template(state, what)
  defp template(state, _of_before, _what), do: state

  defp template(%{template: {:starting, pid, socket}} = state, :active), do: %{state | template: {:active, pid, socket}}

  defp template(state, {:off, why}) do
    Logger.warning("each worker of #{inspect(state.pool.name)} runs init: by itself, in spite of prefork: true, since #{why}")
    %{state | template: {:off, why}}
  end

  defp template(state, {:failed, error}),
    do: failed(%{state | template: :wanted}, error, "the template of #{inspect(state.pool.name)} did not start", 1)

  defp template(state, {:died, error}),
    do: failed(%{state | template: :wanted}, error, "the template of #{inspect(state.pool.name)} died", @chances)

  defp worker_failed(state, worker, error) do
    # An error of Python's is there the next time as well. Whatever killed a worker need not be.
    chances = if worker.role == :plain and error.kind != :crashed, do: 1, else: @chances
    failed(state, error, "a worker of #{inspect(state.pool.name)} did not start", chances)
  end

  # No worker came to serve: the next try waits, longer each time.
  defp failed(state, error, what, chances) do
    {delay, roster} = Roster.failed(state.roster, error)
    state = %{state | roster: roster}

    if delay do
      Process.send_after(self(), :staff, delay)
      Logger.error("#{what}: #{Exception.message(error)}")
    end

    if delay != nil and roster.failures >= chances and Roster.serving(roster) == [], do: fail_queued(state, error), else: state
  end

  # Nobody is there to run them, and nobody may come for long.
  defp fail_queued(state, error) do
    ids = for {id, %{port: nil, question?: false}} <- state.requests, do: id
    Enum.reduce(ids, state, &fail(&2, &1, error))
  end

  # --- rounds -------------------------------------------------------------------------------------

  defp go_round(state) do
    Process.send_after(self(), :round, @round)
    state = state |> stop_idle() |> end_stopped() |> forget_segments()
    worn = for worker <- Roster.workers(state.roster), worn?(worker, state.options), do: worker.port
    %{state | roster: Roster.replace(state.roster, worn)}
  end

  # One that is stopped as a process does not end by itself what was cancelled. Others have done so.
  defp end_stopped(state) do
    limit = Worker.now() - state.options.grace - @kill_after

    state.roster
    |> Roster.workers()
    |> Enum.filter(&(&1.interrupted && &1.interrupted < limit))
    |> Enum.reduce(state, fn worker, state ->
      if Worker.stopped?(worker), do: kill(state, worker.port), else: put(state, %{worker | interrupted: nil})
    end)
  end

  defp forget_segments(state) do
    case Segments.sweep(state.pool.board.segments) do
      [] -> state
      dropped -> Enum.reduce(Roster.workers(state.roster), state, &put(&2, Worker.forget(&1, dropped)))
    end
  end

  defp worn?(%{stage: :ready} = worker, options) do
    beyond?(worker.calls, options.max_calls) or
      beyond?(Worker.now() - worker.started, options.max_lifetime) or
      (options.max_memory != :infinity and beyond?(Worker.rss(worker) || 0, options.max_memory))
  end

  defp worn?(_worker, _options), do: false

  defp beyond?(_value, limit) when limit in [nil, :infinity], do: false
  defp beyond?(value, limit), do: value >= limit

  @doc false
  @spec overloaded(Pool.t()) :: {:error, Error.t()}
  def overloaded(%{board: board} = pool) do
    load = :atomics.get(board.load, 1)
    running = min(load, board.size)
    info = %{running: running, queued: load - running, size: board.size, max_queue: board.max_queue}
    Telemetry.overloaded(pool, info)

    {:error,
     Error.new(
       :overloaded,
       "#{inspect(pool.name)} runs #{info.running} calls (#{places(board)}) and #{info.queued} wait " <>
         "(max_queue: #{info.max_queue})"
     )}
  end

  defp places(%{concurrency: 1, size: size}), do: "size: #{size}"
  defp places(%{concurrency: n, size: size}), do: "size: #{div(size, n)}, concurrency: #{n}"
end
