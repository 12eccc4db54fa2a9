defmodule Py.Build.Bytecode do
  @moduledoc """
  Compiles the Python half of Py when the project is compiled: a release, often in a folder that nobody may write to and with
  `PYTHONDONTWRITEBYTECODE` set, would have Python compile it again for each worker process.

  The files are of the kind that Python checks by the source's contents, since a release has other times; where
  `mix compile` did not run with the Python that is used later, that Python looks for its own beside them.
  """

  alias Py.Python

  @compile_all "import compileall, sys, py_compile as p; " <>
                 "sys.exit(not compileall.compile_dir(sys.argv[1], quiet=1, force=True, " <>
                 "invalidation_mode=p.PycInvalidationMode.CHECKED_HASH))"

  @doc """
  Compiles `priv/python` of the application whose folder under `_build` is `app`, unless it was compiled so already.

  `known` is what the last time returned: `{:ok, known}`, or `:noop` where there is nothing to do.
  """
  @spec update(Python.t(), term, Path.t()) :: {:ok, term} | :noop | {:error, String.t()}
  def update(%Python{} = python, known, app) do
    folder = Path.join(app, "priv/python")
    now = {python.version, sources(folder), length(compiled(folder, python))}

    if now == known, do: :noop, else: compile(python, folder)
  end

  defp compile(python, folder) do
    # Isolated: no variable of the environment says where such files go, or that there are to be none.
    arguments = ["-I", "-c", @compile_all, folder]

    case System.cmd(python.executable, arguments, stderr_to_stdout: true) do
      {_output, 0} -> {:ok, {python.version, sources(folder), length(compiled(folder, python))}}
      {output, _status} -> {:error, "#{python.executable} could not compile #{folder}: #{output}"}
    end
  end

  defp sources(folder) do
    files = folder |> Path.join("**/*.py") |> Path.wildcard() |> Enum.sort()
    :erlang.md5(for file <- files, do: :erlang.md5([file, 0, File.read!(file)]))
  end

  defp compiled(folder, python) do
    tag = String.replace(python.minor, ".", "")
    folder |> Path.join("**/__pycache__/*.cpython-#{tag}.pyc") |> Path.wildcard()
  end
end
