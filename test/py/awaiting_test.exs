defmodule Py.AwaitingTest do
  # What answers coroutines, asked as Python asks it.
  use ExUnit.Case, async: true

  import Py.Case, only: [eventually: 1]

  alias Py.{Awaiting, Channel}

  setup do
    pid = Awaiting.open({:node, 1})
    on_exit(fn -> Awaiting.perform("close", [pid], %Py.Asker{}) end)
    %{pid: pid, channel: Channel.new()}
  end

  defp ask(pid, number, question),
    do: assert(Awaiting.perform("ask", [pid, number, question], %Py.Asker{}) == {:ok, nil})

  defp get(channel), do: {:channel, "get", [channel.pid, nil]}
  defp hear(pid, heard), do: Awaiting.perform("hear", [pid, heard], %Py.Asker{})
  defp fetch(pid, number), do: Awaiting.perform("fetch", [pid, number], %Py.Asker{})
  defp waiting(channel, n), do: eventually(fn -> Channel.info(channel).getters == n end)

  test "numbers are told in the order of the answers, until they were heard", context do
    %{pid: pid, channel: channel} = context
    for n <- 1..3, do: ask(pid, n, get(channel)) && waiting(channel, n)

    for {item, n} <- Enum.with_index([:a, :b, nil], 1) do
      Channel.put(channel, item)
      eventually(fn -> length(:sys.get_state(pid).ready) == n end)
    end

    assert hear(pid, []) == {:ok, [1, 2, 3]}
    assert hear(pid, []) == {:ok, [1, 2, 3]}
    assert hear(pid, [1, 2]) == {:ok, [3]}
    assert for(n <- [2, 1, 3], do: fetch(pid, n)) == [{:ok, :b}, {:ok, :a}, {:ok, nil}]
    assert hear(pid, [3]) == {:ok, []}
  end

  test "who hears is told when nothing is asked", %{pid: pid, channel: channel} do
    assert hear(pid, []) == {:ok, []}
    ask(pid, 1, get(channel))
    hears = Task.async(fn -> hear(pid, []) end)
    assert Task.yield(hears, 1_500) == nil
    Awaiting.perform("withdraw", [pid, 1], %Py.Asker{})
    assert Task.await(hears) == {:ok, []}
  end

  test "an answer that is not fetched was not given", %{pid: pid, channel: channel} do
    for n <- 1..2, do: ask(pid, n, get(channel)) && waiting(channel, n)
    Channel.put(channel, :item)
    assert hear(pid, []) == {:ok, [1]}
    assert Awaiting.perform("withdraw", [pid, 1], %Py.Asker{}) == {:ok, nil}
    assert hear(pid, []) == {:ok, [2]}
    assert fetch(pid, 2) == {:ok, :item}
    assert {:error, {:runtime, _}} = fetch(pid, 1)
  end

  test "what it has goes back when it ends", %{pid: pid, channel: channel} do
    for n <- 1..2, do: ask(pid, n, get(channel)) && waiting(channel, n)
    Channel.put(channel, :item)
    assert hear(pid, []) == {:ok, [1]}
    Awaiting.perform("close", [pid], %Py.Asker{})
    waiting(channel, 0)
    assert Channel.get(channel) == {:ok, :item}
  end

  test "it ends with the worker process that asks", %{channel: channel} do
    port = Port.open({:spawn, "cat"}, [])
    pid = Awaiting.open({:worker, self(), port, 1})
    ask(pid, 1, get(channel))
    waiting(channel, 1)
    Port.close(port)
    waiting(channel, 0)
    refute Process.alive?(pid)
  end

  @tag :capture_log
  test "a question whose process dies has an error for an answer", %{pid: pid} do
    ask(pid, 1, "made up")
    assert hear(pid, []) == {:ok, [1]}
    assert {:error, {:raised, %{kind: "exit"}}} = fetch(pid, 1)
    assert hear(pid, [1]) == {:ok, []}
  end
end
