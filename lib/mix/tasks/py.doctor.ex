defmodule Mix.Tasks.Py.Doctor do
  @shortdoc "Says what Py finds on this machine, and what is wrong"

  @moduledoc """
  Says what Py finds on this machine, and what is wrong.

      mix py.doctor
      mix py.doctor --python /path/to/python

  One line for everything that must be right: which Python is taken and why, its library, the native libraries, cargo,
  whether a call works, and whether a worker process starts and how long that takes. What is wrong is followed by what
  to do. The exit status is 1 if anything is wrong.

  With `--python`, that Python (an executable or a virtual environment) is examined in place of the one that would be
  found: give the `python:` of your pools `in: :process`. That of the default pool, from `config :py, default:`, is
  examined as well.
  """

  use Mix.Task

  alias Py.{Aside, Build, Python}

  @typedoc "A line of the table."
  @type row :: {:ok | :wrong | :note, label :: String.t(), text :: String.t()}

  @impl true
  def run(arguments) do
    rows = [compile() | rows(choice!(arguments))]
    Enum.each(rows, &Mix.shell().info(line(&1)))
    wrong = Enum.count(rows, &match?({:wrong, _label, _text}, &1))

    if wrong > 0 do
      Mix.shell().error("\n#{wrong} of #{length(rows)} wrong: see above for what to do.")
      exit({:shutdown, 1})
    end

    Mix.shell().info("\nAll is well.")
  end

  defp choice!(arguments) do
    case OptionParser.parse(arguments, strict: [python: :string]) do
      {[], [], []} -> nil
      {[], [choice], []} -> choice
      {[python: choice], [], []} -> choice
      _other -> Mix.raise("usage: mix py.doctor [--python PATH]")
    end
  end

  @doc false
  @spec rows(Path.t() | nil) :: [row]
  def rows(choice) do
    looked_at(choice) ++ python_rows(choice, Python.find(choice)) ++ default_pool(choice)
  end

  # The other pools are known when they start.
  defp default_pool(nil) do
    with options when is_list(options) <- Application.get_env(:py, :default),
         true <- options[:in] == :process and options[:python] != nil do
      case Python.find(options[:python]) do
        {:ok, python} ->
          [{:ok, "default pool", "#{python.version}, #{python.executable}"}, worker(python)]

        {:error, message} ->
          [{:wrong, "default pool", message}]
      end
    else
      _no_python_of_its_own -> []
    end
  end

  defp default_pool(_choice), do: []

  defp compile do
    case Mix.Task.run("compile", ["--return-errors"]) do
      {:error, diagnostics} -> {:wrong, "build", Enum.map_join(diagnostics, " ", & &1.message)}
      _compiled -> {:ok, "build", "up to date"}
    end
  end

  defp looked_at(choice) do
    for {source, path} <- Python.candidates(choice) do
      {:note, source, path || "-"}
    end
  end

  defp python_rows(_choice, {:error, message}) do
    [{:wrong, "python", message}, cargo(), built(nil)]
  end

  defp python_rows(choice, {:ok, python}) do
    [
      {:ok, "python", "#{python.version}, from #{python.source}"},
      {:ok, "executable", python.executable},
      {:ok, "prefix", prefix(python)},
      libpython(choice, python),
      cargo(),
      built(if(choice == nil and Python.embeddable(python) == :ok, do: python.minor)),
      worker(python)
    ] ++ if(Python.embeddable(python) == :ok, do: running(choice, python), else: [])
  end

  defp prefix(%Python{venv?: true} = python),
    do: "#{python.prefix} (virtual environment of #{python.base_prefix})"

  defp prefix(python), do: "#{python.prefix} (no virtual environment)"

  # Whoever asks about another Python than the node's may want it for processes, which need no library.
  defp libpython(choice, python) do
    case Python.embeddable(python) do
      :ok -> {:ok, "libpython", python.libpython}
      {:error, message} -> {if(choice, do: :note, else: :wrong), "libpython", message}
    end
  end

  @trial Module.concat(__MODULE__, Trial)

  # Starts one, as a pool in: :process does. In a process of its own: the end of a pool that does not start reaches it
  # after the reason, which is what we want to hear.
  defp worker(python) do
    {:ok, answer} = Aside.run(fn -> try_worker(python) end)
    answer
  end

  defp try_worker(python) do
    Process.flag(:trap_exit, true)

    with {:ok, _started} <- Application.ensure_all_started(:py),
         {micros, {:ok, pid}} <- :timer.tc(fn -> start_worker(python) end),
         {:ok, version} <- Py.eval("import sys; sys.version.split()[0]", %{}, on: @trial) do
      GenServer.stop(pid)
      {:ok, "worker process", "Python #{version} serves after #{div(micros, 1000)} ms"}
    else
      {_micros, {:error, error}} -> {:wrong, "worker process", Exception.message(error)}
      other -> {:wrong, "worker process", "it should serve, and there is #{inspect(other)}"}
    end
  end

  defp start_worker(python),
    do:
      Py.Pool.start_link(
        name: @trial,
        in: :process,
        size: 1,
        python: python.executable,
        start_timeout: 10_000
      )

  # Only building needs cargo.
  defp cargo do
    case Build.cargo() do
      nil -> {:note, "cargo", "missing. " <> Build.cargo_missing()}
      path -> {:ok, "cargo", path}
    end
  end

  defp built(minor) do
    place = Build.place()
    missing = Build.missing(List.wrap(minor), place)

    versions =
      if Build.built(place) == [], do: "no version", else: Enum.join(Build.built(place), ", ")

    if missing == [],
      do: {:ok, "native", "for #{versions}, in #{place.native}"},
      else:
        {:wrong, "native",
         "#{Enum.join(missing, " and ")} is missing in #{place.native}: " <>
           "run #{if minor, do: "PY_VERSIONS=#{minor} "}mix compile."}
  end

  defp running(nil, python), do: [opens(python), answers()]

  # The node runs the Python that is configured: another one can only be opened by a node of its own.
  defp running(_choice, python) do
    if python.minor in Build.built(),
      do: [],
      else: [
        {:note, "native for #{python.minor}",
         "missing, for pools in: :thread: run PY_VERSIONS=#{python.minor} mix compile."}
      ]
  end

  defp opens(python) do
    case open(python.libpython) do
      {:ok, version} ->
        if String.starts_with?(version, python.minor <> "."),
          do: {:ok, "opens", version},
          else:
            {:wrong, "opens",
             "#{python.libpython} is Python #{version}, not #{python.minor}: reinstall this Python."}

      {:error, message} ->
        {:wrong, "opens", message}
    end
  end

  # The pool may have loaded it already.
  defp open(libpython) do
    Py.Native.Base.open(libpython)
  rescue
    ErlangError ->
      with(:ok <- Py.Native.Base.load(Build.base_file()), do: Py.Native.Base.open(libpython))
  end

  defp answers do
    with {:ok, _started} <- Application.ensure_all_started(:py),
         {:ok, 2} <- Py.eval("1+1") do
      {:ok, "answers", "Py.eval(\"1+1\") is {:ok, 2}"}
    else
      {:error, %{message: message}} when is_binary(message) -> {:wrong, "answers", message}
      other -> {:wrong, "answers", "Py.eval(\"1+1\") should be {:ok, 2} and is #{inspect(other)}"}
    end
  end

  defp line({state, label, text}) do
    mark = %{ok: "ok", wrong: "WRONG", note: ""}[state]

    String.trim_trailing(
      "#{String.pad_trailing(mark, 6)}#{String.pad_trailing(label, 24)}#{text}"
    )
  end
end
