defmodule Py.Cases.NodeTest do
  # CASES.md 96, 98, 44, P-A 20: the operating system, the VM around Python, and what a call leaves behind.
  use Py.Case, on: [:thread, :process]

  test "96. subprocess works and has the right exit status", %{pool: pool} do
    assert eval(
             pool,
             "import subprocess\nsubprocess.run(['/bin/echo', 'hi'], capture_output=True).stdout"
           ) == {:ok, "hi\n"}

    assert eval(pool, "import subprocess\nsubprocess.run(['/bin/sh', '-c', 'exit 3']).returncode") ==
             {:ok, 3}

    assert eval(pool, "import os\nos.waitstatus_to_exitcode(os.system('exit 4'))") == {:ok, 4}

    code =
      "import asyncio\np = await asyncio.create_subprocess_exec('/bin/sh', '-c', 'exit 5')\nawait p.wait()"

    assert eval(pool, code) == {:ok, 5}
  end

  test "96. a hundred children are reaped, and Ports go on working", %{pool: pool} do
    code =
      "import subprocess\n[subprocess.run(['/bin/true']).returncode for _ in range(100)] == [0] * 100"

    assert eval(pool, code) == {:ok, true}
    assert {"hi\n", 3} = System.cmd("/bin/sh", ["-c", "echo hi; exit 3"])
  end

  test "96. no zombies are left, of children that are waited for or killed", %{pool: pool} do
    code = """
    import subprocess
    children = [subprocess.Popen(["/bin/sleep", "60"]) for _ in range(10)]
    children += [subprocess.Popen(["/bin/true"]) for _ in range(90)]
    for child in children[:10]: child.kill()
    [child.wait() for child in children] == [-9] * 10 + [0] * 90
    """

    assert eval(pool, code) == {:ok, true}
    {:ok, parent} = eval(pool, "import os\nos.getpid()")
    {states, _status} = System.cmd("ps", ["--ppid", "#{parent}", "-o", "stat="])
    refute states =~ "Z"
  end

  test "96. other ways to start a child", %{pool: pool} do
    for {code, value} <- [
          {"try:\n  subprocess.run(['/bin/sleep', '60'], timeout=0.05)\nexcept subprocess.TimeoutExpired:\n  r = 'expired'\nr",
           "expired"},
          {"try:\n  subprocess.check_call(['/bin/false'])\nexcept subprocess.CalledProcessError as e:\n  r = e.returncode\nr",
           1},
          {"subprocess.run('read x; echo $x >&2; exit 7', shell=True, input=b'in\\n', stderr=-1).stderr",
           "in\n"},
          {"subprocess.run(['/bin/true'], preexec_fn=lambda: None).returncode", 0},
          {"p = os.popen('exit 2')\np.read()\np.close()", 512},
          {"os.waitstatus_to_exitcode(os.waitpid(os.posix_spawn('/bin/sh', ['sh', '-c', 'exit 6'], {}), 0)[1])",
           6},
          {"p = await asyncio.create_subprocess_shell('cat; exit 7', stdin=-1, stdout=-1)\no, _ = await p.communicate(b'in')\n(o, p.returncode)",
           {"in", 7}}
        ] do
      assert {code, eval(pool, "import os, subprocess, asyncio\n" <> code)} ==
               {code, {:ok, value}}
    end
  end

  test "96. a child has the signals of a fresh process", %{pool: pool} do
    code = """
    import subprocess
    lines = subprocess.run(["/bin/cat", "/proc/self/status"], capture_output=True, text=True).stdout
    dict(line.split(":\\t") for line in lines.splitlines() if line[:6] in ("SigBlk", "SigCgt"))
    """

    none = String.duplicate("0", 16)
    assert eval(pool, code) == {:ok, %{"SigBlk" => none, "SigCgt" => none}}
  end

  @tag on: [:thread]
  test "96. os.fork is a clear error", %{pool: pool} do
    assert %{kind: :python, message: message} = error(eval(pool, "import os\nos.fork()"))
    assert message =~ "fork"
    assert error(eval(pool, "import os\nos.forkpty()")).kind == :python
    code = "import multiprocessing as m\nm.get_context('fork').Process(target=print).start()"
    assert error(eval(pool, code)).message =~ "fork"

    assert eval(pool, "import multiprocessing\nmultiprocessing.get_start_method()") ==
             {:ok, "spawn"}
  end

  test "98. the interpreter is that of the venv or the Python that was found", %{pool: pool} do
    {:ok, python} = Py.Python.find()
    assert eval(pool, "import sys\nsys.prefix") == {:ok, python.prefix}
    assert eval(pool, "import sys\nsys.executable") == {:ok, python.executable}
    assert eval(pool, "import sys\n'%d.%d.%d' % sys.version_info[:3]") == {:ok, python.version}
  end

  @folder Path.expand("test/support/py path; 'x'")

  setup_all do
    File.mkdir_p!(@folder)
    File.write!(Path.join(@folder, "py_case_98.py"), "VALUE = 98\n")
    on_exit(fn -> File.rm_rf!(@folder) end)
  end

  @tag pool: [paths: ["test/support/../support/py path; 'x'"], env: %{"PY_CASE" => "é;'\""}]
  test "98. paths with spaces, quotes and semicolons; environment", %{pool: pool} do
    assert Py.getattr(:py_case_98, :VALUE, on: pool) == {:ok, 98}
    assert eval(pool, "import os\nos.environ['PY_CASE']") == {:ok, "é;'\""}
  end

  test "signals of the VM are the VM's", %{pool: pool} do
    assert eval(pool, "import signal\nsignal.getsignal(signal.SIGTERM) in (None, signal.SIG_DFL)") ==
             {:ok, true}

    assert exec(pool, "import faulthandler") == :ok
  end

  test "sys.argv, sys.flags and __main__", %{pool: pool} do
    assert eval(pool, "import sys\nisinstance(sys.argv, list)") == {:ok, true}
    assert eval(pool, "__name__") |> elem(0) == :ok
  end

  test "no scheduler runs Python: processes go on while it burns", %{pool: pool} do
    futures = for _ <- 1..8, do: Py.async_call(:builtins, :sum, [1..20_000_000], on: pool)
    for _ <- 1..100, do: assert(Task.await(Task.async(fn -> :pong end), 1_000) == :pong)
    for future <- futures, do: Py.cancel(future)
  end

  test "P-A 20. a hundred thousand calls leave nothing", %{pool: pool} do
    loop = fn n -> for i <- 1..n, do: {:ok, ^i} = call(pool, :builtins, :abs, [i]) end
    loop.(20_000)
    before = {:erlang.system_info(:atom_count), :erlang.system_info(:process_count)}
    memory = rss()
    loop.(100_000)
    assert {:erlang.system_info(:atom_count), :erlang.system_info(:process_count)} == before
    assert rss() - memory < 50_000
    assert Process.info(self(), :message_queue_len) == {:message_queue_len, 0}
    assert {:ok, 1} = call(pool, :builtins, :abs, [-1])
  end

  defp rss do
    [_, kilobytes] = Regex.run(~r/VmRSS:\s+(\d+)/, File.read!("/proc/self/status"))
    String.to_integer(kilobytes)
  end
end
