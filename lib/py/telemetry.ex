defmodule Py.Telemetry do
  @moduledoc """
  Events, emitted through `:telemetry` when the application has it. Whether it does is looked up when a pool starts.

  | event | measurements | metadata |
  |---|---|---|
  | `[:py, :call, :start]` | `system_time`, `monotonic_time` | `pool`, `kind`, `target`, `name`, and the span |
  | `[:py, :call, :stop]` | `duration`, `queue_time`, `run_time` | the same and `result` |
  | `[:py, :call, :exception]` | `duration`, `queue_time`, `run_time` | the same and `reason`, `error` |
  | `[:py, :callback, :start]` | `system_time`, `monotonic_time` | `function`, `arity`, `caller`, and the span |
  | `[:py, :callback, :stop]` | `duration` | the same |
  | `[:py, :callback, :exception]` | `duration` | the same and `kind`, `reason`, `stacktrace` |
  | `[:py, :span, :start]` | `system_time`, `monotonic_time` | `name`, `metadata`, `caller`, and the span |
  | `[:py, :span, :stop]` | `duration` | the same |
  | `[:py, :span, :exception]` | `duration` | the same and `reason`, `error` |
  | `[:py, :stream, :start]` | `system_time`, `monotonic_time` | `pool`, `target`, `name`, and the span |
  | `[:py, :stream, :stop]` | `duration`, `items` | the same and `reason` |
  | `[:py, :stream, :exception]` | `duration`, `items` | the same, `reason` and `error` |
  | `[:py, :session, :start]` | `system_time`, `monotonic_time` | `pool` |
  | `[:py, :session, :stop]` | `duration` | `pool`, `reason` |
  | `[:py, :pool, :overloaded]` | `queued`, `running` | `pool`, `size`, `max_queue` |
  | `[:py, :inline, :overrun]` | `duration` | `pool`, `kind`, `target`, `name` |

  Times are in native units (`System.convert_time_unit/3`). `kind` is what was asked: `:call`, `:eval`, `:exec`,
  `:getattr` or `:reload`; `target` and `name` are as they were given (of a `Py.Object` its type), `nil` where there are none. `reason` is the kind of
  the `Py.Error` that `error` holds. `queue_time` is what the request waited for a thread, `run_time` what it ran, a
  coroutine's awaiting included.

  A call that ran inline (`inline: true`) has neither queue nor run time; one that took a millisecond or more held up its
  scheduler and is an overrun: that function takes the queue for the next ten seconds.

  A callback is an Elixir function that Python called, and its events are emitted by the process that runs it: `function` is its
  registered name or the function itself, `arity` the number of its arguments, `caller` the process whose call of Python
  called it, `nil` where that is not known; `kind`, `reason` and `stacktrace` are what it raised. One that is ended with its
  call has no last event.

  A span is Python code under `with erlang.span("load", path="a.csv") as span:`. `name` is its name, and `metadata` what was given with it
  or put into `span.metadata` before its end, a map with strings as keys. Python waits until the handlers are through, so the events are
  there before the call's result; only those of a call that was interrupted, and of one inline, come by themselves.

  The span of a call, a stream, a callback or a span is `telemetry_span_context`, which no other has, and `parent_span_context`, that of what
  it is part of: a span of Python's is part of the one around it, else of the call or stream; so is a callback; a call or stream is part of the
  callback whose function made it. Tasks and threads that Python starts are part of what is open when they start. It is `nil`
  where there is none or that is not known: for a call from another node, say.

  Python emits events of its own by `erlang.telemetry(["my_app", "rows"], {"count": 3}, {"table": "users"})`. Names and keys are
  atoms in the event. None is made for it: one that no Elixir code has is a `ValueError`.
  The `reason` of a session's stop is that of its process. The events of a stream are emitted by a process of its own: `items` is how many it handed over; the `reason` of a stop is `:done`, or
  `:halted` where the consumer wanted no more or died.

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

  # Under this a process keeps the span that it is at, in its dictionary.
  @current {__MODULE__, :span}

  @doc false
  @spec loaded?() :: boolean
  def loaded?, do: Code.ensure_loaded?(:telemetry) and function_exported?(:telemetry, :execute, 3)

  @doc false
  @spec start(Pool.t(), tuple, reference, term) :: span | nil
  def start(pool, request, call \\ make_ref(), parent \\ current())
  def start(%Pool{telemetry?: false}, _request, _call, _parent), do: nil

  def start(%Pool{name: pool}, request, call, parent) do
    now = System.monotonic_time()
    metadata = facts(request, pool, call, parent)
    :telemetry.execute([:py, :call, :start], beginning(now), metadata)
    {now, metadata}
  end

  @doc false
  @spec current() :: term
  def current, do: Process.get(@current)

  # What the calling process does is part of that.
  @doc false
  @spec part_of(term) :: term
  def part_of(parent), do: Process.put(@current, parent)

  # What the requests of a span bring along, so that Python knows it.
  @doc false
  @spec context(span | nil) :: Py.Context.t()
  def context(nil), do: %{}
  def context({_start, facts}), do: %{span: facts.telemetry_span_context}

  defp spanned(metadata, context, parent) do
    metadata
    |> Map.put(:telemetry_span_context, context)
    |> Map.put(:parent_span_context, parent)
  end

  defp beginning(now), do: %{system_time: System.system_time(), monotonic_time: now}

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
    if there?() do
      context = make_ref()
      part_of(context)

      facts
      |> Map.put(:caller, asker.caller)
      |> spanned(context, parent(asker))
      |> emit_around(run)
    else
      run.()
    end
  end

  # The pool that is called from has had it loaded, where there is one.
  defp there?, do: function_exported?(:telemetry, :execute, 3)

  # Python's own span is nearer than the call.
  defp parent(%Asker{span: nil, call: call}), do: call
  defp parent(%Asker{span: span}), do: span

  defp emit_around(facts, run) do
    start = System.monotonic_time()
    :telemetry.execute([:py, :callback, :start], beginning(start), facts)

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

  # What Python tells of a span of its own. At its start Python hears what that is part of, and says it again at the end.
  @doc false
  @spec span(:start | :stop | :exception, tuple, Asker.t()) :: term
  def span(stage, facts, asker), do: if(there?(), do: emit_span(stage, facts, asker))

  defp emit_span(:start, {context, name, metadata, nil}, asker) do
    facts = span_facts(name, metadata, asker, context, parent(asker))
    :telemetry.execute([:py, :span, :start], beginning(System.monotonic_time()), facts)
    facts.parent_span_context
  end

  defp emit_span(:stop, {context, name, metadata, parent, took}, asker) do
    facts = span_facts(name, metadata, asker, context, parent)
    :telemetry.execute([:py, :span, :stop], %{duration: native(took)}, facts)
  end

  defp emit_span(:exception, {context, name, metadata, parent, took, error}, asker) do
    facts = span_facts(name, metadata, asker, context, parent)
    raised = Map.merge(facts, %{reason: error.kind, error: error})
    :telemetry.execute([:py, :span, :exception], %{duration: native(took)}, raised)
  end

  defp span_facts(name, metadata, asker, context, parent),
    do: spanned(%{name: name, metadata: metadata, caller: asker.caller}, context, parent)

  # The same, and events of Python's own, where nobody waits for it. Python code may make it up.
  @doc false
  @spec told(term, term) :: term
  def told(what, span) do
    case what do
      {:span, stage, facts} -> span(stage, facts, %Asker{span: span})
      {:telemetry, event, measurements, metadata} -> execute(event, measurements, metadata)
    end
  rescue
    _made_up -> :ok
  end

  # An event of Python's own. Names come from there: none of them becomes an atom.
  @doc false
  @spec execute([String.t() | atom], map, map) :: {:ok, nil} | {:error, {:value, String.t()}}
  def execute(event, measurements, metadata) do
    names = event ++ Map.keys(measurements) ++ Map.keys(metadata)

    case there?() && Enum.find(names, &(not known?(&1))) do
      false ->
        {:ok, nil}

      nil ->
        {:ok, :telemetry.execute(atoms(event), atom_keys(measurements), atom_keys(metadata))}

      name ->
        {:error,
         {:value, "no Elixir code has the atom #{inspect(name)}, and none is made for an event"}}
    end
  end

  defp known?(name) when is_binary(name) do
    is_atom(String.to_existing_atom(name))
  rescue
    ArgumentError -> false
  end

  defp known?(name), do: is_atom(name)

  defp atoms(names), do: Enum.map(names, &atom/1)
  defp atom_keys(map), do: Map.new(map, fn {key, value} -> {atom(key), value} end)

  defp atom(name) when is_binary(name), do: String.to_existing_atom(name)
  defp atom(name), do: name

  @doc false
  @spec start_stream(Pool.t(), tuple) :: span | nil
  def start_stream(%Pool{telemetry?: false}, _request), do: nil

  def start_stream(%Pool{name: pool}, {:call, target, name, _args, _kwargs}) do
    now = System.monotonic_time()
    facts = spanned(%{pool: pool, target: named(target), name: name}, make_ref(), current())
    :telemetry.execute([:py, :stream, :start], beginning(now), facts)
    {now, facts}
  end

  @doc false
  @spec stop_stream(span | nil, non_neg_integer, :done | :halted | Error.t()) :: :ok
  def stop_stream(nil, _items, _end), do: :ok

  def stop_stream({start, facts}, items, how) do
    times = %{duration: System.monotonic_time() - start, items: items}
    {event, facts} = ended(how, facts)
    :telemetry.execute([:py, :stream, event], times, facts)
  end

  defp ended(%Error{kind: kind} = error, facts),
    do: {:exception, Map.merge(facts, %{reason: kind, error: error})}

  defp ended(reason, facts), do: {:stop, Map.put(facts, :reason, reason)}

  @doc false
  @spec start_session(Pool.t()) :: span | nil
  def start_session(%Pool{telemetry?: false}), do: nil

  def start_session(%Pool{name: pool}) do
    now = System.monotonic_time()
    times = %{system_time: System.system_time(), monotonic_time: now}
    :telemetry.execute([:py, :session, :start], times, %{pool: pool})
    {now, %{pool: pool}}
  end

  @doc false
  @spec stop_session(span | nil, term) :: :ok
  def stop_session(nil, _reason), do: :ok

  def stop_session({start, facts}, reason) do
    times = %{duration: System.monotonic_time() - start}
    :telemetry.execute([:py, :session, :stop], times, Map.put(facts, :reason, reason))
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
    metadata = request |> asked() |> Map.put(:pool, pool)
    :telemetry.execute([:py, :inline, :overrun], %{duration: duration}, metadata)
  end

  # Each call that is told of makes one: as one map, which is the quickest.
  defp facts({:call, target, name, _args, _kwargs}, pool, call, parent) do
    %{
      kind: :call,
      target: named(target),
      name: name,
      pool: pool,
      telemetry_span_context: call,
      parent_span_context: parent
    }
  end

  defp facts(request, pool, call, parent),
    do: request |> asked() |> Map.put(:pool, pool) |> spanned(call, parent)

  defp asked({:call, target, name, _args, _kwargs}),
    do: %{kind: :call, target: named(target), name: name}

  defp asked({:getattr, target, name}), do: %{kind: :getattr, target: named(target), name: name}
  defp asked({:reload, module}), do: %{kind: :reload, target: module, name: nil}
  defp asked({kind, _code, _vars, _file, _line}), do: %{kind: kind, target: nil, name: nil}
  defp asked({:within, request, _context}), do: asked(request)

  # Whoever writes it down must not ask Python.
  defp named(%Py.Object{} = object), do: Py.Object.type(object)
  defp named(target), do: target

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
