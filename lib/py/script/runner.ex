defmodule Py.Script.Runner do
  @moduledoc false

  # Runs one program under py_launcher, which speaks the packets of native/launcher/src/port.rs.
  #
  # The port belongs to a process of its own, so that no message of it comes to the caller, and that process ends with
  # the caller. When the port is closed, for whatever reason, the launcher kills the program and all that it started.

  @stdin 1
  @stdin_end 2
  @kill 3

  @stdout 1
  @stderr 2
  @wants_stdin 3
  @exited 4
  @signaled 5
  @not_started 6
  @too_much 7

  # What `erl_child_setup` ends with when it cannot start something is the number of the error: E2BIG.
  @too_long 7

  # As much as the launcher has to hold for a program that does not read.
  @chunk 262_144

  # Milliseconds in which what was killed is gone, if nothing else is wrong with the machine.
  @grace 5_000

  @typedoc "`deadline` is in milliseconds of the monotonic clock."
  @type job :: %{
          command: [String.t()],
          stdin: binary | nil,
          env: %{String.t() => String.t()},
          cd: Path.t() | nil,
          memory_limit: pos_integer | nil,
          max_output: pos_integer | nil,
          deadline: integer | :infinity
        }

  @type outcome ::
          {:exited, non_neg_integer}
          | {:signaled, pos_integer}
          | :timeout
          | {:too_much, :stdout | :stderr}
          | {:failed, String.t()}

  @spec run(job, Path.t()) :: {outcome, stdout :: binary, stderr :: binary}
  def run(job, launcher) do
    caller = self()
    {_pid, ref} = spawn_monitor(fn -> exit({__MODULE__, supervise(job, launcher, caller)}) end)

    receive do
      {:DOWN, ^ref, :process, _pid, {__MODULE__, result}} -> result
      {:DOWN, ^ref, :process, _pid, reason} -> exit(reason)
    end
  end

  defp supervise(job, launcher, caller) do
    Process.flag(:trap_exit, true)
    Process.monitor(caller)

    state = %{
      port: nil,
      stdin: job.stdin,
      stdout: [],
      stderr: [],
      deadline: job.deadline,
      stopped: nil
    }

    case open(job, launcher) do
      {:ok, port} -> loop(%{state | port: port})
      {:error, reason} -> result({:failed, "#{launcher} cannot be started (#{reason})"}, state)
    end
  end

  defp open(job, launcher) do
    options = [
      :nouse_stdio,
      :exit_status,
      :binary,
      :hide,
      packet: 4,
      args: arguments(job),
      env: for({name, value} <- job.env, do: {native(name), native(value)})
    ]

    {:ok, Port.open({:spawn_executable, launcher}, options)}
  rescue
    error in [ArgumentError, ErlangError] -> {:error, Exception.message(error)}
  end

  defp arguments(job) do
    options = [cd: job.cd, memory_limit: job.memory_limit, max_output: job.max_output]
    given = for {name, value} <- options, value, do: [option(name), to_string(value)]
    stdin = if job.stdin, do: ["--stdin"], else: []
    ["script" | stdin] ++ Enum.concat(given) ++ ["--" | job.command]
  end

  defp option(name), do: "--" <> String.replace(to_string(name), "_", "-")

  # A port takes variables as charlists only, which it encodes for the file system: in Latin-1 each byte is itself.
  defp native(text) do
    if :file.native_name_encoding() == :latin1,
      do: :binary.bin_to_list(text),
      else: String.to_charlist(text)
  end

  defp loop(%{port: port} = state) do
    receive do
      {^port, {:data, <<kind, data::binary>>}} ->
        packet(kind, data, state)

      {^port, {:exit_status, @too_long}} ->
        lost("got more arguments and variables than fit", state)

      {^port, {:exit_status, status}} ->
        lost("ended with status #{status}", state)

      {:EXIT, ^port, reason} ->
        lost("was closed (#{inspect(reason)})", state)

      {:DOWN, _ref, :process, _caller, _reason} ->
        exit(:normal)
    after
      left(state.deadline) -> expired(state)
    end
  end

  defp packet(@stdout, data, state), do: loop(%{state | stdout: [state.stdout | data]})
  defp packet(@stderr, data, state), do: loop(%{state | stderr: [state.stderr | data]})
  defp packet(@wants_stdin, "", state), do: loop(feed(state))
  defp packet(@exited, <<code::32>>, state), do: finish({:exited, code}, state)
  defp packet(@signaled, <<signal::32>>, state), do: finish({:signaled, signal}, state)

  defp packet(@not_started, reason, state),
    do: finish({:failed, "it cannot be started: #{reason}"}, state)

  defp packet(@too_much, <<@stdout>>, state), do: loop(stop({:too_much, :stdout}, state))
  defp packet(@too_much, <<@stderr>>, state), do: loop(stop({:too_much, :stderr}, state))

  defp feed(%{stdin: <<chunk::binary-size(@chunk), rest::binary>>} = state) do
    command(state, [@stdin, chunk])
    %{state | stdin: rest}
  end

  defp feed(state) do
    command(state, [@stdin, state.stdin])
    command(state, [@stdin_end])
    %{state | stdin: ""}
  end

  # It may have been closed since.
  defp command(state, packet) do
    Port.command(state.port, packet)
  rescue
    ArgumentError -> false
  end

  # The launcher kills, tells what was printed until then, and says when all are gone.
  defp expired(%{stopped: nil} = state) do
    command(state, [@kill])
    loop(stop(:timeout, state))
  end

  defp expired(state), do: finish({:failed, "it does not end"}, state)

  # It is being killed, and the first reason is the one.
  defp stop(_reason, %{stopped: stopped} = state) when stopped != nil, do: state
  defp stop(reason, state), do: %{state | stopped: reason, deadline: now() + @grace}

  defp lost(what, state), do: finish({:failed, "the launcher #{what}"}, state)

  defp finish(outcome, state) do
    # A port that ended by itself is closed already.
    if Port.info(state.port), do: Port.close(state.port)
    result(state.stopped || outcome, state)
  rescue
    ArgumentError -> result(state.stopped || outcome, state)
  end

  defp result(outcome, state),
    do: {outcome, IO.iodata_to_binary(state.stdout), IO.iodata_to_binary(state.stderr)}

  defp left(:infinity), do: :infinity
  defp left(deadline), do: max(deadline - now(), 0)

  defp now, do: System.monotonic_time(:millisecond)
end
