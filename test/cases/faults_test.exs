defmodule Py.Cases.FaultsTest do
  # P-B, and of P-A and P-D what is about the life of worker processes: whatever one does, it costs its own call.
  use Py.Case, on: [:process]

  alias Py.Processes

  @moduletag :capture_log

  defp workers(pool), do: Py.Pool.info(pool).workers
  defp os_pids(pool), do: for(worker <- workers(pool), do: worker.os_pid)
  defp serving(pool), do: Enum.count(workers(pool), &(&1.stage == :ready))
  defp running(pool, count), do: eventually(fn -> Py.Pool.info(pool).running == count end)

  # Every worker is another than before, and serves.
  defp replaced(pool, before) do
    eventually(fn ->
      serving(pool) == length(before) and os_pids(pool) -- before == os_pids(pool)
    end)
  end

  defp async(pool, code, options \\ []),
    do: Task.async(fn -> exec(pool, code, %{}, Keyword.merge([timeout: :infinity], options)) end)

  # Appends a line to a file, as one write: what ran, and how often.
  @note """
  import os
  def note(path, text):
      fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
      os.write(fd, (str(text) + "\\n").encode())
      os.close(fd)
      return text
  """

  defp file(%{tmp_dir: dir}), do: Path.join(dir, "notes")

  defp notes(file) do
    case File.read(file) do
      {:ok, text} -> String.split(text, "\n", trim: true)
      {:error, :enoent} -> []
    end
  end

  # --- ends of a worker ---------------------------------------------------------------------------

  @tag pool: [size: 2]
  test "P-B 7. an idle worker that is killed is replaced, and no caller sees an error", %{
    pool: pool
  } do
    before = os_pids(pool)

    callers =
      for _ <- 1..4,
          do: Task.async(fn -> for n <- 1..300, do: eval(pool, "n", %{n: n}) == {:ok, n} end)

    Task.await_many(callers, 60_000)
    Process.sleep(50)
    Enum.each(before, &Processes.signal(&1, 9))
    assert Enum.all?(for n <- 1..100, do: eval(pool, "n", %{n: n}) == {:ok, n})
    replaced(pool, before)
    assert Py.Pool.info(pool).restarts == 2
  end

  @tag pool: [size: 2]
  test "P-B 7. kill -9 in the middle of a call is told to its caller alone, within 100 ms", %{
    pool: pool
  } do
    code = "import erlang, time; erlang.send(pid, b'begun'); time.sleep(2)"
    me = self()

    sleeps =
      for _ <- 1..2,
          do:
            Task.async(fn ->
              {exec(pool, code, %{pid: me}), System.monotonic_time(:millisecond)}
            end)

    for _ <- 1..2, do: assert_receive("begun", 5_000)
    [victim | _] = os_pids(pool)
    start = System.monotonic_time(:millisecond)
    Processes.signal(victim, 9)
    results = Task.await_many(sleeps)
    assert [{{:error, error}, time}] = Enum.filter(results, &match?({{:error, _}, _}, &1))
    assert %{kind: :crashed, exit: {:signal, 9}} = error
    assert error.message =~ "the worker process #{victim} was killed by signal 9 (SIGKILL)"
    assert time - start < 100
    assert [{:ok, _}] = results -- [{{:error, error}, time}]
  end

  @tag :tmp_dir
  @tag pool: [size: 2, init: @note]
  test "P-B 7. the calls behind the one that is killed run elsewhere, each once",
       %{pool: pool} = context do
    file = file(context)

    for round <- 1..5 do
      File.rm(file)
      pids = os_pids(pool)
      eventually(fn -> serving(pool) == 2 end)
      killer = "note(path, -1); os.kill(os.getpid(), 9)"
      futures = for n <- 1..400, do: Py.async_call(:__main__, :note, [file, n], on: pool)
      crash = async(pool, "path = #{inspect(file)}\n" <> killer)
      more = for n <- 401..800, do: Py.async_call(:__main__, :note, [file, n], on: pool)
      results = Py.await_many(futures ++ more, 20_000)
      assert %{kind: :crashed, exit: {:signal, 9}} = error(Task.await(crash))

      assert Enum.all?(results, &match?({:ok, _}, &1)),
             inspect({round, Enum.frequencies_by(results, &elem(&1, 0))})

      assert Enum.sort(notes(file)) == Enum.sort(["-1" | Enum.map(1..800, &to_string/1)])
      eventually(fn -> serving(pool) == 2 and os_pids(pool) != pids end)
    end
  end

  @tag :tmp_dir
  @tag pool: [size: 1, concurrency: 120, init: @note <> "\nimport time"]
  test "as many threads as a worker may have: nothing runs twice", %{pool: pool} = context do
    file = file(context)
    code = "note(path, n); time.sleep(600)"

    futures =
      for n <- 1..120,
          do: Task.async(fn -> exec(pool, code, %{path: file, n: n}, timeout: 60_000) end)

    eventually(fn -> length(notes(file)) == 120 end)
    Processes.signal(hd(os_pids(pool)), 9)
    assert Enum.all?(Task.await_many(futures, 20_000), &match?({:error, %{kind: :crashed}}, &1))
    assert eval(pool, "1") == {:ok, 1}
    assert length(notes(file)) == 120
  end

  @ends %{
    "a null pointer" =>
      {"import ctypes; ctypes.string_at(0)", {:signal, 11},
       ["SIGSEGV", "Segmentation fault", "string_at"]},
    "abort" => {"import os; os.abort()", {:signal, 6}, ["SIGABRT", "Aborted"]},
    "SIGILL" =>
      {"import os, signal; os.kill(os.getpid(), signal.SIGILL)", {:signal, 4},
       ["SIGILL", "Illegal instruction"]},
    "SIGBUS" =>
      {"import os, signal; os.kill(os.getpid(), signal.SIGBUS)", {:signal, 7},
       ["SIGBUS", "Bus error"]},
    "SIGFPE" =>
      {"import os, signal; os.kill(os.getpid(), signal.SIGFPE)", {:signal, 8},
       ["SIGFPE", "Floating point exception"]},
    "SIGALRM without a handler" =>
      {"import signal, time; signal.alarm(1); time.sleep(5)", {:signal, 14}, ["SIGALRM"]},
    "SIGTERM" =>
      {"import os, signal, time; os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)",
       {:signal, 15}, ["SIGTERM"]},
    "os._exit(0)" => {"import os; os._exit(0)", {:code, 0}, ["exited with status 0"]},
    "os._exit(3)" =>
      {"import os; os.write(2, b'last words'); os._exit(3)", {:code, 3},
       ["exited with status 3", "last words"]},
    "os._exit in a thread" =>
      {"import os, threading, time; threading.Thread(target=os._exit, args=(5,)).start(); time.sleep(5)",
       {:code, 5}, []},
    "the control socket closed" =>
      {"import os, time; os.shutdown = None; import socket; socket.socket(fileno=5).shutdown(2); time.sleep(5)",
       {:signal, 9}, []},
    "exec" => {"import os; os.execv('/bin/false', ['false'])", {:code, 1}, []}
  }

  for {name, {code, exit, words}} <- @ends do
    @tag code: code, exit: exit, words: words
    test "P-B 9, 16. #{name} is an error of that call, and the worker is replaced",
         %{pool: pool} = context do
      before = os_pids(pool)
      {ms, result} = timed(fn -> exec(pool, context.code) end)
      assert %{kind: :crashed, exit: exit, message: message} = error(result)
      assert exit == context.exit
      # From Python 3.12 on a "Floating-point exception" has a hyphen.
      message = String.replace(message, "Floating-point", "Floating point")
      for word <- context.words, do: assert(message =~ word)
      assert ms < 15_000
      assert eval(pool, "1+1") == {:ok, 2}
      replaced(pool, before)
      assert Processes.gone(before) < 10_000
    end
  end

  # The call itself has ended well, and its answer is in the memory that the dead worker leaves.
  for {name, code} <- [
        all: "import os; os.closerange(0, 100)",
        answers: "import os; os.close(4)",
        requests: "import os; os.close(3)"
      ] do
    @tag code: code
    test "closing its descriptors (#{name}) ends a worker, and no call waits for ever", %{
      pool: pool,
      code: code
    } do
      before = os_pids(pool)
      result = exec(pool, code)
      assert result == :ok or match?(%{kind: :crashed, exit: {:signal, _}}, error(result))

      for _ <- 1..20,
          do: assert(match?({:ok, 1}, eval(pool, "1")) or error(eval(pool, "1")).kind == :crashed)

      replaced(pool, before)
      assert Processes.gone(before) < 10_000
      assert eval(pool, "1") == {:ok, 1}
    end
  end

  test "sys.exit in a thread, and in the call, ends neither worker nor pool", %{pool: pool} do
    before = os_pids(pool)

    assert :ok =
             exec(
               pool,
               "import sys, threading\nt = threading.Thread(target=sys.exit, args=(3,)); t.start(); t.join()"
             )

    assert error(exec(pool, "import sys; sys.exit(3)")).type == "SystemExit"
    assert error(exec(pool, "raise KeyboardInterrupt")).type == "KeyboardInterrupt"
    assert eval(pool, "1+1") == {:ok, 2}
    assert os_pids(pool) == before
  end

  test "what a worker had started ends with it", %{pool: pool} do
    before = os_pids(pool)

    code = """
    import multiprocessing, os, subprocess, time
    subprocess.Popen(["/bin/sleep", "600"])
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,)).start()
    """

    for crash <- ["os._exit(1)", "os.kill(os.getpid(), 9)"] do
      [pid] = before = os_pids(pool)
      assert :ok = exec(pool, code)
      assert length(Processes.in_group(pid)) >= 3
      assert error(exec(pool, "import os; " <> crash)).kind == :crashed
      assert Processes.gone(before) < 10_000
    end

    replaced(pool, before)
  end

  @tag pool: [size: 2]
  test "K1. a null pointer under load: one error, and the size is back", %{pool: pool} do
    me = self()

    load =
      spawn_link(fn ->
        Stream.repeatedly(fn -> eval(pool, "1") end)
        |> Stream.each(&if(&1 != {:ok, 1}, do: send(me, &1)))
        |> Stream.run()
      end)

    Process.sleep(200)
    assert %{exit: {:signal, 11}} = error(exec(pool, "import ctypes; ctypes.string_at(0)"))
    {ms, _} = timed(fn -> eventually(fn -> serving(pool) == 2 end) end)
    Process.unlink(load)
    Process.exit(load, :kill)
    refute_received {:error, _}
    assert ms < 15_000
  end

  # --- limits -------------------------------------------------------------------------------------

  @tag pool: [memory_limit: 1_500_000_000]
  test "P-B 11. beyond memory_limit: Python raises MemoryError, and the worker goes on", %{
    pool: pool
  } do
    before = os_pids(pool)
    for _ <- 1..3, do: assert(error(eval(pool, "b'x' * 4_000_000_000")).type == "MemoryError")
    assert error(eval(pool, "list(range(10 ** 9))")).type == "MemoryError"
    assert eval(pool, "1+1") == {:ok, 2}
    assert {:ok, text} = eval(pool, "'x' * 1_000_000")
    assert byte_size(text) == 1_000_000
    assert os_pids(pool) == before
  end

  @tag pool: [grace: 300, size: 2]
  test "code that takes no notice of the interrupt is killed after grace; its caller has the timeout at the deadline",
       %{pool: pool} do
    before = os_pids(pool)
    # No signal is looked at in there.
    code = "sum(range(10 ** 15))"
    beside = async(pool, "import time; time.sleep(1.2)", timeout: 5_000)
    running(pool, 1)
    {ms, result} = timed(fn -> exec(pool, code, %{}, timeout: 300) end)
    assert error(result).kind == :timeout
    assert ms in 290..5_000
    assert Task.await(beside) == :ok
    eventually(fn -> length(os_pids(pool) -- before) == 1 and serving(pool) == 2 end)
  end

  @tag pool: [grace: 300]
  test "a worker that is stopped is killed after the deadline, grace and a second", %{pool: pool} do
    before = os_pids(pool)

    sleep =
      Task.async(fn -> timed(fn -> call(pool, :time, :sleep, [60], [], timeout: 500) end) end)

    running(pool, 1)
    Enum.each(before, &Processes.signal(&1, 19))
    {ms, result} = timed(fn -> eval(pool, "1", %{}, timeout: 200) end)
    assert error(result).kind == :timeout
    assert ms in 190..5_000
    {ms, result} = Task.await(sleep)
    assert error(result).kind == :timeout
    assert ms in 490..10_000
    {ms, :ok} = timed(fn -> replaced(pool, before) end)
    assert ms < 15_000
    assert Processes.gone(before) < 10_000
    assert eval(pool, "1") == {:ok, 1}
    assert %{running: 0, queued: 0} = Py.Pool.info(pool)
  end

  @tag pool: [grace: 200]
  test "a worker that is stopped takes in nothing that holds up its pool", %{pool: pool} do
    before = os_pids(pool)
    Enum.each(before, &Processes.signal(&1, 19))
    text = String.duplicate("x", 30_000)
    # Each is cancelled, so that none of them has a time at which it is over.
    for _ <- 1..200 do
      future = Py.async_call(:builtins, :len, [text], on: pool, timeout: :infinity)
      {ms, :ok} = timed(fn -> Py.cancel(future) end)
      assert ms < 15_000
    end

    assert %{workers: [_ | _]} = Py.Pool.info(pool)
    replaced(pool, before)
    assert eval(pool, "1") == {:ok, 1}
    assert Processes.gone(before) < 10_000
  end

  test "a pool ends a worker that is stopped", %{pool: pool} do
    before = os_pids(pool)
    Enum.each(before, &Processes.signal(&1, 19))
    stop_supervised!(pool)
    assert Processes.gone(before) < 10_000
  end

  # --- output -------------------------------------------------------------------------------------

  @garbage %{
    "text without lines" => "b'x' * 10_000_000",
    "lines" => "b'a line of output\\n' * 600_000",
    "bytes" => "bytes(range(256)) * 40_000",
    "half of UTF-8" => "'é'.encode() * 3_000_000 + b'\\xc3'",
    "ANSI" => "b'\\x1b[31mred\\x1b[0m\\x07\\r\\n' * 500_000",
    "NUL" => "b'\\0' * 10_000_000"
  }

  for {name, bytes} <- @garbage, fd <- [1, 2] do
    @tag bytes: bytes, fd: fd
    test "P-B 13. 10 MB of #{name} on descriptor #{fd} trouble no call",
         %{pool: pool, pool_pid: pid} = context do
      before = os_pids(pool)

      code = """
      import os
      data = memoryview(#{context.bytes})
      while data: data = data[os.write(#{context.fd}, data[:65536]):]
      """

      log =
        ExUnit.CaptureLog.capture_log(fn ->
          assert exec(pool, code) == :ok
          for n <- 1..100, do: assert(eval(pool, "n", %{n: n}) == {:ok, n})
          assert eval(pool, "'é日'") == {:ok, "é日"}
          Process.sleep(50)
        end)

      assert byte_size(log) < 8_000_000
      assert length(String.split(log, "\n")) < 5_000
      :erlang.garbage_collect(pid)
      {:memory, memory} = Process.info(pid, :memory)
      assert memory < 3_000_000
      assert os_pids(pool) == before
    end
  end

  test "P-B 13. what is printed past Python arrives in Logger, so much a second, and how much did not",
       %{pool: pool} do
    log =
      ExUnit.CaptureLog.capture_log(fn ->
        assert exec(pool, "import os\nfor n in range(1000): os.write(1, b'line %d\\n' % n)") ==
                 :ok

        Process.sleep(1_200)
        assert exec(pool, "import os; os.write(2, b'the last\\n')") == :ok
        eventually(fn -> true end)
        Process.sleep(100)
      end)

    assert log =~ "line 0"
    assert log =~ "line 150"
    refute log =~ "line 999"
    assert log =~ ~r/\d+ more lines were printed/
    assert log =~ "the last"
  end

  # --- failing to start ---------------------------------------------------------------------------

  @tag :tmp_dir
  test "P-B 17. a worker that fails every time is tried less and less often; other pools are fine",
       %{pool: other} = context do
    marker = Path.join(context.tmp_dir, "fails")
    tries = Path.join(context.tmp_dir, "tries")

    init = """
    import os
    with open(#{inspect(tries)}, "a") as file: file.write("try\\n")
    if os.path.exists(#{inspect(marker)}): raise RuntimeError("the model is gone")
    """

    pid = start_supervised!({Py.Pool, name: :py_failing, in: :process, size: 2, init: init})
    File.write!(marker, "")
    start_tries = length(notes(tries))
    before = os_pids(:py_failing)
    Enum.each(before, &Processes.signal(&1, 9))
    queued = Py.async_call(:math, :sqrt, [4], on: :py_failing, timeout: 20_000)
    {ms, result} = timed(fn -> Py.await(queued) end)
    assert %{type: "RuntimeError", message: "the model is gone"} = error(result)
    assert ms < 15_000
    Process.sleep(3_000)
    assert length(notes(tries)) - start_tries <= 2 * 6
    info = Py.Pool.info(:py_failing)
    assert %{last_failure: %{type: "RuntimeError"}, workers: []} = info
    late = error(eval(:py_failing, "1", %{}, timeout: 50))
    assert late.kind == :timeout and late.message =~ "the model is gone"
    assert Process.alive?(pid)
    assert eval(other, "1") == {:ok, 1}

    File.rm!(marker)
    assert eval(:py_failing, "1") == {:ok, 1}
    eventually(fn -> serving(:py_failing) == 2 end)
  end

  @tag :tmp_dir
  test "P-B 17. a worker that crashes in init, or as soon as it serves, does so in no storm", %{
    tmp_dir: dir
  } do
    for {code, name} <- [
          {"os.abort()", :py_crashing},
          {"threading.Timer(0.05, os.abort).start()", :py_late}
        ] do
      {marker, tries} = {Path.join(dir, "#{name}"), Path.join(dir, "tries_#{name}")}

      init = """
      import os, threading
      with open(#{inspect(tries)}, "a") as file: file.write("try\\n")
      if os.path.exists(#{inspect(marker)}): #{code}
      """

      pid = start_supervised!({Py.Pool, name: name, in: :process, size: 1, init: init})
      File.write!(marker, "")
      Enum.each(os_pids(name), &Processes.signal(&1, 9))
      Process.sleep(3_000)
      assert length(notes(tries)) in 3..12
      assert %{last_failure: %{kind: :crashed, exit: {:signal, 6}}} = Py.Pool.info(name)
      assert Process.whereis(name) == pid
      File.rm!(marker)
      assert eval(name, "1", %{}, timeout: 20_000) == {:ok, 1}
    end
  end

  test "P-A 16. what cannot start says so: init, the folder, the interpreter" do
    Process.flag(:trap_exit, true)

    start = fn options ->
      Py.Pool.start_link([name: :py_refused, in: :process, size: 1] ++ options)
    end

    {ms, result} = timed(fn -> start.(init: "x = 1\nraise ValueError('no model')") end)
    assert %{type: "ValueError", traceback: [%{line: 2}]} = error(result)
    assert ms < 15_000
    assert %{kind: :crashed, exit: {:code, 3}} = error(start.(init: "import os; os._exit(3)"))

    assert %{kind: :crashed, exit: {:signal, 11}, message: message} =
             error(start.(init: "import ctypes; ctypes.string_at(0)"))

    assert message =~ "Segmentation fault"
    assert %{message: message} = error(start.(cd: "/nowhere"))
    assert message =~ "/nowhere"
    assert %{kind: :not_available, message: message} = error(start.(python: "/nowhere/python"))
    assert message =~ "/nowhere/python"

    {ms, result} =
      timed(fn -> start.(init: "import time; time.sleep(60)", start_timeout: 300) end)

    assert error(result).kind in [:timeout, :starting]
    assert ms < 15_000
  end

  # --- P-A 14 to 18, P-D 1 ------------------------------------------------------------------------

  @tag :tmp_dir
  test "P-A 14. env, cd and python are each pool's own", %{tmp_dir: dir} do
    venv = Path.join(dir, "venv")
    {_, 0} = System.cmd("python3", ["-m", "venv", "--without-pip", venv])

    start_supervised!(
      {Py.Pool,
       name: :py_one,
       in: :process,
       size: 1,
       env: %{"PY_KIND" => "one"},
       cd: dir,
       paths: ["/only/one"]}
    )

    start_supervised!(
      {Py.Pool, name: :py_two, in: :process, size: 1, env: %{"PY_KIND" => "two"}, python: venv}
    )

    code =
      "import os, sys; (os.environ['PY_KIND'], os.getcwd(), sys.prefix, sys.executable, '/only/one' in sys.path)"

    {:ok, {"one", cwd, prefix, executable, true}} = eval(:py_one, code)
    assert cwd == dir
    assert {:ok, {"two", other, ^venv, other_executable, false}} = eval(:py_two, code)
    assert other == File.cwd!()
    assert prefix != venv

    assert Path.dirname(other_executable) == Path.join(venv, "bin") and
             executable != other_executable

    refute System.get_env("PY_KIND")
  end

  test "P-A 16. await_ready waits for init; a call before that waits too" do
    init = "import time; time.sleep(0.7)"

    starter =
      spawn_link(fn ->
        {:ok, _} = Py.Pool.start_link(name: :py_slow, in: :process, size: 2, init: init)
        Process.sleep(:infinity)
      end)

    eventually(fn -> Py.Pool.lookup(:py_slow) == :starting end)
    assert %{kind: :starting} = error(Py.Pool.await_ready(:py_slow, 50))
    {ms, result} = timed(fn -> Py.Pool.await_ready(:py_slow, 5_000) end)
    assert result == :ok
    assert ms in 300..4_900
    assert eval(:py_slow, "1") == {:ok, 1}
    Process.unlink(starter)
    GenServer.stop(:py_slow)
  end

  @tag pool: [lazy: true, size: 2]
  test "P-A 17. a lazy pool starts its workers with the first call", %{pool: pool} do
    assert %{workers: [], size: 2} = Py.Pool.info(pool)
    assert Py.Pool.await_ready(pool) == :ok
    assert os_pids(pool) == []
    assert eval(pool, "1+1") == {:ok, 2}
    eventually(fn -> serving(pool) == 2 end)
  end

  test "P-A 17. the first call of a lazy pool whose init raises is told that" do
    start_supervised!(
      {Py.Pool, name: :py_lazy, in: :process, size: 1, lazy: true, init: "raise ValueError('no')"}
    )

    assert %{type: "ValueError"} = error(eval(:py_lazy, "1"))

    assert eval(:py_lazy, "1", %{}, timeout: 5_000) |> error() |> Map.fetch!(:type) ==
             "ValueError"
  end

  # Calls from several processes until they are told to stop; what was not as it should be.
  defp under_load(pool, fun, callers \\ 6) do
    stop = :atomics.new(1, [])

    tasks =
      for id <- 1..callers do
        Task.async(fn ->
          Stream.repeatedly(fn ->
            n = :rand.uniform(1000)

            {n,
             if(rem(n, 50) == 0,
               do: eval(pool, "import time; time.sleep(0.02); n", %{n: n}),
               else: eval(pool, "n", %{n: n})
             )}
          end)
          |> Stream.take_while(fn _ -> :atomics.get(stop, 1) == 0 end)
          |> Enum.reduce({id, 0, []}, fn {n, result}, {id, count, wrong} ->
            {id, count + 1, if(result == {:ok, n}, do: wrong, else: [result | wrong])}
          end)
        end)
      end

    fun.()
    :atomics.put(stop, 1, 1)
    results = Task.await_many(tasks, 30_000)
    assert Enum.flat_map(results, &elem(&1, 2)) == []
    results |> Enum.map(&elem(&1, 1)) |> Enum.sum()
  end

  @tag pool: [size: 2]
  test "P-A 18. resized under load, 2 to 6 to 1 and on, no call fails", %{pool: pool} do
    under_load(pool, fn ->
      for size <- [6, 1, 3, 2, 4, 1] do
        assert Py.Pool.resize(pool, size) == :ok
        eventually(fn -> serving(pool) == size end)
        Process.sleep(50)
        assert length(workers(pool)) <= 6
      end

      # Those that are not there yet are not needed any more.
      for size <- [5, 1, 6, 1, 2], do: Py.Pool.resize(pool, size)
      eventually(fn -> serving(pool) == 2 and length(workers(pool)) == 2 end)
    end)

    Process.sleep(1_500)
    assert length(workers(pool)) == 2
  end

  for {name, options} <- [
        max_calls: [max_calls: 300],
        max_lifetime: [max_lifetime: 700],
        max_memory: [max_memory: 10_000_000]
      ] do
    @tag pool: [size: 2] ++ options
    test "P-D 1. replaced by #{name}: under load, no call is lost", %{pool: pool} do
      before = os_pids(pool)

      calls =
        under_load(pool, fn ->
          eventually(fn -> before -- os_pids(pool) == before end, 1_500)
          Process.sleep(1_000)
          assert serving(pool) in 1..2
        end)

      assert calls > 100
      assert Py.Pool.info(pool).restarts == 0
      eventually(fn -> Processes.in_group(hd(before)) == [] end)
    end
  end

  # --- the pool process ---------------------------------------------------------------------------

  @tag pool: [size: 2]
  test "the process of a pool is killed: callers hear of it, workers end, the supervisor starts it again",
       context do
    %{pool: pool, pool_pid: pid} = context
    before = os_pids(pool)

    callers =
      for _ <- 1..6, do: Task.async(fn -> timed(fn -> call(pool, :time, :sleep, [60]) end) end)

    running(pool, 2)
    Process.exit(pid, :kill)

    for {ms, result} <- Task.await_many(callers) do
      assert error(result).kind == :stopped
      assert ms < 15_000
    end

    assert Processes.gone(before) < 10_000
    eventually(fn -> Process.whereis(pool) not in [nil, pid] end)
    assert eval(pool, "1") == {:ok, 1}
    replaced(pool, before)
  end

  test "the reception of workers is killed: pools go on, and new workers come", %{
    pool: pool,
    pool_pid: pid
  } do
    before = os_pids(pool)
    Process.exit(Process.whereis(Py.Reception), :kill)
    assert eval(pool, "1") == {:ok, 1}
    eventually(fn -> Process.whereis(Py.Reception) != nil end)
    Enum.each(before, &Processes.signal(&1, 9))
    assert eval(pool, "1") == {:ok, 1}
    replaced(pool, before)
    assert Process.whereis(pool) == pid
  end

  test "a stranger at the door of the workers is let in nowhere", %{pool: pool} do
    name = :persistent_term.get(Py.Reception)

    connect = fn ->
      :gen_tcp.connect({:local, <<0, name::binary>>}, 0, [:binary, active: false])
    end

    strangers = for _ <- 1..50, do: elem(connect.(), 1)
    greeting = String.duplicate("0", 32) <> " control\n"

    for {socket, n} <- Enum.with_index(strangers),
        rem(n, 2) == 0,
        do: :gen_tcp.send(socket, greeting)

    Enum.each(os_pids(pool), &Processes.signal(&1, 9))
    assert eval(pool, "1") == {:ok, 1}
    assert {:error, :closed} = :gen_tcp.recv(hd(strangers), 0, 2_000)
    Enum.each(strangers, &:gen_tcp.close/1)
  end
end
