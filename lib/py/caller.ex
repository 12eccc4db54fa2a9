defmodule Py.Caller do
  @moduledoc false

  # The caller's side of a request: finds the pool, submits, and receives the one reply that the native side owes.

  alias Py.{Error, Native, Options, Pool, Remote, Session, Telemetry, Workers}
  alias Py.Pool.Startup

  @type request :: tuple
  @type result :: {:ok, term} | :ok | {:error, Error.t()}

  # For a call that gives no timeout and whose pool is not there to say its own.
  @default_timeout Options.defaults(:pool).timeout

  @spec run(request, map) :: result
  def run(request, %{inline: true, return: :value, on: name, timeout: timeout})
      when is_atom(name) do
    case Pool.lookup(name) do
      %Pool{} = pool ->
        perform_inline(pool, request, timeout || pool.timeout)

      _state ->
        with {:ok, pool, timeout} <- pool(name, timeout),
             do: perform_inline(pool, request, timeout)
    end
  end

  def run(_request, %{return: :object, on: {_pool, node}}), do: {:error, too_far(node)}

  def run(request, %{on: {pool, node}, timeout: timeout}),
    do: Remote.run(pool, node, request, timeout)

  def run(request, %{on: session, timeout: timeout})
      when is_pid(session) and node(session) != node(),
      do: Remote.run(session, node(session), request, timeout)

  def run(request, %{on: name, timeout: timeout} = options) do
    with {:ok, pool, timeout} <- pool(name, timeout),
         do: pool |> copying(options) |> perform(request, timeout)
  end

  @doc "The pool, as one that copies results out of the memory of a worker, or does not."
  @spec copying(Pool.t(), map) :: Pool.t()
  def copying(pool, %{copy: false}), do: %{pool | copy?: false}
  def copying(pool, _options), do: pool

  @doc "The pool and what is left of the time."
  @spec pool(atom | pid, timeout | nil) :: {:ok, Pool.t(), timeout} | {:error, Error.t()}
  def pool(session, timeout) when is_pid(session) do
    case Session.pool(session) do
      {:ok, pool} -> {:ok, pool, timeout || pool.timeout}
      :error -> {:error, Session.lost(session)}
    end
  end

  def pool(name, timeout) do
    case Pool.lookup(name) do
      %Pool{} = pool -> {:ok, pool, timeout || pool.timeout}
      state -> pool_of_session(name, state, timeout)
    end
  end

  defp pool_of_session(name, state, timeout) do
    case Session.pool(name) do
      {:ok, pool} -> {:ok, pool, timeout || pool.timeout}
      :error -> wait(name, state, timeout || @default_timeout)
    end
  end

  @doc """
  Gives a request to a pool; its reply will be `{:py_result, tag, result}`. The ticket is for `Native.cancel/1` and
  `Native.times/1`, or that of `Py.Workers`.
  """
  @spec submit(Pool.t(), reference, pid, request, timeout) ::
          reference | Workers.ticket() | {:error, Error.t()}
  def submit(%Pool{session: key} = pool, tag, leader, request, timeout) when key != nil do
    {pool, request} = Session.within(pool, request)
    submit(pool, tag, leader, request, timeout)
  end

  def submit(%Pool{in: :process} = pool, tag, leader, request, timeout),
    do: Workers.submit(pool, tag, leader, request, timeout)

  def submit(%Pool{native: native} = pool, tag, leader, request, timeout) do
    native
    |> Native.submit(tag, leader, request, timeout, true)
    |> taken(pool, tag, leader, request, timeout, true)
  end

  # What a pool that was asked says, unless it has the answer.
  defp taken(:large, pool, tag, leader, request, timeout, wants_ticket?) do
    pool.native
    |> Native.submit_large(tag, leader, request, timeout, wants_ticket?)
    |> accepted(pool)
  end

  defp taken(answer, pool, _tag, _leader, _request, _timeout, _wants_ticket?),
    do: accepted(answer, pool)

  @doc "Ends a request: nothing will come, or its reply is there."
  @spec cancel(reference | Workers.ticket()) :: :cancelled | :replied
  def cancel(ticket) when is_reference(ticket), do: Native.cancel(ticket)
  def cancel(ticket), do: Workers.cancel(ticket)

  @doc "What those are told who want an object of another node."
  @spec too_far(node) :: Error.t()
  def too_far(node) do
    Error.new(
      :not_available,
      "an object stays on its node: return: :object cannot go with a pool of #{node}; call it from a process there"
    )
  end

  defp perform(%Pool{session: key} = pool, request, timeout) when key != nil do
    {pool, request} = Session.within(pool, request)
    Session.result(perform(pool, request, timeout))
  end

  defp perform(%Pool{in: :process} = pool, request, timeout),
    do: Workers.run(pool, request, timeout)

  # The reference is made here and received here: then `receive` looks at no message that was there before it.
  defp perform(%Pool{telemetry?: false, native: native} = pool, request, timeout) do
    ref = make_ref()

    case Native.ask(native, ref, Process.group_leader(), request, timeout, false) do
      {:py_result, _ref, result} ->
        result

      :left ->
        receive(do: ({:py_result, ^ref, result} -> result))

      refused ->
        with :ok <- taken(refused, pool, ref, Process.group_leader(), request, timeout, false),
             do: receive(do: ({:py_result, ^ref, result} -> result))
    end
  end

  defp perform(pool, request, timeout) do
    ref = make_ref()
    span = Telemetry.start(pool, request, ref)
    {result, ticket} = perform(pool, ref, request, timeout)
    stop(span, ticket, result)
  end

  defp perform(%Pool{native: native} = pool, ref, request, timeout) do
    case Native.ask(native, ref, Process.group_leader(), request, timeout, true) do
      {{:py_result, _ref, result}, ticket} ->
        {result, ticket}

      {:left, ticket} ->
        receive(do: ({:py_result, ^ref, result} -> {result, ticket}))

      refused ->
        case taken(refused, pool, ref, Process.group_leader(), request, timeout, true) do
          {:error, _error} = error -> {error, nil}
          ticket -> receive(do: ({:py_result, ^ref, result} -> {result, ticket}))
        end
    end
  end

  # A session is not entered on a scheduler.
  defp perform_inline(%Pool{session: key} = pool, request, timeout) when key != nil,
    do: perform(pool, request, timeout)

  # There is no inline in a process elsewhere.
  defp perform_inline(%Pool{in: :process} = pool, request, timeout),
    do: Workers.run(pool, request, timeout)

  defp perform_inline(%Pool{telemetry?: false} = pool, request, timeout) do
    case Native.run_inline(pool.native, Process.group_leader(), request, timeout) do
      {:ok, _value} = result -> result
      {:overran, result, _nanoseconds} -> result
      {:deferred, ref} -> receive(do: ({:py_result, ^ref, result} -> result))
      closed when is_atom(closed) and closed != :ok -> perform(pool, request, timeout)
      result -> result
    end
  end

  defp perform_inline(pool, request, timeout) do
    ref = make_ref()
    span = Telemetry.start(pool, request, ref)

    case Native.run_inline(pool.native, Process.group_leader(), request, timeout) do
      {:overran, result, nanoseconds} ->
        Telemetry.overran(pool, request, nanoseconds)
        stop(span, nil, result)

      {:deferred, ref} ->
        receive(do: ({:py_result, ^ref, result} -> stop(span, nil, result)))

      closed when is_atom(closed) and closed != :ok ->
        {result, ticket} = perform(pool, ref, request, timeout)
        stop(span, ticket, result)

      result ->
        stop(span, nil, result)
    end
  end

  defp stop(span, ticket, result) do
    Telemetry.stop(span, ticket, result)
    result
  end

  defp accepted(ticket, _pool) when is_reference(ticket) or ticket == :ok, do: ticket
  defp accepted(:stopped, pool), do: {:error, Startup.stopped(pool.name)}

  defp accepted(:overloaded, pool) do
    overloaded(pool, fn info ->
      "#{inspect(pool.name)} runs #{info.running} calls (size: #{info.size}) and #{info.queued} wait " <>
        "(max_queue: #{info.max_queue})"
    end)
  end

  defp accepted(:stuck, pool) do
    overloaded(pool, fn info ->
      "#{inspect(pool.name)} gets no thread: #{info.retired} of the node sit in C code of calls that are over, " <>
        "and no more of them are replaced"
    end)
  end

  defp overloaded(pool, why) do
    info = Native.info(pool.native)
    Telemetry.overloaded(pool, info)
    {:error, Error.new(:overloaded, why.(info))}
  end

  defp wait(name, state, timeout) do
    start = System.monotonic_time(:millisecond)

    with {:ok, pool} <- Startup.wait(name, state, timeout) do
      {:ok, pool, left(timeout, System.monotonic_time(:millisecond) - start)}
    end
  end

  defp left(:infinity, _spent), do: :infinity
  defp left(timeout, spent), do: max(timeout - spent, 0)
end
