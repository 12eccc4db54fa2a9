defmodule Py.Stream do
  @moduledoc """
  Items of Python iterables, one after another: `Py.stream/4` for those who enumerate, `stream_to:` of `Py.async_call/4`
  for processes that want messages.

  Python runs ahead of the consumer by as many items as `buffer:` says, and no further. Items that come fast cross many at
  a time, those that come slowly each at once. Between them no thread waits: a stream that nobody takes from is an object
  in Python's memory.

  ## Messages

      iex> future = Py.async_call(:builtins, :range, [3], stream_to: self())
      iex> ref = future.ref
      iex> for _ <- 1..4 do
      ...>   receive do
      ...>     {:py_stream, ^ref, {:data, item}} ->
      ...>       Py.Stream.ack(ref)
      ...>       item
      ...>
      ...>     {:py_stream, ^ref, :done} ->
      ...>       :done
      ...>   end
      ...> end
      [0, 1, 2, :done]

  The process gets `{:py_stream, ref, {:data, item}}` for each item, then `{:py_stream, ref, :done}` or
  `{:py_stream, ref, {:error, %Py.Error{}}}`. It gets `buffer:` items, and then one for each that it gives back by `ack/2`.
  The stream ends with that process, and by `Py.cancel/1`.

  ## Ends

  The iterable is closed, so that a generator runs its `finally`, when its consumer has enough (`Enum.take/2`), raises or
  dies, and when an item takes longer than `timeout:`. `Py.stream/4` returns when that is done.
  """

  alias Py.Error
  alias Py.Stream.Feeder

  @doc """
  Lets a stream with `stream_to:` send `count` items more. `ref` is the one of its messages.

      iex> future = Py.async_call(:itertools, :count, [], stream_to: self(), buffer: 1)
      iex> ref = future.ref
      iex> receive do {:py_stream, ^ref, {:data, 0}} -> Py.Stream.ack(ref) end
      :ok
      iex> receive do {:py_stream, ^ref, {:data, item}} -> item end
      1
      iex> Py.cancel(future)
      :ok
  """
  @spec ack(reference, pos_integer) :: :ok
  def ack(ref, count \\ 1) when is_reference(ref) and is_integer(count) and count > 0 do
    send(ref, {:credit, count})
    :ok
  end

  @doc false
  @spec new(tuple, map) :: Enumerable.t()
  def new(request, %{decode: nil} = options),
    do: Stream.resource(fn -> open(request, options) end, &next/1, &close/1)

  def new(request, %{decode: function} = options),
    do: request |> new(%{options | decode: nil}) |> Stream.map(function)

  defp open(request, options) do
    ref = :erlang.alias()
    {pid, monitor} = Feeder.start(request, options, {:items, self(), ref})
    {pid, monitor, ref, 0}
  end

  # What the consumer was given it has dealt with by the time that it asks for more.
  defp next({pid, monitor, ref, given}) do
    if given > 0, do: send(pid, {:credit, given})

    receive do
      {:py_stream, ^ref, {:items, items}} -> {items, {pid, monitor, ref, length(items)}}
      {:py_stream, ^ref, :done} -> {:halt, {pid, monitor, ref, 0}}
      {:py_stream, ^ref, {:error, error}} -> raise error
      {:DOWN, ^monitor, :process, ^pid, reason} -> raise lost(reason)
    end
  end

  @doc false
  @spec to(pid, tuple, map) :: {pid | nil, reference}
  def to(pid, request, options) do
    me = :erlang.alias([:reply])
    {feeder, monitor} = Feeder.start(request, options, {:data, pid, me})

    receive do
      {:py_feeder, ^me, ref} ->
        Process.demonitor(monitor, [:flush])
        {feeder, ref}

      {:DOWN, ^monitor, :process, ^feeder, reason} ->
        :erlang.unalias(me)
        ref = make_ref()
        send(pid, {:py_stream, ref, {:error, lost(reason)}})
        {nil, ref}
    end
  end

  defp lost(:noconnection), do: Error.new(:nodedown, "the node of the pool")
  defp lost(reason), do: Error.new(:crashed, "what fed the stream ended: #{inspect(reason)}")

  defp close({pid, monitor, ref, _given}) do
    :erlang.unalias(ref)
    Feeder.stop(pid, monitor)
    flush(ref)
  end

  @doc false
  @spec flush(reference) :: :ok
  def flush(ref) do
    receive do
      {:py_stream, ^ref, _what} -> flush(ref)
    after
      0 -> :ok
    end
  end
end
