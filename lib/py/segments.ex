defmodule Py.Segments do
  @moduledoc false

  # Shared memory for large requests to worker processes. A caller takes a segment and fills it; the switchboard has a
  # worker read it, and puts it back. What is free is in a table of the pool's, so that no process is asked for one.

  alias Py.Native.Base

  @type t :: %{table: :ets.table(), last_id: :atomics.atomics_ref()}
  @type id :: non_neg_integer
  @type shared :: {id, Base.segment(), len :: non_neg_integer}

  @doc "From this size on, in bytes, what crosses does so in a segment."
  defmacro shared_from, do: 64 * 1024

  # Bytes that are kept for the next requests, and for how long, in milliseconds.
  @kept 512 * 1024 * 1024
  @idle 30_000

  @spec new() :: t
  def new do
    table = :ets.new(__MODULE__, [:ordered_set, :public, write_concurrency: true])
    %{table: table, last_id: :atomics.new(1, signed: false)}
  end

  @doc "Puts bytes into a segment; an error where there is no memory for one."
  @spec fill(t, [binary], non_neg_integer) :: {:ok, shared} | {:error, term}
  def fill(segments, iovec, len) do
    with {:ok, id, segment} <- take(segments, len),
         written when is_integer(written) <- Base.segment_write(segment, iovec),
         do: {:ok, {id, segment, len}}
  end

  defp take(%{table: table} = segments, len) do
    # The keys are sizes and ids: the first from here on is the smallest that is large enough.
    case :ets.next(table, {len - 1, :any_id}) do
      {size, _id} = key when size <= 4 * len -> take_key(segments, key, len)
      _none_or_much_too_large -> create(segments, len)
    end
  end

  defp take_key(segments, {_size, id} = key, len) do
    case :ets.take(segments.table, key) do
      [{^key, segment, _since}] -> {:ok, id, segment}
      # Somebody else was faster.
      [] -> take(segments, len)
    end
  end

  defp create(segments, len) do
    case Base.segment_create(len) do
      {:error, _reason} = error -> error
      segment -> {:ok, :atomics.add_get(segments.last_id, 1, 1), segment}
    end
  end

  @doc "Puts a segment back."
  @spec put(t, id, Base.segment()) :: true
  def put(%{table: table}, id, segment),
    do: :ets.insert(table, {{Base.segment_size(segment), id}, segment, now()})

  @doc "Drops what was not used for long, and what is too much; tells the ids of those."
  @spec sweep(t) :: [id]
  def sweep(%{table: table}) do
    before = now() - @idle

    newest_first =
      table |> :ets.tab2list() |> Enum.sort_by(fn {_key, _segment, since} -> -since end)

    {dropped, _bytes} =
      Enum.flat_map_reduce(newest_first, 0, fn {{size, _id} = key, _segment, since}, bytes ->
        if since < before or bytes + size > @kept,
          do: {:ets.take(table, key), bytes},
          else: {[], bytes + size}
      end)

    for {{_size, id}, _segment, _since} <- dropped, do: id
  end

  defp now, do: System.monotonic_time(:millisecond)
end
