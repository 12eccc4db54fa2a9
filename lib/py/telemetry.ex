defmodule Py.Telemetry do
  @moduledoc """
  Events, emitted through `:telemetry` when the application has it. Whether it does is looked up when a pool starts.

  | event | measurements | metadata |
  |---|---|---|
  | `[:py, :call, :start]` | `system_time`, `monotonic_time` | `pool`, `kind`, `target`, `name` |
  | `[:py, :call, :stop]` | `duration`, `queue_time`, `run_time` | the same and `result` |
  | `[:py, :call, :exception]` | `duration`, `queue_time`, `run_time` | the same and `reason`, `error` |
  | `[:py, :callback, :start]` | `system_time`, `monotonic_time` | `function`, `arity`, `caller` |
  | `[:py, :callback, :stop]` | `duration` | the same |
  | `[:py, :callback, :exception]` | `duration` | the same and `kind`, `reason`, `stacktrace` |
  | `[:py, :pool, :overloaded]` | `queued`, `running` | `pool`, `size`, `max_queue` |
  | `[:py, :inline, :overrun]` | `duration` | `pool`, `kind`, `target`, `name` |

  Times are in native units (`System.convert_time_unit/3`). `kind` is what was asked: `:call`, `:eval`, `:exec`,
  `:getattr` or `:reload`; `target` and `name` are as they were given, `nil` where there are none. `reason` is the kind of
  the `Py.Error` that `error` holds. `queue_time` is what the request waited for a thread, `run_time` what it ran, a
  coroutine's awaiting included.

  A call that ran inline (`inline: true`) has neither queue nor run time; one that took a millisecond or more held up its
  scheduler and is an overrun: that function takes the queue for the next ten seconds.

  A callback is an Elixir function that Python called, and its events are emitted by the process that runs it: `function` is its
  registered name or the function itself, `arity` the number of its arguments, `caller` the process whose call of Python
  called it, `nil` where that is not known; `kind`, `reason` and `stacktrace` are what it raised. One that is ended with its
  call has no last event.

  Of an asynchronous call, stop or exception is emitted when `Py.await/2`, `Py.yield/2` or `Py.cancel/1` gets its result;
  of a cast, when it ends. With `on: {pool, node}` events are emitted on the node of the pool.

      :telemetry.attach("slow-python", [:py, :call, :stop], fn _event, times, facts, _config ->
        ms = System.convert_time_unit(times.duration, :native, :millisecond)
        if ms > 100, do: Logger.warning("\#{facts.target}.\#{facts.name} took \#{ms} ms")
      end, nil)
  """

  @compile {:no_warn_undefined, :telemetry}

  alias Py.{Asker, Error, Native, Pool, Workers}

  @typedoc false
  @type span :: {integer, map}

  @doc false
  @spec loaded?() :: boolean
  def loaded?, do: Code.ensure_loaded?(:telemetry) and function_exported?(:telemetry, :execute, 3)

  @doc false
  @spec start(Pool.t(), tuple) :: span | nil
  def start(%Pool{telemetry?: false}, _request), do: nil

  def start(%Pool{name: pool}, request) do
    now = System.monotonic_time()
    metadata = Map.put(facts(request), :pool, pool)
    times = %{system_time: System.system_time(), monotonic_time: now}
    :telemetry.execute([:py, :call, :start], times, metadata)
    {now, metadata}
  end

  @doc false
  @spec stop(span | nil, reference | Workers.ticket() | non_neg_integer | nil, term) :: :ok
  def stop(nil, _ticket, _result), do: :ok

  def stop({start, metadata}, ticket, {:error, %Error{} = error}) do
    metadata = Map.merge(metadata, %{reason: error.kind, error: error})
    :telemetry.execute([:py, :call, :exception], times(start, ticket), metadata)
  end

  def stop({start, metadata}, ticket, result) do
    metadata = Map.put(metadata, :result, value(result))
    :telemetry.execute([:py, :call, :stop], times(start, ticket), metadata)
  end

  @doc false
  @spec callback(map, Asker.t(), (-> result)) :: result when result: term
  def callback(facts, asker, run) do
    # The pool that is called from has had it loaded, where there is one.
    if function_exported?(:telemetry, :execute, 3),
      do: facts |> Map.put(:caller, asker.caller) |> emit_around(run),
      else: run.()
  end

  defp emit_around(facts, run) do
    start = System.monotonic_time()
    times = %{system_time: System.system_time(), monotonic_time: start}
    :telemetry.execute([:py, :callback, :start], times, facts)

    try do
      run.()
    catch
      kind, reason ->
        raised = %{kind: kind, reason: reason, stacktrace: __STACKTRACE__}
        times = %{duration: System.monotonic_time() - start}
        :telemetry.execute([:py, :callback, :exception], times, Map.merge(facts, raised))
        :erlang.raise(kind, reason, __STACKTRACE__)
    else
      result ->
        times = %{duration: System.monotonic_time() - start}
        :telemetry.execute([:py, :callback, :stop], times, facts)
        result
    end
  end

  @doc false
  @spec overloaded(Pool.t(), map) :: :ok
  def overloaded(%Pool{telemetry?: false}, _info), do: :ok

  def overloaded(%Pool{name: pool}, info) do
    metadata = %{pool: pool, size: info.size, max_queue: info.max_queue}
    :telemetry.execute([:py, :pool, :overloaded], Map.take(info, [:queued, :running]), metadata)
  end

  @doc false
  @spec overran(Pool.t(), tuple, non_neg_integer) :: :ok
  def overran(%Pool{name: pool}, request, nanoseconds) do
    duration = System.convert_time_unit(nanoseconds, :nanosecond, :native)
    metadata = Map.put(facts(request), :pool, pool)
    :telemetry.execute([:py, :inline, :overrun], %{duration: duration}, metadata)
  end

  defp facts({kind, target, name, _args, _kwargs}) when kind == :call,
    do: %{kind: :call, target: target, name: name}

  defp facts({:getattr, target, name}), do: %{kind: :getattr, target: target, name: name}
  defp facts({:reload, module}), do: %{kind: :reload, target: module, name: nil}
  defp facts({kind, _code, _vars, _file, _line}), do: %{kind: kind, target: nil, name: nil}
  defp facts({:within, request, _context}), do: facts(request)

  defp value({:ok, value}), do: value
  defp value(:ok), do: nil

  defp times(start, ticket) do
    duration = System.monotonic_time() - start
    {queue, run} = queue_and_run(ticket, duration)
    %{duration: duration, queue_time: queue, run_time: run}
  end

  defp queue_and_run(ticket, _duration) when is_reference(ticket) do
    {queue, run} = Native.times(ticket)
    {native(queue), native(run)}
  end

  # A worker tells how long it ran; the rest of the time the request was on its way.
  defp queue_and_run({:py_worker, _, _, _} = ticket, duration),
    do: queue_and_run(Workers.run_time(ticket), duration)

  defp queue_and_run(run, duration) when is_integer(run),
    do: {max(duration - native(run), 0), native(run)}

  defp queue_and_run(_none, _duration), do: {0, 0}

  defp native(nanoseconds), do: System.convert_time_unit(nanoseconds, :nanosecond, :native)
end
