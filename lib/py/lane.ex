defmodule Py.Lane do
  @moduledoc false

  # The way of a short call to a worker that has nothing to do and looks for requests: its caller writes into memory that
  # both see, and its scheduler waits some microseconds for the answer there, so that no process is woken for it. See
  # native/shared/src/lane.rs. What takes longer is handed to the switchboard, and goes on as any other request.

  alias Py.Native.Base
  alias Py.Switchboard.Homes
  alias Py.{Pool, Worker}
  alias Py.Worker.Frame

  @typedoc "A request whose caller has left the lane: its number, and what `Py.Switchboard.Request` has under these names."
  @type left ::
          {Frame.id(), verb :: byte, deadline :: non_neg_integer, from :: pid, ref :: reference,
           body :: binary}

  # A page of a request, and what stands in front of it: what is longer does not try.
  @longest 4000

  @doc """
  Asks, if there is a worker that waits, or, of a request that has a home, if that worker does. With `:left` the answer will be a message of the switchboard, which was sent
  `{:py_left, worker_number, left}`; with `:busy` nothing was asked.
  """
  @spec ask(Pool.t(), reference, byte, non_neg_integer, [binary]) ::
          {:answer, :reply | :fault | {:referring, list}, non_neg_integer, binary}
          | :left
          | :busy
  def ask(pool, ref, verb, deadline, [body]) when byte_size(body) <= @longest do
    # A pool that is full takes nothing more, in whatever way.
    if Pool.room?(pool) and in_order?(pool),
      do: ask(pool, Homes.number(pool), ref, verb, deadline, body),
      else: :busy
  end

  def ask(_pool, _ref, _verb, _deadline, _iovec), do: :busy

  @doc "Notes that the calling process has asked for something that it does not wait for: the lane must not overtake it."
  @spec keep_order(Pool.t()) :: term
  def keep_order(%{pid: pid}), do: Process.put({__MODULE__, pid}, true)

  # Where nothing is in progress, nothing can be overtaken.
  defp in_order?(%{pid: pid} = pool) do
    cond do
      Process.get({__MODULE__, pid}) == nil ->
        true

      Pool.idle?(pool) ->
        Process.delete({__MODULE__, pid})
        true

      true ->
        false
    end
  end

  defp ask(pool, worker, ref, verb, deadline, body) do
    to = {pool.pid, pool.name, worker}

    case Base.lanes_ask(pool.board.lanes, to, ref, verb, deadline, body) do
      <<1, _id::64, run::64, result::binary>> -> {:answer, :reply, run, result}
      <<2, _id::64, run::64, fault::binary>> -> {:answer, :fault, run, fault}
      {handles, answer} -> referring(handles, answer)
      left_or_busy -> left_or_busy
    end
  end

  defp referring(handles, answer) do
    {:referring, _id, run, result} = Frame.parse(answer)
    {:answer, {:referring, handles}, run, result}
  end

  @doc "Lets callers ask a worker that serves from now on."
  @spec open(Base.lanes(), Worker.t()) :: boolean
  def open(_lanes, %{page: nil}), do: false
  def open(lanes, %{number: number, page: page}), do: Base.lanes_add(lanes, number, page)

  @doc "Lets them ask it no more; one may still be at it."
  @spec close(Base.lanes(), Worker.t()) :: :ok
  def close(lanes, %{number: number}), do: Base.lanes_remove(lanes, number)

  @doc "Does nobody wait there?"
  @spec free?(Worker.t()) :: boolean
  def free?(%{page: nil}), do: true
  def free?(%{page: page}), do: Base.lane_free(page)

  @doc "How many calls came this way."
  @spec calls(Worker.t()) :: non_neg_integer
  def calls(%{page: nil}), do: 0
  def calls(%{page: page}), do: Base.lane_calls(page)
end
