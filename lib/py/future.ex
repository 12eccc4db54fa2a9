defmodule Py.Future do
  @moduledoc """
  What `Py.async_call/4` returns: the handle of a call that runs, for `Py.await/2`, `Py.yield/2` and `Py.cancel/1`.

  The process that made it, its `owner`, gets exactly one message `{:py_result, future.ref, result}`, unless it cancels
  before. It either gives the future to one of these functions, once, or receives the message itself, as in
  `handle_info/2`; not both.

      iex> future = Py.async_call(:math, :sqrt, [16])
      iex> ref = future.ref
      iex> receive do {:py_result, ^ref, result} -> result end
      {:ok, 4.0}
  """

  alias Py.{Caller, Error, Remote, Telemetry}
  alias Py.Stream.Feeder

  @enforce_keys [:ref, :owner, :pool]
  # What was asked is kept, since it may refer to objects, which a worker process is to find when it comes to it.
  defstruct [:ref, :owner, :pool, :ticket, :span, :taken, :request]

  @typedoc "`pool` is where it runs. The other fields are Py's own."
  @type t :: %__MODULE__{ref: reference, owner: pid, pool: atom | {atom, node}}

  # The native side replies at once when it says that a reply is there: this is for a message that was received by hand.
  @surely 1_000

  @doc false
  @spec start(Caller.request(), map) :: t
  def start(_request, %{return: :object, on: {_pool, node} = on}),
    do: refused(on, make_ref(), Caller.too_far(node))

  def start(request, %{stream_to: pid} = options) when pid != nil do
    {feeder, ref} = Py.Stream.to(pid, request, options)
    new(options.on, ref, {:py_stream, feeder}, nil)
  end

  def start(request, %{on: {pool, node} = on, timeout: timeout}) do
    owner = self()
    ref = make_ref()

    proxy =
      spawn(fn ->
        send(owner, {:py_result, ref, Remote.run(pool, node, request, timeout, owner)})
      end)

    new(on, ref, proxy, nil)
  end

  def start(request, %{on: session} = options) when is_pid(session) and node(session) != node(),
    do: start(request, %{options | on: {session, node(session)}})

  def start(request, %{on: name, timeout: timeout} = options) do
    ref = make_ref()

    case Caller.pool(name, timeout) do
      {:ok, pool, timeout} -> pool |> Caller.copying(options) |> submit(ref, request, timeout)
      {:error, error} -> refused(name, ref, error)
    end
  end

  @doc false
  @spec await(t, timeout) :: Caller.result()
  def await(%__MODULE__{ref: ref} = future, timeout) do
    check!(future)
    check_result!(future)

    receive do
      {:py_result, ^ref, result} -> take(future, result)
    after
      timeout -> stop(future, Error.new(:timeout, "await gave up after #{timeout} ms"))
    end
  end

  @doc false
  @spec yield(t, timeout) :: Caller.result() | nil
  def yield(%__MODULE__{ref: ref} = future, timeout) do
    check!(future)
    check_result!(future)

    receive do
      {:py_result, ^ref, result} -> take(future, result)
    after
      timeout -> nil
    end
  end

  @doc false
  @spec cancel(t) :: :ok | Caller.result()
  def cancel(%__MODULE__{} = future) do
    check_owner!(future)

    if taken?(future) do
      :ok
    else
      cancelled = Error.new(:cancelled, "by its caller")
      with {:error, ^cancelled} <- stop(future, cancelled), do: :ok
    end
  end

  defp held(%{in: :process}, request), do: request
  defp held(_in_the_node, _request), do: nil

  defp submit(pool, ref, request, timeout) do
    span = Telemetry.start(pool, request, ref)

    case Caller.submit(pool, ref, Process.group_leader(), request, timeout) do
      {:error, error} -> %{refused(pool.name, ref, error) | span: span}
      ticket -> %{new(pool.name, ref, ticket, span) | request: held(pool, request)}
    end
  end

  # A refusal arrives as a result does, so that whoever waits for the message sees it too.
  defp refused(on, ref, error) do
    send(self(), {:py_result, ref, {:error, error}})
    new(on, ref, nil, nil)
  end

  defp new(on, ref, ticket, span) do
    %__MODULE__{
      ref: ref,
      owner: self(),
      pool: on,
      ticket: ticket,
      span: span,
      taken: :atomics.new(1, [])
    }
  end

  defp stop(%{ref: ref} = future, error) do
    case halt(future) do
      :cancelled ->
        take(future, {:error, error})

      :replied ->
        receive do
          {:py_result, ^ref, result} -> take(future, result)
        after
          @surely -> take(future, {:error, error})
        end
    end
  end

  defp halt(%{ticket: nil}), do: :replied

  defp halt(%{ticket: {:py_stream, feeder}, ref: ref}) do
    if feeder, do: Feeder.stop(feeder, Process.monitor(feeder))
    Py.Stream.flush(ref)
    :cancelled
  end

  # Signals of one process arrive in order: when its end is known, so is its reply.
  defp halt(%{ticket: proxy, ref: ref}) when is_pid(proxy) do
    monitor = Process.monitor(proxy)
    Process.exit(proxy, :kill)

    receive do
      {:DOWN, ^monitor, :process, ^proxy, _reason} -> :ok
    end

    {:messages, messages} = Process.info(self(), :messages)
    if Enum.any?(messages, &match?({:py_result, ^ref, _}, &1)), do: :replied, else: :cancelled
  end

  defp halt(%{ticket: ticket}), do: Caller.cancel(ticket)

  defp take(future, result) do
    :atomics.put(future.taken, 1, 1)
    Telemetry.stop(future.span, unless(is_pid(future.ticket), do: future.ticket), result)
    result
  end

  defp taken?(future), do: :atomics.get(future.taken, 1) == 1

  defp check!(future) do
    check_owner!(future)

    if taken?(future),
      do:
        raise(
          ArgumentError,
          "this future was awaited or cancelled already: its result is given once"
        )
  end

  defp check_result!(%{ticket: {:py_stream, _feeder}}) do
    raise ArgumentError,
          "the items of this future go to the process of stream_to:, as messages; there is no result to await"
  end

  defp check_result!(_future), do: :ok

  defp check_owner!(%{owner: owner}) when owner == self(), do: :ok

  defp check_owner!(%{owner: owner}) do
    raise ArgumentError,
          "this future belongs to #{inspect(owner)}, which gets its result; #{inspect(self())} cannot await or cancel it"
  end
end
