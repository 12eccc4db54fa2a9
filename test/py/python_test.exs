defmodule Py.PythonTest do
  # The environment of the VM decides what is found.
  use ExUnit.Case, async: false

  alias Py.Python

  setup do
    root = Path.join(System.tmp_dir!(), "py-python-#{System.unique_integer([:positive])}")
    File.mkdir_p!(root)
    {:ok, real} = Python.find()
    saved = System.get_env("VIRTUAL_ENV")
    path = System.get_env("PATH")
    config = Application.fetch_env(:py, :python)
    System.delete_env("VIRTUAL_ENV")
    Application.delete_env(:py, :python)

    on_exit(fn ->
      System.put_env("PATH", path)
      if saved, do: System.put_env("VIRTUAL_ENV", saved), else: System.delete_env("VIRTUAL_ENV")
      with {:ok, python} <- config, do: Application.put_env(:py, :python, python)
      File.rm_rf!(root)
    end)

    %{root: root, real: real}
  end

  describe "what is looked at, in order" do
    test "the option, the configuration, VIRTUAL_ENV, .venv, PATH", %{root: root, real: real} do
      bin = Path.join(root, "bin")
      File.mkdir_p!(bin)
      File.ln_s!(real.executable, Path.join(bin, "python3"))
      System.put_env("PATH", bin <> ":/usr/bin:/bin")
      assert {:ok, %{source: "python3 on PATH"}} = Python.find(nil, root)

      venv(real, Path.join(root, ".venv"))
      assert {:ok, %{source: ".venv in " <> ^root, venv?: true}} = Python.find(nil, root)

      active = venv(real, Path.join(root, "active"))
      System.put_env("VIRTUAL_ENV", active)
      assert {:ok, %{source: "VIRTUAL_ENV", prefix: ^active}} = Python.find(nil, root)

      configured = venv(real, Path.join(root, "configured"))
      Application.put_env(:py, :python, configured)
      assert {:ok, %{source: "config :py, python:", prefix: ^configured}} = Python.find(nil, root)
      Application.delete_env(:py, :python)

      assert {:ok, %{source: "the python: option"}} = Python.find(real.executable, root)
    end

    test "an empty VIRTUAL_ENV is none", %{root: root} do
      System.put_env("VIRTUAL_ENV", "")
      assert {:ok, %{source: "python3 on PATH"}} = Python.find(nil, root)
    end

    test "a broken choice is an error, and nothing after it is taken", %{root: root} do
      System.put_env("VIRTUAL_ENV", Path.join(root, "gone"))
      assert {:error, message} = Python.find(nil, root)
      assert message =~ "gone (from VIRTUAL_ENV) does not exist"
      assert message =~ "unset VIRTUAL_ENV"
    end
  end

  describe "a Python" do
    test "is described", %{real: real} do
      assert {:ok, python} = Python.find(real.executable)
      assert python.implementation == "cpython"
      assert python.version =~ ~r/^#{python.minor}\.\d+$/
      assert python.free_threaded == false
      assert File.regular?(python.libpython)
      assert Path.basename(python.libpython) =~ "libpython#{python.minor}.so"
      assert Python.embeddable(python) == :ok
    end

    test "that is an environment has its own prefix and executable", %{root: root, real: real} do
      directory = venv(real, Path.join(root, "quoted 'name'; with \"all\" ünusual"))
      assert {:ok, python} = Python.find(directory)
      assert python.venv?
      assert python.prefix == directory
      assert python.base_prefix == real.base_prefix
      assert Path.dirname(python.executable) == Path.join(directory, "bin")
      assert python.libpython == real.libpython
    end

    test "may be given relative to the root", %{root: root, real: real} do
      venv(real, Path.join(root, "here"))
      assert {:ok, %{venv?: true}} = Python.find("here", root)
      assert {:ok, %{venv?: true}} = Python.find("here/bin/python", root)
    end

    test "may print at start, from a .pth file", %{root: root, real: real} do
      directory = venv(real, Path.join(root, "noisy"))
      [packages] = Path.wildcard(Path.join(directory, "lib/python*/site-packages"))

      File.write!(
        Path.join(packages, "noise.pth"),
        "import os; os.write(1, b'\\0noise\\xff'); os.write(2, b'more')\n"
      )

      assert {:ok, %{prefix: ^directory}} = Python.find(directory)
    end

    test "is asked again when its file changes", %{root: root, real: real} do
      directory = venv(real, Path.join(root, "changing"))
      assert {:ok, %{}} = Python.find(directory)
      File.rm!(Path.join(directory, "bin/python"))
      script(Path.join(directory, "bin/python"), "exit 3")
      assert {:error, message} = Python.find(directory)
      assert message =~ "ended with status 3"
    end
  end

  describe "an error says what was looked at and what to do:" do
    test "nothing found", %{root: root} do
      System.put_env("PATH", root)
      assert {:error, message} = Python.find(nil, root)

      for looked <- ["config :py, python:", "VIRTUAL_ENV", ".venv", "PATH"],
          do: assert(message =~ looked)

      assert message =~ "Install CPython 3.11 or later"
      refute message =~ "\n"
    end

    test "a file that is not executable", %{root: root} do
      file = Path.join(root, "python")
      File.write!(file, "")
      assert {:error, message} = Python.find(file)
      assert message =~ "#{file} (from the python: option) is not executable"
    end

    test "a file that is no program", %{root: root} do
      file = Path.join(root, "python")
      File.write!(file, <<0, 1, 2, 3>>)
      File.chmod!(file, 0o755)
      assert {:error, message} = Python.find(file)
      assert message =~ "is not a Python that works"
    end

    test "an unknown command" do
      assert {:error, message} = Python.find("python3.nowhere")

      assert message =~
               "python3.nowhere (from the python: option) is neither a file here nor a command on PATH"
    end

    test "a directory without a Python", %{root: root} do
      assert {:error, message} = Python.find(root)
      assert message =~ "neither a virtual environment"
      assert message =~ "python3 -m venv #{root}"
    end

    test "an environment whose Python was removed", %{root: root} do
      File.mkdir_p!(Path.join(root, "env/bin"))
      File.ln_s!("/nowhere/bin/python3", Path.join(root, "env/bin/python"))
      assert {:error, message} = Python.find("env", root)
      assert message =~ "virtual environment #{root}/env (from the python: option) is broken"
      assert message =~ "-> /nowhere/bin/python3"
      assert message =~ "python3 -m venv --clear #{root}/env"
    end

    test "an environment whose home is gone", %{root: root, real: real} do
      directory = venv(real, Path.join(root, ".venv"))
      config = Path.join(directory, "pyvenv.cfg")

      File.write!(
        config,
        String.replace(File.read!(config), ~r/^home = .*$/m, "home = /nowhere/bin")
      )

      assert {:error, message} = Python.find(nil, root)
      assert message =~ "the Python it was made from (home = /nowhere/bin) is gone"
    end

    test "a Python that crashes", %{root: root} do
      python =
        script(Path.join(root, "python"), "echo 'Fatal Python error: no encodings' >&2\nexit 1")

      assert {:error, message} = Python.find(python)
      assert message =~ "status 1"
      assert message =~ "Fatal Python error: no encodings"
      refute message =~ "\n"
    end

    test "a program that does not stop printing", %{root: root} do
      python =
        script(
          Path.join(root, "python"),
          "while :; do echo 0123456789012345678901234567890123456789; done"
        )

      assert {:error, message} = Python.find(python)
      assert message =~ "does not stop printing"
    end

    @tag timeout: 30_000
    test "a program that hangs is killed, and the caller's mailbox stays empty", %{root: root} do
      pid_file = Path.join(root, "pid")
      python = script(Path.join(root, "python"), "echo $$ >#{pid_file}\nexec sleep 1000")
      assert {:error, message} = Python.find(python)
      assert message =~ "did not answer within 10 seconds and was killed"
      refute_received _message
      refute File.dir?("/proc/#{String.trim(File.read!(pid_file))}/fd/0")

      assert {_output, 1} =
               System.cmd("/bin/sh", ["-c", "kill -0 $(cat #{pid_file}) 2>/dev/null || exit 1"])
    end

    test "PyPy", %{root: root} do
      assert {:error, message} = Python.find(double(root, implementation: "pypy"))
      assert message =~ "is pypy; Py needs CPython 3.11 or later"
    end

    test "a version that is too old", %{root: root} do
      assert {:error, message} = Python.find(double(root, version: "3.10.4", minor: "3.10"))
      assert message =~ "is Python 3.10.4; Py needs CPython 3.11 or later"
    end

    test "a free-threaded build", %{root: root} do
      assert {:error, message} =
               Python.find(double(root, version: "3.14.1", minor: "3.14", free_threaded: "1"))

      assert message =~ "free-threaded build of Python 3.14.1"
    end

    test "a build for another kind of machine", %{root: root} do
      assert {:error, message} = Python.find(double(root, bits: "32"))
      assert message =~ "is a 32-bit build of Python 3.12"
      assert message =~ "this node is a 64-bit one: install a 64-bit Python"
    end

    test "a garbled answer", %{root: root} do
      assert {:error, message} = Python.find(double(root, minor: "3.x"))
      assert message =~ "its answer is garbled"
    end

    test "a static build, which only a pool in the node cannot use", %{root: root} do
      assert {:ok, python} = Python.find(double(root, libpython: ""))
      assert python.libpython == nil
      assert {:error, message} = Python.embeddable(python)
      assert message =~ "no shared libpython3.12"
      assert message =~ "in: :process need none"
      assert message =~ "apt-get install libpython3.12"
      assert message =~ "--enable-shared"
      assert message =~ "uv python install"
    end
  end

  defp venv(python, directory) do
    {_output, 0} = System.cmd(python.executable, ["-m", "venv", "--without-pip", directory])
    directory
  end

  defp script(path, text) do
    File.write!(path, "#!/bin/sh\n" <> text <> "\n")
    File.chmod!(path, 0o755)
    path
  end

  # A program that answers the probe as a Python of that kind would.
  defp double(root, changes) do
    facts =
      Keyword.merge(
        [
          executable: "/opt/python",
          version: "3.12.1",
          minor: "3.12",
          prefix: "/opt",
          base_prefix: "/opt",
          libpython: "/opt/lib/libpython3.12.so.1.0",
          free_threaded: "0",
          implementation: "cpython"
        ],
        changes
      )

    fields = Enum.map_join(facts, "\\000", fn {key, value} -> "#{key}\\000#{value}" end)
    script(Path.join(root, "python"), "printf -- '--py-probe--#{fields}--py-probe--'")
  end
end
