defmodule Py.Workers do
  @moduledoc false

  # The caller's side of a request to a pool of worker processes: it counts, encodes, waits and decodes.

  import Py.Segments, only: [shared_from: 0]

  alias Py.{
    Aside,
    Encoding,
    Error,
    Lane,
    Object,
    Pool,
    Segments,
    Survivor,
    Switchboard,
    Telemetry
  }

  alias Py.Pool.Startup
  alias Py.Switchboard.{Homes, Loan, Request}
  alias Py.Worker.Frame

  # After so long a caller makes sure that somebody is still there who will answer.
  @make_sure 1_000

  @typedoc "The handle of a request that runs."
  @type ticket :: {:py_worker, pid, reference, :atomics.atomics_ref()}

  @doc "Runs a request and waits for its result."
  @spec run(Pool.t(), tuple, timeout) :: Py.Caller.result()
  def run(pool, {:reload, _module} = request, timeout) do
    span = Telemetry.start(pool, request)
    result = run_everywhere(pool, request, timeout)
    Telemetry.stop(span, nil, result)
    result
  end

  def run(pool, request, timeout) do
    ref = make_ref()
    span = Telemetry.start(pool, request, ref)
    deadline = Frame.deadline(timeout)

    {result, run} =
      with {{:error, %Error{kind: :encode}}, _run} = refused <-
             run_once(pool, ref, request, deadline),
           do: run_encoded(pool, ref, request, deadline, refused)

    Telemetry.stop(span, run, result)
    # Until here something refers to the objects among the arguments.
    Object.hold(request)
    result
  end

  defp run_once(pool, ref, request, deadline) do
    {asked, lean} = Object.at_home(pool, request)
    {verb, iovec} = encode(pool, Process.group_leader(), lean)

    answer =
      case in_lane(asked, ref, verb, deadline, iovec) do
        {:answer, kind, run, bytes} -> {Frame.result(kind, bytes), run}
        :left -> wait(pool, ref)
        :busy -> ask_and_wait(asked, ref, request, verb, iovec, deadline)
      end

    with {{:elsewhere, number}, _run} <- answer,
         do: ask_at(number, asked, ref, request, verb, iovec, deadline)
  end

  # Whatever the worker refused, none of it ran.
  defp run_encoded(pool, ref, request, deadline, refused) do
    case Encoding.request(request) do
      {:ok, ^request} -> refused
      {:ok, encoded} -> run_once(pool, ref, encoded, deadline)
      {:error, _error} = error -> {error, nil}
    end
  end

  defp encode(%{copy?: true}, leader, request), do: Frame.encode(leader, request)

  defp encode(%{copy?: false}, leader, request) do
    {verb, iovec} = Frame.encode(leader, request)
    {Frame.mapped(verb), iovec}
  end

  # The worker of that number has an object that is an argument. Nothing of the request has run.
  defp ask_at(number, pool, ref, request, verb, iovec, deadline) do
    answer =
      with {:ok, home} <- Homes.at(pool.home, number),
           do: ask_and_wait(%{pool | home: home}, ref, request, verb, iovec, deadline)

    case answer do
      :error -> {{:error, Homes.missing(pool.home, number)}, nil}
      {{:elsewhere, _number}, run} -> {{:error, Homes.scattered()}, run}
      {_result, _run} -> answer
    end
  end

  # Whoever has to choose its worker is told of it by the switchboard.
  defp in_lane(%{home: {:choose, _key}}, _ref, _verb, _deadline, _iovec), do: :busy

  defp in_lane(pool, ref, verb, deadline, iovec),
    do: Lane.ask(pool, ref, verb, deadline, iovec)

  defp ask_and_wait(pool, ref, request, verb, iovec, deadline) do
    case ask(pool, request, iovec, %Request{ref: ref, mode: :raw, verb: verb, deadline: deadline}) do
      :ok -> wait(pool, ref)
      refused -> {refused, nil}
    end
  end

  @doc "Gives a request to the pool; its reply will be `{:py_result, tag, result}`."
  @spec submit(Pool.t(), reference, pid, tuple, timeout) :: ticket | {:error, Error.t()}
  def submit(pool, tag, leader, request, timeout) do
    {pool, request} = Object.at_home(pool, request)
    deadline = Frame.deadline(timeout)

    with {:ok, request, verb, iovec} <- encode_known(pool, leader, request) do
      times = :atomics.new(1, signed: false)
      asked = %Request{ref: tag, mode: :result, verb: verb, deadline: deadline, times: times}
      Survivor.owe(tag, pool.pid)
      Lane.keep_order(pool)

      case ask(pool, request, iovec, asked) do
        :ok ->
          if Survivor.answers?(tag, pool.pid),
            do: {:py_worker, pool.pid, tag, times},
            else: {:error, Startup.stopped(pool.name)}

        refused ->
          Survivor.settle(tag)
          refused
      end
    end
  end

  # What the worker would refuse would be told to nobody who could do it again.
  defp encode_known(pool, leader, request) do
    {verb, iovec} = encode(pool, leader, request)

    if not Frame.plain?(request) and Frame.foreign?(iovec) do
      with {:ok, request} <- Encoding.request(request) do
        {verb, iovec} = encode(pool, leader, request)
        {:ok, request, verb, iovec}
      end
    else
      {:ok, request, verb, iovec}
    end
  end

  @doc "Ends a request: nothing will come, or its reply is there."
  @spec cancel(ticket) :: :cancelled | :replied
  def cancel({:py_worker, board, ref, _times}) do
    GenServer.call(board, {:cancel, ref}, :infinity)
  catch
    :exit, _the_pool_ended -> :replied
  end

  @doc "Nanoseconds of running."
  @spec run_time(ticket) :: non_neg_integer
  def run_time({:py_worker, _board, _ref, times}), do: :atomics.get(times, 1)

  @doc "The Python stacks of what the workers are at."
  @spec stacktrace(Pool.t(), timeout) :: {:ok, [map]} | {:error, Error.t()}
  def stacktrace(pool, timeout) do
    with {:ok, stacks} <- ask_everyone(pool, :stacks, timeout),
         do: {:ok, stacks |> Enum.concat() |> Enum.sort_by(& &1.age_ms, :desc)}
  end

  defp ask(pool, request, iovec, asked) do
    if Pool.admit?(pool) do
      {body, shared} = body(iovec, pool)
      subject = if shared, do: Request.subject(request)

      asked = %{
        asked
        | from: self(),
          body: body,
          shared: shared,
          subject: subject,
          home: pool.home
      }

      send(pool.pid, {:py_call, asked})
      :ok
    else
      Switchboard.overloaded(pool)
    end
  end

  defp body([body], _pool) when byte_size(body) < shared_from(), do: {body, nil}

  defp body(iovec, pool) do
    len = :erlang.iolist_size(iovec)

    with true <- len >= shared_from(),
         {:ok, shared} <- Segments.fill(pool.board.segments, iovec, len) do
      {"", shared}
    else
      # Small, or there is no memory to share: it goes through the pipe.
      _small_or_error -> {IO.iodata_to_binary(iovec), nil}
    end
  end

  # The reference is made in the function that waits: then `receive` looks at no message that was there before it.
  defp wait(pool, ref) do
    receive do
      {:py_reply, ^ref, kind, run, bytes} -> {Frame.result(kind, bytes), run}
      {:py_shared, ^ref, run, loan} -> {Loan.take(loan), run}
      {:py_result, ^ref, result} -> {result, nil}
    after
      @make_sure -> wait_watching(pool, ref, Process.monitor(pool.pid))
    end
  end

  defp wait_watching(pool, ref, monitor) do
    receive do
      {:py_reply, ^ref, kind, run, bytes} -> {Frame.result(kind, bytes), run}
      {:py_shared, ^ref, run, loan} -> {Loan.take(loan), run}
      {:py_result, ^ref, result} -> {result, nil}
      {:DOWN, ^monitor, :process, _pid, _reason} -> {{:error, Startup.stopped(pool.name)}, nil}
    end
  after
    Process.demonitor(monitor, [:flush])
  end

  defp run_everywhere(pool, request, timeout) do
    {verb, iovec} = Frame.encode(Process.group_leader(), request)
    body = IO.iodata_to_binary(iovec)

    with {:ok, [result | _others]} <-
           ask_everyone(pool, {:raw, verb, Frame.deadline(timeout), body}, timeout),
         do: {:ok, result}
  end

  # In a process of its own, whose mailbox takes what comes too late.
  defp ask_everyone(pool, question, timeout) do
    case Aside.run(fn -> collect(pool, question) end, timeout) do
      {:ok, result} -> result
      nil -> {:error, Error.new(:timeout, "not all workers answered within #{timeout} ms")}
    end
  end

  defp collect(pool, question) do
    results =
      for ref <- GenServer.call(pool.pid, {:broadcast, question}, :infinity),
          do: elem(wait(pool, ref), 0)

    case Enum.find(results, &match?({:error, _}, &1)) do
      nil -> {:ok, for({:ok, value} <- results, do: value)}
      error -> error
    end
  catch
    :exit, _the_pool_ended -> {:error, Startup.stopped(pool.name)}
  end
end
