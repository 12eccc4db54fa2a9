defmodule Py.AsideTest do
  use ExUnit.Case, async: true

  alias Py.Aside

  test "what comes too late comes to nobody" do
    assert Aside.run(fn -> :done end) == {:ok, :done}
    me = self()
    assert Aside.run(fn -> Process.sleep(:infinity) end, 20) == nil

    meant = fn ->
      send(self(), :late)
      send(me, :meant)
    end

    assert Aside.run(meant) == {:ok, :meant}
    assert Process.info(self(), :messages) == {:messages, [:meant]}
  end

  test "a caller that traps exits gets no messages" do
    Process.flag(:trap_exit, true)
    for _ <- 1..100, do: assert(Aside.run(fn -> :done end) == {:ok, :done})
    assert Aside.run(fn -> Process.sleep(:infinity) end, 20) == nil
    assert catch_exit(Aside.run(fn -> exit(:broken) end)) == :broken
    Process.sleep(20)
    refute_received _
  end

  test "it ends with its caller" do
    me = self()

    endless = fn ->
      send(me, {:aside, self()})
      Process.sleep(:infinity)
    end

    caller = spawn(fn -> Aside.run(endless) end)

    assert_receive {:aside, aside}
    ref = Process.monitor(aside)
    Process.exit(caller, :kill)
    assert_receive {:DOWN, ^ref, :process, ^aside, :killed}
  end
end
