defmodule Py.Cases.OutputTest do
  # CASES.md 95 and 99; P-D 6: print, stderr, input, logging.
  use Py.Case, on: [:thread, :process]

  import ExUnit.CaptureIO
  import ExUnit.CaptureLog

  test "95. print goes to the caller's group leader and is there before the call returns", %{
    pool: pool
  } do
    assert capture_io(fn -> exec(pool, "print('hello', 42)") end) == "hello 42\n"
    assert capture_io(fn -> call(pool, :builtins, :print, ["é日"]) end) == "é日\n"
    assert capture_io(fn -> exec(pool, "print('a', end='')\nprint('b', end='')") end) == "ab"
    assert capture_io(fn -> exec(pool, "print('a\\0b')") end) == "a\0b\n"

    assert capture_io(fn -> exec(pool, "import sys; sys.stdout.write('x' * 100_000)") end)
           |> byte_size() == 100_000

    assert capture_io(fn -> exec(pool, "import sys; sys.stdout.buffer.write(b'raw')") end) ==
             "raw"
  end

  test "95. surrogates are escaped", %{pool: pool} do
    assert capture_io(fn -> :ok = exec(pool, "print('\\ud800')") end) |> String.valid?()
  end

  test "95. each caller has its own", %{pool: pool} do
    code = "import time\nfor i in range(20):\n  print(n, end='')\n  time.sleep(0.001)"

    outputs =
      1..8
      |> Enum.map(&Task.async(fn -> capture_io(fn -> exec(pool, code, %{n: &1}) end) end))
      |> Task.await_many()

    assert outputs == for(n <- 1..8, do: String.duplicate("#{n}", 20))
  end

  test "95. a thread prints where the one that started it does", %{pool: pool} do
    code = """
    import threading
    t = threading.Thread(target=lambda: print("from a thread"))
    t.start()
    t.join()
    """

    assert capture_io(fn -> :ok = exec(pool, code) end) == "from a thread\n"
  end

  test "95. executors print there too", %{pool: pool} do
    code = """
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(2) as executor:
        list(executor.map(print, [1, 2]))
    """

    assert capture_io(fn -> :ok = exec(pool, code) end) |> String.split() |> Enum.sort() == [
             "1",
             "2"
           ]
  end

  test "95. coroutines print to their own callers", %{pool: pool} do
    code = "import asyncio\nfor _ in range(5):\n  print(n, end='')\n  await asyncio.sleep(0.001)"

    outputs =
      1..4
      |> Enum.map(&Task.async(fn -> capture_io(fn -> exec(pool, code, %{n: &1}) end) end))
      |> Task.await_many()

    assert outputs == for(n <- 1..4, do: String.duplicate("#{n}", 5))
  end

  test "95. output before an error is there", %{pool: pool} do
    assert capture_io(fn -> exec(pool, "print('before')\n1/0") end) == "before\n"
  end

  test "95. NUL, partial lines and bytes that are no text, from a thread and a coroutine", %{
    pool: pool
  } do
    thread =
      "import threading\nt = threading.Thread(target=lambda: print('a\\0b', end=''))\nt.start(); t.join()"

    assert capture_io(fn -> :ok = exec(pool, thread) end) == "a\0b"
    coroutine = "import asyncio\nprint('a', end='')\nawait asyncio.sleep(0)\nprint('\\0', end='')"
    assert capture_io(fn -> :ok = exec(pool, coroutine) end) == "a\0"
    bytes = "import sys\nfor b in 'é'.encode() + b'\\xff': sys.stdout.buffer.write(bytes([b]))"
    assert capture_io(fn -> :ok = exec(pool, bytes) end) == "é\uFFFD"
  end

  # Writes to the stream that it is given all that is troublesome.
  @writes """
  import asyncio, sys, threading
  from concurrent.futures import ThreadPoolExecutor

  def write(stream):
      stream.write("part")
      stream.write("ial\\0")
      for percent in (50, 100): stream.write(f"\\r{percent}%")
      for byte in b"\\xff" + "é".encode(): stream.buffer.write(bytes([byte]))
      print(" tail", end="", file=stream)

  async def write_awaited(stream):
      await asyncio.sleep(0)
      write(stream)
  """
  @written "partial\0\r50%\r100%\uFFFDé tail"

  test "95. partial lines, NUL, bars and bytes that are no text, from wherever it is written", %{
    pool: pool
  } do
    for stream <- ["sys.stdout", "sys.stderr"],
        place <- [
          "write(s)",
          "t = threading.Thread(target=write, args=(s,)); t.start(); t.join()",
          "with ThreadPoolExecutor(1) as executor: executor.submit(write, s).result()",
          "kept = ThreadPoolExecutor(1); kept.submit(write, s).result()",
          "await write_awaited(s)",
          "await asyncio.create_task(write_awaited(s))",
          "await asyncio.to_thread(write, s)"
        ] do
      code = "#{@writes}\ns = #{stream}\n#{place}"
      run = fn -> :ok = exec(pool, code) end

      written = if stream == "sys.stdout", do: capture_io(run), else: capture_io(:stderr, run)

      assert written == @written, "#{place} on #{stream}: #{inspect(written)}"
    end
  end

  test "95. a bar is seen while it is drawn", %{pool: pool} do
    me = self()

    leader =
      spawn_link(fn ->
        Enum.each(Stream.cycle([1]), fn _ ->
          receive do
            {:io_request, from, as, {:put_chars, :unicode, text}} ->
              send(me, {:printed, text})
              send(from, {:io_reply, as, :ok})
          end
        end)
      end)

    # Waits for the test, which has to have seen it before.
    seen = fn ->
      send(me, {:waits, self()})
      receive(do: (:go -> nil))
    end

    code = "for n in range(3):\n  print(f'\\r{n}/3', end='')\n  seen()"

    task =
      Task.async(fn ->
        Process.group_leader(self(), leader)
        exec(pool, code, %{seen: seen})
      end)

    for n <- 0..2 do
      assert_receive {:waits, function}, 10_000
      assert_receive {:printed, text}, 10_000
      assert text == "\r#{n}/3"
      send(function, :go)
    end

    assert Task.await(task) == :ok
  end

  test "95. what is printed while it is redirected, closed or replaced", %{pool: pool} do
    code =
      "import contextlib, io\nb = io.StringIO()\nwith contextlib.redirect_stdout(b):\n  print('in')\nprint('out')\nb.getvalue()"

    assert capture_io(fn -> assert eval(pool, code) == {:ok, "in\n"} end) == "out\n"
    capture_io(fn -> exec(pool, "import sys\nsys.stdout.close()") end)
    assert capture_io(fn -> :ok = exec(pool, "print('still')") end) == "still\n"
    assert error(exec(pool, "import sys\nsys.stdout.write(5)")).type == "TypeError"
    assert error(eval(pool, "import sys\nsys.stdout.fileno()")).kind == :python
  end

  test "95. a thread that outlives its call, and callers whose group leader is gone or stuck", %{
    pool: pool
  } do
    late = "import threading, time\nthreading.Timer(0.05, print, ['late']).start()"
    capture_io(fn -> :ok = exec(pool, late) end)

    for leader <- [spawn(fn -> :ok end), spawn(fn -> Process.sleep(:infinity) end)] do
      task =
        Task.async(fn ->
          Process.group_leader(self(), leader)
          eval(pool, "print('x')\n5", %{}, timeout: 20_000)
        end)

      result = Task.await(task, 30_000)
      assert result == {:ok, 5} or error(result).kind == :timeout
    end

    assert eval(pool, "1+1") == {:ok, 2}
  end

  test "95. warnings and what ends a Python thread go to stderr", %{pool: pool} do
    warn = "import warnings\nwarnings.warn('careful')"
    assert capture_io(:stderr, fn -> :ok = exec(pool, warn) end) =~ "UserWarning: careful"
    raise = "import threading\nt = threading.Thread(target=lambda: 1 / 0)\nt.start(); t.join()"
    assert capture_io(:stderr, fn -> :ok = exec(pool, raise) end) =~ "ZeroDivisionError"
    exit = "import threading, sys\nt = threading.Thread(target=sys.exit)\nt.start(); t.join()"
    assert capture_io(:stderr, fn -> :ok = exec(pool, exit) end) == ""
  end

  test "95. warnings from threads and tasks, and as logs", %{pool: pool} do
    for {n, place} <- [
          {1, "t = threading.Thread(target=warn); t.start(); t.join()"},
          {2, "await asyncio.to_thread(warn)"},
          {3, "await asyncio.sleep(0)\nwarn()"}
        ] do
      code =
        "import asyncio, threading, warnings\ndef warn(): warnings.warn('careful #{n}')\n#{place}"

      written = capture_io(:stderr, fn -> :ok = exec(pool, code) end)
      assert written =~ "UserWarning: careful #{n}"
    end

    log =
      capture_log(fn ->
        code = """
        import logging, warnings
        logging.captureWarnings(True)
        try: warnings.warn("careful in the log")
        finally: logging.captureWarnings(False)
        """

        assert capture_io(:stderr, fn -> :ok = exec(pool, code) end) == ""
        Py.Output.flush()
      end)

    assert log =~ "[warn"
    assert log =~ "UserWarning: careful in the log"
  end

  test "95. stderr is separate", %{pool: pool} do
    code = "import sys\nprint('e', file=sys.stderr)\nprint('o')"

    assert capture_io(:stderr, fn -> assert capture_io(fn -> exec(pool, code) end) == "o\n" end) ==
             "e\n"
  end

  test "95. input() is an error", %{pool: pool} do
    assert %{kind: :python, message: message} = error(eval(pool, "input()"))
    assert message =~ "not available"
    assert error(eval(pool, "import sys; sys.stdin.read()")).kind == :python

    assert error(eval(pool, "import asyncio\nawait asyncio.sleep(0)\ninput()")).message =~
             "not available"
  end

  test "99, P-D 6. each level of logging reaches Logger", %{pool: pool} do
    for {level, expected} <- [
          debug: "debug",
          info: "info",
          warning: "warn",
          error: "error",
          critical: "crit"
        ] do
      log =
        capture_log(fn ->
          code =
            "import logging\nlogging.getLogger('app').setLevel(1)\nlogging.getLogger('app').#{level}('said %d', 7)"

          :ok = exec(pool, code)
          Py.Output.flush()
        end)

      assert log =~ "said 7"
      assert log =~ "[#{expected}"
    end
  end

  test "99. from threads and coroutines, of any level, with text that is none", %{pool: pool} do
    for {code, text} <- [
          {"import threading\nt = threading.Thread(target=lambda: logging.error('said'))\nt.start(); t.join()",
           "[error] said"},
          {"import asyncio\nawait asyncio.sleep(0)\nlogging.error('said')", "[error] said"},
          {"logging.log(45, 'said')", "[error] said"},
          {"logging.log(10_000, 'said')", "said"},
          {"logging.error('a\\ud800\\0b')", "[error] a"}
        ] do
      log =
        capture_log(fn -> :ok = exec(pool, "import logging\n" <> code) && Py.Output.flush() end)

      assert log =~ text
    end

    broken = "import logging\nlogging.error('x %d', 'no number')\n"
    assert capture_io(:stderr, fn -> :ok = exec(pool, broken) end) =~ "no number"
  end

  @tag :capture_log
  test "99. with file, line and the domain :python", %{pool: pool} do
    Py.LogCollector.attach(self())

    :ok =
      exec(pool, "import logging\n\nlogging.getLogger('app.db').warning('w')", %{},
        file: "app/db.py"
      )

    assert_receive {:log, :warning, "w", metadata}
    Py.LogCollector.detach()

    assert %{domain: [:python], line: 3, file: ~c"app/db.py", gl: leader} = metadata
    assert leader == Process.group_leader()
    assert metadata.python.logger == "app.db"
    assert metadata.python.function == "<module>"
    assert metadata.python.module == "db"
  end

  @tag :capture_log
  test "99. module, function and line are those of the place, the group leader that of the call",
       %{
         pool: pool
       } do
    Py.LogCollector.attach(self())

    code = """
    import asyncio, logging, threading
    log = logging.getLogger("app.places")
    def inner():
        log.error("said")
    async def awaited():
        await asyncio.sleep(0)
        inner()
    """

    for {place, thread} <- [
          {"inner()", nil},
          {"t = threading.Thread(target=inner, name='own'); t.start(); t.join()", "own"},
          {"await awaited()", nil},
          {"await asyncio.to_thread(inner)", nil}
        ] do
      leader = spawn(fn -> Process.sleep(:infinity) end)

      task =
        Task.async(fn ->
          Process.group_leader(self(), leader)
          exec(pool, code <> place, %{}, file: "app/places.py")
        end)

      assert Task.await(task, 20_000) == :ok
      assert_receive {:log, :error, "said", metadata}, 5_000
      assert %{gl: ^leader, line: 4, file: ~c"app/places.py"} = metadata
      assert %{module: "places", function: "inner", logger: "app.places"} = metadata.python
      if thread, do: assert(metadata.python.thread == thread)
      Process.exit(leader, :kill)
    end

    Py.LogCollector.detach()
  end

  test "99. the level of Elixir's Logger filters too", %{pool: pool} do
    Py.LogCollector.attach(self())
    level = Logger.level()
    Logger.configure(level: :error)
    code = "import logging\nlogging.warning('not heard')\nlogging.error('heard')"
    log = capture_log(fn -> exec(pool, code) && Py.Output.flush() end)
    Logger.configure(level: level)
    assert_received {:log, :error, "heard", _metadata}
    refute_received {:log, :warning, "not heard", _metadata}
    Py.LogCollector.detach()
    assert log =~ "heard"
    refute log =~ "not heard"
  end

  test "99. once, however often logging is configured", %{pool: pool} do
    log =
      capture_log(fn ->
        :ok =
          exec(
            pool,
            "import logging\nlogging.basicConfig()\nlogging.basicConfig()\nlogging.warning('once only')"
          )

        Py.Output.flush()
      end)

    assert log |> String.split("once only") |> length() == 2

    again = """
    import importlib, logging, logging.config
    logging.config.dictConfig({"version": 1, "incremental": True, "root": {"level": "INFO"}})
    try: logging.info("once only")
    finally: logging.getLogger().setLevel("WARNING")
    """

    log = capture_log(fn -> :ok = exec(pool, again) && Py.Output.flush() end)
    assert log |> String.split("once only") |> length() == 2
  end

  test "P-D 6. the level can be changed at run time", %{pool: pool} do
    code = "import logging\nlog = logging.getLogger('py.levels')\nlog.info('seen at info')"
    :ok = exec(pool, "import logging\nlogging.getLogger('py.levels').setLevel('WARNING')")
    quiet = capture_log(fn -> exec(pool, code) && Py.Output.flush() end)
    :ok = exec(pool, "import logging\nlogging.getLogger('py.levels').setLevel('INFO')")
    loud = capture_log(fn -> exec(pool, code) && Py.Output.flush() end)
    refute quiet =~ "seen at info"
    assert loud =~ "seen at info"

    assert capture_log([level: :error], fn -> exec(pool, code) && Py.Output.flush() end) == ""
  end

  test "99. an exception in a log has its traceback", %{pool: pool} do
    code =
      "import logging\ntry:\n  1/0\nexcept ZeroDivisionError:\n  logging.exception('it failed')"

    log = capture_log(fn -> exec(pool, code) && Py.Output.flush() end)
    assert log =~ "it failed"
    assert log =~ "ZeroDivisionError"
  end
end
