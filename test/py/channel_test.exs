defmodule Py.ChannelTest do
  # The process of a channel, and what Elixir sees of it. With Python it is tested in test/cases.
  use ExUnit.Case, async: true

  import Py.Case, only: [eventually: 1]

  alias Py.Channel

  # A process that does this and tells what it got.
  defp other(function) do
    me = self()
    spawn(fn -> send(me, {self(), function.()}) end)
  end

  defp waiting(channel, getters, putters) do
    eventually(fn -> match?(%{getters: ^getters, putters: ^putters}, Channel.info(channel)) end)
  end

  # One that was given an item and has not said that it has it.
  defp borrow(%{pid: pid}) do
    me = self()

    borrower =
      spawn(fn ->
        {:lent, number, _item} = lent = GenServer.call(pid, {:get, :infinity})
        send(me, {self(), lent})

        receive do
          :return -> :ok
          :take -> Channel.Server.taken(pid, number) && Process.sleep(:infinity)
        end
      end)

    assert_receive {^borrower, {:lent, _number, item}}, 5_000
    {borrower, item}
  end

  defp fill(channel, items), do: for(item <- items, do: :ok = Channel.put(channel, item))
  defp drain(channel), do: channel |> Channel.stream() |> Enum.to_list()

  test "first in, first out" do
    channel = Channel.new()
    fill(channel, [1, nil, {:ok, 3}])
    for item <- [1, nil, {:ok, 3}], do: assert(Channel.get(channel) == {:ok, item})
    assert Channel.get(channel, 0) == {:error, :timeout}
  end

  test "those who wait for items are served in turn" do
    channel = Channel.new()

    getters =
      for n <- 1..50 do
        getter = other(fn -> Channel.get(channel) end)
        waiting(channel, n, 0)
        getter
      end

    fill(channel, 1..50)

    for {getter, n} <- Enum.with_index(getters, 1),
        do: assert_receive({^getter, {:ok, ^n}}, 5_000)
  end

  test "those who wait for room are served in turn" do
    channel = Channel.new(max_size: 1)
    fill(channel, [0])

    for n <- 1..20 do
      other(fn -> Channel.put(channel, n) end)
      waiting(channel, 0, n)
    end

    for n <- 0..20, do: assert(Channel.get(channel) == {:ok, n})
    for _ <- 1..20, do: assert_receive({_putter, :ok}, 5_000)
    assert Channel.info(channel) == %{size: 0, max_size: 1, getters: 0, putters: 0, closed: false}
  end

  test "who gives up or dies is forgotten, and what it would put too" do
    channel = Channel.new(max_size: 1)
    assert Channel.get(channel, 1) == {:error, :timeout}
    dies = other(fn -> Channel.get(channel) end)
    waiting(channel, 1, 0)
    Process.exit(dies, :kill)
    waiting(channel, 0, 0)

    fill(channel, [1])
    assert Channel.put(channel, :late, 1) == {:error, :timeout}
    dies = other(fn -> Channel.put(channel, :dead) end)
    waiting(channel, 0, 1)
    Process.exit(dies, :kill)
    waiting(channel, 0, 0)
    other(fn -> Channel.put(channel, 2) end)
    assert {Channel.get(channel), Channel.get(channel)} == {{:ok, 1}, {:ok, 2}}
  end

  test "what a getter was given that is killed before it has it is back where it was" do
    channel = Channel.new()
    fill(channel, 1..4)
    {first, 1} = borrow(channel)
    {second, 2} = borrow(channel)
    {third, 3} = borrow(channel)
    # The last one ends by itself, and so has its item.
    send(third, :return)
    for pid <- [first, second], do: Process.exit(pid, :kill)
    eventually(fn -> Channel.info(channel).size == 3 end)
    Channel.close(channel)
    assert drain(channel) == [1, 2, 4]
  end

  test "one that comes back goes to who waits" do
    channel = Channel.new()
    fill(channel, [1])
    {borrower, 1} = borrow(channel)
    getter = other(fn -> Channel.get(channel) end)
    waiting(channel, 1, 0)
    Process.exit(borrower, :kill)
    assert_receive {^getter, {:ok, 1}}, 5_000
  end

  test "the end is told when nothing can come back any more" do
    channel = Channel.new()
    fill(channel, [1, 2])
    {killed, 1} = borrow(channel)
    {ends, 2} = borrow(channel)
    Channel.close(channel)
    getters = for _ <- 1..2, do: other(fn -> Channel.get(channel) end)
    waiting(channel, 2, 0)
    Process.exit(killed, :kill)
    assert_receive {getter, {:ok, 1}}, 5_000
    assert waiting(channel, 1, 0) == :ok
    send(ends, :return)
    [other] = getters -- [getter]
    assert_receive {^other, {:error, :closed}}, 5_000
  end

  test "the end is told once the last item has arrived" do
    channel = Channel.new()
    fill(channel, [1])
    {borrower, 1} = borrow(channel)
    Channel.close(channel)
    getter = other(fn -> Channel.get(channel) end)
    waiting(channel, 1, 0)
    send(borrower, :take)
    assert_receive {^getter, {:error, :closed}}, 5_000
  end

  test "close lets nothing in, and what is there out" do
    channel = Channel.new(max_size: 2)
    fill(channel, [1, 2])
    putter = other(fn -> Channel.put(channel, 3) end)
    waiting(channel, 0, 1)
    assert Channel.close(channel) == :ok
    assert_receive {^putter, {:error, :closed}}, 5_000
    assert Channel.put(channel, 4) == {:error, :closed}
    assert Channel.close(channel) == :ok
    assert drain(channel) == [1, 2]
    assert Channel.get(channel, 0) == {:error, :closed}
    assert Channel.info(channel).closed
  end

  test "close wakes those who wait for items" do
    channel = Channel.new()
    getters = for _ <- 1..5, do: other(fn -> Channel.get(channel, 60_000) end)
    waiting(channel, 5, 0)
    Channel.close(channel)
    for getter <- getters, do: assert_receive({^getter, {:error, :closed}}, 5_000)
  end

  test "a stream takes no more than is asked for" do
    channel = Channel.new()
    fill(channel, 1..5)
    assert channel |> Channel.stream() |> Enum.take(2) == [1, 2]
    assert Channel.get(channel) == {:ok, 3}
    Channel.close(channel)
    assert drain(channel) == [4, 5]
  end

  test "it ends with its owner, and is closed then" do
    me = self()
    spawn(fn -> send(me, Channel.new()) end)
    assert_receive %Channel{pid: pid} = channel, 5_000
    eventually(fn -> not Process.alive?(pid) end)
    assert Channel.get(channel) == {:error, :closed}
    assert Channel.put(channel, 1) == {:error, :closed}
    assert Channel.close(channel) == :ok
    assert Channel.info(channel).closed
    assert drain(channel) == []
  end

  test "those who wait when its process ends are told" do
    {:ok, pid} = start_supervised({Channel, max_size: 1})
    channel = Channel.whereis(pid)
    getter = other(fn -> Channel.get(channel) end)
    waiting(channel, 1, 0)
    stop_supervised!(Channel)
    assert_receive {^getter, {:error, :closed}}, 5_000
  end

  # One that is killed may have taken an item that it has not told of yet.
  test "each item once, whoever is killed" do
    channel = Channel.new(max_size: 3)
    me = self()
    consumer = fn -> for item <- Channel.stream(channel), do: send(me, {:item, item}) end
    victims = for _ <- 1..20, do: spawn_monitor(consumer)
    other(fn -> fill(channel, 1..500) && Channel.close(channel) end)

    for {victim, _monitor} <- victims do
      assert_receive {:item, _item} = told, 5_000
      send(me, told)
      Process.exit(victim, :kill)
    end

    left = drain(channel)
    for {_pid, monitor} <- victims, do: assert_receive({:DOWN, ^monitor, _, _, _}, 5_000)
    taken = received() ++ left
    assert taken == Enum.uniq(taken)
    assert length(taken) in 480..500
  end

  defp received do
    receive do
      {:item, item} -> [item | received()]
    after
      0 -> []
    end
  end

  test "names and processes" do
    {:ok, pid} = start_supervised({Channel, name: :py_channel_test, max_size: 2})
    assert Channel.put(:py_channel_test, 1) == :ok
    assert Channel.get(pid) == {:ok, 1}
    assert Channel.whereis(:py_channel_test) == %Channel{pid: pid}
    assert Channel.whereis(self()) == nil
    assert Channel.whereis(:py_nobody) == nil
    assert_raise ArgumentError, ~r/is taken/, fn -> Channel.new(name: :py_channel_test) end
    assert_raise ArgumentError, ~r/no channel :py_nobody/, fn -> Channel.get(:py_nobody) end
    assert_raise ArgumentError, ~r/expected a channel/, fn -> Channel.put("jobs", 1) end
  end

  test "options and timeouts that are none" do
    for options <- [[size: 1], [max_size: 0], [max_size: 1.5], [name: "x"], :name] do
      assert_raise ArgumentError, ~r/Py.Channel/, fn -> Channel.start_link(options) end
    end

    channel = Channel.new()

    for bad <- [-1, 1.5, nil],
        do:
          assert_raise(ArgumentError, ~r/Py.Channel.get.*milliseconds/, fn ->
            Channel.get(channel, bad)
          end)

    assert_raise ArgumentError, ~r/Py.Channel.put/, fn -> Channel.put(channel, 1, :never) end
  end

  test "what it does not know it ignores" do
    channel = Channel.new()

    for message <- [:garbage, {:taken, 7}, {:late, :getters, 7}, {:late, :putters, 7}],
        do: send(channel.pid, message)

    assert Channel.put(channel, 1) == :ok
    assert Channel.get(channel) == {:ok, 1}
  end
end
