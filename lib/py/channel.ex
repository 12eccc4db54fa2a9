defmodule Py.Channel do
  @moduledoc """
  Items on their way between Elixir processes and Python code, any number of either, in both directions.

      iex> channel = Py.Channel.new(max_size: 2)
      iex> consumer = Py.async_call(:builtins, :list, [channel])
      iex> for n <- 1..5, do: :ok = Py.Channel.put(channel, n)
      iex> Py.Channel.close(channel)
      iex> Py.await(consumer)
      {:ok, [1, 2, 3, 4, 5]}

  A channel is a process with a buffer of `max_size:` items. `put/3` waits while that is full, and so holds up a producer that
  is faster than its consumers; `get/2` waits while it is empty. Who waits is served in turn, and costs nothing meanwhile. Items
  are whatever can be passed between the two; `nil` is an item like any other.

  `close/1` says that nothing follows: what the buffer has can still be taken, then `get/2` is `{:error, :closed}`, loops in
  Python end, and so does `stream/1`. A channel whose process has ended is closed too, and its items are gone with it.

  Under a supervisor it has a name, by which the functions here and Python find it:

      children = [{Py.Channel, name: MyApp.Jobs, max_size: 100}]

  It ends with the process that started it.

  ## In Python

  A channel is an argument like any other, and comes back as the same; `erlang.Channel("Elixir.MyApp.Jobs")` finds one by its
  name, or by the `erlang.Pid` of its process.

  ```python
  channel.put(item, timeout=None)     # waits while the channel is full
  channel.get(timeout=None)           # waits for an item
  await channel.aput(item, timeout=None)
  await channel.aget(timeout=None)
  for item in channel: ...            # until it is closed and empty
  async for item in channel: ...
  channel.close()
  channel.size, channel.closed
  ```

  Timeouts are seconds; the error is `TimeoutError`. A closed channel is `erlang.Closed`. A thread that waits takes no place of its
  pool, and a coroutine takes no thread. Both stop waiting when the call that they belong to ends, however it does; a thread that
  Python code started by itself belongs to none, and waits for as long as its process lives.

  ## What may be lost

  Each item is given to one taker, once. A taker that times out, is cancelled or dies before it has its item leaves it where it was.
  Lost is what a taker was given that ends before it has done its work, as with any queue: an Elixir process that is killed after
  `get/2`; a worker process that dies. So is an item whose way to a thread of Python has begun in the moment, of microseconds as a
  rule, in which the call ends for which the thread waits; a coroutine has no such moment. Whether the item of a `put` that is given
  up in that moment arrived is not known.

  An item that has no value in Python (see the README for types) is taken by the `get` that says so, a `TypeError`.
  """

  alias Py.Channel.Server
  alias Py.Options

  @enforce_keys [:pid]
  defstruct [:pid]

  @type t :: %__MODULE__{pid: pid}

  @typedoc "A channel, its process, or the name of that."
  @type channel :: t | GenServer.server()

  @longest_timeout 4_294_967_295

  @doc """
  The child specification: its id is the channel's name.

      iex> Py.Channel.child_spec(name: Jobs).id
      Jobs
  """
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options) do
    %{
      id: Keyword.get(options, :name, __MODULE__),
      start: {__MODULE__, :start_link, [options]}
    }
  end

  @doc """
  Starts the process of a channel, for supervisors; `new/1` is for everybody else.

  ## Options

  #{Options.docs(:channel)}

  ## Example

      iex> {:ok, pid} = Py.Channel.start_link(name: Jobs, max_size: 100)
      iex> Py.Channel.put(Jobs, "a job")
      :ok
      iex> GenServer.stop(pid)
      :ok
  """
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(options \\ []) do
    options = Options.check!(options, :channel, "Py.Channel")
    named = if options.name, do: [name: options.name], else: []
    Server.start_link(options.max_size, named)
  end

  @doc """
  A new channel, which ends with the calling process. It takes the options of `start_link/1`.

      iex> channel = Py.Channel.new()
      iex> Py.Channel.put(channel, nil)
      iex> Py.call(:builtins, :next, [channel])
      {:ok, nil}
  """
  @spec new(keyword) :: t
  def new(options \\ []) do
    case start_link(options) do
      {:ok, pid} ->
        %__MODULE__{pid: pid}

      {:error, {:already_started, pid}} ->
        raise ArgumentError,
              "the name #{inspect(options[:name])} is taken, by #{inspect(pid)}; " <>
                "Py.Channel.whereis/1 finds a channel by its name"
    end
  end

  @doc """
  The channel of a process or of a name, to be passed to Python; `nil` where there is none.

      iex> {:ok, pid} = Py.Channel.start_link(name: Jobs)
      iex> Py.Channel.whereis(Jobs) == Py.Channel.whereis(pid)
      true
      iex> GenServer.stop(pid)
      iex> Py.Channel.whereis(Jobs)
      nil
  """
  @spec whereis(channel) :: t | nil
  def whereis(%__MODULE__{} = channel), do: channel

  def whereis(server) do
    case GenServer.whereis(server) do
      pid when is_pid(pid) -> if Server.channel?(pid), do: %__MODULE__{pid: pid}
      _elsewhere_or_nobody -> nil
    end
  end

  @doc """
  Puts an item at the end, and waits while there is no room for it, for so many milliseconds.

      iex> channel = Py.Channel.new(max_size: 1)
      iex> Py.Channel.put(channel, 1)
      :ok
      iex> Py.Channel.put(channel, 2, 0)
      {:error, :timeout}
      iex> Py.Channel.close(channel)
      iex> Py.Channel.put(channel, 2)
      {:error, :closed}
  """
  @spec put(channel, term, timeout) :: :ok | {:error, :closed | :timeout}
  def put(channel, item, timeout \\ :infinity),
    do: ask(pid!(channel), {:put, item, timeout!(timeout, "put")})

  @doc """
  Takes the first item, and waits for one where there is none, for so many milliseconds.

      iex> channel = Py.Channel.new()
      iex> Py.Channel.get(channel, 0)
      {:error, :timeout}
      iex> Py.exec("channel.put(None)", %{channel: channel})
      iex> Py.Channel.get(channel)
      {:ok, nil}
  """
  @spec get(channel, timeout) :: {:ok, term} | {:error, :closed | :timeout}
  def get(channel, timeout \\ :infinity) do
    pid = pid!(channel)

    with {:lent, number, item} <- ask(pid, {:get, timeout!(timeout, "get")}) do
      Server.taken(pid, number)
      {:ok, item}
    end
  end

  @doc """
  Lets nothing more in. Those who wait to put something get `{:error, :closed}`; what is in the buffer can be taken.

      iex> channel = Py.Channel.new()
      iex> Py.Channel.put(channel, 1)
      iex> Py.Channel.close(channel)
      :ok
      iex> {Py.Channel.get(channel), Py.Channel.get(channel)}
      {{:ok, 1}, {:error, :closed}}
  """
  @spec close(channel) :: :ok
  def close(channel) do
    ask(pid!(channel), :close)
    :ok
  end

  @doc """
  The items of a channel, taken one by one as they are needed, until it is closed and empty.

      iex> channel = Py.Channel.new()
      iex> Py.exec("for n in range(10): channel.put(n)\\nchannel.close()", %{channel: channel})
      iex> channel |> Py.Channel.stream() |> Stream.map(& &1 * 2) |> Enum.take(3)
      [0, 2, 4]
      iex> channel |> Py.Channel.stream() |> Enum.sum()
      42
  """
  @spec stream(channel) :: Enumerable.t()
  def stream(channel) do
    Stream.repeatedly(fn -> get(channel) end)
    |> Stream.take_while(&match?({:ok, _item}, &1))
    |> Stream.map(fn {:ok, item} -> item end)
  end

  @doc """
  How many items the buffer has and how many it may have, how many wait at either end, and whether the channel is closed.

      iex> channel = Py.Channel.new(max_size: 3)
      iex> Py.Channel.put(channel, 1)
      iex> Py.Channel.info(channel)
      %{size: 1, max_size: 3, getters: 0, putters: 0, closed: false}
  """
  @spec info(channel) :: %{
          size: non_neg_integer,
          max_size: non_neg_integer,
          getters: non_neg_integer,
          putters: non_neg_integer,
          closed: boolean
        }
  def info(channel) do
    with {:error, :closed} <- ask(pid!(channel), :info),
         do: %{size: 0, max_size: 0, getters: 0, putters: 0, closed: true}
  end

  # How long one waits is for the channel to say: what it says is exact.
  defp ask(pid, question) do
    GenServer.call(pid, question, :infinity)
  catch
    :exit, {_its_process_ended, {GenServer, :call, _question}} -> {:error, :closed}
  end

  defp pid!(%__MODULE__{pid: pid}), do: pid
  defp pid!(pid) when is_pid(pid), do: pid

  defp pid!(name) when is_atom(name) or is_tuple(name) do
    with nil <- GenServer.whereis(name) do
      raise ArgumentError,
            "there is no channel #{inspect(name)}; start it as a child: {Py.Channel, name: #{inspect(name)}}"
    end
  end

  defp pid!(other) do
    raise ArgumentError,
          "expected a channel: a %Py.Channel{}, its process or its name, got: #{inspect(other)}"
  end

  defp timeout!(:infinity, _who), do: :infinity
  defp timeout!(timeout, _who) when timeout in 0..@longest_timeout, do: timeout

  defp timeout!(timeout, who) do
    raise ArgumentError,
          "the timeout of Py.Channel.#{who} must be milliseconds (0 to #{@longest_timeout}) or :infinity, " <>
            "got: #{inspect(timeout)}"
  end

  # What Python asks. What it is given counts as taken when the process that answers has ended by itself.
  @doc false
  @spec perform(String.t(), list) :: {:ok, term} | {:error, {atom, String.t()}}
  def perform("find", [where]) do
    case where |> server() |> whereis() do
      %__MODULE__{pid: pid} -> {:ok, pid}
      nil -> {:error, {:value, "there is no channel #{inspect(where)} in the node"}}
    end
  end

  def perform("put", [pid, item, timeout]),
    do: pid |> ask({:put, item, timeout || :infinity}) |> told("there was no room", timeout)

  def perform("get", [pid, timeout]),
    do: pid |> ask({:get, timeout || :infinity}) |> told("no item came", timeout)

  def perform("close", [pid]), do: {close(pid), nil}
  def perform("info", [pid]), do: {:ok, info(pid)}

  defp server(pid) when is_pid(pid), do: pid

  defp server(name) do
    String.to_existing_atom(name)
  rescue
    # A name that no atom has is nobody's.
    ArgumentError -> nil
  end

  defp told(:ok, _what, _timeout), do: {:ok, nil}
  defp told({:lent, _number, item}, _what, _timeout), do: {:ok, item}
  defp told({:error, :closed}, _what, _timeout), do: {:error, {:closed, "the channel is closed"}}

  defp told({:error, :timeout}, what, timeout),
    do: {:error, {:timeout, "#{what} within #{timeout / 1000} s"}}
end
