defmodule Py.ScriptTest do
  use ExUnit.Case, async: false

  alias Py.{Child, Error}

  setup do
    folder = Path.join(System.tmp_dir!(), "py-script-#{System.unique_integer([:positive])} ü")
    File.mkdir_p!(folder)
    on_exit(fn -> File.rm_rf!(folder) end)
    %{folder: folder}
  end

  defp script(%{folder: folder}, code, name \\ "script.py") do
    path = Path.join(folder, name)
    File.write!(path, code)
    path
  end

  defp run(context, code, argv \\ [], options \\ []) do
    result = Py.run_script(script(context, code), argv, options)
    # Whatever ran, nothing of it comes later.
    refute_received _
    result
  end

  defp alive?(pid), do: File.exists?("/proc/#{pid}")

  defp pids(text), do: text |> String.split() |> Enum.map(&String.to_integer/1)

  defp wait_until(condition, left \\ 2_000) do
    cond do
      condition.() -> :ok
      left == 0 -> flunk("it did not come true")
      true -> Process.sleep(10) && wait_until(condition, left - 1)
    end
  end

  # Writes the pids of a family: itself, a child, a grandchild in a session of its own, a daemon whose parents are gone.
  @family """
  import os, subprocess, sys, time

  sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
  daemon = '''
  import os, sys
  if os.fork(): os._exit(0)
  os.setsid()
  if os.fork(): os._exit(0)
  sys.stdout.write(str(os.getpid()) + "\\\\n")
  sys.stdout.flush()
  import time; time.sleep(600)
  '''
  family = [os.getpid(), subprocess.Popen(sleep).pid, subprocess.Popen(sleep, start_new_session=True).pid]
  parent = subprocess.Popen([sys.executable, "-c", daemon], stdout=subprocess.PIPE, start_new_session=True)
  family.append(int(parent.stdout.readline()))
  text = " ".join(map(str, family))
  if len(sys.argv) > 1:
      with open(sys.argv[1] + ".new", "w") as file:
          file.write(text)
      os.rename(sys.argv[1] + ".new", sys.argv[1])
  print(text, flush=True)
  """

  describe "what goes in" do
    test "arguments are those of python script.py", context do
      argv = ["a b", "ünï ☃", "", "-x", "--", "'\"$(ls)\\", :atom, 3, 2.5, true]
      code = "import json, sys; print(json.dumps([sys.argv, __name__]))"
      {:ok, %{json: [[path | rest], name]}} = run(context, code, argv, json: true)
      assert path == Path.join(context.folder, "script.py")
      assert rest == ["a b", "ünï ☃", "", "-x", "--", "'\"$(ls)\\", "atom", "3", "2.5", "true"]
      assert name == "__main__"
    end

    test "bytes that are no text", context do
      code = "import os, sys; os.write(1, os.fsencode(sys.argv[1]))"
      assert {:ok, %{stdout: <<255, 254>>}} = run(context, code, [<<255, 254>>])
    end

    test "arguments that cannot be", context do
      path = script(context, "")

      for wrong <- [[<<"a", 0>>], [nil], [%{}], [["a"]], [{1, 2}], :a, "a", ["a" | "b"]] do
        assert_raise ArgumentError, ~r/argument.* of Py.run_script/, fn ->
          Py.run_script(path, wrong)
        end
      end

      long = String.duplicate("x", 131_072)
      assert_raise ArgumentError, ~r/131072 bytes/, fn -> Py.run_script(path, [long]) end
      assert_raise ArgumentError, ~r/NUL/, fn -> Py.run_script(path <> <<0>>) end
      assert_raise ArgumentError, ~r/NUL/, fn -> Py.run_script(path, [], cd: <<"/", 0>>) end
      assert_raise ArgumentError, ~r/must be a string/, fn -> Py.run_script(:script) end
    end

    test "more arguments than fit", context do
      argv = List.duplicate(String.duplicate("x", 100_000), 50)
      {:error, error} = run(context, "", argv)
      assert {error.kind, error.exit} == {:crashed, nil}
      assert error.message =~ "more arguments and variables than fit"
    end

    test "unknown options are named, and options in the place of arguments", context do
      path = script(context, "")
      error = assert_raise ArgumentError, fn -> Py.run_script(path, [], kwargs: [], on: Py) end
      assert error.message =~ "unknown options :kwargs, :on for Py.run_script; known are"
      error = assert_raise ArgumentError, fn -> Py.run_script(path, timeout: 5) end
      assert error.message =~ "Py.run_script(path, [], options)"
    end

    test "options of the wrong type", context do
      path = script(context, "")

      for options <- [
            [timeout: -1],
            [stdin: :a],
            [stdin: [1000]],
            [env: %{"A" => 1}],
            [env: %{"A=B" => "1"}],
            [env: %{"" => "1"}],
            [env: %{"A" => <<0>>}],
            [env: %{"A" => <<255>>}],
            [cd: :a],
            [python: 3],
            [memory_limit: 0],
            [json: nil],
            [max_output: 0]
          ] do
        assert_raise ArgumentError,
                     ~r/^option #{options |> hd() |> elem(0)}: of Py.run_script/,
                     fn ->
                       Py.run_script(path, [], options)
                     end
      end
    end

    test "every option is documented, with its default" do
      docs = Py.Options.docs(:script)
      for key <- Map.keys(Py.Options.defaults(:script)), do: assert(docs =~ "`#{key}:`")
      assert docs =~ "Default: `30000`"
    end

    test "stdin that was not given is at its end", context do
      assert {:ok, %{stdout: "b''\n"}} =
               run(context, "import sys; print(sys.stdin.buffer.read())")
    end

    test "stdin that is empty", context do
      code = "import sys; print(sys.stdin.buffer.read())"
      assert {:ok, %{stdout: "b''\n"}} = run(context, code, [], stdin: "")
      assert {:ok, %{stdout: "b'ab'\n"}} = run(context, code, [], stdin: [?a, ["b"]])
    end

    test "10 MB through stdin and stdout", context do
      data = :crypto.strong_rand_bytes(10_000_000)
      code = "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer, 1000)"
      {:ok, result} = run(context, code, [], stdin: data)
      assert result.stdout == data
    end

    test "stdin that is not read", context do
      data = String.duplicate("x", 10_000_000)
      assert {:ok, %{stdout: "1\n"}} = run(context, "print(1)", [], stdin: data)
      code = "import sys; sys.stdin.buffer.read(1000); print(2)"
      assert {:ok, %{stdout: "2\n"}} = run(context, code, [], stdin: data)
      code = "import os, time; os.close(0); time.sleep(0.2); print(3)"
      assert {:ok, %{stdout: "3\n"}} = run(context, code, [], stdin: data)
      code = "import os, time; os.read(0, 1); os.close(0); time.sleep(0.2); print(4)"
      assert {:ok, %{stdout: "4\n"}} = run(context, code, [], stdin: data)
      code = "import os, time; os.close(0); time.sleep(0.2); print(5)"
      assert {:ok, %{stdout: "5\n"}} = run(context, code, [], stdin: "")
      code = "import time; time.sleep(60)"
      assert {:error, %{kind: :timeout}} = run(context, code, [], stdin: data, timeout: 300)
    end

    test "env: and cd:", context do
      code =
        "import os; print(os.environ['PY_A'], os.environ['PY_Ü'], 'PATH' in os.environ, os.getcwd())"

      env = %{"PY_A" => "a=b c", "PY_Ü" => "ü☃"}
      {:ok, result} = run(context, code, [], env: env, cd: context.folder)
      assert result.stdout == "a=b c ü☃ True #{context.folder}\n"
    end

    test "neither the token nor the files of the launcher reach the script", context do
      code = "import os; print(sorted(os.listdir('/proc/self/fd')), os.getsid(0) == os.getpid())"
      {:ok, result} = run(context, code)
      # 3 is the folder that is read.
      assert result.stdout == "['0', '1', '2', '3'] True\n"
    end

    test "signals are Python's own", context do
      code = """
      sets = [line.split() for line in open("/proc/self/status") if line[:6] in ("SigBlk", "SigIgn")]
      # 32 and 33 belong to glibc, whose posix_spawn leaves them ignored.
      print([int(mask, 16) & ~(3 << 31) for name, mask in sets])
      """

      {:ok, result} = run(context, code)
      # Python ignores SIGPIPE and SIGXFSZ.
      assert result.stdout == "[0, #{2 ** 12 + 2 ** 24}]\n"
    end
  end

  describe "what comes out" do
    test "10 MB on each of stdout and stderr, kept apart", context do
      code = """
      import os, sys
      for n in range(1000):
          sys.stdout.write(chr(97 + n % 26) * 10_000)
          sys.stderr.write(chr(65 + n % 26) * 10_000)
      """

      {:ok, result} = run(context, code)

      expected = fn first ->
        for n <- 0..999, into: "", do: String.duplicate(<<first + rem(n, 26)>>, 10_000)
      end

      assert result.stdout == expected.(?a)
      assert result.stderr == expected.(?A)
    end

    test "bytes that are no text", context do
      {:ok, result} =
        run(context, "import os; os.write(1, bytes(range(256))); os.write(2, b'\\xff\\0')")

      assert result == %{
               status: 0,
               stdout: :binary.list_to_bin(Enum.to_list(0..255)),
               stderr: <<255, 0>>,
               json: nil
             }
    end

    test "a status", context do
      {:error, error} = run(context, "import sys; print('out'); sys.exit(3)")
      assert {error.kind, error.exit} == {:crashed, {:code, 3}}
      assert error.object == %{status: 3, stdout: "out\n", stderr: "", json: nil}
      assert error.message =~ ~r/script.py ended with status 3$/
    end

    test "an exception, whose message is at hand", context do
      {:error, error} = run(context, "def f(): raise ValueError('bäd')\nf()")
      assert error.exit == {:code, 1}
      assert error.message =~ ~s(script.py", line 1, in f\n)
      assert error.message =~ ~r/ended with status 1:\nTraceback.*\nValueError: bäd$/s
    end

    test "last words that are no text, and long ones", context do
      {:error, error} = run(context, "import os; os.write(2, b'\\xff!\\n'); os._exit(1)")
      assert String.ends_with?(error.message, "status 1:\n\uFFFD!")

      {:error, error} =
        run(context, "import os; os.write(2, 'ü'.encode() * 20_000 + b'end'); os._exit(1)")

      assert String.valid?(error.message) and String.ends_with?(error.message, "üend")
      assert byte_size(error.message) < 3_000
    end

    test "signals", context do
      for signal <- [9, 11, 15] do
        {:error, error} = run(context, "import os; os.kill(os.getpid(), #{signal})")
        assert {error.kind, error.exit, error.object.status} == {:crashed, {:signal, signal}, nil}
        assert error.message =~ "was ended by signal #{signal}"
      end
    end

    test "what Python prints to a closed stdout", context do
      code =
        "import os, sys, time; print('a', flush=True); os.close(1); time.sleep(0.1); print('b', file=sys.stderr); os._exit(0)"

      assert {:ok, %{stdout: "a\n", stderr: "b\n"}} = run(context, code)
    end

    test "as much as max_output: and not more", context do
      code =
        "import sys; n = int(sys.argv[1]); sys.stdout.write('x' * n); sys.stderr.write('y' * n)"

      assert {:ok, %{stdout: out, stderr: err}} =
               run(context, code, [100_000], max_output: 100_000)

      assert {byte_size(out), byte_size(err)} == {100_000, 100_000}
      code = "import sys; sys.stdout.write('x' * 100_001)"
      {:error, error} = run(context, code, [], max_output: 100_000)

      assert {error.kind, error.exit, byte_size(error.object.stdout)} ==
               {:crashed, {:signal, 9}, 100_000}

      assert error.message =~ "printed more than 100000 bytes on stdout (max_output:)"
      endless = "import os\nwhile True: os.write(2, b'x' * 65536)"
      {:error, error} = run(context, endless, [], max_output: 1_000_000)
      assert byte_size(error.object.stderr) == 1_000_000
      assert error.message =~ "bytes on stderr"
    end

    test "a run_script! that fails raises the same error", context do
      path = script(context, "raise SystemExit('why')")
      error = assert_raise Error, fn -> Py.run_script!(path) end
      assert {error.exit, error.object.stderr} == {{:code, 1}, "why\n"}

      assert Exception.message(error) =~
               "what ran the call crashed: #{path} ended with status 1:\nwhy"
    end
  end

  describe "json: true" do
    defp json(context, text, options \\ []) do
      run(
        context,
        "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())",
        [],
        [stdin: text, json: true] ++ options
      )
    end

    test "is what Python's json makes of it", context do
      text = """
      {"a": [1, -1, 255, 256, -129, 2147483648, -2147483649, #{2 ** 4000}, -#{2 ** 70}],
       "f": [1.5, -0.5, 1e300, NaN, Infinity, -Infinity],
       "c": [null, true, false, {}, [], ""], "s": "\\u00fc\\ud83d\\udc0d☃", "d": 1, "d": 2, "": {"x": {"y": [[]]}}}
      """

      {:ok, %{json: json}} = json(context, text)

      assert json == %{
               "a" => [
                 1,
                 -1,
                 255,
                 256,
                 -129,
                 2_147_483_648,
                 -2_147_483_649,
                 2 ** 4000,
                 -(2 ** 70)
               ],
               "f" => [1.5, -0.5, 1.0e300, :nan, :infinity, :neg_infinity],
               "c" => [nil, true, false, %{}, [], ""],
               "s" => "ü🐍☃",
               "d" => 2,
               "" => %{"x" => %{"y" => [[]]}}
             }
    end

    test "top-level values and integers of any size", context do
      for {text, value} <- [{"null", nil}, {" 1 ", 1}, {"\"x\"", "x"}, {"[]", []}, {"\uFEFF1", 1}] do
        assert {:ok, %{json: ^value}} = json(context, text)
      end

      digits = String.duplicate("9", 20_000)
      {:ok, %{json: number}} = json(context, digits)
      assert number == String.to_integer(digits)
    end

    test "a big one", context do
      value = for n <- 1..50_000, do: %{"id" => n, "name" => "row #{n}", "x" => n / 2}

      text =
        Enum.map_join(
          value,
          ",",
          &~s({"id": #{&1["id"]}, "name": "#{&1["name"]}", "x": #{&1["x"]}})
        )

      {:ok, result} = json(context, "[#{text}]")
      assert result.json == value
    end

    test "what is none", context do
      for {text, reason} <- [
            {"", "Expecting value"},
            {"hello", "Expecting value: line 1 column 1"},
            {"[1] [2]", "Extra data"},
            {~s("\\ud800"), "surrogate"},
            {~s({"\\udc00": 1}), "surrogate"},
            {<<?", 255, ?">>, "'utf-8' codec can't decode byte 0xff"},
            {String.duplicate("[", 200_000), "nested too deeply"}
          ] do
        {:error, error} = json(context, text)
        assert {error.kind, error.object.status, error.object.json} == {:decode, 0, nil}
        assert error.message =~ "script.py is no JSON: "
        assert error.message =~ reason
        assert error.object.stdout == text
      end
    end

    test "stderr is no part of it", context do
      code = "import sys; print('[', file=sys.stderr); print('[1]')"
      assert {:ok, %{json: [1], stderr: "[\n"}} = run(context, code, [], json: true)
    end

    test "with a status other than 0 the error carries it", context do
      {:error, error} =
        run(context, ~S|print('{"error": "no"}'); raise SystemExit(2)|, [], json: true)

      assert {error.kind, error.exit, error.object.json} ==
               {:crashed, {:code, 2}, %{"error" => "no"}}

      {:error, error} = run(context, "print('no'); raise SystemExit(2)", [], json: true)
      assert {error.kind, error.exit, error.object.json} == {:crashed, {:code, 2}, nil}
      assert error.object.stdout == "no\n"
    end

    test "what is beside the script does not decode", context do
      script(context, "raise SystemExit('shadowed')", "json.py")
      env = %{"PYTHONPATH" => context.folder}

      assert {:ok, %{json: 1}} =
               run(context, "print(1)", [], json: true, env: env, cd: context.folder)
    end

    test "memory for decoding is limited too", context do
      code = "import sys; sys.stdout.write('[' + '[],' * 5_000_000 + '1]')"
      {:error, error} = run(context, code, [], json: true, memory_limit: 200_000_000)
      assert error.kind == :decode
      assert error.message =~ "not enough memory"
    end
  end

  describe "what cannot be started" do
    test "a script that is not there", context do
      path = Path.join(context.folder, "none.py")
      {:error, error} = Py.run_script(path)
      assert {error.kind, error.object} == {:not_available, nil}
      assert error.message == "there is no script #{path}"
    end

    test "a directory, unless it holds a program", context do
      {:error, error} = Py.run_script(context.folder)

      assert {error.kind, error.message} ==
               {:not_available, "#{context.folder} is a directory and has no __main__.py"}

      script(context, "print('main')", "__main__.py")
      assert {:ok, %{stdout: "main\n"}} = Py.run_script(context.folder)
    end

    test "a Python that is not there", context do
      {:error, error} = run(context, "", [], python: "/no/such/python")
      assert error.kind == :not_available
      assert error.message =~ "/no/such/python (from the python: option) does not exist"
    end

    test "a Python that is given", context do
      # Not python3 on PATH, which may be a script that looks for one.
      {:ok, %{executable: python}} = Py.Python.find()
      {:ok, result} = run(context, "import sys; print(sys.executable)", [], python: python)
      assert result.stdout == python <> "\n"
    end

    test "a cd: that is no directory", context do
      {:error, error} = run(context, "", [], cd: "/no/such")

      assert {error.kind, error.message} ==
               {:not_available, "the cd: option is /no/such, which is no directory"}
    end

    test "the path is expanded from the node's directory", context do
      path = script(context, "print(1)")
      relative = String.duplicate("../", length(Path.split(File.cwd!()))) <> path
      assert {:ok, %{stdout: "1\n"}} = Py.run_script(relative, [], cd: "/")
    end
  end

  describe "limits" do
    test "memory_limit: is a MemoryError", context do
      code = "x = bytes(10 ** 9)"
      {:error, error} = run(context, code, [], memory_limit: 500_000_000)
      assert error.message =~ ~r/MemoryError$/
      assert {:ok, _result} = run(context, code, [], memory_limit: 3_000_000_000)
    end

    test "a timeout, with what was printed", context do
      start = System.monotonic_time(:millisecond)
      code = "import time; print('before', flush=True); time.sleep(600)"
      {:error, error} = run(context, code, [], timeout: 1_000)
      assert {error.kind, error.object.stdout, error.object.status} == {:timeout, "before\n", nil}
      assert error.message =~ "script.py ran for more than 1000 ms and was killed"
      assert System.monotonic_time(:millisecond) - start < 10_000
      assert {:error, %{kind: :timeout}} = run(context, code, [], timeout: 0)
      assert {:ok, _result} = run(context, "", [], timeout: :infinity)
    end

    test "a timeout of a script that ignores signals", context do
      code =
        "import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (1, 2, 15)]; time.sleep(600)"

      assert {:error, %{kind: :timeout}} = run(context, code, [], timeout: 500)
    end

    test "a timeout while JSON is decoded", context do
      code = "import sys; sys.stdout.write('9' * 3_000_000)"
      {:error, error} = run(context, code, [], json: true, timeout: 2_000)

      assert {error.kind, error.object.status, byte_size(error.object.stdout)} ==
               {:timeout, 0, 3_000_000}
    end
  end

  describe "nothing outlives it" do
    test "at a timeout", context do
      {:error, error} = run(context, @family <> "time.sleep(600)", [], timeout: 3_000)
      assert error.kind == :timeout
      family = pids(error.object.stdout)
      assert length(family) == 4
      refute Enum.any?(family, &alive?/1)
    end

    test "at its end, though they hold stdout", context do
      {:ok, result} = run(context, @family)
      family = pids(result.stdout)
      assert length(family) == 4
      refute Enum.any?(family, &alive?/1)
    end

    test "when it crashes", context do
      {:error, error} = run(context, @family <> "os.kill(os.getpid(), 11)")
      assert error.exit == {:signal, 11}
      refute Enum.any?(pids(error.object.stdout), &alive?/1)
    end

    test "workers of multiprocessing", context do
      code = """
      import multiprocessing, os, time
      if __name__ == "__main__":
          pool = multiprocessing.get_context("spawn").Pool(2)
          print(*pool.map(abs, [1, 2]), *[p.pid for p in multiprocessing.active_children()], flush=True)
          pool.map(time.sleep, [600, 600])
      """

      {:error, error} = run(context, code, [], timeout: 5_000)
      assert [1, 2, one, two] = pids(error.object.stdout)
      refute alive?(one) or alive?(two)
    end

    test "when the caller is killed", context do
      path = script(context, @family <> "time.sleep(600)")
      file = Path.join(context.folder, "pids")

      for reason <- [:kill, :shutdown] do
        File.rm(file)
        caller = spawn(fn -> Py.run_script(path, [file], timeout: :infinity) end)
        wait_until(fn -> File.exists?(file) end)
        family = pids(File.read!(file))
        assert Enum.all?(family, &alive?/1)
        Process.exit(caller, reason)
        wait_until(fn -> not Enum.any?(family, &alive?/1) end)
      end
    end

    test "when the caller dies while JSON is decoded", context do
      path = script(context, "import sys; sys.stdout.write('9' * 3_000_000)")
      caller = spawn(fn -> Py.run_script(path, [], json: true, timeout: :infinity) end)
      program = Application.app_dir(:py, "priv/python/erlang/_json_term.py")

      decoders = fn ->
        "/proc/[0-9]*/cmdline" |> Path.wildcard() |> Enum.filter(&runs?(&1, program))
      end

      wait_until(fn -> decoders.() != [] end)
      Process.exit(caller, :kill)
      wait_until(fn -> decoders.() == [] end)
    end

    defp runs?(cmdline, program) do
      case File.read(cmdline) do
        {:ok, text} -> text =~ program
        {:error, _gone} -> false
      end
    end

    test "when the node is killed", context do
      path = script(context, @family <> "time.sleep(600)")
      file = Path.join(context.folder, "pids")

      code = """
      spawn(fn -> Py.run_script(#{inspect(path)}, [#{inspect(file)}], timeout: :infinity) end)
      wait = fn wait -> File.exists?(#{inspect(file)}) || (Process.sleep(10); wait.(wait)) end
      wait.(wait)
      IO.puts("ready")
      Process.sleep(:infinity)
      """

      Child.run(code, fn os_pid -> System.cmd("kill", ["-KILL", to_string(os_pid)]) end)
      family = pids(File.read!(file))
      assert length(family) == 4
      wait_until(fn -> not Enum.any?(family, &alive?/1) end)
    end

    test "when the launcher is killed, the script is gone", context do
      file = Path.join(context.folder, "pid")

      code = """
      import os, sys, time
      with open(sys.argv[1], "w") as file:
          file.write(str(os.getpid()))
      os.kill(os.getppid(), 9)
      time.sleep(600)
      """

      {:error, error} = run(context, code, [file])
      assert {error.kind, error.exit} == {:crashed, nil}
      assert error.message =~ "was lost: the launcher ended with status 137"
      [pid] = pids(File.read!(file))
      wait_until(fn -> not alive?(pid) end)
    end

    test "a caller that traps exits gets no messages", context do
      Process.flag(:trap_exit, true)
      assert {:ok, _result} = run(context, "print(1)")

      assert {:error, %{kind: :timeout}} =
               run(context, "import time; time.sleep(60)", [], timeout: 100)
    end
  end

  describe "many" do
    test "50 at once", context do
      path = script(context, "import sys; data = sys.stdin.read(); print(sys.argv[1], len(data))")

      one = fn n ->
        Py.run_script(path, [n], stdin: String.duplicate("x", n * 1000), timeout: 120_000)
      end

      options = [max_concurrency: 50, timeout: :infinity]

      results =
        1..50 |> Task.async_stream(one, options) |> Enum.map(fn {:ok, {:ok, r}} -> r.stdout end)

      assert results == for(n <- 1..50, do: "#{n} #{n * 1000}\n")
    end

    test "ports and processes are given back", context do
      path = script(context, "")
      before = {length(Port.list()), length(Process.list())}
      for _ <- 1..5, do: {:ok, _} = Py.run_script(path)
      wait_until(fn -> {length(Port.list()), length(Process.list())} <= before end)
    end
  end
end
