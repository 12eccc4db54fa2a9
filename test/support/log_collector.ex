defmodule Py.LogCollector do
  @moduledoc "A handler of :logger that sends what comes from Python to a process, with its metadata."

  def attach(pid), do: :ok = :logger.add_handler(__MODULE__, __MODULE__, %{config: %{pid: pid}})

  def detach, do: :ok = :logger.remove_handler(__MODULE__)

  def log(%{level: level, msg: {:string, text}, meta: %{domain: [:python]} = meta}, %{
        config: config
      }) do
    send(config.pid, {:log, level, IO.chardata_to_string(text), meta})
  end

  def log(_event, _config), do: :ok
end
