defmodule Py.Cases.LoadTest do
  # Many calls at once, and what the rest of the node feels of them.
  use Py.Case, on: [:thread, :process]

  defp burn(pool, count) do
    calls =
      for _ <- 1..count,
          do:
            Py.async_call(:builtins, :exec, ["while True: pass", %{}],
              on: pool,
              timeout: :infinity
            )

    eventually(fn -> Py.Pool.info(pool).running >= min(count, 2) end)
    calls
  end

  # Microseconds from a message to its echo by another process, sorted: a thousand of them with pauses between, and
  # more until `over?` says so. After `limit` ms there are fewer: where others burn all cores, a pause of 1 ms can last 50.
  defp pings(over?, limit) do
    echo = spawn_link(fn -> echo() end)
    times = ping(echo, over?, System.monotonic_time(:millisecond) + limit, 1, [])
    Process.unlink(echo)
    Process.exit(echo, :kill)
    Enum.sort(times)
  end

  defp ping(echo, over?, deadline, count, times) do
    {time, :ok} = :timer.tc(fn -> send(echo, self()) && receive(do: (:pong -> :ok)) end)
    if rem(count, 10) == 0, do: Process.sleep(1)
    late? = System.monotonic_time(:millisecond) > deadline

    if (count >= 1_000 and over?.()) or late?,
      do: [time | times],
      else: ping(echo, over?, deadline, count + 1, [time | times])
  end

  defp percentile(sorted, percent), do: Enum.at(sorted, div(length(sorted) * percent, 100))

  defp echo do
    receive(do: (from -> send(from, :pong)))
    echo()
  end

  @tag pool: [size: 8]
  test "104, P-D 8. processes of the node are answered while Python burns CPU", %{pool: pool} do
    calls = burn(pool, 8)
    # Five times a thousand, since others on the machine may have one of them wait.
    slowest = for _ <- 1..5, do: percentile(pings(fn -> true end, 3_000), 99)
    assert slowest |> Enum.sort() |> percentile(50) < 1_000
    {ms, _hash} = timed(fn -> :erlang.phash2(Enum.to_list(1..300_000)) end)
    assert ms < 15_000

    heap =
      Task.async(fn ->
        list = Enum.map(1..500_000, &{&1, &1})
        {timed(fn -> :erlang.garbage_collect() end), length(list)}
      end)

    assert {{ms, true}, 500_000} = Task.await(heap)
    assert ms < 15_000
    assert Enum.map(calls, &Py.cancel/1) == List.duplicate(:ok, 8)
  end

  @tag pool: [size: 8]
  test "104. the same while pools come and go and large binaries are collected", %{pool: pool} do
    calls = burn(pool, 4)

    busy =
      Task.async(fn ->
        for n <- 1..10 do
          {:ok, pid} =
            Py.Pool.start_link(
              name: :"load_#{rem(n, 3)}",
              size: 2,
              init: "x = list(range(100_000))"
            )

          GenServer.stop(pid)
        end

        # 70 kB and more are shared with Python, and let go of when they are collected.
        for _ <- 1..300, do: {:ok, [_ | _]} = eval(pool, "[bytes(70_000) for _ in range(10)]")
      end)

    assert percentile(pings(fn -> not Process.alive?(busy.pid) end, 30_000), 99) < 5_000
    Task.await(busy, 60_000)
    assert Enum.map(calls, &Py.cancel/1) == List.duplicate(:ok, 4)
  end

  @tag pool: [size: 4]
  test "P-A 8. n calls at once take the time of one, 2n of two", %{pool: pool} do
    wave = fn count ->
      {ms, results} =
        timed(fn -> Py.gather(List.duplicate({:time, :sleep, [0.5]}, count), on: pool) end)

      assert results == List.duplicate({:ok, nil}, count)
      ms
    end

    assert wave.(4) in 500..1_990
    assert wave.(8) in 1_000..3_990
  end

  @tag pool: [size: 2, max_queue: 3]
  test "P-A 9. a full queue refuses at once, and the totals add up", %{pool: pool} do
    blockers = for _ <- 1..2, do: Py.async_call(:time, :sleep, [60], on: pool)
    eventually(fn -> Py.Pool.info(pool).running == 2 end)

    {micros, futures} =
      :timer.tc(fn -> for n <- 1..50, do: Py.async_call(:builtins, :abs, [n], on: pool) end)

    assert micros < 5_000_000
    assert Enum.map(blockers, &Py.cancel/1) == [:ok, :ok]
    # The three are told apart from the refused by what went wrong, where anything did.
    {refused, taken} = futures |> Py.await_many() |> Enum.split_with(&overloaded?/1)
    assert {taken, length(refused)} == {[{:ok, 1}, {:ok, 2}, {:ok, 3}], 47}
  end

  @tag pool: [size: 40], on: [:thread]
  test "the threads that a pool leaves behind are no matter of another's", %{pool: pool} do
    # With its signals blocked the main thread, too, sits in the call until that is over.
    code =
      "import signal, time\nold = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n" <>
        "time.sleep(6)\nsignal.pthread_sigmask(signal.SIG_SETMASK, old)"

    stuck = for _ <- 1..40, do: Py.async_call(:builtins, :exec, [code, %{}], on: pool)
    eventually(fn -> Py.Pool.info(pool).running == 40 end)
    assert Enum.map(stuck, &Py.cancel/1) == List.duplicate(:ok, 40)
    eventually(fn -> Py.Pool.info(pool).retired >= 16 end)

    start_supervised!({Py.Pool, name: :load_other, in: :thread, size: 2})
    blockers = for _ <- 1..2, do: Py.async_call(:builtins, :exec, [code, %{}], on: :load_other)
    eventually(fn -> Py.Pool.info(:load_other).running == 2 end)
    future = Py.async_call(:builtins, :abs, [-1], on: :load_other)
    assert Enum.map(blockers, &Py.cancel/1) == [:ok, :ok]
    # It comes in the place of one of these, which are still there.
    assert Py.await(future) == {:ok, 1}
    assert Py.Pool.info(pool).retired >= 18
    # No later test is to find the main thread there.
    eventually(fn ->
      eval(pool, "import threading\nthreading.current_thread() is threading.main_thread()") ==
        {:ok, true}
    end)
  end

  defp overloaded?({:error, %Py.Error{kind: :overloaded}}), do: true
  defp overloaded?(_result), do: false

  @tag pool: [size: 1]
  test "P-A 12. who dies in the queue never ran, who dies while running frees the place", %{
    pool: pool
  } do
    exec(pool, "import builtins\nbuiltins.load_ran = []")

    running =
      spawn(fn ->
        exec(pool, "import builtins\nbuiltins.load_ran.append('running')\nwhile True: pass", %{},
          timeout: :infinity
        )
      end)

    eventually(fn -> Py.Pool.info(pool).running == 1 end)

    queued =
      for n <- 1..20,
          do:
            spawn(fn ->
              exec(pool, "import builtins\nbuiltins.load_ran.append(n)", %{n: n},
                timeout: :infinity
              )
            end)

    eventually(fn -> Py.Pool.info(pool).queued == 20 end)
    Enum.each(queued, &Process.exit(&1, :kill))
    eventually(fn -> Py.Pool.info(pool).queued == 0 end)
    Process.exit(running, :kill)
    {ms, result} = timed(fn -> eval(pool, "import builtins\nbuiltins.load_ran") end)
    assert result == {:ok, ["running"]}
    assert ms < 10_000
  end
end
