defmodule Py.Stream.Feeder do
  @moduledoc false

  # Between a stream and its consumer: a process that takes items from Python while there is credit, in requests of its
  # own, and closes what it takes them from when the consumer has enough or is dead. So nothing of that is left with the
  # consumer, and what comes too late comes to nobody. `erlang/_streams.py` is the other half.

  alias Py.{Caller, Error, Telemetry, Tenants}

  @module "erlang._streams"

  # Milliseconds that the item gets that Python is at when nobody wants it any more.
  @last_item 100

  @enforce_keys [:pool, :key, :request, :to, :ref, :way, :watch, :timeout, :credit, :piece]
  defstruct [
    :pool,
    :key,
    :request,
    # What goes with all its requests: see `Py.Context`.
    :context,
    # Where items go, the reference that they go with, and how: :items for lists of them, :data for each by itself.
    :to,
    :ref,
    :way,
    :watch,
    # Milliseconds for an item.
    :timeout,
    # Items that may be sent, and how many are asked for at once.
    :credit,
    :piece,
    # The request in progress, its ticket, and when it has to have given an item.
    :tag,
    :ticket,
    :due,
    :span,
    opened?: false,
    sent: 0
  ]

  @typedoc "The alias of who gets lists of items; or who gets each as a message, and the alias of who wants to know by which reference."
  @type consumer :: {:items, pid, reference} | {:data, pid, reference}

  @doc "Starts one, on the node of the pool, and monitors it."
  @spec start(tuple, map, consumer) :: {pid, reference}
  def start(request, %{on: {pool, node}} = options, consumer) do
    arguments = [request, %{options | on: pool}, consumer, context()]
    Node.spawn_monitor(node, __MODULE__, :serve, arguments)
  end

  def start(request, options, consumer),
    do: spawn_monitor(__MODULE__, :serve, [request, options, consumer, context()])

  @doc "Ends one, and waits until what it had in Python is closed."
  @spec stop(pid, reference) :: :ok
  def stop(pid, monitor) do
    send(pid, :stop)
    receive(do: ({:DOWN, ^monitor, :process, ^pid, _reason} -> :ok))
  end

  # What Elixir functions that the iterable calls are to find: see `Py.Callbacks`.
  defp context do
    callers = [self() | Process.get(:"$callers", [])]
    {callers, Process.get(:"$logger_metadata$"), Telemetry.current()}
  end

  @doc "The process."
  @spec serve(tuple, map, consumer, {[pid], map | nil, term}) :: :ok
  def serve(request, options, {way, pid, alias}, {callers, metadata, parent}) do
    Process.put(:"$callers", callers)
    if metadata, do: Process.put(:"$logger_metadata$", metadata)
    Telemetry.part_of(parent)
    watch = Process.monitor(pid)
    {to, ref} = address(way, pid, alias)
    {call, context} = parts(request)

    case Caller.pool(options.on, options.timeout) do
      {:ok, pool, timeout} ->
        key = Tenants.new_key()
        span = Telemetry.start_stream(pool, call)

        begin(%__MODULE__{
          pool: %{pool | home: home(pool, key)},
          key: key,
          request: call,
          context: Map.merge(Telemetry.context(span), context),
          to: to,
          ref: ref,
          way: way,
          watch: watch,
          timeout: timeout,
          credit: options.buffer,
          # While the consumer is at one half of the buffer, Python fills the other.
          piece: max(div(options.buffer, 2), 1),
          span: span
        })

      {:error, error} ->
        send(to, {:py_stream, ref, {:error, error}})
        :ok
    end
  end

  defp address(:items, _pid, alias), do: {alias, alias}

  # By the reference of its messages a process gives credit back, so it has to be an alias of this one.
  defp address(:data, pid, alias) do
    ref = :erlang.alias()
    send(alias, {:py_feeder, alias, ref})
    {pid, ref}
  end

  # In a session it is where that is, and a guest besides: the worker stays until both are gone.
  defp home(%{in: :process, home: nil}, key), do: {:choose, key}
  defp home(%{in: :process, home: number}, key), do: {number, key}
  defp home(_in_the_node, _key), do: nil

  defp begin(feeder) do
    :ok = Tenants.move_in(tenancy(feeder))
    feed(feeder)
  end

  defp tenancy(%{pool: pool, key: key}),
    do: %{pool: %{pool | session: nil}, key: key, module: @module, span: nil}

  defp feed(%{tag: nil, credit: credit} = feeder) when credit > 0 do
    tag = make_ref()
    request = take(feeder, min(credit, feeder.piece), tag)

    case Caller.submit(feeder.pool, tag, Process.group_leader(), request, :infinity) do
      {:error, error} -> fail(feeder, error)
      ticket -> wait(due(%{feeder | tag: tag, ticket: ticket}))
    end
  end

  defp feed(feeder), do: wait(feeder)

  defp parts({:within, call, context}), do: {call, context}
  defp parts(call), do: {call, %{}}

  defp take(%{context: none} = feeder, count, tag) when none == %{}, do: call(feeder, count, tag)

  defp take(%{context: context} = feeder, count, tag),
    do: Py.Context.within(call(feeder, count, tag), context)

  defp call(%{opened?: true} = feeder, count, tag),
    do: {:call, @module, "take", [feeder.key, count, {self(), tag}], []}

  defp call(%{request: {:call, target, name, args, kwargs}} = feeder, count, tag) do
    arguments = [feeder.key, count, {self(), tag}, target, name, args]
    {:call, @module, "open_call", arguments, kwargs}
  end

  defp due(%{timeout: :infinity} = feeder), do: feeder
  defp due(feeder), do: %{feeder | due: now() + feeder.timeout}

  defp now, do: System.monotonic_time(:millisecond)

  # Who is not asked for anything takes the time that he likes.
  defp patience(%{tag: tag, due: due}) when tag == nil or due == nil, do: :infinity
  defp patience(%{due: due}), do: max(due - now(), 0)

  defp wait(%{tag: tag, key: key, watch: watch} = feeder) do
    receive do
      {:py_items, ^tag, items} -> feeder |> deliver(items) |> due() |> wait()
      {:py_result, ^tag, result} -> answered(%{feeder | tag: nil, ticket: nil}, result)
      {:py_home, ^tag, number} -> feeder |> settle(number) |> wait()
      {:credit, count} -> feed(%{feeder | credit: feeder.credit + count})
      {:py_evicted, ^key, error} -> fail(feeder, error)
      :stop -> halt(feeder)
      {:DOWN, ^watch, :process, _pid, _reason} -> halt(feeder)
      _late -> wait(feeder)
    after
      patience(feeder) -> time_out(feeder)
    end
  end

  defp settle(feeder, number) do
    feeder = %{feeder | pool: %{feeder.pool | home: number}}
    :ok = Tenants.move_in(tenancy(feeder))
    feeder
  end

  defp answered(feeder, {:ok, {items, true}}),
    do: %{feeder | opened?: true} |> deliver(items) |> feed()

  defp answered(feeder, {:ok, {items, false}}), do: feeder |> deliver(items) |> done()

  defp answered(feeder, {:error, %Error{kind: :decode} = error}), do: salvage(feeder, error)
  defp answered(feeder, {:error, error}), do: fail(feeder, error)

  defp deliver(feeder, []), do: feeder

  defp deliver(feeder, items) do
    tell_items(feeder, items)
    count = length(items)
    %{feeder | credit: feeder.credit - count, sent: feeder.sent + count}
  end

  defp tell_items(%{way: :items} = feeder, items), do: tell(feeder, {:items, items})
  defp tell_items(%{way: :data} = feeder, items), do: Enum.each(items, &tell(feeder, {:data, &1}))

  defp tell(%{to: to, ref: ref}, what), do: send(to, {:py_stream, ref, what})

  # --- ends ---------------------------------------------------------------------------------------

  # One of the items has no Elixir value: those before it arrive.
  defp salvage(feeder, error) do
    tag = make_ref()
    request = {:call, @module, "again", [feeder.key, {self(), tag}], []}
    timeout = feeder.pool.timeout

    case Caller.submit(feeder.pool, tag, Process.group_leader(), request, timeout) do
      {:error, _error} -> fail(feeder, error)
      _ticket -> feeder |> collect(tag) |> fail(error)
    end
  end

  defp collect(feeder, tag) do
    receive do
      {:py_items, ^tag, items} -> feeder |> deliver(items) |> collect(tag)
      {:py_result, ^tag, _the_same_error} -> feeder
    end
  end

  defp done(feeder) do
    tell(feeder, :done)
    close(feeder)
    Telemetry.stop_stream(feeder.span, feeder.sent, :done)
  end

  defp fail(feeder, error) do
    tell(feeder, {:error, error})
    close(feeder)
    Telemetry.stop_stream(feeder.span, feeder.sent, error)
  end

  defp halt(feeder) do
    feeder |> wind_up() |> close()
    Telemetry.stop_stream(feeder.span, feeder.sent, :halted)
  end

  defp time_out(feeder) do
    feeder = cancel(feeder)
    fail(feeder, Error.new(:timeout, "no item came within #{feeder.timeout} ms"))
  end

  # A request that is in progress ends by itself after an item or a piece of quick ones. Then the iterable is closed by a
  # request that may call Elixir; what is interrupted may not, since nobody waits for it.
  defp wind_up(%{tag: nil} = feeder), do: feeder

  defp wind_up(%{tag: tag} = feeder) do
    receive do
      {:py_home, ^tag, number} -> feeder |> settle(number) |> wind_up()
      {:py_result, ^tag, _nobody_wants_it} -> %{feeder | tag: nil, ticket: nil}
    after
      @last_item -> cancel(feeder)
    end
  end

  defp cancel(%{ticket: nil} = feeder), do: feeder

  # Where it ran is known by the time that it is cancelled.
  defp cancel(%{ticket: ticket, tag: tag} = feeder) do
    Caller.cancel(ticket)

    receive do
      {:py_home, ^tag, number} -> settle(feeder, number)
    after
      0 -> feeder
    end
  end

  defp close(feeder) do
    Tenants.close(tenancy(feeder))
    Tenants.move_out(tenancy(feeder))
  end
end
