defmodule Py.Object.Keeper do
  @moduledoc false

  # Has objects of worker processes let go of when nothing refers to them any more: it is told by what stood for them
  # (`native/base/src/handle.rs`), and asks their workers, once for many. An object of the node is let go of natively.

  use GenServer

  alias Py.{Pool, Workers}

  # Milliseconds after which a pool that took no request is asked again.
  @again 100

  @spec start_link(term) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @impl true
  def init(nil), do: {:ok, nil}

  # Behind what was asked before: a request that has the object as an argument is read first.
  @impl true
  def handle_info({:py_dropped, name, board, worker, numbers} = dropped, state) do
    with %Pool{in: :process, pid: ^board} = pool <- Pool.lookup(name),
         {:error, %{kind: :overloaded}} <- drop(%{pool | home: worker}, numbers) do
      Process.send_after(self(), dropped, @again)
    end

    {:noreply, state}
  end

  # What it answers says nothing: a worker that is gone has let go of all.
  def handle_info(_answer, state), do: {:noreply, state}

  defp drop(pool, numbers) do
    request = {:call, "erlang._objects", "drop", [numbers], []}
    Workers.submit(pool, make_ref(), Process.group_leader(), request, :infinity)
  end
end
