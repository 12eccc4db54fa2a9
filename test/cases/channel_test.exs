defmodule Py.Cases.ChannelTest do
  # Channels between Python code and Elixir processes.
  use Py.Case, on: [:thread, :process]

  alias Py.Channel

  setup context, do: Map.put(context, :channel, Channel.new())

  defp python(pool, code, variables, options \\ []),
    do: eval(pool, "import asyncio, erlang\n" <> code, variables, options)

  defp fill(channel, items), do: for(item <- items, do: :ok = Channel.put(channel, item))

  defp drain(channel) do
    Channel.close(channel)
    channel |> Channel.stream() |> Enum.to_list()
  end

  defp waiting(channel, getters, putters) do
    eventually(fn -> match?(%{getters: ^getters, putters: ^putters}, Channel.info(channel)) end)
  end

  defp start(pool, code, variables),
    do: Task.async(fn -> python(pool, code, variables, timeout: 60_000) end)

  defp finish(task), do: Task.await(task, 60_000)

  test "it comes back as the same", %{pool: pool, channel: channel} do
    variables = %{channel: channel, other: Channel.new(), pid: channel.pid}
    assert python(pool, "channel", variables) == {:ok, channel}

    assert python(pool, "[channel, {'c': channel}]", variables) ==
             {:ok, [channel, %{"c" => channel}]}

    same =
      "[channel == erlang.Channel(pid), channel == other, len({channel, erlang.Channel(pid)}), channel == 1]"

    assert python(pool, same, variables) == {:ok, [true, false, 1, false]}
    assert {:ok, "<erlang.Channel Pid(<" <> _} = python(pool, "repr(channel)", variables)

    assert python(
             pool,
             "import copy, pickle\npickle.loads(pickle.dumps(copy.copy(channel)))",
             variables
           ) == {:ok, channel}
  end

  test "by name", %{pool: pool} do
    start_supervised!({Channel, name: Py.Cases.Jobs})
    assert python(pool, "erlang.Channel('Elixir.Py.Cases.Jobs').put(1)", %{}) == {:ok, nil}
    assert Channel.get(Py.Cases.Jobs) == {:ok, 1}

    for where <- ["'nobody at ' + 'all'", "'Elixir.Py.Callbacks'", "pid"] do
      wrong = error(python(pool, "erlang.Channel(#{where})", %{pid: self()}))
      assert {wrong.type, wrong.message =~ "there is no channel"} == {"ValueError", true}
    end

    assert %{type: "TypeError", message: message} = error(python(pool, "erlang.Channel(3)", %{}))
    assert message =~ "registered name (str) or an erlang.Pid, got int"
  end

  test "items of all kinds, both ways", %{pool: pool, channel: channel} do
    items = [
      nil,
      true,
      1,
      2 ** 70,
      1.5,
      "text",
      "",
      [],
      [1, [nil]],
      {1, "a"},
      %{"a" => %{}},
      ~D[2024-01-02],
      self(),
      :atom,
      channel
    ]

    fill(channel, items)

    assert python(pool, "[channel.get() for n in range(#{length(items)})]", %{channel: channel}) ==
             {:ok, items}

    assert python(pool, "for item in items: channel.put(item)", %{channel: channel, items: items}) ==
             {:ok, nil}

    assert drain(channel) == items
    large = [String.duplicate("x", 300_000), Enum.to_list(1..50_000)]
    {:ok, other} = python(pool, "there.put(items)\nthere", %{items: large, there: Channel.new()})
    assert Channel.get(other) == {:ok, large}
  end

  test "None is an item", %{pool: pool, channel: channel} do
    code = """
    found = [channel.get(), channel.size]
    try: channel.get(timeout=0)
    except TimeoutError: found.append("empty")
    found
    """

    fill(channel, [nil])
    assert python(pool, code, %{channel: channel}) == {:ok, [nil, 0, "empty"]}
  end

  test "loops end when it is closed and empty", %{pool: pool, channel: channel} do
    assert python(pool, "channel.closed", %{channel: channel}) == {:ok, false}
    fill(channel, [1, nil, 3])
    loop = start(pool, "[item for item in channel]", %{channel: channel})
    waiting(channel, 1, 0)
    fill(channel, [4])
    Channel.close(channel)
    assert finish(loop) == {:ok, [1, nil, 3, 4]}

    assert python(pool, "[channel.closed, list(channel)]", %{channel: channel}) ==
             {:ok, [true, []]}
  end

  test "Python produces, Elixir takes", %{pool: pool} do
    channel = Channel.new(max_size: 3)
    code = "for n in range(100): channel.put(n)\nchannel.close()"
    producer = start(pool, code, %{channel: channel})
    assert channel |> Channel.stream() |> Enum.to_list() == Enum.to_list(0..99)
    assert finish(producer) == {:ok, nil}
  end

  test "a full channel holds its producers up", %{pool: pool} do
    channel = Channel.new(max_size: 2)
    code = "for n in range(5): channel.put(n)\n'done'"
    producer = start(pool, code, %{channel: channel})
    waiting(channel, 0, 1)
    assert Channel.info(channel).size == 2
    assert python(pool, "channel.size", %{channel: channel}) == {:ok, 2}
    assert Channel.get(channel) == {:ok, 0}
    waiting(channel, 0, 1)
    assert for(_ <- 1..4, do: Channel.get(channel)) == for(n <- 1..4, do: {:ok, n})
    assert finish(producer) == {:ok, "done"}
  end

  test "closed", %{pool: pool, channel: channel} do
    full = Channel.new(max_size: 1)
    fill(full, [1])
    putter = start(pool, "channel.put(2)", %{channel: full})
    waiting(full, 0, 1)
    assert python(pool, "channel.close()\nchannel.close()", %{channel: full}) == {:ok, nil}
    assert error(finish(putter)).type == "Closed"
    assert drain(full) == [1]

    getters =
      for code <- ["channel.get()", "await channel.aget(60)"],
          do: start(pool, code, %{channel: channel})

    waiting(channel, 2, 0)
    Channel.close(channel)

    for getter <- getters do
      closed = error(finish(getter))

      assert {closed.module, closed.type, closed.message} ==
               {"erlang", "Closed", "the channel is closed"}
    end

    for code <- ["channel.put(1)", "await channel.aput(1)", "channel.get(0)"],
        do: assert(error(python(pool, code, %{channel: channel})).type == "Closed")
  end

  test "its process has ended", %{pool: pool} do
    pid = start_supervised!(Channel)
    channel = Channel.whereis(pid)

    getters =
      for code <- ["channel.get()", "await channel.aget()"],
          do: start(pool, code, %{channel: channel})

    waiting(channel, 2, 0)
    stop_supervised!(Channel)
    for getter <- getters, do: assert(error(finish(getter)).type == "Closed")
    assert error(python(pool, "channel.put(1)", %{channel: channel})).type == "Closed"
    assert python(pool, "list(channel)", %{channel: channel}) == {:ok, []}
    assert python(pool, "[channel.closed, channel.size]", %{channel: channel}) == {:ok, [true, 0]}
  end

  test "time limits", %{pool: pool} do
    channel = Channel.new(max_size: 1)

    for code <- ["channel.get(0.01)", "await channel.aget(timeout=0)", "channel.get(timeout=0)"] do
      late = error(python(pool, code, %{channel: channel}))
      assert {late.module, late.type} == {"builtins", "TimeoutError"}
      assert late.message =~ ~r/^no item came within 0.01? s$/
    end

    fill(channel, [1])

    for code <- ["channel.put(2, 0.01)", "await channel.aput(2, timeout=0.01)"] do
      assert error(python(pool, code, %{channel: channel})).message ==
               "there was no room within 0.01 s"
    end

    enough = """
    found = [channel.get(60), channel.put(2, float('inf')), channel.get(10 ** 400), channel.put(3, 1.5), await channel.aget(0.0)]
    """

    assert python(pool, enough <> "found", %{channel: channel}) == {:ok, [1, nil, 2, nil, 3]}

    for {timeout, type} <- [
          {"'1'", "TypeError"},
          {"True", "TypeError"},
          {"-1", "ValueError"},
          {"float('nan')", "ValueError"}
        ],
        call <- [
          "channel.get(#{timeout})",
          "channel.put(1, #{timeout})",
          "await channel.aget(#{timeout})",
          "await channel.aput(1, #{timeout})"
        ] do
      wrong = error(python(pool, call, %{channel: channel}))
      assert {wrong.type, wrong.message =~ "a timeout is seconds"} == {type, true}
    end
  end

  test "async for", %{pool: pool, channel: channel} do
    loop = start(pool, "[item async for item in channel]", %{channel: channel})
    for n <- 1..20, do: waiting(channel, 1, 0) && fill(channel, [n])
    fill(channel, [nil])
    Channel.close(channel)
    assert finish(loop) == {:ok, Enum.to_list(1..20) ++ [nil]}
  end

  # More than an executor of asyncio has threads.
  test "any number of coroutines wait, in turn", %{pool: pool, channel: channel} do
    code = "await asyncio.gather(*(channel.aget() for n in range(200)))"
    all = start(pool, code, %{channel: channel})
    waiting(channel, 200, 0)
    items = Enum.to_list(1..200)
    fill(channel, items)
    assert finish(all) == {:ok, items}
  end

  test "coroutines feed each other", %{pool: pool} do
    code = """
    async def produce(first):
        for n in range(first, first + 20):
            await channel.aput(n)

    async def consume():
        return [item async for item in channel]

    consumers = [asyncio.ensure_future(consume()) for n in range(10)]
    await asyncio.gather(*(produce(first) for first in range(0, 200, 20)))
    channel.close()
    sorted(sum(await asyncio.gather(*consumers), []))
    """

    assert python(pool, code, %{channel: Channel.new(max_size: 2)}) == {:ok, Enum.to_list(0..199)}
  end

  test "a coroutine that is cancelled loses nothing", %{pool: pool, channel: channel} do
    code = """
    async def patient():
        try:
            return [await asyncio.wait_for(channel.aget(), 0.001)]
        except asyncio.TimeoutError:
            return []

    found = []
    while len(found) < 200:
        found += await patient()
    found
    """

    consumer = start(pool, code, %{channel: channel})

    for n <- 1..200 do
      if rem(n, 10) == 0, do: waiting(channel, 1, 0)
      fill(channel, [n])
    end

    assert finish(consumer) == {:ok, Enum.to_list(1..200)}
    assert drain(channel) == []
  end

  test "what a coroutine was given that is cancelled before it runs again is back where it was",
       %{pool: pool, channel: channel} do
    code = """
    task = asyncio.ensure_future(channel.aget())
    while not channel._info()["getters"]: await asyncio.sleep(0)
    channel.put(1)
    channel.put(2)
    found = [channel.size]
    task.cancel()
    try: await task
    except asyncio.CancelledError: pass
    found + [await channel.aget(), channel.size]
    """

    assert python(pool, code, %{channel: channel}) == {:ok, [1, 1, 1]}
    assert drain(channel) == [2]
  end

  @tag pool: [size: 1]
  test "a thread that waits takes no place", %{pool: pool, channel: channel} do
    getter = start(pool, "channel.get()", %{channel: channel})
    waiting(channel, 1, 0)
    for n <- 1..5, do: assert(eval(pool, "n", %{n: n}) == {:ok, n})
    assert python(pool, "channel.put('from the same pool')", %{channel: channel}) == {:ok, nil}
    assert finish(getter) == {:ok, "from the same pool"}
  end

  test "a wait ends with its call, however that ends", %{pool: pool, channel: channel} do
    for code <- ["channel.get()", "await channel.aget()"] do
      assert error(python(pool, code, %{channel: channel}, timeout: 50)).kind == :timeout
      waiting(channel, 0, 0)

      caller = spawn(fn -> python(pool, code, %{channel: channel}) end)
      waiting(channel, 1, 0)
      Process.exit(caller, :kill)
      waiting(channel, 0, 0)

      future = Py.async_call(:builtins, :next, [channel], on: pool)
      waiting(channel, 1, 0)
      assert Py.cancel(future) == :ok
      waiting(channel, 0, 0)
    end

    fill(channel, [1])
    assert python(pool, "channel.get()", %{channel: channel}) == {:ok, 1}
    full = Channel.new(max_size: 1)
    fill(full, [1])

    for code <- ["channel.put(2)", "await channel.aput(2)"] do
      assert error(python(pool, code, %{channel: full}, timeout: 50)).kind == :timeout
      waiting(full, 0, 0)
    end

    assert drain(full) == [1]
  end

  @tag on: [:process], pool: [size: 1]
  test "a wait ends with its worker", %{pool: pool, channel: channel} do
    code = """
    import threading
    for n in range(2): threading.Thread(target=channel.get, daemon=True).start()
    asyncio.ensure_future(channel.aget())
    import os
    tell.put(os.getpid())
    await channel.aget()
    """

    tell = Channel.new()
    waits = start(pool, code, %{channel: channel, tell: tell})
    {:ok, os_pid} = Channel.get(tell)
    waiting(channel, 4, 0)
    Py.Processes.signal(os_pid, 9)
    assert error(finish(waits)).kind == :crashed
    waiting(channel, 0, 0)
    fill(channel, [1])

    assert python(pool, "[channel.get(), await channel.aput(2)]", %{channel: channel}) ==
             {:ok, [1, nil]}

    assert drain(channel) == [2]
  end

  test "threads and executors", %{pool: pool, channel: channel} do
    code = """
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(8) as executor:
        taken = [executor.submit(channel.get) for n in range(8)]
        for n in range(8): channel.put(n)
        found = sorted(future.result() for future in taken)
    found
    """

    assert python(pool, code, %{channel: channel}) == {:ok, Enum.to_list(0..7)}
  end

  test "loops of the user's own", %{pool: pool, channel: channel} do
    code = """
    import threading
    async def consume(): return [item async for item in channel]
    found = []
    thread = threading.Thread(target=lambda: found.extend(asyncio.run(consume())))
    thread.start()
    for n in range(5): channel.put(n)
    channel.close()
    await asyncio.to_thread(thread.join)
    found
    """

    assert python(pool, code, %{channel: channel}) == {:ok, [0, 1, 2, 3, 4]}
  end

  @tag parallel: 8
  test "many of both kinds at both ends", %{pool: pool} do
    channel = Channel.new(max_size: 5)
    blocking = "[item for item in channel]"
    awaiting = "[item async for item in channel]"

    consumers =
      for n <- 1..4,
          do: start(pool, if(rem(n, 2) == 0, do: blocking, else: awaiting), %{channel: channel})

    takers =
      for _ <- 1..2,
          do: Task.async(fn -> {:ok, channel |> Channel.stream() |> Enum.to_list()} end)

    producers =
      for n <- 1..4 do
        put = if rem(n, 2) == 0, do: "channel.put(n)", else: "await channel.aput(n)"

        start(pool, "for n in range(first, first + 50): #{put}", %{
          channel: channel,
          first: n * 50
        })
      end

    fill(channel, 0..49)
    assert Enum.all?(Task.await_many(producers, 60_000), &(&1 == {:ok, nil}))
    Channel.close(channel)

    taken =
      for {:ok, items} <- Task.await_many(consumers ++ takers, 60_000), item <- items, do: item

    assert Enum.sort(taken) == Enum.to_list(0..249)
  end

  test "items that are none on the other side", %{pool: pool, channel: channel} do
    for item <- ["'\\ud800'", "erlang.Atom('no atom of this' + ' name')"],
        put <- ["channel.put(#{item})", "await channel.aput(#{item})"] do
      assert error(python(pool, put, %{channel: channel})).type == "TypeError"
    end

    assert Channel.info(channel).size == 0

    for get <- ["channel.get()", "await channel.aget()"] do
      fill(channel, [<<255>>, "next"])
      refused = error(python(pool, get, %{channel: channel}))
      assert {refused.type, refused.message =~ "Py.bytes"} == {"TypeError", true}
      assert python(pool, get, %{channel: channel}) == {:ok, "next"}
    end

    assert error(eval(pool, "channel", %{channel: %Channel{pid: nil}})).kind == :encode
    assert_raise ArgumentError, fn -> String.to_existing_atom("no atom of this" <> " name") end
  end

  @tag on: [:thread]
  test "coroutines that have waited leave no thread behind", %{pool: pool, channel: channel} do
    listens =
      "import threading\n'erlang.awaiting' in [thread.name for thread in threading.enumerate()]"

    for n <- 1..2 do
      getter = start(pool, "await channel.aget()", %{channel: channel})
      waiting(channel, 1, 0)
      assert eval(pool, listens) == {:ok, true}
      fill(channel, [n])
      assert finish(getter) == {:ok, n}
      eventually(fn -> eval(pool, listens) == {:ok, false} end)
    end
  end

  @tag :capture_log
  test "questions that Python code makes up harm nobody", %{pool: pool, channel: channel} do
    made_up = """
    from erlang._awaiting import _about
    board = _about("open")
    for what in [("fetch", board, 7), ("ask", board, "x", "garbage"), ("fetch", board, "x"), ("withdraw", board, None), ("nothing",)]:
        try: _about(*what)
        except Exception: pass
    erlang.send(board, "garbage")
    erlang.send(channel.pid, (erlang.Atom("taken"), "x"))
    None
    """

    assert python(pool, made_up, %{channel: channel}) == {:ok, nil}

    assert python(pool, "await channel.aput(1)\nawait channel.aget()", %{channel: channel}) ==
             {:ok, 1}
  end

  @tag :capture_log
  test "whoever answers Python is restarted", %{pool: pool, channel: channel} = context do
    getter = start(pool, "await channel.aget()", %{channel: channel})
    waiting(channel, 1, 0)
    monitor = Process.monitor(Py.Callbacks)

    Py.Callbacks |> Process.whereis() |> Process.exit(:kill)
    assert_receive {:DOWN, ^monitor, _, _, _}, 5_000
    eventually(fn -> Process.whereis(Py.Callbacks) end)

    if context.in == :thread do
      assert error(finish(getter)).message =~ "ask again"
      waiting(channel, 0, 0)
    else
      fill(channel, [1])
      assert finish(getter) == {:ok, 1}
    end

    getter = start(pool, "await channel.aget()", %{channel: channel})
    waiting(channel, 1, 0)
    fill(channel, [2])
    assert finish(getter) == {:ok, 2}
  end

  @tag on: [:thread]
  test "a call inline says that it cannot wait", %{pool: pool, channel: channel} do
    fill(channel, [1])
    exec(pool, "import erlang")

    case Py.call(:builtins, :next, [channel], on: pool, inline: true) do
      {:ok, 1} -> :ok
      refused -> assert error(refused).message =~ "inline: true"
    end
  end
end
