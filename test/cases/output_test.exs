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
