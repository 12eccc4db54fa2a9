defmodule Py.Build.BytecodeTest do
  use ExUnit.Case, async: true

  alias Py.Build.Bytecode

  setup do
    app = Path.join(System.tmp_dir!(), "py-bytecode-#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm_rf!(app) end)
    folder = Path.join(app, "priv/python/one")
    File.mkdir_p!(folder)
    File.write!(Path.join(folder, "two.py"), "answer = 42\n")
    {:ok, python} = Py.Python.find()
    %{app: app, folder: folder, python: python, source: Path.join(folder, "two.py")}
  end

  # A file that Python checks by what its source contains: the word at its fifth byte is 3.
  defp compiled(folder) do
    for file <- Path.wildcard(Path.join(folder, "__pycache__/*.pyc")),
        do: binary_part(File.read!(file), 4, 4)
  end

  test "it is there once, and again when a source or a file is another", context do
    %{app: app, folder: folder, python: python, source: file} = context
    assert {:ok, known} = Bytecode.update(python, nil, app)
    assert compiled(folder) == [<<3::32-little>>]
    assert Bytecode.update(python, known, app) == :noop

    File.touch!(file, {{2001, 1, 1}, {0, 0, 0}})
    assert Bytecode.update(python, known, app) == :noop
    [pyc] = Path.wildcard(Path.join(folder, "__pycache__/*.pyc"))
    before = File.read!(pyc)
    # Python takes it, whatever the times of a release are.
    code = "import sys; sys.dont_write_bytecode = True; from one import two; print(two.answer)"
    options = [cd: Path.join(app, "priv/python"), stderr_to_stdout: true]
    assert {output, 0} = System.cmd(python.executable, ["-v", "-c", code], options)
    assert output =~ ~r/code object from .*two\.cpython-\d+\.pyc/
    assert output =~ "\n42\n"
    assert File.read!(pyc) == before

    File.write!(file, "answer = 43\n")
    assert {:ok, changed} = Bytecode.update(python, known, app)
    refute File.read!(pyc) == before
    File.rm!(pyc)
    assert {:ok, ^changed} = Bytecode.update(python, changed, app)
    assert {:ok, _other} = Bytecode.update(%{python | version: "3.99.0"}, changed, app)
  end

  test "what cannot be compiled is told", %{app: app, python: python, source: file} do
    File.write!(file, "answer = = 42\n")
    assert {:error, message} = Bytecode.update(python, nil, app)
    assert message =~ "could not compile" and message =~ "SyntaxError"
  end

  test "that of this application is there" do
    folder = Application.app_dir(:py, "priv/python/erlang")
    sources = length(Path.wildcard(Path.join(folder, "*.py")))
    {:ok, python} = Py.Python.find()
    tag = "cpython-#{String.replace(python.minor, ".", "")}"
    assert length(Path.wildcard(Path.join(folder, "__pycache__/*.#{tag}.pyc"))) >= sources
  end
end
