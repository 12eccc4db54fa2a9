defmodule Py.Switchboard.Staff do
  @moduledoc false

  # How many workers there are: starting, replacing and stopping them, and what happens when none comes to serve.

  require Logger

  alias Py.{Error, Lane, Segments, Switchboard, Worker}
  alias Py.Switchboard.{Casualties, Request, Requests, Roster}
  alias Py.Worker.Template

  # How often workers are looked at.
  @round 1_000

  # How long a worker may go on beyond its time before it is killed from outside: it ends by itself, if it is not stopped
  # as a process.
  @kill_after 1_000

  # A template that has forked workers may die, and does no more harm than a worker that does; nor does one that a dead
  # template did not fork, or that was killed before it served. After so many in a row callers are told.
  @chances 3

  @doc "The same, in milliseconds, for those who tell its requests so."
  @spec kill_after() :: pos_integer
  def kill_after, do: @kill_after

  @spec begin_rounds() :: reference
  def begin_rounds, do: Process.send_after(self(), :round, @round)

  @spec kill(Switchboard.state(), port) :: Switchboard.state()
  def kill(state, port) do
    worker = Roster.worker(state.roster, port)
    Worker.kill(worker)
    Casualties.ended(worker, {:signal, 9}, state)
  end

  # Starts as many workers as are missing, unless the last ones failed just now.
  @spec staff(Switchboard.state()) :: Switchboard.state()
  def staff(%{template: :wanted, roster: %{waits?: false, wanted: wanted}} = state)
      when wanted > 0,
      do: %{
        state
        | template: Template.start(state.python, state.options, state.facts, state.leader)
      }

  def staff(%{template: template} = state)
      when template == :wanted or elem(template, 0) == :starting,
      do: state

  def staff(state) do
    case Roster.missing(state.roster) do
      0 -> state
      count -> Enum.reduce(1..count, state, fn _, state -> start_worker(state) end)
    end
  end

  @spec staff_lazily(Switchboard.state()) :: Switchboard.state()
  def staff_lazily(%{roster: %{wanted: 0}, options: %{size: size}} = state),
    do: staff(%{state | roster: Roster.resize(state.roster, size)})

  def staff_lazily(state), do: state

  defp start_worker(state) do
    role = Template.role(state.template)

    case Worker.start(state.roster.next_number, state.python, state.options, state.facts, role) do
      {:ok, worker} ->
        start_timer(worker, state.options.start_timeout)
        %{state | roster: Roster.add(state.roster, worker)}

      {:error, text} ->
        failed(
          state,
          Error.new(:not_available, text),
          "a worker of #{inspect(state.pool.name)} did not start",
          1
        )
    end
  end

  defp start_timer(_worker, :infinity), do: :ok
  # `init` has its own deadline within that; what comes before it has none.
  defp start_timer(worker, timeout),
    do: Process.send_after(self(), {:start_timeout, worker.port}, timeout + @kill_after)

  @spec started(Switchboard.state(), Request.t(), port, Py.Caller.result()) :: Switchboard.state()
  def started(state, request, port, :ok) do
    roster = state.roster |> Roster.update(request.port, &serves/1) |> Roster.served()
    %{state | roster: roster} |> open_lane(port) |> retire_one() |> stop_when_idle(port)
  end

  def started(state, _request, port, {:error, error}) do
    worker = Roster.worker(state.roster, port)
    Worker.stop(worker)
    worker_failed(%{state | roster: Roster.remove(state.roster, worker)}, worker, error)
  end

  @doc "Lets callers ask a worker themselves, if it serves and they could not yet."
  @spec open_lane(Switchboard.state(), port) :: Switchboard.state()
  def open_lane(state, port) do
    case Roster.fetch(state.roster, port) do
      {:ok, %{stage: :ready, page: nil} = worker} ->
        worker = Worker.receive_segments(worker)
        Lane.open(state.pool.board.lanes, worker)
        Requests.put(state, worker)

      _serves_already_or_not_yet ->
        state
    end
  end

  @spec stop_idle(Switchboard.state()) :: Switchboard.state()
  def stop_idle(state),
    do: Enum.reduce(Roster.draining(state.roster), state, &stop_when_idle(&2, &1))

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
    if worker.stage == :draining, do: Lane.close(state.pool.board.lanes, worker)

    if worker.stage == :draining and Worker.idle?(worker) do
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

  @spec too_slow(Worker.t(), Switchboard.state()) :: Switchboard.state()
  def too_slow(worker, state) do
    Worker.stop(worker)

    text =
      "the worker did not begin to serve within #{state.options.start_timeout} ms (start_timeout:)"

    worker_failed(without(state, worker), worker, Error.new(:starting, text))
  end

  @spec template(Switchboard.state(), pid, term) :: Switchboard.state()
  def template(%{template: {_stage, pid, _socket}} = state, pid, what), do: template(state, what)
  def template(state, _of_before, _what), do: state

  def template(%{template: {:starting, pid, socket}} = state, :active),
    do: %{state | template: {:active, pid, socket}}

  def template(state, {:off, why}) do
    Logger.warning(
      "each worker of #{inspect(state.pool.name)} runs init: by itself, in spite of prefork: true, since #{why}"
    )

    %{state | template: {:off, why}}
  end

  def template(state, {:failed, error}),
    do:
      failed(
        %{state | template: :wanted},
        error,
        "the template of #{inspect(state.pool.name)} did not start",
        1
      )

  def template(state, {:died, error}),
    do:
      failed(
        %{state | template: :wanted},
        error,
        "the template of #{inspect(state.pool.name)} died",
        @chances
      )

  @spec worker_failed(Switchboard.state(), Worker.t(), Error.t()) :: Switchboard.state()
  def worker_failed(state, worker, error) do
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

    if delay != nil and roster.failures >= chances and Roster.serving(roster) == [],
      do: fail_queued(state, error),
      else: state
  end

  # Nobody is there to run them, and nobody may come for long.
  defp fail_queued(state, error) do
    ids = for {id, %{port: nil, question?: false}} <- state.requests, do: id
    Enum.reduce(ids, state, &Requests.fail(&2, &1, error))
  end

  @spec go_round(Switchboard.state()) :: Switchboard.state()
  def go_round(state) do
    begin_rounds()
    state = state |> stop_idle() |> end_stopped() |> forget_segments() |> Casualties.forget_old()

    worn =
      for worker <- Roster.workers(state.roster), worn?(worker, state.options), do: worker.port

    %{state | roster: Roster.replace(state.roster, worn)}
  end

  # One that is stopped as a process does not end by itself what was cancelled. Others have done so.
  defp end_stopped(state) do
    limit = Worker.now() - state.options.grace - @kill_after

    state.roster
    |> Roster.workers()
    |> Enum.filter(&(&1.interrupted && &1.interrupted < limit))
    |> Enum.reduce(state, fn worker, state ->
      if Worker.stopped?(worker),
        do: kill(state, worker.port),
        else: Requests.put(state, %{worker | interrupted: nil})
    end)
  end

  defp forget_segments(state) do
    case Segments.sweep(state.pool.board.segments) do
      [] ->
        state

      dropped ->
        Enum.reduce(
          Roster.workers(state.roster),
          state,
          &Requests.put(&2, Worker.forget(&1, dropped))
        )
    end
  end

  defp worn?(%{stage: :ready} = worker, options) do
    beyond?(Worker.calls(worker), options.max_calls) or
      beyond?(Worker.now() - worker.started, options.max_lifetime) or
      (options.max_memory != :infinity and beyond?(Worker.rss(worker) || 0, options.max_memory))
  end

  defp worn?(_worker, _options), do: false

  defp beyond?(_value, limit) when limit in [nil, :infinity], do: false
  defp beyond?(value, limit), do: value >= limit
end
