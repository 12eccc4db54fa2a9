# A training loop of numpy tells its loss, epoch by epoch, to an Elixir process that stops it when it has learnt enough. The
# process takes messages, so it can do other things meanwhile; the loop waits when it does not keep up.

defmodule TrainingProgress do
  use GenServer

  def run(pool, options) do
    {:ok, pid} = GenServer.start_link(__MODULE__, {pool, options, self()})

    receive do
      {:trained, ^pid, last} -> last
    end
  end

  @impl true
  def init({pool, options, owner}) do
    future =
      Py.async_call(:training, :train, [options[:epochs]], on: pool, stream_to: self(), buffer: 8)

    {:ok, %{future: future, ref: future.ref, enough: options[:enough], owner: owner, best: 0}}
  end

  @impl true
  def handle_info({:py_stream, ref, {:data, epoch}}, %{ref: ref} = state) do
    Py.Stream.ack(ref)
    if rem(epoch["epoch"], 50) == 0, do: IO.puts(describe(epoch))
    if epoch["accuracy"] >= state.enough, do: stop(epoch, state), else: {:noreply, state}
  end

  def handle_info({:py_stream, ref, :done}, %{ref: ref}), do: raise("it never learnt enough")
  def handle_info({:py_stream, ref, {:error, error}}, %{ref: ref}), do: raise(error)

  # The generator is closed: what its `finally` prints is there when this returns.
  defp stop(epoch, state) do
    :ok = Py.cancel(state.future)
    send(state.owner, {:trained, self(), epoch})
    {:stop, :normal, state}
  end

  def describe(epoch) do
    "epoch #{epoch["epoch"]}: loss #{Float.round(epoch["loss"], 3)}, accuracy #{percent(epoch)} %"
  end

  defp percent(epoch), do: Float.round(100 * epoch["accuracy"], 1)
end

{:ok, _} =
  Supervisor.start_link(
    for {name, kind} <- [{TrainingProgress.Here, :thread}, {TrainingProgress.There, :process}] do
      {Py.Pool, name: name, in: kind, size: 1, paths: [Path.join(__DIR__, "python")]}
    end,
    strategy: :one_for_one
  )

for pool <- [TrainingProgress.Here, TrainingProgress.There] do
  IO.puts("-- #{inspect(pool)}, as messages")
  last = TrainingProgress.run(pool, epochs: 100_000, enough: 0.95)
  IO.puts("stopped at " <> TrainingProgress.describe(last))
  true = last["epoch"] < 10_000

  # The same for code that can wait: the stream is an enumerable.
  IO.puts("-- #{inspect(pool)}, as an enumerable")

  last =
    Py.stream(:training, :train, [100_000], on: pool)
    |> Enum.find(fn epoch -> epoch["accuracy"] >= 0.95 end)

  IO.puts("stopped at " <> TrainingProgress.describe(last))
end

IO.puts("training_progress: done")
