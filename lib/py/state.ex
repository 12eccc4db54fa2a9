defmodule Py.State do
  @moduledoc """
  Values that all Python code and Elixir share by name, in the memory of the node: `erlang.state_get(key, default=None)`,
  `state_set(key, value)`, `state_delete(key)`, `state_keys()`, `state_incr(key, by=1)`, `state_decr(key, by=1)` and
  `state_clear()` in Python, and the functions here. Both kinds of pool see the same.

  Keys are strings; values are whatever can be passed between the two. A counter is an integer, counted exactly however many
  count at once. There are at most `config :py, max_entries: 100_000` entries; one more is a `RuntimeError` in Python and an
  `ArgumentError` here. They live as long as the application.

      iex> Py.State.set("runs", 1)
      :ok
      iex> Py.eval!("import erlang; erlang.state_incr('runs', 2)")
      3
      iex> Py.State.get("runs")
      3
      iex> Py.State.delete("runs")
      :ok
  """

  use GenServer

  @table __MODULE__
  @max_entries 100_000

  @doc false
  @spec start_link(term) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @impl true
  def init(nil) do
    :ets.new(@table, [:named_table, :public, read_concurrency: true, write_concurrency: true])
    {:ok, nil}
  end

  @doc """
  The value of a key, or the default where there is none; a value may be `nil`.

      iex> Py.State.get("nothing", :missing)
      :missing
  """
  @spec get(String.t(), term) :: term
  def get(key, default \\ nil) when is_binary(key) do
    case :ets.lookup(@table, key) do
      [{^key, value}] -> value
      [] -> default
    end
  end

  @doc """
  Sets the value of a key.

      iex> Py.State.set("key", [1, 2])
      iex> Py.State.get("key")
      [1, 2]
  """
  @spec set(String.t(), term) :: :ok
  def set(key, value) when is_binary(key) do
    make_room!(key)
    :ets.insert(@table, {key, value})
    :ok
  end

  @doc """
  Forgets a key.

      iex> Py.State.delete("key")
      :ok
  """
  @spec delete(String.t()) :: :ok
  def delete(key) when is_binary(key) do
    :ets.delete(@table, key)
    :ok
  end

  @doc """
  The keys that have a value, in no order.

      iex> Py.State.clear()
      iex> Py.State.set("a", 1)
      iex> Py.State.keys()
      ["a"]
  """
  @spec keys() :: [String.t()]
  def keys, do: :ets.select(@table, [{{:"$1", :_}, [], [:"$1"]}])

  @doc """
  Adds to the integer of a key, which is 0 where there is none, and tells the sum.

      iex> Py.State.delete("count")
      iex> {Py.State.incr("count"), Py.State.incr("count", 10)}
      {1, 11}
  """
  @spec incr(String.t(), integer) :: integer
  def incr(key, by \\ 1) when is_binary(key) and is_integer(by) do
    make_room!(key)
    :ets.update_counter(@table, key, by, {key, 0})
  rescue
    error in ArgumentError ->
      if is_integer(get(key, 0)),
        do: reraise(error, __STACKTRACE__),
        else: raise(ArgumentError, "the value of #{inspect(key)} is no integer")
  end

  @doc """
  Takes from the integer of a key, as `incr/2` adds.

      iex> Py.State.set("stock", 10)
      iex> Py.State.decr("stock", 3)
      7
  """
  @spec decr(String.t(), integer) :: integer
  def decr(key, by \\ 1), do: incr(key, -by)

  @doc """
  Forgets all keys.

      iex> Py.State.clear()
      :ok
  """
  @spec clear() :: :ok
  def clear do
    :ets.delete_all_objects(@table)
    :ok
  end

  # A few more may get in at once; that bounds it all the same.
  defp make_room!(key) do
    limit = Application.get_env(:py, :max_entries, @max_entries)

    if :ets.info(@table, :size) >= limit and not :ets.member(@table, key) do
      raise ArgumentError,
            "Py.State is full: it has #{limit} entries (config :py, max_entries:); delete some"
    end
  end

  # What Python asks: whether there is a value, and it.
  @doc false
  @spec perform(String.t(), list) :: {:ok, term} | {:error, {:type | :runtime, String.t()}}
  def perform("get", [key]) do
    case :ets.lookup(@table, key) do
      [{^key, value}] -> {:ok, {true, value}}
      [] -> {:ok, {false, nil}}
    end
  end

  def perform("set", [key, value]), do: guarded(fn -> set(key, value) end)
  def perform("delete", [key]), do: guarded(fn -> delete(key) end)
  def perform("keys", []), do: {:ok, keys()}
  def perform("incr", [key, by]), do: guarded(fn -> incr(key, by) end)
  def perform("clear", []), do: guarded(&clear/0)

  defp guarded(function) do
    case function.() do
      :ok -> {:ok, nil}
      sum -> {:ok, sum}
    end
  rescue
    error in ArgumentError -> {:error, {:runtime, error.message}}
  end
end
