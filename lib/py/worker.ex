defmodule Py.Worker do
  @moduledoc false

  # One worker process as its switchboard sees it. `native/worker` is what runs in it.

  alias Py.{Build, Reception}
  alias Py.Worker.{Frame, Output}

  @enforce_keys [:number, :port, :token, :started]
  defstruct [
    :number,
    :port,
    :token,
    :started,
    :os_pid,
    :version,
    :control,
    :output,
    # :starting until its init has ended; :draining once another has taken its place.
    stage: :starting,
    # Requests that it has and that keep a thread busy, now or soon, and the bytes of their bodies.
    load: 0,
    bytes: 0,
    awaiting: 0,
    calls: 0,
    # It said that all its threads are at calls that take long.
    crowded: false,
    # It said that it ends because a call does not stop.
    stuck: false,
    # The beginning of a frame whose end was not read yet.
    partial: "",
    # Frames that go out with the next write.
    outgoing: []
  ]

  @type t :: %__MODULE__{}

  # What may be on its way to a worker that is busy: a pipe holds 64 KB, and more would block whoever writes.
  @pipe 48 * 1024

  # Short calls are handed over in advance, so that a worker need not wait for each.
  @ahead 64

  # The worker's own limits of the C stack are those of a thread in the node.
  @python_code "import sys; sys.path.append(sys.argv[1]); from _py_worker import main; main(sys.argv[2])"

  @doc "Starts the process; the calling process owns it, and gets its messages."
  @spec start(pos_integer, Py.Python.t(), map, tuple) :: {:ok, t} | {:error, String.t()}
  def start(number, python, options, facts) do
    {token, socket} = Reception.expect()

    arguments =
      ["worker", "--socket", socket] ++
        limit(options.memory_limit) ++
        ["--", python.executable, "-P", "-c", @python_code, python_path(), Build.worker_file()]

    port = Port.open({:spawn_executable, Build.launcher_file()}, settings(arguments, token, options))
    Port.command(port, Frame.configure(facts))
    {:ok, %__MODULE__{number: number, port: port, token: token, started: now(), output: Output.new()}}
  rescue
    # There are no more processes or descriptors to be had.
    error in ErlangError -> {:error, "no worker process could be started: #{inspect(error.original)}"}
  end

  defp settings(arguments, token, options) do
    env = for {name, value} <- options.env, do: {to_charlist(name), to_charlist(value)}
    cd = if options.cd, do: [cd: options.cd], else: []

    [:nouse_stdio, :binary, :stream, :exit_status, args: arguments, env: [{'PY_TOKEN', to_charlist(token)} | env]] ++ cd
  end

  defp limit(nil), do: []
  defp limit(bytes), do: ["--memory-limit", Integer.to_string(bytes)]

  defp python_path, do: Application.app_dir(:py, "priv/python")

  @doc "May it be given a request of this size now?"
  @spec takes?(t, non_neg_integer) :: boolean
  def takes?(%__MODULE__{stage: :ready, crowded: false} = worker, size),
    do: worker.load == 0 or (worker.load < @ahead and worker.bytes + size <= @pipe)

  def takes?(_worker, _size), do: false

  @doc "Puts a request among what goes out with the next write."
  @spec give(t, iodata, non_neg_integer) :: t
  def give(worker, frame, size) do
    %{
      worker
      | outgoing: [worker.outgoing | frame],
        load: worker.load + 1,
        bytes: worker.bytes + size,
        calls: worker.calls + 1
    }
  end

  @doc "Notes that a request is no load any more."
  @spec relieve(t, non_neg_integer) :: t
  def relieve(worker, size), do: %{worker | load: worker.load - 1, bytes: worker.bytes - size}

  @doc "Writes what waits to go out."
  @spec flush(t) :: t
  def flush(%__MODULE__{outgoing: []} = worker), do: worker

  def flush(worker) do
    Port.command(worker.port, worker.outgoing)
    %{worker | outgoing: []}
  rescue
    # It is dead: its end is on the way, and with it what becomes of these.
    ArgumentError -> %{worker | outgoing: []}
  end

  @doc "Sends what the control thread of the worker listens to."
  @spec control(t, iodata) :: :ok
  def control(%__MODULE__{control: nil}, _frame), do: :ok

  def control(worker, frame) do
    _dead_or_sent = :gen_tcp.send(worker.control, frame)
    :ok
  end

  @doc "Ends the process and all that it started, at once."
  @spec stop(t) :: :ok
  def stop(worker) do
    Reception.forget(worker.token)
    # Its control thread sees the end of either, whatever Python is at.
    if worker.control, do: :gen_tcp.close(worker.control)
    close(worker.port)
    Output.close(worker.output)
  end

  defp close(port) do
    Port.close(port)
    :ok
  rescue
    ArgumentError -> :ok
  end

  @doc "Kills it from outside, where it may not be able to end itself: it was stopped as a process, say."
  @spec kill(t) :: :ok
  def kill(%__MODULE__{os_pid: nil}), do: :ok

  def kill(%__MODULE__{os_pid: os_pid}) when os_pid > 1 do
    # The shell's own `kill`: the one of procps 4.0.2 takes `-1777` for `-1`, which is everybody.
    spawn(fn -> System.cmd("/bin/sh", ["-c", "kill -s KILL -- -#{os_pid} 2>&1"]) end)
    :ok
  end

  @doc "The memory that the process has, in bytes; nil where that is not known."
  @spec rss(t) :: non_neg_integer | nil
  def rss(%__MODULE__{os_pid: nil}), do: nil

  def rss(%__MODULE__{os_pid: os_pid}) do
    with {:ok, status} <- File.read("/proc/#{os_pid}/status"),
         [_line, kilobytes] <- Regex.run(~r/^VmRSS:\s+(\d+) kB$/m, status) do
      String.to_integer(kilobytes) * 1024
    else
      _gone_or_not_linux -> nil
    end
  end

  @doc "What the exit status of a port says."
  @spec exit(non_neg_integer) :: {:code | :signal, non_neg_integer}
  def exit(status) when status > 128 and status <= 128 + 64, do: {:signal, status - 128}
  def exit(status), do: {:code, status}

  @doc "The same in words."
  @spec cause({:code | :signal, non_neg_integer}) :: String.t()
  def cause({:code, code}), do: "exited with status #{code}"
  def cause({:signal, signal}), do: "was killed by signal #{signal}#{signal_name(signal)}"

  @signals %{4 => "SIGILL", 6 => "SIGABRT", 7 => "SIGBUS", 8 => "SIGFPE", 9 => "SIGKILL", 11 => "SIGSEGV", 15 => "SIGTERM"}

  defp signal_name(signal), do: if(name = @signals[signal], do: " (#{name})", else: "")

  @spec now() :: integer
  def now, do: System.monotonic_time(:millisecond)
end
