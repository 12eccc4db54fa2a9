defmodule Py.Child do
  @moduledoc "A BEAM of its own, for what ends one."

  @doc """
  Runs code in a child until it ends. It prints "ready" when it is to be told to end, and `tell` is given its pid.
  The result is its exit status, what it printed, and the milliseconds from there to its end.
  """
  def run(code, tell \\ fn _os_pid -> :ok end, erl \\ "", shell \\ nil) do
    port = open(code, erl, shell)
    {:os_pid, os_pid} = Port.info(port, :os_pid)
    before = until_ready(port, "")
    start = System.monotonic_time(:millisecond)
    tell.(os_pid)
    {status, output} = until_end(port, before)
    %{status: status, output: output, ms: System.monotonic_time(:millisecond) - start}
  end

  # `shell` is a command that comes before it: a limit, say.
  defp open(code, erl, shell) do
    paths =
      for path <- :code.get_path(), path = to_string(path), path =~ "_build", do: ["-pa", path]

    args = List.flatten([System.find_executable("elixir"), "--erl", erl, paths, "-e", code])
    before = if shell, do: shell <> "; ", else: ""

    Port.open({:spawn_executable, "/bin/sh"}, [
      :binary,
      :exit_status,
      :stderr_to_stdout,
      args: ["-c", before <> "exec \"$@\"", "sh" | args]
    ])
  end

  defp until_ready(port, output) do
    receive do
      {^port, {:data, data}} ->
        output = output <> data
        if output =~ "ready", do: output, else: until_ready(port, output)

      {^port, {:exit_status, status}} ->
        raise "the child ended with #{status} before it was ready: #{output}"
    after
      120_000 -> kill(port, "the child was never ready: #{output}")
    end
  end

  defp until_end(port, output) do
    receive do
      {^port, {:data, data}} -> until_end(port, output <> data)
      {^port, {:exit_status, status}} -> {status, output}
    after
      60_000 ->
        kill(port, "the child did not end: #{output}")
    end
  end

  defp kill(port, why) do
    {:os_pid, os_pid} = Port.info(port, :os_pid)
    System.cmd("kill", ["-KILL", to_string(os_pid)])
    raise why
  end
end
