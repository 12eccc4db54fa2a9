defmodule Mix.Tasks.Py.DoctorTest do
  # VIRTUAL_ENV belongs to the VM.
  use ExUnit.Case, async: false

  alias Mix.Tasks.Py.Doctor

  setup do
    Mix.shell(Mix.Shell.Process)
    saved = System.get_env("VIRTUAL_ENV")

    on_exit(fn ->
      Mix.shell(Mix.Shell.IO)
      if saved, do: System.put_env("VIRTUAL_ENV", saved), else: System.delete_env("VIRTUAL_ENV")
    end)
  end

  test "every line is right where calls work" do
    rows = Doctor.rows(nil)
    assert Enum.filter(rows, &match?({:wrong, _label, _text}, &1)) == []

    {:ok, python} = Py.Python.find()
    texts = Map.new(rows, fn {_state, label, text} -> {label, text} end)
    assert texts["python"] =~ python.version
    assert texts["libpython"] == python.libpython
    assert texts["native"] =~ python.minor
    assert texts["opens"] =~ python.version
    assert texts["answers"] =~ "{:ok, 2}"
    assert texts["worker process"] =~ ~r/^Python #{python.version} serves after \d+ ms$/
  end

  test "what is wrong is marked, with what to do, and the exit status is 1" do
    System.put_env("VIRTUAL_ENV", "/nowhere/environment")
    assert catch_exit(Doctor.run([])) == {:shutdown, 1}
    lines = lines()
    assert Enum.any?(lines, &(&1 =~ ~r/^WRONG python +.*unset VIRTUAL_ENV/))
    assert Enum.any?(lines, &(&1 =~ ~r/^ +VIRTUAL_ENV +\/nowhere\/environment/))
    assert List.last(lines) =~ "wrong: see above"
  end

  test "another Python is examined on demand, and not opened in this node" do
    {:ok, python} = Py.Python.find()
    labels = for {_state, label, _text} <- Doctor.rows(python.executable), do: label
    assert "libpython" in labels
    refute "opens" in labels
    assert "worker process" in labels
  end

  @tag :tmp_dir
  test "a Python of pools in: :process is tried: one that is well, one without a library, one that does not serve",
       %{tmp_dir: dir} do
    {:ok, real} = Py.Python.find()
    static = Py.PythonDouble.static(Path.join(dir, "static"), real)
    rows = Doctor.rows(static)
    assert Enum.filter(rows, &match?({:wrong, _label, _text}, &1)) == []
    assert {:note, "libpython", message} = List.keyfind(rows, "libpython", 1)
    assert message =~ "Pools in: :process need none"
    assert {:ok, "worker process", _text} = List.keyfind(rows, "worker process", 1)

    broken =
      Py.PythonDouble.static(Path.join(dir, "broken"), real, "echo 'no such module' >&2; exit 3")

    assert {:wrong, "worker process", message} =
             List.keyfind(Doctor.rows(broken), "worker process", 1)

    assert message =~ "exited with status 3" and message =~ "no such module"

    assert catch_exit(Doctor.run(["--python", broken])) == {:shutdown, 1}
    assert Enum.any?(lines(), &(&1 =~ ~r/^WRONG worker process +.*status 3/))
    assert_raise Mix.Error, ~r/usage: mix py.doctor/, fn -> Doctor.run(["--snake"]) end
  end

  @tag :tmp_dir
  test "the Python of the default pool is examined too", %{tmp_dir: dir} do
    {:ok, real} = Py.Python.find()
    static = Py.PythonDouble.static(Path.join(dir, "static"), real)
    on_exit(fn -> Application.delete_env(:py, :default) end)
    Application.put_env(:py, :default, in: :process, python: static)
    assert {:ok, "default pool", text} = List.keyfind(Doctor.rows(nil), "default pool", 1)
    assert text =~ static
    Application.put_env(:py, :default, in: :process, python: "/nowhere/python")
    assert {:wrong, "default pool", text} = List.keyfind(Doctor.rows(nil), "default pool", 1)
    assert text =~ "/nowhere/python"
  end

  defp lines do
    receive do
      {:mix_shell, _level, [line]} -> [line | lines()]
    after
      0 -> []
    end
  end
end
