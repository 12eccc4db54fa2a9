defmodule Py.Cases.StreamsTest do
  # CASES.md 77 to 80, P-C 12 to 14 and 16.
  use Py.Case, on: [:thread, :process]

  # What is noted is in Py.State, where it is seen whatever Python is at.
  @moduletag pool: [
               size: 2,
               init: """
               import asyncio, erlang, time

               def note(key): erlang.state_incr(key)

               def count(n):
                   note("opened")
                   try:
                       for i in range(n):
                           erlang.state_set("at", i)
                           yield i
                   finally:
                       note("closed")

               async def acount(n, fails_at=None):
                   note("opened")
                   try:
                       for i in range(n):
                           await asyncio.sleep(0)
                           if i == fails_at: raise ValueError("agen boom")
                           yield i
                   finally:
                       note("closed")

               async def scaled(n, by):
                   for i in range(n): yield i * by

               async def later(n):
                   await asyncio.sleep(0)
                   return iter(range(n))

               def taken(burst): return erlang.state_get("taken", -1) >= burst

               def bursts():
                   for burst in range(4):
                       yield from ((burst, i) for i in range(5 * 2 ** burst))
                       while not taken(burst): time.sleep(0.001)

               async def abursts():
                   for burst in range(4):
                       for i in range(5 * 2 ** burst): yield (burst, i)
                       while not await asyncio.to_thread(taken, burst): await asyncio.sleep(0.001)

               def fails(after):
                   yield from range(after)
                   raise ValueError("the end")

               def odd(after, more):
                   yield from range(after)
                   yield '\\ud800'
                   yield from range(more)

               # What was interrupted cannot call Elixir any more.
               def write(path):
                   with open(path, "w") as file: file.write("x")

               def stuck(after, path):
                   try:
                       yield from range(after)
                       while True: time.sleep(0.01)
                   finally:
                       write(path)

               async def astuck(after, path):
                   try:
                       for i in range(after): yield i
                       await asyncio.sleep(60)
                   finally:
                       write(path)
               """
             ]

  setup context do
    Py.State.clear()
    on_exit(&Py.State.clear/0)
    context
  end

  defp stream(pool, name, args \\ [], options \\ []),
    do: Py.stream(:__main__, name, args, [on: pool] ++ options)

  defp closed, do: Py.State.get("closed", 0)

  test "77. iterables of all kinds", %{pool: pool} do
    items = fn name, args -> Enum.to_list(Py.stream(:builtins, name, args, on: pool)) end
    assert items.(:iter, [[1, 2, 3, 4, 5]]) == [1, 2, 3, 4, 5]
    assert items.(:range, [5]) == [0, 1, 2, 3, 4]
    assert items.(:range, [0]) == []
    assert items.(:range, [1000]) == Enum.to_list(0..999)
    assert hd(items.(:enumerate, ["hello"])) == {0, "h"}
    assert items.(:list, [[]]) == []
    assert items.(:str, ["aé"]) == ["a", "é"]
    assert Enum.sort(items.(:dict, [[{"a", 1}, {"b", 2}]])) == ["a", "b"]
    assert stream(pool, :later, [3]) |> Enum.to_list() == [0, 1, 2]

    path = temporary_file()
    File.write!(path, "one\ntwo\n")
    assert items.(:open, [path]) == ["one\n", "two\n"]
  end

  test "keyword arguments, dotted names, None as an item", %{pool: pool} do
    assert Py.stream(:builtins, :sorted, [[3, 1, 2]], kwargs: [reverse: true], on: pool)
           |> Enum.to_list() == [3, 2, 1]

    assert stream(pool, :count, [], kwargs: %{"n" => 2}) |> Enum.to_list() == [0, 1]

    assert Py.stream(:itertools, "chain.from_iterable", [[[1], [nil]]], on: pool)
           |> Enum.to_list() ==
             [1, nil]
  end

  test "nothing is called before it is enumerated; each enumeration calls anew", %{pool: pool} do
    stream = stream(pool, :count, [3])
    assert Py.State.get("opened", 0) == 0
    assert Enum.to_list(stream) == [0, 1, 2]
    assert Enum.to_list(stream) == [0, 1, 2]
    assert Py.State.get("opened") == 2 and closed() == 2
  end

  test "P-C 12. a hundred thousand items in their order", %{pool: pool} do
    assert Py.stream(:builtins, :range, [100_000], on: pool) |> Enum.to_list() ==
             Enum.to_list(0..99_999)

    assert stream(pool, :scaled, [10_000, 2]) |> Enum.to_list() == Enum.map(0..9_999, &(&1 * 2))
  end

  test "78. Python is ahead of a consumer by no more than the buffer", %{pool: pool} do
    for buffer <- [1, 2, 7, 100] do
      Py.State.clear()

      for item <- stream(pool, :count, [300], buffer: buffer) do
        assert Py.State.get("at") <= item + buffer
      end
    end

    # It does run ahead, also of a consumer that is at its first item.
    stream(pool, :count, [300], buffer: 100)
    |> Enum.take_while(fn 0 -> eventually(fn -> Py.State.get("at") >= 99 end) == :ok && false end)
  end

  test "78, P-C 13. who has enough closes the generator, and its finally has run", %{pool: pool} do
    for {name, n} <- Enum.with_index([:count, :acount], 1) do
      assert stream(pool, name, [10_000_000]) |> Enum.take(3) == [0, 1, 2]
      assert closed() == n
    end

    assert stream(pool, :count, [100]) |> Stream.take_while(&(&1 < 50)) |> Enum.count() == 50
    assert closed() == 3
    assert_raise RuntimeError, fn -> for 5 <- stream(pool, :count, [100]), do: raise("enough") end
    assert closed() == 4
    assert catch_throw(for 5 <- stream(pool, :acount, [100]), do: throw(:enough)) == :enough
    assert closed() == 5
    # Suspended in the middle, as Enum.zip does with the longer one.
    assert Enum.zip(stream(pool, :count, [100]), 1..2) == [{0, 1}, {1, 2}]
    assert closed() == 6
    assert_no_messages()
  end

  test "80. the generator is closed when its consumer dies, whether it runs or waits", %{
    pool: pool
  } do
    for name <- [:count, :acount], how <- [:kill, :normal] do
      me = self()
      Py.State.clear()

      consumer =
        spawn(fn ->
          for 3 <- stream(pool, name, [1_000_000]) do
            send(me, :there)
            receive(do: (:go -> exit(:normal)))
          end
        end)

      assert_receive :there, 20_000
      if how == :kill, do: Process.exit(consumer, :kill), else: send(consumer, :go)
      eventually(fn -> closed() == 1 end)
    end

    assert %{running: 0} = wait_idle(pool)
  end

  test "80. one that is stuck is interrupted", %{pool: pool} do
    for name <- [:stuck, :astuck] do
      path = temporary_file()
      assert stream(pool, name, [3, path]) |> Enum.take(3) == [0, 1, 2]
      eventually(fn -> File.read(path) == {:ok, "x"} end)
      wait_idle(pool)
      File.rm!(path)
      consumer = spawn(fn -> stream(pool, name, [0, path]) |> Enum.to_list() end)
      eventually(fn -> busy?(pool) end)
      Process.exit(consumer, :kill)
      eventually(fn -> File.read(path) == {:ok, "x"} end)
    end

    wait_idle(pool)
  end

  defp busy?(pool) do
    %{running: running, awaiting: awaiting} = Py.Pool.info(pool)
    running + awaiting > 0
  end

  defp temporary_file do
    path = Path.join(System.tmp_dir!(), "py_stream_#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm(path) end)
    path
  end

  defp wait_idle(pool) do
    eventually(fn -> match?(%{running: 0, awaiting: 0, queued: 0}, Py.Pool.info(pool)) end)
    Py.Pool.info(pool)
  end

  test "a feeder that is killed leaves nothing either", %{pool: pool} do
    future = Py.async_call(:__main__, :count, [1_000_000], on: pool, stream_to: self())
    ref = future.ref
    assert_receive {:py_stream, ^ref, {:data, 0}}, 20_000
    {:py_stream, feeder} = future.ticket
    Process.exit(feeder, :kill)
    eventually(fn -> closed() == 1 end)
    assert Py.cancel(future) == :ok
  end

  test "a stream that nobody takes from holds no thread", %{pool: pool} do
    futures =
      for name <- [:count, :acount], _ <- 1..20 do
        Py.async_call(:__main__, name, [1_000], on: pool, stream_to: self(), buffer: 2)
      end

    for %{ref: ref} <- futures,
        item <- 0..1,
        do: assert_receive({:py_stream, ^ref, {:data, ^item}}, 20_000)

    assert %{running: 0, awaiting: 0, queued: 0} = wait_idle(pool)
    assert eval(pool, "1+1") == {:ok, 2}
    assert closed() == 0
    assert Enum.map(futures, &Py.cancel/1) == List.duplicate(:ok, 40)
    assert closed() == 40
    assert_no_messages()
  end

  test "79, P-C 14. what came before an error comes before it", %{pool: pool} do
    for after_ <- [0, 1, 5, 128, 300] do
      {items, error} = until_error(stream(pool, :fails, [after_]))
      assert items == Enum.to_list(0..(after_ - 1)//1)
      assert %{kind: :python, type: "ValueError", message: "the end"} = error
      assert [%{function: "fails"} | _] = Enum.reverse(error.traceback)
    end

    {items, error} = until_error(stream(pool, :acount, [10, 7]))
    assert {items, error.message} == {Enum.to_list(0..6), "agen boom"}
    assert closed() == 1
  end

  defp until_error(stream) do
    me = self()
    error = assert_raise Py.Error, fn -> Enum.each(stream, &send(me, {:item, &1})) end
    {received([]), error}
  end

  defp received(items) do
    receive(do: ({:item, item} -> received([item | items])), after: (0 -> Enum.reverse(items)))
  end

  test "an item without an Elixir value ends the stream after those before it", %{pool: pool} do
    for before <- [0, 1, 3, 200], more <- [0, 500] do
      {items, error} = until_error(stream(pool, :odd, [before, more]))
      assert items == Enum.to_list(0..(before - 1)//1)
      assert error.kind == :decode and error.message =~ "surrogates"
    end
  end

  test "80. what cannot be called, or cannot be iterated", %{pool: pool} do
    raised = fn module, name, args ->
      {[], error} = until_error(Py.stream(module, name, args, on: pool))
      error
    end

    assert raised.(:no_such_module, :f, []).type == "ModuleNotFoundError"
    assert raised.(:math, :no_such_function, []).type == "AttributeError"
    assert raised.(:math, "", []).type == "TypeError"
    assert raised.(:builtins, :abs, [1]).message =~ "not iterable"
    assert raised.(:builtins, :range, ["a"]).type == "TypeError"
    assert raised.(:math, :sqrt, [<<1::3>>]).kind == :encode

    assert %{kind: :no_pool} =
             elem(until_error(Py.stream(:builtins, :range, [1], on: :nobody)), 1)
  end

  test "the time limit is for each item", %{pool: pool} do
    slow = stream(pool, :bursts, [], timeout: 20_000)
    assert Enum.at(slow, 0) == {0, 0}

    for name <- [:stuck, :astuck] do
      path = temporary_file()
      {items, error} = until_error(stream(pool, name, [3, path], timeout: 300))
      assert {items, error.kind} == {[0, 1, 2], :timeout}
      eventually(fn -> File.read(path) == {:ok, "x"} end)
    end

    assert eval(pool, "1+1") == {:ok, 2}
    assert_no_messages()
  end

  test "items that an iterator gave before it stalls are there while it does", %{pool: pool} do
    for name <- [:bursts, :abursts] do
      Py.State.clear()
      # The iterator goes on when its last burst was seen as a whole.
      for {burst, i} <- stream(pool, name),
          i == 5 * 2 ** burst - 1,
          do: Py.State.set("taken", burst)

      assert Py.State.get("taken") == 3
    end
  end

  test "messages, as many as are acknowledged", %{pool: pool} do
    future = Py.async_call(:__main__, :count, [5], on: pool, stream_to: self(), buffer: 2)
    ref = future.ref
    for item <- 0..1, do: assert_receive({:py_stream, ^ref, {:data, ^item}}, 20_000)
    wait_idle(pool)
    refute_received {:py_stream, _ref, _what}
    assert Py.State.get("at") == 1

    for item <- 2..4 do
      Py.Stream.ack(ref)
      assert_receive {:py_stream, ^ref, {:data, ^item}}, 20_000
    end

    Py.Stream.ack(ref, 2)
    assert_receive {:py_stream, ^ref, :done}, 20_000
    assert_raise ArgumentError, ~r/stream_to/, fn -> Py.await(future) end
    assert Py.cancel(future) == :ok
    assert closed() == 1
  end

  test "messages end with an error, and with the process that gets them", %{pool: pool} do
    %{ref: ref} = Py.async_call(:__main__, :fails, [1], on: pool, stream_to: self())
    assert_receive {:py_stream, ^ref, {:data, 0}}, 20_000
    assert_receive {:py_stream, ^ref, {:error, %Py.Error{type: "ValueError"}}}, 20_000

    receiver = spawn(fn -> receive(do: (:never -> :ok)) end)
    Py.async_call(:__main__, :count, [1_000_000], on: pool, stream_to: receiver)
    eventually(fn -> Py.State.get("at", 0) > 100 end)
    Process.exit(receiver, :kill)
    eventually(fn -> closed() == 1 end)
    assert_no_messages()
  end

  test "large items, and many streams at once", %{pool: pool} do
    large =
      Py.stream(:builtins, :map, [fn n -> String.duplicate("x", n * 100_000) end, [1, 2, 3]],
        on: pool
      )

    assert Enum.map(large, &byte_size/1) == [100_000, 200_000, 300_000]

    1..30
    |> Enum.map(fn n -> Task.async(fn -> {n, Enum.sum(stream(pool, :count, [n * 10]))} end) end)
    |> Task.await_many(60_000)
    |> Enum.each(fn {n, sum} -> assert sum == Enum.sum(0..(n * 10 - 1)) end)

    assert closed() == 30
  end

  test "functions that the iterable calls run in the consumer's name", %{pool: pool} do
    me = self()
    callers = fn _item -> Process.get(:"$callers") end
    [callers | _] = Py.stream(:builtins, :map, [callers, [1]], on: pool) |> Enum.to_list()
    assert me in callers
  end

  test "wrong options", %{pool: pool} do
    assert_raise ArgumentError, ~r/buffer/, fn -> stream(pool, :count, [1], buffer: 0) end
    assert_raise ArgumentError, ~r/inline/, fn -> stream(pool, :count, [1], inline: true) end

    assert_raise ArgumentError, ~r/stream_to/, fn ->
      Py.async_call(:builtins, :range, [1], on: pool, stream_to: :somebody)
    end
  end

  @tag on: [:process]
  test "a stream ends with its worker, and says so", %{pool: pool} do
    for buffer <- [1, 256] do
      error =
        assert_raise Py.Error, fn ->
          for 3 <- stream(pool, :count, [1_000_000], buffer: buffer) do
            # Its worker is the one that is at it, or was.
            Py.Pool.info(pool).workers |> Enum.each(&System.cmd("kill", ["-9", "#{&1.os_pid}"]))
          end
        end

      assert error.kind == :crashed
      eventually(fn -> eval(pool, "1+1") == {:ok, 2} end)
    end
  end

  @tag on: [:process]
  test "a worker that is to be replaced ends with its last stream", %{pool: pool} do
    future = Py.async_call(:__main__, :count, [100], on: pool, stream_to: self(), buffer: 1)
    ref = future.ref
    assert_receive {:py_stream, ^ref, {:data, 0}}, 20_000
    :ok = Py.Pool.resize(pool, 1)
    before = length(Py.Pool.info(pool).workers)

    for item <- 1..99 do
      Py.Stream.ack(ref)
      assert_receive {:py_stream, ^ref, {:data, ^item}}, 20_000
    end

    Py.Stream.ack(ref)
    assert_receive {:py_stream, ^ref, :done}, 20_000
    assert before in [1, 2]
    eventually(fn -> match?(%{workers: [_one]}, Py.Pool.info(pool)) end)
  end
end
