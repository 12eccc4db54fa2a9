defmodule Py.Native.BaseTest do
  use ExUnit.Case, async: false

  alias Py.Native.Base

  @kb 1024
  @mb 1024 * 1024

  setup_all do
    :ok = Py.Build.ensure(nil)
    :ok = Base.load(Py.Build.base_file())
  end

  # Two connected sockets, and the descriptors that the NIFs borrow.
  setup do
    address =
      {:local, <<0, "py_base_test_#{System.unique_integer([:positive])}_#{System.pid()}">>}

    options = [:binary, active: false, packet: 1]
    {:ok, listener} = :gen_tcp.listen(0, [ifaddr: address] ++ options)
    {:ok, here} = :gen_tcp.connect(address, 0, [:local] ++ options)
    {:ok, there} = :gen_tcp.accept(listener)
    :ok = :gen_tcp.close(listener)
    {:ok, here_fd} = :inet.getfd(here)
    {:ok, there_fd} = :inet.getfd(there)
    %{here: here, there: there, here_fd: here_fd, there_fd: there_fd}
  end

  for {name, size} <- [{"64 KB", 64 * @kb}, {"1 MB", @mb}, {"100 MB", 100 * @mb}] do
    test "#{name} go there and come back", %{here_fd: here, there_fd: there} do
      payload = payload(unquote(size))
      iovec = :erlang.term_to_iovec({:request, payload, "small"})
      len = :erlang.iolist_size(iovec)
      sent = Base.segment_create(len)
      assert Base.segment_write(sent, iovec) == len
      assert Base.segment_send(here, <<1::32, len::64>>, sent) == :ok

      assert {<<1::32, ^len::64>>, received} = Base.segment_receive(there)
      assert Base.segment_size(received) == Base.segment_size(sent)

      assert {:request, ^payload, "small"} =
               :erlang.binary_to_term(Base.segment_read(received, 0, len))

      assert {:request, ^payload, "small"} =
               :erlang.binary_to_term(Base.segment_map(received, 0, len))

      reversed = payload(unquote(size), 1)
      assert Base.segment_write(received, [reversed]) == unquote(size)
      assert Base.segment_read(sent, 0, unquote(size)) == reversed
      assert Base.segment_receive(there) == :again
    end
  end

  test "a list of many small binaries is written whole" do
    segment = Base.segment_create(@mb)
    pieces = for i <- 1..100_000, do: <<i::64>>
    assert Base.segment_write(segment, pieces) == 800_000
    assert Base.segment_read(segment, 0, 800_000) == IO.iodata_to_binary(pieces)
    assert Base.segment_write(segment, []) == 0
    assert Base.segment_write(segment, [<<>>, "a", binary_part("xbcx", 1, 2)]) == 3
    assert Base.segment_read(segment, 0, 3) == "abc"
    assert Base.segment_read(segment, 1, 0) == ""
  end

  test "arguments that do not fit are refused, before anything is written", %{here_fd: here} do
    segment = Base.segment_create(64 * @kb)
    size = Base.segment_size(segment)
    assert size == 64 * @kb
    large = payload(size + 1)
    Base.segment_write(segment, ["before"])

    for call <- [
          fn -> Base.segment_create(-1) end,
          fn -> Base.segment_create(1.0) end,
          fn -> Base.segment_size(make_ref()) end,
          fn -> Base.segment_write(segment, [large]) end,
          fn -> Base.segment_write(segment, [binary_part(large, 0, size), "x"]) end,
          fn -> Base.segment_write(segment, [payload(@mb)]) end,
          fn -> Base.segment_write(segment, ["a" | "b"]) end,
          fn -> Base.segment_write(segment, [payload(@mb) | "b"]) end,
          fn -> Base.segment_write(segment, ["a", :b]) end,
          fn -> Base.segment_write(segment, [<<1::3>>]) end,
          fn -> Base.segment_write(segment, "a") end,
          fn -> Base.segment_read(segment, -1, 1) end,
          fn -> Base.segment_read(segment, 0, -1) end,
          fn -> Base.segment_read(segment, 0, size + 1) end,
          fn -> Base.segment_read(segment, 1, size) end,
          fn -> Base.segment_read(segment, 0, 100 * @mb) end,
          fn -> Base.segment_read(segment, 0xFFFFFFFFFFFFFFFF, 2) end,
          fn -> Base.segment_map(segment, 0, size + 1) end,
          fn -> Base.segment_map(segment, size, 1) end,
          fn -> Base.segment_map(segment, 0xFFFFFFFFFFFFFFFF, 2) end,
          fn -> Base.segment_map(segment, -1, 1) end,
          fn -> Base.segment_word(segment, div(size, 8)) end,
          fn -> Base.segment_word(segment, -1) end,
          fn -> Base.segment_send(here, payload(256), segment) end,
          fn -> Base.segment_send(here, "", make_ref()) end,
          fn -> Base.segment_send(-1, "", segment) end,
          fn -> Base.segment_receive(-1) end
        ] do
      assert_raise ArgumentError, call
    end

    assert Base.segment_read(segment, 0, 6) == "before"
    assert {:error, :enomem} = Base.segment_create(0x7FFFFFFFFFFFFFFF)
    assert {:error, _no_such_space} = Base.segment_create(0x3FFFFFFFFFFFFFFF)
  end

  test "sockets say what is wrong with them", %{
    here: here,
    here_fd: here_fd,
    there: there,
    there_fd: there_fd
  } do
    segment = Base.segment_create(1)
    assert Base.segment_send(1_000_000, "", segment) == {:error, :ebadf}
    assert Base.segment_receive(1_000_000) == {:error, :ebadf}

    assert Base.segment_receive(there_fd) == :again
    :ok = :gen_tcp.send(here, "plain")
    assert Base.segment_receive(there_fd) == {"plain", nil}

    :ok = :gen_tcp.close(there)
    assert Base.segment_receive(here_fd) == {:error, :closed}
    assert Base.segment_send(here_fd, "", segment) == {:error, :epipe}
  end

  test "a full socket says so, and nothing is lost", %{here_fd: here, there_fd: there} do
    segment = Base.segment_create(1)

    sent =
      Stream.iterate(0, &(&1 + 1))
      |> Enum.find(&(Base.segment_send(here, <<&1::32>>, segment) != :ok))

    assert Base.segment_send(here, "", segment) in [:again, {:error, :etoomanyrefs}]

    for i <- 0..(sent - 1), do: assert({<<^i::32>>, _segment} = Base.segment_receive(there))
    assert Base.segment_receive(there) == :again
  end

  test "files that are no sealed memory are refused" do
    for code <- [
          "os.open('/tmp', os.O_RDWR | os.O_TMPFILE)",
          "os.open('/dev/shm', os.O_RDWR | os.O_TMPFILE)",
          "os.open('/dev/zero', os.O_RDWR)",
          "os.open('/', os.O_RDONLY)",
          "memory(os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)",
          "memory(os.MFD_CLOEXEC)"
        ] do
      assert received_from_python(code) == {:error, :einval}, code
    end
  end

  test "words are read as they are written" do
    segment = Base.segment_create(4096)
    Base.segment_write(segment, [<<0::64, 7::64-native, -1::64>>])

    assert for(index <- 0..3, do: Base.segment_word(segment, index)) == [
             0,
             7,
             0xFFFFFFFFFFFFFFFF,
             0
           ]
  end

  test "a binary on a segment keeps it, and sees what is written" do
    {mapped, other} =
      Task.await(
        Task.async(fn ->
          segment = Base.segment_create(2 * @mb)
          Base.segment_write(segment, [payload(2 * @mb)])
          {Base.segment_map(segment, 1, 2 * @mb - 1), segment}
        end)
      )

    <<_first, rest::binary>> = payload(2 * @mb)
    assert mapped == rest
    Base.segment_write(other, ["01"])
    assert <<"1", _::binary>> = mapped
    # Onto itself.
    assert Base.segment_write(other, [binary_part(mapped, 0, 2 * @mb - 1)]) == 2 * @mb - 1
    assert <<"1", _::binary>> = Base.segment_read(other, 0, 10)
  end

  test "segments that nobody refers to are unmapped and closed", %{here_fd: here, there_fd: there} do
    round(here, there)
    before = settled(fn -> {files(), mappings()} end)

    for i <- 1..1000 do
      spawn_monitor(fn ->
        round(here, there, if(rem(i, 50) == 0, do: 4 * @mb, else: 64 * @kb))
      end)

      assert_receive {:DOWN, _monitor, :process, _pid, :normal}, 10_000
    end

    assert settled(fn -> {files(), mappings()} end, before) == before
  end

  test "segments are no files that others could open or that outlive the node" do
    segment = Base.segment_create(1)
    refute File.read!("/proc/self/maps") =~ "/dev/shm/"
    assert File.read!("/proc/self/maps") =~ "/memfd:py (deleted)"
    assert Base.segment_size(segment) == 64 * @kb
  end

  test "processes get signals" do
    port = Port.open({:spawn_executable, "/bin/sleep"}, [:exit_status, args: ["1000"]])
    {:os_pid, os_pid} = Port.info(port, :os_pid)
    assert Base.kill(os_pid, 0) == :ok
    assert Base.kill(os_pid, 9) == :ok
    assert_receive {^port, {:exit_status, 137}}, 5_000
    assert Base.kill(os_pid, 9) == {:error, :esrch}
    assert Base.kill(-os_pid, 9) == {:error, :esrch}
    assert Base.kill(os_pid, 1000) == {:error, :einval}
    assert Base.kill(os_pid, -1) == {:error, :einval}

    for pid <- [0, 1, -1, 0x80000000, -0x80000000],
        do: assert_raise(ArgumentError, fn -> Base.kill(pid, 0) end)
  end

  test "groups get signals" do
    script = "import os; os.write(1, b'ready'); os.fork(); os.read(0, 1)"

    port =
      Port.open({:spawn_executable, System.find_executable("python3")}, [
        :exit_status,
        :binary,
        args: ["-c", script]
      ])

    assert_receive {^port, {:data, "ready"}}, 10_000
    {:os_pid, os_pid} = Port.info(port, :os_pid)
    assert Base.kill(-os_pid, 9) == :ok
    assert_receive {^port, {:exit_status, 137}}, 5_000
  end

  defp payload(size, from \\ 0),
    do: for(i <- 1..1024, into: <<>>, do: <<i + from::8>>) |> fill(size)

  defp fill(pattern, size),
    do: pattern |> :binary.copy(div(size, 1024) + 1) |> binary_part(0, size) |> :binary.copy()

  defp round(here, there, size \\ 64 * @kb) do
    segment = Base.segment_create(size)
    Base.segment_write(segment, [payload(size)])
    :ok = Base.segment_send(here, "", segment)
    {"", other} = Base.segment_receive(there)
    mapped = Base.segment_map(other, 0, size)
    true = byte_size(mapped) == byte_size(Base.segment_read(other, 0, size))
  end

  # A program in Python connects and sends a file.
  defp received_from_python(file) do
    name = "py_base_python_#{System.unique_integer([:positive])}_#{System.pid()}"
    {:ok, listener} = :gen_tcp.listen(0, ifaddr: {:local, <<0, name::binary>>}, active: false)

    code = """
    import os, socket
    def memory(flags):
        file = os.memfd_create("memory", flags)
        os.ftruncate(file, 65536)
        return file
    s = socket.socket(socket.AF_UNIX)
    s.connect("\\0#{name}")
    socket.send_fds(s, [b"\\1x"], [#{file}])
    """

    assert {"", 0} = System.cmd("python3", ["-c", code], stderr_to_stdout: true)
    {:ok, socket} = :gen_tcp.accept(listener)
    {:ok, fd} = :inet.getfd(socket)
    Base.segment_receive(fd)
  end

  defp files, do: length(File.ls!("/proc/self/fd"))

  defp mappings do
    maps = File.read!("/proc/self/maps")
    length(Regex.scan(~r/memfd:py/, maps))
  end

  # Large segments are given back by a thread.
  defp settled(value, expected \\ nil, tries \\ 100) do
    :erlang.garbage_collect()
    seen = value.()

    if seen == expected or tries == 0,
      do: seen,
      else: Process.sleep(10) && settled(value, if(expected, do: expected, else: seen), tries - 1)
  end
end
