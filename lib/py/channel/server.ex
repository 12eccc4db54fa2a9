defmodule Py.Channel.Server do
  @moduledoc false

  # The process of a channel: a buffer, and who waits at either end of it. Everything has a number, given as it came, and
  # the lowest is served first.
  #
  # What is given to a getter is lent to it, until it says that it has it or ends by itself; where it is killed before, the item
  # is back where it was. So one that dies as it is served loses nothing.

  use GenServer

  alias :gb_trees, as: Tree

  @enforce_keys [:max_size]
  defstruct [
    :max_size,
    last: 0,
    closed: false,
    buffer: Tree.empty(),
    getters: Tree.empty(),
    putters: Tree.empty(),
    # By the number of its getter: the monitor of that, the number of the item, the item.
    lent: %{}
  ]

  @doc "Is this the process of a channel? Of another node's nobody asks."
  @spec channel?(pid) :: boolean
  def channel?(pid) when node(pid) == node(),
    do: :proc_lib.translate_initial_call(pid) == {__MODULE__, :init, 1}

  def channel?(_pid), do: true

  @doc "Says that what was lent under this number has arrived."
  @spec taken(pid, pos_integer) :: :ok
  def taken(channel, number) do
    send(channel, {:taken, number})
    :ok
  end

  @spec start_link(pos_integer, GenServer.options()) :: GenServer.on_start()
  def start_link(max_size, options),
    do: GenServer.start_link(__MODULE__, {self(), max_size}, options)

  # A link does not tell of an owner that just returns.
  @impl true
  def init({owner, max_size}) do
    Process.monitor(owner)
    {:ok, %__MODULE__{max_size: max_size}}
  end

  @impl true
  def handle_call({:get, timeout}, from, state),
    do: {:noreply, state |> wait(:getters, nil, from, timeout) |> settle()}

  def handle_call({:put, _item, _timeout}, _from, %{closed: true} = state),
    do: {:reply, {:error, :closed}, state}

  def handle_call({:put, item, timeout}, from, state),
    do: {:noreply, state |> wait(:putters, item, from, timeout) |> settle()}

  def handle_call(:close, _from, state),
    do: {:reply, :ok, %{turn_away(state, :putters) | closed: true} |> settle()}

  def handle_call(:info, _from, state) do
    info = %{
      size: Tree.size(state.buffer),
      max_size: state.max_size,
      getters: Tree.size(state.getters),
      putters: Tree.size(state.putters),
      closed: state.closed
    }

    {:reply, info, state}
  end

  @impl true
  def handle_info({:taken, number}, state), do: {:noreply, state |> taken_by(number) |> settle()}

  def handle_info({:late, side, number}, state),
    do: {:noreply, turn_away(state, side, number, :timeout)}

  def handle_info({{:gone, side, number}, _monitor, :process, _pid, reason}, state),
    do: {:noreply, state |> gone(side, number, reason) |> settle()}

  def handle_info({:DOWN, _owner, :process, _pid, _reason}, state), do: {:stop, :normal, state}
  def handle_info(_other, state), do: {:noreply, state}

  defp wait(state, side, item, {pid, _tag} = from, timeout) do
    number = state.last + 1
    monitor = :erlang.monitor(:process, pid, tag: {:gone, side, number})
    timer = timer(timeout, {:late, side, number})
    waiters = Tree.insert(number, {from, monitor, timer, item}, Map.fetch!(state, side))
    Map.put(%{state | last: number}, side, waiters)
  end

  defp timer(:infinity, _message), do: nil
  defp timer(timeout, message), do: Process.send_after(self(), message, timeout)

  # Whatever has happened: who can be served now is served.
  defp settle(state) do
    items = Tree.size(state.buffer)
    getters? = not Tree.is_empty(state.getters)

    cond do
      items > 0 and getters? -> state |> lend() |> settle()
      items < state.max_size and not Tree.is_empty(state.putters) -> state |> admit() |> settle()
      getters? and drained?(state) -> turn_away(state, :getters)
      true -> state
    end
  end

  # What is lent may come back.
  defp drained?(state), do: state.closed and state.lent == %{}

  defp lend(state) do
    {place, item, buffer} = Tree.take_smallest(state.buffer)
    {number, {from, monitor, timer, nil}, getters} = Tree.take_smallest(state.getters)
    stop(timer)
    GenServer.reply(from, {:lent, number, item})
    lent = Map.put(state.lent, number, {monitor, place, item})
    %{state | buffer: buffer, getters: getters, lent: lent}
  end

  defp admit(state) do
    {number, {from, monitor, timer, item}, putters} = Tree.take_smallest(state.putters)
    stop(timer)
    Process.demonitor(monitor, [:flush])
    GenServer.reply(from, :ok)
    %{state | buffer: Tree.insert(number, item, state.buffer), putters: putters}
  end

  defp taken_by(state, number) do
    case Map.pop(state.lent, number) do
      {{monitor, _place, _item}, lent} ->
        Process.demonitor(monitor, [:flush])
        %{state | lent: lent}

      {nil, _lent} ->
        state
    end
  end

  defp gone(state, _side, number, reason) when is_map_key(state.lent, number) do
    {{_monitor, place, item}, lent} = Map.pop!(state.lent, number)
    state = %{state | lent: lent}
    # One that answers Python ends by itself once it has answered.
    if reason == :normal,
      do: state,
      else: %{state | buffer: Tree.insert(place, item, state.buffer)}
  end

  defp gone(state, side, number, _reason), do: forget(state, side, number)

  defp turn_away(state, side) do
    numbers = state |> Map.fetch!(side) |> Tree.keys()
    Enum.reduce(numbers, state, &turn_away(&2, side, &1, :closed))
  end

  # It may have been served just now.
  defp turn_away(state, side, number, why) do
    case Tree.lookup(number, Map.fetch!(state, side)) do
      {:value, {from, monitor, timer, _item}} ->
        stop(timer)
        Process.demonitor(monitor, [:flush])
        GenServer.reply(from, {:error, why})
        forget(state, side, number)

      :none ->
        state
    end
  end

  defp forget(state, side, number),
    do: Map.update!(state, side, &Tree.delete_any(number, &1))

  defp stop(nil), do: :ok
  defp stop(timer), do: Process.cancel_timer(timer)
end
