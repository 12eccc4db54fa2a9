defmodule Py.RemoteTest do
  # on: {pool, node}
  use Py.Case, on: [:thread, :process], pool: false

  @pool :py_remote

  setup_all do
    System.cmd("epmd", ["-daemon"])
    {:ok, _pid} = :net_kernel.start([:"py_test_#{System.pid()}@127.0.0.1", :longnames])
    on_exit(fn -> :net_kernel.stop() end)
  end

  setup context do
    name = :"py_peer_#{System.unique_integer([:positive])}"
    arguments = Enum.flat_map(:code.get_path(), &[~c"-pa", &1])

    {:ok, peer, node} =
      :peer.start(%{name: name, host: ~c"127.0.0.1", longnames: true, args: arguments})

    {:ok, _started} = :erpc.call(node, :application, :ensure_all_started, [:py])
    # A process of :erpc does not outlive its call: the pool belongs to a supervisor over there.
    child = {Py.Pool, [name: @pool] ++ Py.Case.options(context)}
    {:ok, _pid} = :erpc.call(node, Supervisor, :start_child, [Py.Supervisor, child])
    on_exit(fn -> if Process.alive?(peer), do: :peer.stop(peer) end)
    %{node: node, peer: peer}
  end

  defp info(node), do: :erpc.call(node, Py.Pool, :info, [@pool])

  test "103. calls run over there, and print here", %{node: node, in: kind} do
    on = {@pool, node}
    assert Py.call(:math, :sqrt, [16], on: on) == {:ok, 4.0}
    assert Py.eval("x + 1", %{x: 1}, on: on) == {:ok, 2}
    assert Py.exec("1", %{}, on: on) == :ok
    pid = :erpc.call(node, :os, :getpid, []) |> List.to_integer()
    pid = if kind == :thread, do: pid, else: hd(info(node).workers).os_pid
    assert Py.call(:os, :getpid, [], on: on) == {:ok, pid}

    assert ExUnit.CaptureIO.capture_io(fn -> Py.exec("print('there')", %{}, on: on) end) ==
             "there\n"

    assert error(Py.call(:math, :sqrt, [-1], on: on)).type == "ValueError"
    assert_no_messages()
  end

  test "103. structs are encoded over there, and values decoded here", %{node: node} do
    on = {@pool, node}
    here = node()
    point = %MyApp.Point{x: 1, y: 2}
    decode = fn value -> {node() == here, value} end
    expected = {true, %{x: 1, y: 2}}
    assert Py.call(:builtins, :dict, [point], on: on, decode: decode) == {:ok, expected}

    assert Py.await(Py.async_call(:builtins, :dict, [point], on: on, decode: decode)) ==
             {:ok, expected}

    assert [^expected] =
             Py.stream(:builtins, :list, [[point]], on: on, decode: decode) |> Enum.to_list()

    assert error(Py.call(:builtins, :list, [Version.parse!("1.0.0")], on: on)).kind == :encode
  end

  test "a context goes along", %{node: node} do
    options = [on: {@pool, node}, traceparent: traceparent()]
    assert Py.eval("import erlang; erlang.traceparent()", %{}, options) == {:ok, traceparent()}

    # Over there no function of this module is known: as one of progress, this sends the second to the first.
    options = [on: {@pool, node}, progress: &:erlang.send/3]
    assert Py.call(:erlang, :progress, [self(), "on its way", []], options) == {:ok, nil}
    assert_received "on its way"
  end

  defp traceparent, do: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

  test "the deadline holds over there", %{node: node} do
    assert error(Py.call(:time, :sleep, [60], on: {@pool, node}, timeout: 50)).kind == :timeout
    eventually(fn -> info(node).running == 0 end)
  end

  test "asynchronous calls, cancel, casts", %{node: node} do
    on = {@pool, node}
    assert Py.await(Py.async_call(:math, :sqrt, [16], on: on)) == {:ok, 4.0}
    future = Py.async_call(:time, :sleep, [60], on: on)
    eventually(fn -> info(node).running == 1 end)
    assert Py.cancel(future) == :ok
    eventually(fn -> info(node).running == 0 end)

    before = info(node).calls
    assert Py.cast(:math, :sqrt, [16], on: on) == :ok
    eventually(fn -> info(node).calls > before end)
    assert_no_messages()
  end

  test "channels between nodes", %{node: node} do
    {there, back} = {Py.Channel.new(max_size: 1), Py.Channel.new(max_size: 1)}

    code =
      "async for item in there: await back.aput([item, there])\nfor n in range(3): back.put(n)\nback.close()"

    variables = %{there: there, back: back}
    echo = Task.async(fn -> Py.eval(code, variables, on: {@pool, node}) end)

    for n <- 1..3,
        do: assert({Py.Channel.put(there, n), Py.Channel.get(back)} == {:ok, {:ok, [n, there]}})

    Py.Channel.close(there)
    assert back |> Py.Channel.stream() |> Enum.to_list() == [0, 1, 2]
    assert Task.await(echo) == {:ok, nil}
  end

  test "the death of the caller ends the call over there", %{node: node} do
    caller = spawn(fn -> Py.call(:time, :sleep, [60], on: {@pool, node}, timeout: :infinity) end)
    eventually(fn -> info(node).running == 1 end)
    Process.exit(caller, :kill)
    eventually(fn -> info(node).running == 0 end)

    owner =
      spawn(fn ->
        Py.async_call(:time, :sleep, [60], on: {@pool, node}, timeout: :infinity)
        Process.sleep(:infinity)
      end)

    eventually(fn -> info(node).running == 1 end)
    Process.exit(owner, :kill)
    eventually(fn -> info(node).running == 0 end)
  end

  test "P-D 10. a node that cannot be reached, or goes away", %{node: node, peer: peer} do
    assert error(Py.eval("1", %{}, on: {@pool, :"nobody@127.0.0.1"})).kind == :nodedown
    assert error(Py.eval("1", %{}, on: {:py_unknown, node})).kind == :no_pool
    future = Py.async_call(:time, :sleep, [60], on: {@pool, node})
    eventually(fn -> info(node).running == 1 end)
    :peer.stop(peer)
    assert error(Py.await(future)).kind == :nodedown
    assert_no_messages()
  end
end
