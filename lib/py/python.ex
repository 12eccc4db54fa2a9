defmodule Py.Python do
  @moduledoc """
  Finds the Python to use, and says all that Py must know about it.

  The first of these that is there is taken, and nothing after it is tried, so that a broken choice is an error and
  never silently replaced by another Python:

    1. what the caller gives,
    2. `config :py, python: "..."`,
    3. the environment variable `VIRTUAL_ENV`,
    4. `.venv` in the current directory,
    5. `python3` on `PATH`.

  A choice is an executable (`"/usr/bin/python3"`, `"python3.12"`) or a directory: a virtual environment, or a prefix
  with `bin/python3` in it.
  """

  alias Py.Python.Probe

  @oldest {3, 11}

  @enforce_keys [:executable, :version, :minor]
  defstruct [
    :executable,
    :version,
    :minor,
    :prefix,
    :base_prefix,
    :libpython,
    :free_threaded,
    :bits,
    :implementation,
    :source,
    :venv?
  ]

  @typedoc "`libpython` is `nil` for a Python without a shared library; `source` says why this Python was chosen."
  @type t :: %__MODULE__{
          executable: Path.t(),
          version: String.t(),
          minor: String.t(),
          prefix: Path.t(),
          base_prefix: Path.t(),
          libpython: Path.t() | nil,
          free_threaded: boolean,
          bits: 32 | 64,
          implementation: String.t(),
          source: String.t(),
          venv?: boolean
        }

  @doc """
  Finds the Python to use and asks it what it is.

  `root` is the directory in which `.venv` and relative paths are looked up. The message of an error is one paragraph:
  what was looked at, and what to do.
  """
  @spec find(Path.t() | nil, Path.t()) :: {:ok, t} | {:error, String.t()}
  def find(choice \\ nil, root \\ File.cwd!()) do
    case Enum.find(candidates(choice, root), fn {_source, path} -> path end) do
      nil -> {:error, nothing_found(root)}
      {source, path} -> examine(source, path, root)
    end
  end

  @doc """
  All that is looked at, in order, as `{source, path}`; the path is `nil` where there is nothing.
  """
  @spec candidates(Path.t() | nil, Path.t()) :: [{String.t(), Path.t() | nil}]
  def candidates(choice \\ nil, root \\ File.cwd!()) do
    dot_venv = Path.join(root, ".venv")

    [
      {"the python: option", choice},
      {"config :py, python:", Application.get_env(:py, :python)},
      {"VIRTUAL_ENV", non_empty(System.get_env("VIRTUAL_ENV"))},
      {".venv in #{root}", if(exists?(dot_venv), do: dot_venv)},
      {"python3 on PATH", System.find_executable("python3")}
    ]
  end

  @doc """
  Can this Python run inside the node? It can when there is a shared library to open.
  """
  @spec embeddable(t) :: :ok | {:error, String.t()}
  def embeddable(%__MODULE__{libpython: nil} = python) do
    {:error,
     "Python #{python.version} (#{python.executable}, from #{python.source}) has no shared libpython#{python.minor} in " <>
       "#{python.base_prefix}: it is a static build, or the package with the library is not installed, so it cannot run " <>
       "inside the node. Install the library (Debian and Ubuntu: apt-get install libpython#{python.minor}; pyenv: " <>
       "PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install --force #{python.version}) or take a Python that has one " <>
       "(uv python install #{python.minor}). Pools in: :process need none."}
  end

  def embeddable(%__MODULE__{}), do: :ok

  defp examine(source, path, root) do
    with {:ok, executable} <- executable(source, to_string(path), root),
         {:ok, facts} <- probe(source, executable) do
      accept(source, struct!(__MODULE__, Map.put(facts, :source, source)))
    end
  end

  defp probe(source, executable) do
    case Probe.run(executable) do
      {:ok, facts} ->
        {:ok, facts}

      {:error, what} ->
        {:error,
         "#{executable} (from #{source}) is not a Python that works: #{what} Run it by hand to see why, or choose another " <>
           "with config :py, python: \"/path/to/python\"."}
    end
  end

  defp accept(source, python) do
    what = "#{python.executable} (from #{source}) is"
    instead = "choose one with config :py, python: \"/path/to/python\" or VIRTUAL_ENV"

    cond do
      python.implementation != "cpython" ->
        {:error, "#{what} #{python.implementation}; Py needs CPython 3.11 or later: #{instead}."}

      release(python.minor) < @oldest ->
        {:error, "#{what} Python #{python.version}; Py needs CPython 3.11 or later: #{instead}."}

      python.free_threaded ->
        {:error,
         "#{what} a free-threaded build of Python #{python.version}, which Py does not support yet: " <>
           "take the ordinary build of the same version, and #{instead}."}

      # What Py loads into it was built for the machine of the node.
      python.bits != node_bits() ->
        {:error,
         "#{what} a #{python.bits}-bit build of Python #{python.version}, and this node is a #{node_bits()}-bit one: " <>
           "install a #{node_bits()}-bit Python, and #{instead}."}

      true ->
        {:ok, python}
    end
  end

  defp node_bits, do: 8 * :erlang.system_info(:wordsize)

  defp release(minor) do
    [major, minor] = String.split(minor, ".")
    {String.to_integer(major), String.to_integer(minor)}
  end

  # A choice without a slash that is not a file here is a command: "python3.12".
  defp executable(source, choice, root) do
    path = Path.expand(choice, root)

    cond do
      File.dir?(path) -> in_directory(source, path)
      exists?(path) -> runnable(source, path)
      not String.contains?(choice, "/") -> command(source, choice)
      true -> {:error, "#{path} (from #{source}) does not exist: #{correct(source)}."}
    end
  end

  defp command(source, name) do
    case System.find_executable(name) do
      nil ->
        {:error,
         "#{name} (from #{source}) is neither a file here nor a command on PATH: #{correct(source)}."}

      path ->
        {:ok, path}
    end
  end

  defp in_directory(source, directory) do
    config = Path.join(directory, "pyvenv.cfg")
    python = Enum.find(["python", "python3"], &exists?(Path.join([directory, "bin", &1])))
    home = home(config)

    cond do
      home && not File.dir?(home) ->
        broken(source, directory, "the Python it was made from (home = #{home}) is gone")

      python ->
        runnable(source, Path.join([directory, "bin", python]))

      File.regular?(config) ->
        broken(source, directory, "it has no bin/python")

      true ->
        {:error,
         "#{directory} (from #{source}) is neither a virtual environment (it has no pyvenv.cfg) nor a Python installation " <>
           "(it has no bin/python3): make one there with python3 -m venv #{directory}, or #{correct(source)}."}
    end
  end

  defp home(config) do
    with {:ok, text} <- File.read(config),
         [_line, home] <- Regex.run(~r/^home\s*=\s*(.+?)\s*$/m, text) do
      home
    else
      _no_home -> nil
    end
  end

  defp runnable(source, path) do
    case {File.stat(path), System.find_executable(path)} do
      {{:ok, %File.Stat{type: :regular}}, executable} when is_binary(executable) ->
        {:ok, path}

      {{:ok, _stat}, nil} ->
        {:error, "#{path} (from #{source}) is not executable: #{correct(source)}."}

      {{:error, reason}, _executable} ->
        reason = "#{path}#{target(path)} cannot be followed (#{:file.format_error(reason)})"
        broken(source, venv_of(path), reason)
    end
  end

  defp target(path) do
    case File.read_link(path) do
      {:ok, target} -> " -> #{target}"
      {:error, _not_a_link} -> ""
    end
  end

  defp venv_of(path), do: path |> Path.dirname() |> Path.dirname()

  defp broken(source, directory, reason) do
    {:error,
     "the virtual environment #{directory} (from #{source}) is broken: #{reason}. Make it again with " <>
       "python3 -m venv --clear #{directory} and install its packages again, or #{correct(source)}."}
  end

  defp correct("VIRTUAL_ENV"), do: "activate another environment or unset VIRTUAL_ENV"

  defp correct(".venv" <> _rest),
    do: "remove it, or choose another Python with config :py, python: \"/path/to/python\""

  defp correct("python3 on PATH"),
    do: "mend PATH, or choose a Python with config :py, python: \"/path/to/python\""

  defp correct(source),
    do: "correct #{source} (an executable or the directory of a virtual environment)"

  defp nothing_found(root) do
    "no Python was found: no python: option and no config :py, python: is given, VIRTUAL_ENV is not set, there is no .venv " <>
      "in #{root}, and python3 is not on PATH. Install CPython 3.11 or later with its shared library " <>
      "(Debian and Ubuntu: apt-get install python3-dev; elsewhere: uv python install 3.13), " <>
      "or name one with config :py, python: \"/path/to/python\"."
  end

  # A dangling link exists too: it is a choice that is broken, not a choice that was not made.
  defp exists?(path), do: match?({:ok, _stat}, File.lstat(path))

  defp non_empty(""), do: nil
  defp non_empty(value), do: value
end
