defmodule Py.Cases.BuffersTest do
  # CASES.md 39, 49: binaries that cross without a copy, and what may not.
  use Py.Case, on: [:thread, :process]

  @mega 1_000_000
  # Kept by Python between calls.
  @kept "import sys, weakref\n"

  defp bytes(n), do: :binary.copy(<<1, 2, 3, 4, 5>>, div(n, 5))

  defp binaries do
    :erlang.garbage_collect()
    :erlang.memory(:binary)
  end

  # How much more memory of binaries there is after `fun`, and what it returned.
  defp growth(fun) do
    before = binaries()
    result = fun.()
    {binaries() - before, result}
  end

  defp numpy?(pool), do: exec(pool, "import numpy") == :ok

  test "a buffer is a read-only memoryview, of any size", %{pool: pool} do
    for n <- [0, 1, 63, 64, 65, 1_023, 1_024, 16_384, 65_535, 65_536, @mega] do
      data = :crypto.strong_rand_bytes(n)

      assert eval(
               pool,
               "type(x).__name__, x.readonly, x.nbytes, x.format, x.ndim, bytes(x), x, x[1:]",
               %{
                 x: Py.buffer(data)
               }
             ) ==
               {:ok,
                {"memoryview", true, n, "B", 1, data, data,
                 binary_part(data, min(n, 1), max(n - 1, 0))}}
    end

    assert error(eval(pool, "x[0] = 1", %{x: Py.buffer(bytes(@mega))})).type == "TypeError"
  end

  test "parts of binaries, at any bit", %{pool: pool} do
    data = bytes(@mega)
    <<_::3, odd::binary-size(100_000), _::bitstring>> = data

    for part <- [binary_part(data, 7, 500_001), binary_part(data, 3, 2_000), odd] do
      assert eval(pool, "bytes(x), x[10:]", %{x: Py.buffer(part)}) ==
               {:ok, {part, binary_part(part, 10, byte_size(part) - 10)}}
    end
  end

  test "in lists, maps and keyword arguments", %{pool: pool} do
    data = bytes(100_000)
    assert eval(pool, "x", %{x: [1, %{"a" => {Py.buffer(data)}}]}) == {:ok, [1, %{"a" => {data}}]}
    assert call(pool, :builtins, :dict, [], a: Py.buffer(data)) == {:ok, %{"a" => data}}
    assert call(pool, :builtins, :bytes, [Py.buffer(data)], [], inline: true) == {:ok, data}
    refused = error(eval(pool, "x", %{x: [%Py.Buffer{data: <<1::3>>}]}))
    assert refused.kind == :encode
  end

  test "the answer of a callback", %{pool: pool} do
    data = bytes(@mega)
    buffer = fn -> Py.buffer(data) end

    assert eval(pool, "x = f()\n[x.readonly, x[5:]]", %{f: buffer}) ==
             {:ok, [true, binary_part(data, 5, @mega - 5)]}
  end

  @tag on: [:thread]
  test "a buffer is the binary itself, which lives as long as anything of it", %{pool: pool} do
    code = @kept <> "sys.py_buffer = x[1000:2000]"

    {grown, :ok} = growth(fn -> exec(pool, code, %{x: Py.buffer(bytes(50 * @mega))}) end)

    assert grown in (49 * @mega)..(51 * @mega)
    assert eval(pool, "import sys\nbytes(sys.py_buffer)") == {:ok, bytes(1_000)}
    before = binaries()
    assert exec(pool, "import sys\ndel sys.py_buffer") == :ok
    eventually(fn -> binaries() < before - 49 * @mega end)
  end

  @tag on: [:thread]
  test "Python lets go of it on a thread of its own", %{pool: pool} do
    code =
      @kept <>
        """
        import threading
        sys.py_go = threading.Event()
        def hold(view):
            sys.py_go.wait()
            view[0]
        threading.Thread(target=hold, args=(x,)).start()
        del x
        """

    {grown, :ok} = growth(fn -> exec(pool, code, %{x: Py.buffer(bytes(50 * @mega))}) end)
    assert grown > 49 * @mega
    before = binaries()
    assert exec(pool, "import sys\nsys.py_go.set()") == :ok
    eventually(fn -> binaries() < before - 49 * @mega end)
  end

  @tag on: [:thread]
  test "back it is the same binary, and a slice of it a part of that", %{pool: pool} do
    data = bytes(50 * @mega)

    for options <- [[], [inline: true]] do
      {grown, {:ok, {whole, part, round}}} =
        growth(fn ->
          call(
            pool,
            :builtins,
            :eval,
            ["(x, x[5:-5], memoryview(x[10:])[5:])", %{"x" => Py.buffer(data)}],
            [],
            options
          )
        end)

      assert grown < @mega
      assert whole == data
      assert part == binary_part(data, 5, 50 * @mega - 10)
      assert round == binary_part(data, 15, 50 * @mega - 15)
      assert :binary.referenced_byte_size(part) == byte_size(data)
    end
  end

  # The references to an object that Python keeps.
  defp references(pool) do
    {:ok, count} = eval(pool, "import sys\nsys.getrefcount(sys.py_bytes)")
    count
  end

  @tag on: [:thread]
  test "slices of bytes are shared, and let go of them when they are garbage", %{pool: pool} do
    assert exec(pool, @kept <> "sys.py_bytes = bytes(range(250)) * 4000") == :ok
    before = references(pool)

    for code <- [
          "sys.py_bytes",
          "memoryview(sys.py_bytes)",
          "memoryview(sys.py_bytes)[250:-250]",
          "memoryview(sys.py_bytes).cast('H')"
        ] do
      {grown, {:ok, binary}} = growth(fn -> eval(pool, @kept <> code) end)
      # That of the binary before is let go of on a thread of Python's.
      eventually(fn -> {code, references(pool)} == {code, before + 1} end)
      assert grown < @mega + 100_000
      assert binary_part(binary, 0, 250) == :binary.list_to_bin(Enum.to_list(0..249))
      # A part keeps all of it, and a copy of that does not.
      part = binary_part(binary, 100, 1_000)
      copy = :binary.copy(part)
      assert part == copy
    end

    eventually(fn ->
      :erlang.garbage_collect()
      references(pool) == before
    end)
  end

  test "what Python can still change is copied", %{pool: pool} do
    {:ok, back} =
      eval(
        pool,
        @kept <>
          """
          sys.py_array = bytearray(b'a' * 100_000)
          view = memoryview(sys.py_array)
          sys.py_array, view, view.toreadonly(), view.toreadonly()[1:], view.toreadonly().cast('B', (10, 10_000))
          """
      )

    assert exec(pool, "import sys\nsys.py_array[:] = b'b' * 100_000") == :ok
    for binary <- Tuple.to_list(back), do: assert(binary == :binary.copy("a", byte_size(binary)))

    assert Enum.map(Tuple.to_list(back), &byte_size/1) == [
             100_000,
             100_000,
             100_000,
             99_999,
             100_000
           ]

    # Nothing keeps it from growing: no view of it was left.
    assert exec(pool, "import sys\nsys.py_array.extend(b'c')") == :ok
  end

  test "views with gaps, backwards and of several dimensions", %{pool: pool} do
    data = bytes(400_000)

    for {code, expected} <- [
          {"x[::2]", for(<<a, _b <- data>>, into: "", do: <<a>>)},
          {"x[::-1]", data |> :binary.bin_to_list() |> Enum.reverse() |> :binary.list_to_bin()},
          {"x.cast('d')", data},
          {"x.cast('B', (4, 1000, 100))", data},
          {"x[8:].cast('I')", binary_part(data, 8, 399_992)}
        ] do
      assert {code, eval(pool, code, %{x: Py.buffer(data)})} == {code, {:ok, expected}}
    end
  end

  test "a view that was released", %{pool: pool} do
    assert error(eval(pool, "x.release()\nx", %{x: Py.buffer(bytes(@mega))})).kind == :decode
  end

  test "a chain of views that lies about what it is a view of", %{pool: pool} do
    if numpy?(pool) do
      code = """
      import numpy, sys
      class Liar(numpy.ndarray):
          base = b'x' * 100_000
      class Endless(numpy.ndarray):
          base = property(lambda self: self)
      sys.py_liars = [numpy.zeros(100_000, 'u1').view(kind) for kind in (Liar, Endless)]
      [memoryview(liar).toreadonly() for liar in sys.py_liars]
      """

      zeros = :binary.copy(<<0>>, 100_000)
      assert {:ok, views} = eval(pool, code)
      assert exec(pool, "import sys\nfor liar in sys.py_liars: liar[:] = 1") == :ok
      assert views == [zeros, zeros]
    end
  end

  test "read-only arrays of numpy's through a view", %{pool: pool} do
    if numpy?(pool) do
      data = bytes(800_000)

      code =
        @kept <>
          """
          import numpy
          a = numpy.frombuffer(x, 'f8')
          sys.py_own = numpy.zeros(100_000, 'u1')
          b = sys.py_own.view()
          b.flags.writeable = False
          [a.flags.writeable, memoryview(a), memoryview(a[10:].reshape(-1, 10)), memoryview(b)]
          """

      assert {:ok, [false, ^data, part, zeros]} = eval(pool, code, %{x: Py.buffer(data)})
      assert part == binary_part(data, 80, 799_920)
      assert exec(pool, "import sys\nsys.py_own[:] = 1") == :ok
      assert zeros == :binary.copy(<<0>>, 100_000)
    end
  end

  @tag on: [:thread]
  test "arrays on a buffer are the binary's own memory, and die in Python", %{pool: pool} do
    if numpy?(pool) do
      data = bytes(50 * @mega)

      code =
        @kept <>
          "import numpy\nsys.py_array = numpy.frombuffer(x, 'u1')[5:]\nsys.py_weak = weakref.ref(sys.py_array)"

      address = "import numpy\nnumpy.frombuffer(x, 'u1').ctypes.data"
      assert exec(pool, code, %{x: Py.buffer(data)}) == :ok
      {:ok, address} = eval(pool, address, %{x: Py.buffer(data)})
      assert eval(pool, "import sys\nsys.py_array.ctypes.data - 5") == {:ok, address}

      {grown, {:ok, back}} =
        growth(fn -> eval(pool, "import sys\nmemoryview(sys.py_array[5:])") end)

      assert grown < @mega and back == binary_part(data, 10, 50 * @mega - 10)
      assert eval(pool, "import sys\nsys.py_weak() is sys.py_array") == {:ok, true}
      assert exec(pool, "import sys\ndel sys.py_array") == :ok
      assert eval(pool, "import sys\nsys.py_weak()") == {:ok, nil}
    end
  end

  @tag on: [:thread]
  test "a binary that grows on does so elsewhere", %{pool: pool} do
    # What is appended to has room behind it, where the next byte is written without a copy.
    grown = Enum.reduce(1..100_000, bytes(10_000), fn _, binary -> binary <> "x" end)
    assert exec(pool, @kept <> "sys.py_view = x", %{x: Py.buffer(grown)}) == :ok
    more = Enum.reduce(1..200_000, grown, fn _, binary -> binary <> "y" end)
    assert byte_size(more) == byte_size(grown) + 200_000
    assert eval(pool, "import sys\nsys.py_view") == {:ok, grown}
  end

  # Resident kilobytes of a process, and how many descriptors it has.
  defp resources(os_pid) do
    [_, kilobytes] = Regex.run(~r/VmRSS:\s+(\d+)/, File.read!("/proc/#{os_pid}/status"))
    {String.to_integer(kilobytes), length(File.ls!("/proc/#{os_pid}/fd"))}
  end

  test "memory stays where it is over hundreds of round trips", %{pool: pool} do
    data = bytes(20 * @mega)
    {:ok, worker} = eval(pool, "__import__('os').getpid()")
    processes = Enum.uniq([worker, String.to_integer(System.pid())])
    round = fn -> {:ok, ^data} = eval(pool, "x", %{x: Py.buffer(data)}) end
    out = fn -> {:ok, _bytes} = eval(pool, "bytes(20_000_000)") end
    kept = fn -> {:ok, _bytes} = eval(pool, "bytes(20_000_000)", %{}, copy: false) end
    all = fn -> Enum.each([round, out, kept], & &1.()) end
    for _ <- 1..10, do: all.()
    before = Enum.map(processes, &resources/1)
    for _ <- 1..50, do: all.()
    :erlang.garbage_collect()
    later = Enum.map(processes, &resources/1)

    for {{kb_before, fds_before}, {kb, fds}} <- Enum.zip(before, later) do
      # Of 150 times 20 MB.
      assert kb - kb_before < 300_000
      assert fds - fds_before < 20
    end
  end

  @tag on: [:process]
  test "copy: false leaves binaries in shared memory", %{pool: pool} do
    code =
      "[bytes([n]) * 100_000 for n in range(3)], {'a': (bytes(70_000), 1)}, b'small', {1}, 'ß' * 100_000"

    expected =
      {for(n <- 0..2, do: :binary.copy(<<n>>, 100_000)),
       %{"a" => {:binary.copy(<<0>>, 70_000), 1}}, "small", MapSet.new([1]),
       String.duplicate("ß", 100_000)}

    assert eval(pool, code, %{}, copy: false) == {:ok, expected}
    assert eval(pool, "1", %{}, copy: false) == {:ok, 1}
    assert eval(pool, "'a' * 100_000", %{}, copy: false) == {:ok, String.duplicate("a", 100_000)}

    assert eval(pool, "bytes(100_000), {b'k' * 70_000: 1}", %{}, copy: false) ==
             {:ok, {:binary.copy(<<0>>, 100_000), %{:binary.copy("k", 70_000) => 1}}}

    assert {:ok, {<<0::800_000>>, %Py.Object{}}} =
             eval(pool, "bytes(100_000), object()", %{}, copy: false)

    assert error(eval(pool, "bytes(100_000), '\\ud800'", %{}, copy: false)).kind == :decode

    assert error(eval(pool, "raise ValueError(bytes(100_000))", %{}, copy: false)).type ==
             "ValueError"

    assert call(pool, :builtins, :bytes, [70_000], [], copy: false) ==
             {:ok, :binary.copy(<<0>>, 70_000)}

    future = Py.async_call(:builtins, :bytes, [70_000], on: pool, copy: false)
    assert Py.await(future) == {:ok, :binary.copy(<<0>>, 70_000)}
  end

  @tag on: [:process]
  test "copy: false: no call writes where a binary is, and what is garbage is used again", %{
    pool: pool
  } do
    before = :erlang.memory(:binary)

    kept =
      for n <- 1..20 do
        {:ok, binary} = eval(pool, "bytes([n]) * 1_000_000", %{n: n}, copy: false)
        {n, binary}
      end

    # They are no memory of the VM's own.
    assert :erlang.memory(:binary) - before < 5 * @mega
    for {n, binary} <- kept, do: assert(binary == :binary.copy(<<n>>, @mega))
    {:ok, worker} = eval(pool, "__import__('os').getpid()")
    {_kilobytes, most} = resources(worker)
    parts = for {n, binary} <- kept, do: {n, binary_part(binary, 500_000, 10)}
    for {n, part} <- parts, do: assert(part == :binary.copy(<<n>>, 10))
    Process.put(:parts, nil)

    for n <- 1..200 do
      {:ok, binary} = eval(pool, "bytes([n]) * 1_000_000", %{n: n}, copy: false)
      assert binary == :binary.copy(<<n>>, @mega)
      :erlang.garbage_collect()
    end

    assert elem(resources(worker), 1) < most + 10
  end

  @tag on: [:process]
  test "copy: false: a binary outlives its worker, and whoever asked for it", %{pool: pool} do
    {:ok, binary} = eval(pool, "b'a' * 1_000_000", %{}, copy: false)
    me = self()

    spawn(fn ->
      {:ok, other} = eval(pool, "b'b' * 1_000_000", %{}, copy: false)
      send(me, {:other, other})
    end)

    other = receive(do: ({:other, other} -> other))
    # Killed while it has the answer, or waits for it.
    for wait <- [0, 1, 5, 20] do
      pid = spawn(fn -> for _ <- 1..100, do: eval(pool, "b'c' * 1_000_000", %{}, copy: false) end)
      Process.sleep(wait)
      Process.exit(pid, :kill)
    end

    for _ <- 1..20, do: {:ok, _} = eval(pool, "b'd' * 1_000_000", %{}, copy: false)
    error(eval(pool, "import os\nos._exit(1)"))
    assert binary == :binary.copy("a", @mega)
    assert other == :binary.copy("b", @mega)
    assert eval(pool, "b'e' * 1_000_000", %{}, copy: false) == {:ok, :binary.copy("e", @mega)}
  end

  @tag on: [:process]
  test "copy: false: what was said of an earlier loan gives back no later one", %{
    pool: pool,
    pool_pid: board
  } do
    workers = fn -> Py.Switchboard.Roster.workers(:sys.get_state(board).roster) end
    {:ok, binary} = eval(pool, "b'a' * 1_000_000", %{}, copy: false)
    [%{port: port, readers: readers}] = workers.()
    assert [{segment, {:kept, token}}] = Map.to_list(readers)

    for late <- [segment, {segment, make_ref()}, {segment + 1, token}],
        do: send(board, {:py_returned, port, late})

    for _ <- 1..5, do: {:ok, _} = eval(pool, "b'b' * 1_000_000", %{}, copy: false)
    assert binary == :binary.copy("a", @mega)
    send(board, {:py_returned, port, {segment, token}})
    [%{readers: readers}] = workers.()
    refute is_map_key(readers, segment)
  end

  @tag on: [:thread]
  test "copy: false changes nothing in the node", %{pool: pool} do
    assert eval(pool, "bytes(70_000)", %{}, copy: false) == {:ok, :binary.copy(<<0>>, 70_000)}
    assert call(pool, :math, :sqrt, [4], [], copy: false, inline: true) == {:ok, 2.0}
  end
end
