defmodule Py.Runtime do
  @moduledoc false

  # Boots the one Python of the node, one attempt at a time. Until libpython is open nothing is final: a failure is
  # remembered for a moment, and for the same candidates only, so that many calls do not look for Python many times.

  use GenServer

  alias Py.{Build, Error, Native, Python}

  @remembered 5_000
  @boot_limit 60_000
  @doctor " Run mix py.doctor to see all that was looked at."

  @spec start_link(term) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "Boots the Python of this choice, or says which one runs; nil takes the one that runs, else what is found."
  @spec boot(Path.t() | nil) :: {:ok, Python.t()} | {:error, Error.t()}
  def boot(choice), do: GenServer.call(__MODULE__, {:boot, choice}, :infinity)

  @impl true
  def init(nil), do: {:ok, :persistent_term.get(__MODULE__, :idle)}

  @impl true
  def handle_call({:boot, choice}, _from, state) do
    {result, state} = boot(choice, state)
    {:reply, with({:error, text} <- result, do: {:error, unavailable(text)}), state}
  end

  # The answer of a boot that had been given up.
  @impl true
  def handle_info({:py_booted, _ref, _result}, state), do: {:noreply, state}

  defp boot(nil, {:booted, python} = state), do: {{:ok, python}, state}

  defp boot(choice, {:booted, python} = state) do
    case Python.find(choice) do
      {:ok, %{executable: same}} when same == python.executable -> {{:ok, python}, state}
      {:ok, other} -> {{:error, conflict(python, other)}, state}
      {:error, text} -> {{:error, text}, state}
    end
  end

  defp boot(_choice, {:broken, text} = state), do: {{:error, text}, state}

  defp boot(choice, state) do
    facts = Python.candidates(choice)

    if remembered?(state, facts),
      do: {{:error, elem(state, 1)}, state},
      else: attempt(choice, facts)
  end

  defp attempt(choice, facts) do
    case prepare(choice) do
      {:ok, python} -> python |> load() |> booted(python)
      {:error, text} -> {{:error, text}, {:failed, text, facts, now()}}
    end
  end

  # From here on a libpython is open in this process and cannot be closed: that outlives the application.
  defp booted(:ok, python), do: {{:ok, python}, last({:booted, python})}

  defp booted({:error, text}, _python) do
    text = text <> " Restart the node after that."
    {{:error, text}, last({:broken, text})}
  end

  defp last(state) do
    :persistent_term.put(__MODULE__, state)
    state
  end

  defp remembered?({:failed, _text, facts, since}, facts), do: now() - since < @remembered
  defp remembered?(_state, _facts), do: false

  # Everything that can be said without opening a library.
  defp prepare(choice) do
    with {:ok, python} <- Python.find(choice),
         :ok <- Python.embeddable(python),
         :ok <- Build.ensure(python.minor),
         :ok <- in_words(Native.Base.load(Build.base_file()), "the base library") do
      {:ok, python}
    end
  end

  defp load(python) do
    with {:ok, version} <- in_words(Native.Base.open(python.libpython), python.libpython),
         :ok <- compare(version, python),
         :ok <-
           in_words(
             Native.load(Build.nif_file(python.minor)),
             "the library for Python #{python.minor}"
           ) do
      start(python)
    end
  end

  defp compare(version, python) do
    if String.starts_with?(version, python.minor <> "."),
      do: :ok,
      else:
        {:error,
         "#{python.libpython} is Python #{version}, and #{python.executable} (from #{python.source}) says that it is " <>
           "Python #{python.version}: their minor versions must agree."}
  end

  defp start(python) do
    # The BEAM ignores SIGCHLD, and then waitpid of Python's subprocess finds no child and no exit status.
    :os.set_signal(:sigchld, :default)
    ref = make_ref()
    :ok = Native.boot(ref, config(python))

    receive do
      {:py_booted, ^ref, :ok} ->
        :ok

      {:py_booted, ^ref, {:error, text}} ->
        {:error, "Python #{python.version} (#{python.executable}) did not start: #{text}"}
    after
      @boot_limit ->
        {:error, "Python #{python.version} (#{python.executable}) did not start within a minute."}
    end
  end

  defp config(python) do
    %{
      executable: python.executable,
      python_path: Application.app_dir(:py, "priv/python"),
      sink: Process.whereis(Py.Output),
      decimal: Code.ensure_loaded?(Decimal),
      set_version: Map.has_key?(MapSet.new(), :version),
      structs: Py.Encoding.structs()
    }
  end

  defp in_words({:error, text}, what), do: {:error, "#{what} cannot be loaded: #{text}"}
  defp in_words(ok, _what), do: ok

  defp conflict(python, other) do
    "this node runs #{python.executable} (Python #{python.version}, from #{python.source}), and a pool asks for " <>
      "#{other.executable} (Python #{other.version}): all pools in: :thread share one Python, so give the same python: to all."
  end

  defp unavailable(text), do: Error.new(:not_available, text <> @doctor)

  defp now, do: System.monotonic_time(:millisecond)
end
