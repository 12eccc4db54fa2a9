defmodule Py.Remote do
  @moduledoc false

  # `on: {pool, node}`: a process over there makes the request, and watches who asked. So the death of the caller and the
  # loss of the connection end the request there, which an :erpc call would let run on.

  alias Py.{Caller, Error, Output, Telemetry}

  # The deadline is kept over there; the caller waits this much longer before it stops believing in the connection.
  @slack 1_000

  @doc "Runs a request on a pool of another node. `owner` is for whom, where that is not the calling process."
  @spec run(atom, node, Caller.request(), timeout | nil, pid | nil) :: Caller.result()
  def run(pool, node, request, timeout, owner \\ nil) do
    # To spawn on a node that is not there logs a warning besides.
    if Node.connect(node) == true,
      do: request(pool, node, request, timeout, owner),
      else: {:error, down(node, :noconnection)}
  end

  defp request(pool, node, request, timeout, owner) do
    reply_to = :erlang.alias([:reply])
    watched = owner && Process.monitor(owner)
    arguments = [reply_to, self(), pool, request, timeout]
    {pid, monitor} = Node.spawn_monitor(node, __MODULE__, :serve, arguments)

    result =
      receive do
        {:py_remote, ^reply_to, result} ->
          result

        {:DOWN, ^monitor, :process, _pid, reason} ->
          {:error, down(node, reason)}

        {:DOWN, ^watched, :process, _owner, _reason} ->
          {:error, Error.new(:cancelled, "its owner died")}
      after
        patience(timeout) -> {:error, Error.new(:timeout, "#{node} did not answer")}
      end

    Process.exit(pid, :kill)
    Process.demonitor(monitor, [:flush])
    if watched, do: Process.demonitor(watched, [:flush])
    flush(reply_to)
    result
  end

  @doc "The process on the other node."
  @spec serve(reference, pid, atom, Caller.request(), timeout | nil) :: term
  def serve(reply_to, caller, pool, request, timeout) do
    monitor = Process.monitor(caller)

    result =
      with {:ok, pool, timeout} <- Caller.pool(pool, timeout) do
        perform(pool, request, timeout, monitor)
      end

    # What Python printed goes to the caller's node by way of Py.Output: before the result.
    Output.flush()
    :erlang.send(reply_to, {:py_remote, reply_to, result})
  end

  defp perform(pool, request, timeout, monitor) do
    tag = make_ref()
    span = Telemetry.start(pool, request, tag)
    ticket = Caller.submit(pool, tag, Process.group_leader(), request, timeout)

    case ticket do
      {:error, _error} = refused -> stop(span, nil, refused)
      ticket -> stop(span, ticket, receive_result(ticket, tag, monitor))
    end
  end

  defp stop(span, ticket, result) do
    Telemetry.stop(span, ticket, result)
    result
  end

  defp receive_result(ticket, tag, monitor) do
    receive do
      {:py_result, ^tag, result} ->
        result

      {:DOWN, ^monitor, :process, _caller, _reason} ->
        Caller.cancel(ticket)
        {:error, Error.new(:cancelled, "its caller died")}
    end
  end

  # Nothing comes after this: the alias is gone.
  defp flush(reply_to) do
    :erlang.unalias(reply_to)

    receive do
      {:py_remote, ^reply_to, _late} -> :ok
    after
      0 -> :ok
    end
  end

  defp patience(timeout) when is_integer(timeout), do: timeout + @slack
  defp patience(_none), do: :infinity

  defp down(node, reason) when reason in [:noconnection, :noproc],
    do: Error.new(:nodedown, "#{node}")

  defp down(node, {:undef, _stacktrace}), do: Error.new(:not_available, "#{node} has no Py")
  defp down(node, reason), do: Error.new(:crashed, "on #{node}: #{Exception.format_exit(reason)}")
end
