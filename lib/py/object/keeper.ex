defmodule Py.Object.Keeper do
  @moduledoc false

  # Has objects of worker processes let go of when nothing refers to them any more: it is told by what stood for them
  # (`native/base/src/handle.rs`), and asks their workers, once for many. An object of the node is let go of natively.

  use GenServer

  alias Py.{Pool, Workers}

  # Milliseconds after which a pool that took no request is asked again.
  @again 100

  # And those that finalizers may take, which are user code: a worker is not theirs for ever.
  @timeout 30_000

  @spec start_link(term) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  # What was asked and is not answered yet: a request whose time was up before it began is made again.
  @impl true
  def init(nil), do: {:ok, %{}}

  # Behind what was asked before: a request that has the object as an argument is read first.
  @impl true
  def handle_info({:py_dropped, name, board, worker, numbers} = dropped, asked) do
    with %Pool{in: :process, pid: ^board} = pool <- Pool.lookup(name),
         {:ok, tag} <- drop(%{pool | home: worker}, numbers) do
      {:noreply, Map.put(asked, tag, dropped)}
    else
      {:error, %{kind: :overloaded}} ->
        Process.send_after(self(), dropped, @again)
        {:noreply, asked}

      # A worker that is gone has let go of all.
      _no_such_worker ->
        {:noreply, asked}
    end
  end

  def handle_info({:py_result, tag, result}, asked) do
    {dropped, asked} = Map.pop(asked, tag)

    with {:error, %{kind: :timeout}} when dropped != nil <- result,
         do: send(self(), dropped)

    {:noreply, asked}
  end

  def handle_info(_other, asked), do: {:noreply, asked}

  defp drop(pool, numbers) do
    request = {:call, "erlang._objects", "drop", [numbers], []}
    tag = make_ref()

    with {:error, _error} = refused <-
           Workers.submit(pool, tag, Process.group_leader(), request, @timeout),
         do: refused,
         else: (_ticket -> {:ok, tag})
  end
end
