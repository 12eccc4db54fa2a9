defmodule Py.PreforkTest do
  use ExUnit.Case, async: false

  import ExUnit.CaptureIO
  import ExUnit.CaptureLog
  import Py.Case, only: [eventually: 1]

  alias Py.{Build, Child, Error, Pool}

  setup context do
    %{pool: context.test}
  end

  defp start(pool, options) do
    start_supervised!({Pool, [name: pool, in: :process, size: 2, prefork: true] ++ options})
  end

  defp eval!(pool, code, options \\ []), do: Py.eval!(code, %{}, [on: pool] ++ options)

  defp template(pool), do: eval!(pool, "import os; os.getppid()")

  defp workers(pool),
    do: for(worker <- Pool.info(pool).workers, worker.stage == :ready, do: worker.os_pid)

  # Asks each worker.
  defp everywhere(pool, code) do
    wait = "import time; time.sleep(0.2)\n"
    count = length(workers(pool))

    for _ <- 1..count do
      Task.async(fn -> eval!(pool, wait <> code) end)
    end
    |> Task.await_many()
  end

  defp kill(os_pid, signal \\ "KILL"),
    do: System.cmd("kill", ["-#{signal}", "#{os_pid}"], stderr_to_stdout: true)

  # Neither running nor a zombie.
  defp gone?(os_pid), do: not File.exists?("/proc/#{os_pid}")

  # An orphan is reaped by others, in their time.
  defp ended?(os_pid) do
    case File.read("/proc/#{os_pid}/stat") do
      {:ok, stat} -> stat =~ ~r/\) Z /
      _gone -> true
    end
  end

  defp children(os_pid) do
    "/proc/#{os_pid}/task/#{os_pid}/children"
    |> File.read!()
    |> String.split()
    |> Enum.map(&String.to_integer/1)
    |> Enum.sort()
  end

  defp fds(os_pid), do: length(File.ls!("/proc/#{os_pid}/fd"))

  defp launchers, do: Path.wildcard("/proc/[0-9]*/cmdline") |> Enum.filter(&launcher?/1)

  defp launcher?(file) do
    case File.read(file) do
      {:ok, line} -> line =~ Build.launcher_file() <> "\0fork"
      _gone -> false
    end
  end

  test "init runs once, and the workers are forked from where it ran", %{pool: pool} do
    start(pool, init: "import os; ran = os.getpid()", size: 3)
    assert Pool.info(pool).prefork == :active

    assert [[ran, ran, a], [ran, ran, b], [ran, ran, c]] =
             everywhere(pool, "[ran, os.getppid(), os.getpid()]")

    assert length(Enum.uniq([ran, a, b, c])) == 4
    assert Enum.sort([a, b, c]) == Enum.sort(workers(pool))
    assert children(ran) == Enum.sort([a, b, c])
  end

  test "without it, info says so", %{pool: pool} do
    start(pool, prefork: false, size: 1)
    assert Pool.info(pool).prefork == false
  end

  test "it is for processes" do
    assert_raise ArgumentError, ~r/prefork: of Py.Pool is for pools in: :process/, fn ->
      Pool.start_link(name: :threads, prefork: true)
    end

    assert_raise ArgumentError, ~r/prefork: of Py.Pool must be true or false/, fn ->
      Pool.start_link(name: :processes, in: :process, prefork: 1)
    end
  end

  @tag :tmp_dir
  test "init has paths, env and cd as in a worker", %{pool: pool, tmp_dir: folder} do
    File.write!(Path.join(folder, "only_here.py"), "import os; value = os.environ['PREFORKED']")
    init = "import only_here, os; where = os.getcwd()"
    start(pool, init: init, paths: [folder], env: %{"PREFORKED" => "yes"}, cd: folder)

    assert eval!(pool, "[only_here.value, os.environ['PREFORKED'], 'PY_TOKEN' in os.environ]") ==
             ["yes", "yes", false]

    assert eval!(pool, "[where, os.getcwd()]") == [Path.expand(folder), Path.expand(folder)]
  end

  test "an init that fails fails the start as it does without", %{pool: pool} do
    Process.flag(:trap_exit, true)
    options = [name: pool, in: :process, size: 2, init: "x = 1\n{}['missing']"]
    assert {:error, %Error{kind: :python, type: "KeyError"} = plain} = Pool.start_link(options)
    assert {:error, forked} = Pool.start_link([prefork: true] ++ options)
    assert Exception.message(forked) == Exception.message(plain)
    long = "class Long(Exception): pass\nraise Long('x' * 200_000)"

    assert {:error, %Error{type: "Long", message: message}} =
             Pool.start_link([prefork: true, init: long] ++ Keyword.delete(options, :init))

    assert byte_size(message) >= 100_000
  end

  test "an init that kills its process, or takes too long", %{pool: pool} do
    Process.flag(:trap_exit, true)
    options = [name: pool, in: :process, size: 2, prefork: true]

    assert {:error, %Error{kind: :crashed, exit: {:code, 3}} = error} =
             Pool.start_link([init: "import os; os._exit(3)"] ++ options)

    assert Exception.message(error) =~ ~r/the template process \d+ exited with status 3/
    crash = "import ctypes; ctypes.string_at(0)"

    assert {:error, %Error{kind: :crashed, exit: {:signal, 11}} = error} =
             Pool.start_link([init: crash] ++ options)

    assert Exception.message(error) =~ "Segmentation fault"

    assert {:error, %Error{kind: :timeout}} =
             Pool.start_link([init: "while True: pass", start_timeout: 300] ++ options)

    assert launchers() == []
  end

  test "what init prints goes where it goes without", %{pool: pool} do
    assert capture_io(fn ->
             start(pool, init: "print('from', 'init')\nprint('the end', end='')")
           end) == "from init\nthe end"

    assert capture_io(fn -> eval!(pool, "print('hello')") end) == "hello\n"
  end

  test "what is in a buffer when workers are forked is not written by each", %{pool: pool} do
    log =
      capture_log(fn ->
        start(pool,
          size: 4,
          init:
            "import sys, ctypes\nsys.__stdout__.write('once')\nctypes.CDLL(None).printf(b' a fork\\n')"
        )

        eventually(fn -> Pool.info(pool).prefork == :active end)
        stop_supervised!(pool)
      end)

    assert length(String.split(log, "once")) == 2
    assert length(String.split(log, "a fork")) == 2
  end

  test "workers draw different random numbers", %{pool: pool} do
    init = "import random, numpy; random.seed(1); numpy.random.seed(1)"
    start(pool, init: init, size: 3)
    code = "[random.random(), float(numpy.random.rand()), __import__('uuid').uuid4().hex]"
    numbers = pool |> everywhere(code) |> Enum.concat()
    assert length(Enum.uniq(numbers)) == 9
  end

  test "other generators of numpy stay what they are", %{pool: pool} do
    start(pool,
      init: "import numpy; numpy.random.set_bit_generator(numpy.random.PCG64(1))",
      size: 2
    )

    code = "[type(numpy.random.get_bit_generator()).__name__, numpy.random.rand()]"
    assert [["PCG64", a], ["PCG64", b]] = everywhere(pool, code)
    assert a != b
  end

  test "the ways in which workers end are seen", %{pool: pool} do
    start(pool, size: 1, init: "import os, signal, ctypes")
    template = template(pool)

    for {code, exit} <- [
          {"os._exit(3)", {:code, 3}},
          {"os._exit(0)", {:code, 0}},
          {"ctypes.string_at(0)", {:signal, 11}},
          {"os.abort()", {:signal, 6}},
          {"os.kill(os.getpid(), signal.SIGKILL)", {:signal, 9}},
          {"os.kill(os.getpid(), signal.SIGTERM)", {:signal, 15}},
          {"signal.signal(signal.SIGPIPE, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGPIPE)",
           {:signal, 13}}
        ] do
      assert {:error, %Error{kind: :crashed, exit: ^exit}} = Py.eval(code, %{}, on: pool)
    end

    assert {:error, error} = Py.eval("os.write(2, b'last words'); os._exit(4)", %{}, on: pool)
    assert Exception.message(error) =~ ~r/the worker process \d+ exited with status 4\nlast words/
    assert template(pool) == template
  end

  test "a worker that is killed leaves its siblings and the template alone", %{pool: pool} do
    start(pool, size: 3)
    template = template(pool)
    [victim | siblings] = workers(pool)
    sleeping = for _ <- 1..2, do: Py.async_call(:time, :sleep, [0.5], on: pool)
    kill(victim)
    eventually(fn -> length(workers(pool)) == 3 and victim not in workers(pool) end)
    assert siblings -- workers(pool) == []
    assert template(pool) == template
    assert gone?(victim)
    assert Enum.any?(Py.await_many(sleeping), &match?({:ok, _}, &1))
  end

  test "fifty kills leave nothing behind", %{pool: pool} do
    start(pool, size: 2)
    template = template(pool)
    eventually(fn -> length(workers(pool)) == 2 end)
    before = fds(template)

    for _ <- 1..50 do
      [victim | _] = workers(pool)
      kill(victim)
      eventually(fn -> victim not in workers(pool) and length(workers(pool)) == 2 end)
    end

    eventually(fn -> children(template) == Enum.sort(workers(pool)) end)
    assert template(pool) == template
    assert fds(template) == before
    eventually(fn -> length(launchers()) == 2 end)
    assert Pool.info(pool).restarts == 50
  end

  test "a template that is killed comes back, and the workers go on", %{pool: pool} do
    start(pool, size: 2)
    template = template(pool)
    before = Enum.sort(workers(pool))
    sleeping = Py.async_call(:time, :sleep, [0.6], on: pool)

    log =
      capture_log(fn ->
        kill(template)
        eventually(fn -> Pool.info(pool).prefork == :starting end)
        eventually(fn -> Pool.info(pool).prefork == :active end)
      end)

    assert log =~
             ~r/the template of .* died: .*the template process #{template} was killed by signal 9/

    assert {:ok, nil} = Py.await(sleeping)
    assert Enum.sort(workers(pool)) == before
    # Nobody can tell any more how this one ended.
    capture_log(fn ->
      assert {:error, %Error{kind: :crashed} = error} =
               Py.eval("import os; os._exit(0)", %{}, on: pool)

      assert Exception.message(error) =~ "the worker ended after its template"

      eventually(fn ->
        Enum.any?(everywhere(pool, "import os; os.getppid()"), &(&1 != 1 and &1 != template))
      end)
    end)
  end

  test "a template that keeps dying is waited for", %{pool: pool} do
    start(pool, size: 1)

    capture_log(fn ->
      for _ <- 1..4 do
        template = template(pool)
        kill(template)
        kill(hd(workers(pool)))
        assert eval!(pool, "1") == 1
        assert Pool.info(pool).prefork == :active
        refute template(pool) == template
      end
    end)
  end

  test "threads after init: workers are started the plain way, and Logger says so once", %{
    pool: pool
  } do
    init =
      "import threading, time, os\nthreading.Thread(target=time.sleep, args=(600,), name='tick-tock', daemon=True).start()\nran = os.getpid()"

    log = capture_log(fn -> start(pool, init: init, size: 2) end)

    assert log =~
             ~r/each worker of .* runs init: by itself, in spite of prefork: true, since .* threads.*: tick-tock/

    assert length(String.split(log, "tick-tock")) == 2
    assert {:off, why} = Pool.info(pool).prefork
    assert why =~ "tick-tock"
    assert Enum.all?(everywhere(pool, "ran == os.getpid()"))
    kill(hd(workers(pool)))
    eventually(fn -> length(workers(pool)) == 2 end)
    assert {:off, ^why} = Pool.info(pool).prefork
  end

  test "an init that awaits has a loop, which is a thread", %{pool: pool} do
    capture_log(fn ->
      start(pool, init: "import asyncio\nawait asyncio.sleep(0.01)\nx = 7", size: 1)
    end)

    assert {:off, _why} = Pool.info(pool).prefork
    assert eval!(pool, "x") == 7
  end

  test "threads that end when a process is forked are no obstacle", %{pool: pool} do
    # OpenBLAS has threads of its own.
    start(pool,
      init: "import numpy; product = numpy.ones((500, 500)) @ numpy.ones((500, 500))",
      size: 2
    )

    assert Pool.info(pool).prefork == :active
    assert eval!(pool, "float((product @ product)[0, 0])") == 500.0 * 500.0 * 500.0
  end

  test "forked workers do what workers do", %{pool: pool} do
    start(pool,
      size: 1,
      concurrency: 4,
      init: "import asyncio, os, sys, subprocess, threading, multiprocessing"
    )

    assert eval!(pool, "await asyncio.sleep(0.01, 5)") == 5
    assert eval!(pool, "subprocess.run(['sh', '-c', 'exit 3']).returncode") == 3
    assert eval!(pool, "sys.stdin.buffer if False else os.read(0, 1)") == ""
    big = :crypto.strong_rand_bytes(1_000_000)
    assert Py.call!(:builtins, :bytes, [Py.bytes(big)], on: pool) == big

    assert {:error, %Error{kind: :timeout}} =
             Py.eval("while True: pass", %{}, on: pool, timeout: 100)

    assert {:error, %Error{kind: :timeout}} = Py.call(:time, :sleep, [60], on: pool, timeout: 100)
    futures = for _ <- 1..4, do: Py.async_call(:time, :sleep, [0.3], on: pool)
    eventually(fn -> match?({:ok, [_ | _]}, Pool.stacktrace(pool)) end)
    assert Enum.all?(Py.await_many(futures), &match?({:ok, nil}, &1))

    assert eval!(
             pool,
             "pid = os.fork()\nif pid == 0: os._exit(7)\nos.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])"
           ) == 7

    assert eval!(pool, "os.getpgid(0) == os.getsid(0) == os.getpid()")
    assert eval!(pool, "multiprocessing.get_context('fork').Pool(1).map(abs, [-3])") == [3]
  end

  test "resize, and recycling by calls", %{pool: pool} do
    start(pool, size: 1, max_calls: 20)
    template = template(pool)
    [first] = workers(pool)
    :ok = Pool.resize(pool, 3)
    eventually(fn -> length(workers(pool)) == 3 end)
    :ok = Pool.resize(pool, 1)
    eventually(fn -> length(workers(pool)) == 1 end)
    for n <- 1..100, do: assert(eval!(pool, "#{n}") == n)
    eventually(fn -> eval!(pool, "import os; os.getpid()") != first end)
    assert template(pool) == template
    eventually(fn -> children(template) == workers(pool) end)
  end

  test "a limit of memory holds in init and in workers", %{pool: pool} do
    Process.flag(:trap_exit, true)
    options = [name: pool, in: :process, size: 1, prefork: true, memory_limit: 1_500_000_000]

    assert {:error, %Error{type: "MemoryError"}} =
             Pool.start_link([init: "x = bytearray(2_000_000_000)"] ++ options)

    start(pool, Keyword.drop(options, [:name, :in]))

    assert {:error, %Error{type: "MemoryError"}} =
             Py.eval("bytearray(2_000_000_000); 1", %{}, on: pool)

    assert eval!(pool, "1") == 1
  end

  test "a lazy pool has no template until it is called", %{pool: pool} do
    start(pool, lazy: true, init: "import os; ran = os.getpid()")
    assert Pool.info(pool).prefork == :starting
    assert Pool.info(pool).workers == []
    assert eval!(pool, "ran == os.getppid()")
    assert Pool.info(pool).prefork == :active
  end

  test "a pool that stops leaves nothing", %{pool: pool} do
    start(pool, size: 3)
    all = [template(pool) | workers(pool)]
    Py.async_call(:time, :sleep, [60], on: pool)
    stop_supervised!(pool)
    eventually(fn -> Enum.all?(all, &gone?/1) end)
    eventually(fn -> launchers() == [] end)
  end

  test "workers share what init has loaded", %{pool: pool} do
    start(pool, size: 4, init: "import numpy; model = numpy.ones(25_000_000)")
    assert Enum.all?(everywhere(pool, "float(model.sum()) == 25e6"))
    all = [template(pool) | workers(pool)]
    assert Enum.sum(Enum.map(all, &pss/1)) < 400_000_000
  end

  defp pss(os_pid) do
    [_, kilobytes] = Regex.run(~r/^Pss:\s+(\d+) kB$/m, File.read!("/proc/#{os_pid}/smaps_rollup"))
    String.to_integer(kilobytes) * 1024
  end

  for {name, init, busy} <- [
        {"idle", "", "nil"},
        {"in a loop", "",
         "for _ <- 1..3, do: Py.async_call(:__main__, :loop, [], on: P, timeout: :infinity)"},
        {"in C that keeps the GIL", "",
         "for _ <- 1..3, do: Py.async_call(:__main__, :stuck, [], on: P, timeout: :infinity)"}
      ] do
    @tag code: {init, busy}
    test "kill -9 of the BEAM while workers are #{name}", %{code: {init, busy}} do
      result =
        Child.run(
          """
          {:ok, _} = Application.ensure_all_started(:py)
          init = "import os, re\\ndef loop():\\n  while True: pass\\ndef stuck(): re.match('(a*)*b', 'a' * 40)\\n#{init}"
          {:ok, _} = Py.Pool.start_link(name: P, in: :process, size: 3, prefork: true, init: init)
          template = Py.eval!("os.getppid()", %{}, on: P)
          #{busy}
          Process.sleep(200)
          pids = [template | Enum.map(Py.Pool.info(P).workers, & &1.os_pid)]
          IO.puts("pids " <> Enum.join(pids, " ") <> ".")
          IO.puts("ready")
          Process.sleep(:infinity)
          """,
          &kill/1
        )

      [_, pids] = Regex.run(~r/pids ([\d ]+)\./, result.output)
      pids = pids |> String.split() |> Enum.map(&String.to_integer/1)
      assert length(pids) == 4
      Process.sleep(1000 - min(result.ms, 900))
      assert Enum.reject(pids, &ended?/1) == []
      assert launchers() == []
    end
  end

  test "kill -9 of the BEAM while the template is in an init that keeps the GIL" do
    folder = Path.join(System.tmp_dir!(), "py_prefork_#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm(folder) end)

    Child.run(
      """
      {:ok, _} = Application.ensure_all_started(:py)
      init = "import os, re\\nopen('#{folder}', 'w').write(str(os.getpid()))\\nre.match('(a*)*b', 'a' * 40)"
      spawn(fn -> Py.Pool.start_link(name: P, in: :process, prefork: true, init: init) end)
      wait = fn wait -> if match?({:ok, <<_, _::binary>>}, File.read("#{folder}")), do: :ok, else: wait.(wait) end
      wait.(wait)
      Process.sleep(200)
      IO.puts("ready")
      Process.sleep(:infinity)
      """,
      &kill/1
    )

    template = folder |> File.read!() |> String.to_integer()
    Process.sleep(900)
    assert ended?(template)
  end
end
