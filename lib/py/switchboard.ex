defmodule Py.Switchboard do
  @moduledoc false

  # The process of a pool of worker processes: it owns their ports, hands requests to the one that has least to do, and
  # their answers to whoever asked. Callers encode and decode. Everything that waits for an answer is in `requests`, so
  # that nothing is answered twice and nothing is forgotten.

  use GenServer

  alias Py.{Build, Error, Native, Pool, Python, Reception, Segments, Survivor, Telemetry, Worker}

  alias Py.Switchboard.{
    Casualties,
    Homes,
    Listener,
    Overdue,
    Queue,
    Report,
    Request,
    Requests,
    Roster,
    Staff
  }

  alias Py.Worker.{Frame, Output, Template}

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
    # Those that wait for one worker and no other, by its number.
    homes: %{},
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
    # Workers that died not long ago: their numbers, why, what they had begun, and when that was.
    buried: [],
    # Of the workers, with `prefork: true`.
    template: nil
  ]

  @typedoc "What the switchboard and the modules under its name hand to each other."
  @type state :: %__MODULE__{}

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
    Py.Exposed.put(self(), options.expose)

    load_all(options.name)

    with {:ok, python} <- find(options.python),
         board = %{pool.board | segments: Segments.new(), lanes: Native.Base.lanes_new()},
         pool = %{pool | board: board},
         {:ok, state} <- open(options, %{pool | pid: self(), python: python}, leader) do
      Staff.begin_rounds()
      Pool.mark(options.name, state.pool)
      {:ok, state}
    else
      {:error, error} ->
        Pool.mark(options.name, :stopped)
        Py.Exposed.forget(self())
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
        {:error,
         Error.new(:not_available, text <> " Run mix py.doctor to see all that was looked at.")}
    end
  end

  # Without descriptors no module can be loaded, and a pool is to outlive that.
  defp load_all(name) do
    :code.ensure_modules_loaded(Application.spec(:py, :modules) || [])
    # What says why is said once: that loads what it takes of Elixir.
    text = inspect(name) <> Worker.cannot_start(:emfile)
    Exception.message(Error.new(:not_available, text))
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

    await_workers(Staff.staff(state))
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
        {:py_answer, _port, _frame} = message -> message
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
    Py.Exposed.forget(self())
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
      {id, _request} -> {:reply, :cancelled, state |> Requests.cancel(id) |> Requests.dispatch()}
    end
  end

  def handle_call(:info, _from, state), do: {:reply, Report.info(state), state}

  def handle_call({:resize, size}, _from, state) do
    state = %{state | options: %{state.options | size: size}}

    state = %{
      state
      | roster: Roster.resize(state.roster, size),
        pool: Pool.resized(state.pool, size)
    }

    Pool.mark(state.pool.name, state.pool)
    {:reply, :ok, state |> Staff.stop_idle() |> Staff.staff() |> Requests.dispatch()}
  end

  # Every worker is asked; the answers are put together by whoever asks. Nobody asked whether there is a place for these.
  def handle_call({:broadcast, requests}, {from, _tag}, state) do
    ports = Roster.serving(state.roster)
    {refs, state} = Enum.map_reduce(ports, state, &broadcast(&1, &2, from, requests))
    {:reply, refs, Requests.flush(state)}
  end

  defp broadcast(port, state, from, {mode, verb, deadline, body}) do
    ref = make_ref()
    Pool.taken(state.pool)

    {id, state} =
      Requests.book(state, %Request{
        from: from,
        ref: ref,
        mode: mode,
        verb: verb,
        deadline: deadline,
        body: body
      })

    {ref, Requests.hand(state, id, port)}
  end

  defp broadcast(port, state, from, :stacks) do
    {id, state} =
      Requests.book(state, %Request{
        from: from,
        ref: ref = make_ref(),
        mode: :raw,
        port: port,
        question?: true
      })

    Worker.control(Roster.worker(state.roster, port), Frame.stacks(id))
    {ref, state}
  end

  # --- requests -----------------------------------------------------------------------------------

  @impl true
  def handle_info({:py_call, request}, state),
    do: {:noreply, request |> Requests.take(state) |> Requests.dispatch()}

  def handle_info({:py_leave, key}, state),
    do: {:noreply, state |> Homes.leave(key) |> Staff.stop_idle() |> Requests.dispatch()}

  def handle_info({:py_left, number, left}, state),
    do: {:noreply, state |> Requests.left(number, left) |> Requests.dispatch()}

  def handle_info({port, {:data, bytes}}, state) when is_port(port) do
    case Roster.fetch(state.roster, port) do
      {:ok, worker} ->
        {:noreply,
         worker |> Listener.hear(bytes, state) |> Requests.requeue() |> Requests.dispatch()}

      :error ->
        {:noreply, state}
    end
  end

  def handle_info({port, {:exit_status, status}}, state) when is_port(port) do
    case Roster.fetch(state.roster, port) do
      {:ok, worker} ->
        {:noreply,
         worker
         |> Casualties.ended(Worker.exit(status), state)
         |> Staff.staff()
         |> Requests.dispatch()}

      :error ->
        {:noreply, state}
    end
  end

  # It cannot be asked any more. What failed to be written ends the port, and with it what would tell the exit status.
  def handle_info({:EXIT, port, _reason}, state) when is_port(port) do
    case Roster.fetch(state.roster, port) do
      {:ok, worker} ->
        Worker.kill(worker)
        {:noreply, worker |> Casualties.ended(nil, state) |> Staff.staff() |> Requests.dispatch()}

      :error ->
        {:noreply, state}
    end
  end

  # What Python code asked; it may have ended meanwhile.
  def handle_info({:py_answer, port, frame}, state) do
    case Roster.fetch(state.roster, port) do
      {:ok, worker} ->
        {:noreply,
         state
         |> Requests.put(%{worker | outgoing: [worker.outgoing | frame]})
         |> Requests.flush()}

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

        {:noreply,
         state |> Requests.put(worker) |> Staff.open_lane(worker.port) |> Requests.dispatch()}
    end
  end

  def handle_info({:EXIT, pid, reason}, %{template: {_stage, pid, _socket}} = state) do
    error =
      Error.new(
        :crashed,
        "its process in the node exited with #{inspect(reason)}; this is a bug, please report it"
      )

    handle_info({:py_template, pid, {:died, error}}, state)
  end

  def handle_info({:py_template, pid, what}, state),
    do: {:noreply, state |> Staff.template(pid, what) |> Staff.staff() |> Requests.dispatch()}

  def handle_info({:tcp, socket, bytes}, state) do
    case Enum.find(Roster.workers(state.roster), &(&1.output.socket == socket)) do
      nil ->
        {:noreply, state}

      worker ->
        {:noreply,
         Requests.put(state, %{
           worker
           | output: Output.take(worker.output, bytes, Casualties.facts_of(worker, state))
         })}
    end
  end

  # As a rule that is heard before the port says how the worker ended.
  def handle_info({:tcp_closed, socket}, state) do
    case Enum.find(Roster.workers(state.roster), &(&1.output.socket == socket)) do
      nil -> {:noreply, state}
      worker -> {:noreply, Requests.put(state, %{worker | output: Output.closed(worker.output)})}
    end
  end

  def handle_info({{:py_dead, id}, _monitor, :process, _pid, _reason}, state),
    do: {:noreply, state |> Requests.cancel(id) |> Requests.dispatch()}

  def handle_info({:DOWN, monitor, :process, _pid, _reason}, state),
    do: {:noreply, Requests.reader_died(state, monitor)}

  def handle_info({:py_returned, port, segment}, state),
    do: {:noreply, Requests.give_back(state, port, segment)}

  def handle_info({:py_kept, port, segment, token}, state),
    do: {:noreply, Requests.keep(state, port, segment, token)}

  def handle_info(:tick, state),
    do: {:noreply, %{state | ticks?: false} |> Overdue.look() |> Requests.dispatch()}

  def handle_info(:round, state),
    do: {:noreply, state |> Staff.go_round() |> Staff.staff() |> Requests.dispatch()}

  def handle_info(:collect, state) do
    :erlang.garbage_collect()
    {:noreply, state}
  end

  def handle_info(:staff, state),
    do:
      {:noreply,
       %{state | roster: Roster.patient(state.roster)} |> Staff.staff() |> Requests.dispatch()}

  def handle_info({:start_timeout, port}, state) do
    case Roster.fetch(state.roster, port) do
      {:ok, %{stage: stage} = worker} when stage in [:starting, :unconnected] ->
        {:noreply, worker |> Staff.too_slow(state) |> Staff.staff() |> Requests.dispatch()}

      _serves_or_gone ->
        {:noreply, state}
    end
  end

  def handle_info(_other, state), do: {:noreply, state}

  @doc false
  @spec overloaded(Pool.t()) :: {:error, Error.t()}
  def overloaded(%{board: board} = pool) do
    load = :atomics.get(board.load, 1)
    running = min(load, board.size)

    info = %{
      running: running,
      queued: load - running,
      size: board.size,
      max_queue: board.max_queue
    }

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
