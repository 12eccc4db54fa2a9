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
  end

  defp lines do
    receive do
      {:mix_shell, _level, [line]} -> [line | lines()]
    after
      0 -> []
    end
  end
end
