defmodule Py.Worker.Output do
  @moduledoc false

  # What a worker process, or something that it started, writes to its standard streams past Python: lines for Logger,
  # and the last of it for the error, should it die.

  require Logger

  defstruct [:socket, tail: "", line: "", budget: 0, since: 0, dropped: 0]

  @type t :: %__MODULE__{}

  @tail 4_096
  @longest_line 8_192

  # Whoever prints more than this in a second prints too much for a log.
  @lines_a_second 200

  # A dying process has written its last words; a child of it may hold the socket open.
  @last_words 50

  @spec new() :: t
  def new, do: %__MODULE__{}

  @spec connect(t, :gen_tcp.socket()) :: t
  def connect(output, socket) do
    :inet.setopts(socket, active: :once)
    %{output | socket: socket}
  end

  @spec take(t, binary, map) :: t
  def take(output, bytes, facts) do
    :inet.setopts(output.socket, active: :once)
    output |> keep(bytes) |> log(bytes, facts)
  end

  defp keep(output, bytes) do
    all = output.tail <> bytes
    %{output | tail: binary_part(all, byte_size(all), -min(byte_size(all), @tail))}
  end

  defp log(output, bytes, facts) do
    {lines, [rest]} = (output.line <> bytes) |> :binary.split("\n", [:global]) |> Enum.split(-1)

    {lines, rest} =
      if byte_size(rest) > @longest_line, do: {lines ++ [rest], ""}, else: {lines, rest}

    Enum.reduce(lines, %{output | line: rest}, &log_line(&2, &1, facts))
  end

  defp log_line(output, "", _facts), do: output

  defp log_line(output, line, facts) do
    now = System.monotonic_time(:second)
    output = if now == output.since, do: output, else: refill(output, now, facts)

    if output.budget > 0 do
      Logger.info(text(line), facts |> Map.put(:domain, [:python]) |> Enum.to_list())
      %{output | budget: output.budget - 1}
    else
      %{output | dropped: output.dropped + 1}
    end
  end

  defp refill(output, now, facts) do
    if output.dropped > 0,
      do:
        Logger.warning(
          "#{output.dropped} more lines were printed and are not in this log",
          Enum.to_list(facts)
        )

    %{output | budget: @lines_a_second, since: now, dropped: 0}
  end

  @doc "There will be no more."
  @spec closed(t) :: t
  def closed(output), do: %{output | socket: nil}

  @doc "Reads what is left when the process is dead, and tells the last lines."
  @spec last_words(t, map) :: {t, String.t()}
  def last_words(output, facts) do
    output = read_rest(output, facts, System.monotonic_time(:millisecond) + @last_words)
    {output, output.tail |> text() |> String.trim()}
  end

  defp read_rest(%{socket: nil} = output, _facts, _deadline), do: output

  defp read_rest(%{socket: socket} = output, facts, deadline) do
    receive do
      {:tcp, ^socket, bytes} -> output |> take(bytes, facts) |> read_rest(facts, deadline)
      {:tcp_closed, ^socket} -> output
      {:tcp_error, ^socket, _reason} -> output
    after
      max(deadline - System.monotonic_time(:millisecond), 0) -> output
    end
  end

  @spec close(t) :: :ok
  def close(%{socket: nil}), do: :ok
  def close(%{socket: socket}), do: :gen_tcp.close(socket)

  # What is printed need not be text.
  defp text(bytes),
    do:
      bytes
      |> String.chunk(:valid)
      |> Enum.map_join(&if(String.valid?(&1), do: &1, else: "\uFFFD"))
end
