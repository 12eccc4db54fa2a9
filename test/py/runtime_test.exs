defmodule Py.RuntimeTest do
  # What needs a node without a Python: each in a VM of its own.
  use ExUnit.Case, async: true

  @moduletag timeout: 120_000

  # Runs code in a fresh VM that has Py, and returns what it prints.
  defp fresh(code, env) do
    path = Path.wildcard(Path.join(Mix.Project.build_path(), "lib/*/ebin"))

    arguments =
      Enum.flat_map(path, &["-pa", &1]) ++
        ["-e", "{:ok, _} = Application.ensure_all_started(:py)\n" <> code]

    env = [{"VIRTUAL_ENV", nil} | env]

    {output, 0} =
      System.cmd(System.find_executable("elixir"), arguments, env: env, stderr_to_stdout: true)

    output
  end

  @tag :tmp_dir
  test "without a Python the application starts, and every call says what to do", %{
    tmp_dir: folder
  } do
    code = """
    File.cd!(#{inspect(folder)})
    System.put_env("PATH", #{inspect(folder)})
    {:error, error} = Py.call(:math, :sqrt, [16])
    IO.puts([to_string(error.kind), " ", Exception.message(error)])
    {:error, error} = Py.Pool.start_link(name: P) |> tap(fn _ -> :ok end)
    """

    code = "Process.flag(:trap_exit, true)\n" <> code <> "IO.puts(error.kind)"
    output = fresh(code, [])
    assert output =~ "not_available not available: no Python was found"
    assert output =~ "mix py.doctor"
    assert output =~ ~r/not_available\n$/
  end

  test "a venv that is not there", %{} do
    output =
      fresh("IO.puts(Exception.message(elem(Py.eval(\"1\"), 1)))", [
        {"VIRTUAL_ENV", "/nowhere/venv"}
      ])

    assert output =~ "/nowhere/venv (from VIRTUAL_ENV)"
  end

  @tag :tmp_dir
  test "a failure is no verdict: when there is a Python, the next attempt takes it", %{
    tmp_dir: folder
  } do
    code = """
    path = System.get_env("PATH")
    File.cd!(#{inspect(folder)})
    System.put_env("PATH", #{inspect(folder)})
    {:error, %{kind: :not_available}} = Py.eval("1")
    System.put_env("PATH", path)
    IO.inspect(Py.eval("1"))
    """

    assert fresh(code, []) == "{:ok, 1}\n"
  end

  test "Python outlives the application, and serves it when it starts again" do
    code = """
    IO.inspect(Py.eval("import builtins\\nbuiltins.py_kept = 5"))
    :ok = Application.stop(:py)
    {:error, error} = Py.eval("1")
    IO.puts(Exception.message(error))
    {:ok, _} = Application.ensure_all_started(:py)
    IO.inspect(Py.eval("import builtins\\nbuiltins.py_kept"))
    Py.exec!("print('printed')")
    """

    output = fresh(code, [])
    assert output =~ "{:ok, nil}\n"
    assert output =~ "the application :py does not run"
    assert output =~ "{:ok, 5}\nprinted\n"
  end

  test "P-D 3. a library of another version is refused before it is used" do
    Py.eval!("1")
    {:ok, %{python: python}} = Py.Pool.fetch(Py)

    code = """
    {:ok, python} = Py.Python.find(#{inspect(python.executable)})
    :ok = Py.Native.Base.load(Py.Build.base_file())
    {:ok, version} = Py.Native.Base.open(python.libpython)
    IO.puts(String.starts_with?(version, python.minor <> "."))
    {:error, text} = Py.Native.Base.open("/nowhere/libpython3.99.so")
    IO.puts(text)
    """

    assert fresh(code, []) =~ "true\n"
  end
end
