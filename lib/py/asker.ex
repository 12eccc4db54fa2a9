defmodule Py.Asker do
  @moduledoc false

  # In whose name Python code asks the node: `Asker` of `native/core/src/question.rs` is the other half. What is not known
  # is nil: a thread of Python's may belong to no call, or outlive it.

  alias Py.{Callbacks, Native}

  defstruct [:caller, :call, :pool, :span]

  @typedoc "A pool of threads by its number, one of worker processes by its process."
  @type pool :: {:node, non_neg_integer} | pid

  @typedoc "The process that made the call, the call's reference, and the span of Python's that is open."
  @type t :: %__MODULE__{
          caller: pid | nil,
          call: reference | nil,
          pool: pool | nil,
          span: term
        }

  @doc "Who asks, and, where a worker does, the caller and the reference of the call."
  @spec of(Callbacks.asker(), {pid, reference} | nil) :: t
  def of({:node, number}, _caller) do
    case Native.asker(number) do
      {pool, {caller, call}} -> %__MODULE__{caller: caller, call: call, pool: {:node, pool}}
      {pool, nil} -> %__MODULE__{pool: {:node, pool}}
      nil -> %__MODULE__{}
    end
  end

  def of({:worker, board, _port, _number}, {caller, call}),
    do: %__MODULE__{caller: caller, call: call, pool: board}

  def of({:worker, board, _port, _number}, nil), do: %__MODULE__{pool: board}

  @doc "Lets the calling process go on in that name: with the `$callers` and the Logger metadata of a task."
  @spec impersonate(t) :: term
  def impersonate(%{caller: nil}), do: :ok

  def impersonate(%{caller: caller}) when node(caller) == node() do
    case Process.info(caller, :dictionary) do
      {:dictionary, dictionary} ->
        Process.put(:"$callers", [caller | Keyword.get(dictionary, :"$callers", [])])
        metadata = Keyword.get(dictionary, :"$logger_metadata$")
        if metadata, do: Process.put(:"$logger_metadata$", metadata)

      nil ->
        Process.put(:"$callers", [caller])
    end
  end

  def impersonate(%{caller: caller}), do: Process.put(:"$callers", [caller])
end
