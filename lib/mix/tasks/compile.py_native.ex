defmodule Mix.Tasks.Compile.PyNative do
  @shortdoc "Builds Py's native libraries"

  @moduledoc """
  Builds Py's native libraries with cargo, for the Python that is found and those in `PY_VERSIONS`, and the bytecode of
  its Python half. See `Py.Build`.
  """

  use Mix.Task.Compiler

  alias Mix.Task.Compiler.Diagnostic
  alias Py.Build
  alias Py.Build.Bytecode

  @impl true
  def run(_arguments) do
    place = place()

    with {:ok, asked} <- Build.asked() do
      {python, warnings} = found()
      minors = Enum.uniq(for(%{minor: minor} <- python, do: minor) ++ asked)
      built = if Build.skip?(), do: supplied(minors, place), else: update(minors, place)
      finish(built, warnings ++ bytecode(python))
    else
      error -> finish(error, [])
    end
  end

  @impl true
  def manifests, do: [manifest(), bytecode_manifest()]

  @impl true
  def clean do
    Enum.each(manifests(), &File.rm/1)
    unless Build.skip?(), do: File.rm_rf!(place().native)
    :ok
  end

  # The folder of the project that is compiled: also where the sources of a dependency are.
  defp place, do: Build.place(Mix.Project.app_path(), File.cwd!())

  # A missing Python is no reason not to compile: calls will say so, and another machine may have one.
  defp found do
    case Py.Python.find(nil, project_root()) do
      {:ok, python} ->
        {[python], []}

      {:error, message} ->
        {[],
         [message <> " Py is compiled all the same, and its calls will answer :not_available."]}
    end
  end

  # As a dependency, Py belongs to a project whose folder is the one that has the lock file.
  defp project_root, do: Mix.Project.config()[:lockfile] |> Path.expand() |> Path.dirname()

  defp supplied(minors, place) do
    case Build.missing(minors, place) do
      [] ->
        :noop

      missing ->
        {:error,
         "PY_SKIP_NATIVE is set, so nothing is built, and #{Enum.join(missing, " and ")} is missing in #{place.native}: " <>
           "supply it, or compile without PY_SKIP_NATIVE."}
    end
  end

  defp update(minors, place) do
    with {:ok, manifest} <- Build.update(minors, read(manifest()), place) do
      write(manifest(), manifest)
      # Where priv is copied rather than linked, the copy has to follow.
      Mix.Project.build_structure()
      :ok
    end
  end

  # Without it all works, and workers start later.
  defp bytecode(python) do
    for python <- python,
        {result, what} <- [
          Bytecode.update(python, read(bytecode_manifest()), Mix.Project.app_path())
        ],
        result == :error or write(bytecode_manifest(), what) != :ok,
        do: what
  end

  defp read(manifest) do
    with {:ok, binary} <- File.read(manifest),
         do: :erlang.binary_to_term(binary),
         else: (_none -> nil)
  end

  defp write(manifest, contents) do
    File.mkdir_p!(Path.dirname(manifest))
    File.write!(manifest, :erlang.term_to_binary(contents))
  end

  defp manifest, do: Path.join(Mix.Project.manifest_path(), "compile.py_native")
  defp bytecode_manifest, do: Path.join(Mix.Project.manifest_path(), "compile.py_bytecode")

  defp finish({:error, message}, warnings) do
    Mix.shell().error("** (Py) #{message}")
    {:error, [diagnostic(:error, message) | Enum.map(warnings, &warn/1)]}
  end

  defp finish(result, warnings), do: {result, Enum.map(warnings, &warn/1)}

  defp warn(message) do
    Mix.shell().error("warning: #{message}")
    diagnostic(:warning, message)
  end

  defp diagnostic(severity, message) do
    %Diagnostic{
      compiler_name: "py_native",
      file: Path.expand("mix.exs"),
      message: message,
      position: nil,
      severity: severity
    }
  end
end
