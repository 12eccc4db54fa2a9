defmodule Py.Reception do
  @moduledoc false

  # Where worker processes report: each connects twice, and says with a token whose it is and what the connection is for.

  use GenServer

  @patience 5_000
  @pause 100
  @sweep 60_000
  @token_bytes 16

  # A token in hexadecimal digits, a role of up to seven letters.
  @greeting 2 * @token_bytes + String.length(" control\n")

  @spec start_link(term) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc """
  Says that a worker of the calling process will report, and returns its token and the name of the socket. The process
  gets `{:py_socket, token, :output | :control, socket}` of each of its connections.
  """
  @spec expect() :: {String.t(), String.t()}
  def expect do
    token = Base.encode16(:crypto.strong_rand_bytes(@token_bytes), case: :lower)
    :ets.insert(__MODULE__, {token, self()})
    {token, :persistent_term.get(__MODULE__)}
  end

  @spec forget(String.t()) :: :ok
  def forget(token) do
    :ets.delete(__MODULE__, token)
    :ok
  rescue
    # The application has stopped, and a pool of somebody else's supervisor is about to.
    ArgumentError -> :ok
  end

  @impl true
  def init(nil) do
    # In the abstract namespace of Linux a socket leaves no file behind.
    name = "py-#{System.pid()}-#{Base.encode16(:crypto.strong_rand_bytes(8), case: :lower)}"
    address = {:local, <<0, name::binary>>}
    options = [:binary, ifaddr: address, packet: :raw, active: false, backlog: 1024]

    with {:ok, listener} <- :gen_tcp.listen(0, options) do
      :ets.new(__MODULE__, [:named_table, :public, write_concurrency: true])
      :persistent_term.put(__MODULE__, name)
      spawn_link(fn -> accept(listener) end)
      :timer.send_interval(@sweep, :sweep)
      {:ok, listener}
    else
      {:error, reason} -> {:stop, {:no_socket_for_workers, reason}}
    end
  end

  # Pools that were killed forget nothing by themselves.
  @impl true
  def handle_info(:sweep, listener) do
    for {token, owner} <- :ets.tab2list(__MODULE__), not Process.alive?(owner), do: forget(token)
    {:noreply, listener}
  end

  defp accept(listener) do
    case :gen_tcp.accept(listener) do
      {:ok, socket} ->
        guide(socket)
        accept(listener)

      {:error, :closed} ->
        :ok

      # There are no more descriptors: whoever wants to come in waits until there are.
      {:error, _reason} ->
        Process.sleep(@pause)
        accept(listener)
    end
  end

  # Somebody who connects and says nothing must not hold up the others.
  defp guide(socket) do
    guide = spawn(fn -> receive(do: (:come_in -> greet(socket))) end)
    :ok = :gen_tcp.controlling_process(socket, guide)
    send(guide, :come_in)
  end

  defp greet(socket) do
    # No byte more is read than the greeting has: a segment may come right after it, and is lost when it is read so.
    with {:ok, line} <- :gen_tcp.recv(socket, @greeting, @patience),
         [token, role] <- String.split(line),
         {:ok, role} <- role(role),
         [{^token, owner}] <- :ets.lookup(__MODULE__, token),
         :ok <- :gen_tcp.controlling_process(socket, owner) do
      send(owner, {:py_socket, token, role, socket})
    else
      _nobody_we_wait_for -> :gen_tcp.close(socket)
    end
  end

  defp role("output"), do: {:ok, :output}
  defp role("control"), do: {:ok, :control}
  defp role(_other), do: :error
end
