defmodule Py.Iterator do
  @moduledoc false

  # An Elixir enumerable that Python iterates over: a process for as long as Python has the iterator, since what an
  # enumerable opens (a file, a connection) is the process's that began it. See `erlang/_iterator.py`.

  alias Py.{Asker, Callbacks}

  # Milliseconds after which what there is is handed over, though more was asked for.
  @soon 1

  @enforce_keys [:enumerable]
  defstruct [:enumerable]

  @typedoc "As a function it crosses without being converted."
  @type t :: %__MODULE__{enumerable: (-> Enumerable.t())}

  @spec new(Enumerable.t()) :: t
  def new(enumerable) do
    if Enumerable.impl_for(enumerable) == nil do
      raise ArgumentError, "Py.iter takes an enumerable, got: #{inspect(enumerable)}"
    end

    %__MODULE__{enumerable: fn -> enumerable end}
  end

  @doc "Starts the process, in the name of whoever asks."
  @spec open(function, Asker.t(), Callbacks.asker()) :: {:ok, pid} | {:error, term}
  def open(enumerable, asker, question) when is_function(enumerable, 0) do
    leader = Process.group_leader()

    pid =
      spawn(fn ->
        Process.group_leader(self(), leader)
        Asker.impersonate(asker)
        watch(asker, question)
        wait(&Enumerable.reduce(enumerable.(), &1, fn item, acc -> collect(item, acc) end))
      end)

    {:ok, pid}
  end

  @doc "The next items, up to so many, and whether there may be more."
  @spec next(pid, pos_integer) :: {:ok, {list, boolean}} | {:error, term}
  def next(pid, count) when is_pid(pid) and is_integer(count) do
    ref = Process.monitor(pid)
    send(pid, {:py_next, self(), ref, count})

    receive do
      {^ref, answer} ->
        Process.demonitor(ref, [:flush])
        answer

      {:DOWN, ^ref, :process, ^pid, reason} ->
        Callbacks.died(reason)
    end
  end

  # --- the process --------------------------------------------------------------------------------

  # It ends with the process whose call it is for, and with the worker that has the iterator.
  defp watch(asker, question) do
    if asker.caller, do: Process.monitor(asker.caller)
    with {:worker, _board, port, _number} <- question, do: Port.monitor(port)
  end

  defp wait(continue) do
    receive do
      {:py_next, from, ref, count} -> take(continue, from, ref, count)
      _stop_or_down -> continue.({:halt, nil})
    end
  end

  defp take(continue, from, ref, count) do
    until = System.monotonic_time(:millisecond) + @soon

    case continue.({:cont, {[], count, until}}) do
      {:suspended, {items, _, _}, continue} ->
        send(from, {ref, {:ok, {Enum.reverse(items), true}}})
        wait(continue)

      {_done_or_halted, {items, _, _}} ->
        send(from, {ref, {:ok, {Enum.reverse(items), false}}})
    end
  catch
    kind, reason -> send(from, {ref, Callbacks.raised(kind, reason, __STACKTRACE__)})
  end

  defp collect(item, {items, count, until}) do
    full? = count == 1 or System.monotonic_time(:millisecond) > until
    {if(full?, do: :suspend, else: :cont), {[item | items], count - 1, until}}
  end
end
