defmodule Py.Worker do
  @moduledoc false

  # One worker process as its switchboard sees it. `native/worker` is what runs in it.

  alias Py.{Build, Lane, Reception}
  alias Py.Native.Base
  alias Py.Worker.{Frame, Output, Undecodable}

  @enforce_keys [:number, :role, :port, :token, :started]
  defstruct [
    :number,
    :role,
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
    # The end of the pipe that it reads from, opened here too.
    pipe: nil,
    # Since when something of it is to be interrupted, if that is.
    interrupted: nil,
    # The beginning of a frame whose end was not read yet, and how many bytes were read since it was started.
    partial: "",
    read: nil,
    # Segments of ours: those that it has, those that it reads, and how often it will still return one that it was lent before.
    known: MapSet.new(),
    lent: %{},
    owed: %{},
    # Segments of its own, and what it is at.
    segments: %{},
    page: nil,
    # Processes that read a segment of its own, by the segment's id.
    readers: %{},
    # Who stays with it, by their keys: see `Py.Switchboard.Homes`.
    guests: %{},
    # Frames that go out with the next write.
    outgoing: []
  ]

  @type t :: %__MODULE__{}

  # What may be on its way to a worker that is busy: a pipe holds 64 KB, and more would block whoever writes.
  @pipe 48 * 1024

  # Short calls are handed over in advance, so that a worker need not wait for each.
  @ahead 128

  # A control thread that does not come to read within so many milliseconds does not run at all.
  @reads_within 1_000

  # The worker's own limits of the C stack are those of a thread in the node.
  @python_code "import sys; sys.path.append(sys.argv[1]); import _py_worker; " <>
                 "getattr(_py_worker, sys.argv[2])(*sys.argv[3:])"

  @typedoc "A process that runs `init`; one that is forked by a template; a template. Both with the name of its socket."
  @type role :: :plain | {:forked, String.t()} | {:template, String.t()}

  @doc "Starts the process; the calling process owns it, and gets its messages."
  @spec start(non_neg_integer, Py.Python.t(), map, tuple, role) :: {:ok, t} | {:error, String.t()}
  def start(number, python, options, facts, role) do
    # The port would only say that it ended.
    if options.cd == nil or File.dir?(options.cd),
      do: open(number, python, options, facts, role),
      else: {:error, "there is no folder #{options.cd} (cd:)"}
  end

  defp open(number, python, options, facts, role) do
    {token, socket} = Reception.expect()
    settings = role |> arguments(socket, python, options) |> settings(token, options)

    with {:ok, port} <- open_port(settings) do
      Port.command(port, Frame.configure(facts))

      worker = %__MODULE__{
        number: number,
        role: role,
        port: port,
        token: token,
        started: now(),
        output: Output.new(),
        read: :counters.new(1, [])
      }

      {:ok, %{worker | os_pid: os_pid(port)}}
    else
      {:error, _text} = error ->
        Reception.forget(token)
        error
    end
  end

  defp open_port(settings) do
    {:ok, Port.open({:spawn_executable, launcher_file()}, settings)}
  catch
    # There are no more processes or descriptors to be had. An Elixir exception is not made of it: its module may not be
    # loaded, and could not be.
    :error, reason when is_atom(reason) -> {:error, cannot_start(reason)}
  end

  @doc "Why the system started no process."
  @spec cannot_start(atom) :: String.t()
  def cannot_start(reason),
    do: "no worker process could be started: #{:file.format_error(reason)} (#{reason})"

  # Known before the worker says it: one that never does can be killed.
  defp os_pid(port) do
    case Port.info(port, :os_pid) do
      {:os_pid, os_pid} -> os_pid
      nil -> nil
    end
  end

  defp arguments({:forked, template}, socket, _python, _options),
    do: ["fork", "--socket", socket, "--", template]

  defp arguments(role, socket, python, options) do
    ["worker", "--socket", socket] ++
      limit(options.memory_limit) ++
      ["--", python.executable, "-P", "-c", @python_code, python_path() | what_runs(role)]
  end

  defp what_runs(:plain), do: ["main", Build.worker_file()]
  defp what_runs({:template, socket}), do: ["template", Build.worker_file(), socket]

  defp settings(arguments, token, options) do
    env = for {name, value} <- options.env, do: {to_charlist(name), to_charlist(value)}
    cd = if options.cd, do: [cd: options.cd], else: []

    [
      :nouse_stdio,
      :binary,
      :stream,
      :exit_status,
      args: arguments,
      env: [{~c"PY_TOKEN", to_charlist(token)} | env]
    ] ++ cd
  end

  defp limit(nil), do: []
  defp limit(bytes), do: ["--memory-limit", Integer.to_string(bytes)]

  # To ask where the application is takes longer than to fork a process.
  defp launcher_file do
    with nil <- :persistent_term.get(__MODULE__, nil) do
      file = Build.launcher_file()
      :persistent_term.put(__MODULE__, file)
      file
    end
  end

  defp python_path, do: Application.app_dir(:py, "priv/python")

  @doc "What a process that starts has to do before it serves; a forked one has done it."
  @spec start_frame(t, Frame.id(), map, pid) :: iodata
  def start_frame(worker, id, options, leader) do
    %{source: init, file: file, line: line} = init(worker.role, options.init)

    paths =
      if match?({:forked, _template}, worker.role),
        do: [],
        else: Enum.map(options.paths, &Path.expand/1)

    place = {options.name, {self(), worker.number}}

    Frame.start(
      id,
      Frame.deadline(options.start_timeout),
      {leader, place, init, file, line, paths}
    )
  end

  defp init({:forked, _template}, _init), do: init(:plain, nil)
  defp init(_role, %Py.Code{} = code), do: code
  defp init(_role, source), do: %{source: source, file: nil, line: 1}

  @doc "Delivers a message of Python code's. A name nobody has is nobody: the worker that sends cannot be told."
  @spec deliver(tuple) :: :ok
  def deliver({:send, kind, to, message}) do
    send(addressee(kind, to), term(message))
    :ok
  rescue
    ArgumentError -> :ok
  end

  @doc "Hands on what Python code asks, with who made the call, and its reference. It may be made up by that code."
  @spec ask(binary | {:referring, binary}, port, map) :: term
  def ask(message, port, requests) do
    with {:py_ask, number, id, what} when is_integer(number) <- term(message) do
      send(Py.Callbacks, {:py_ask, {:worker, self(), port, number}, caller(requests, id), what})
    end
  rescue
    ArgumentError ->
      with {number, why} <- Undecodable.question(message),
           do: send(self(), {:py_answer, port, Frame.answer(number, {:error, {:type, why}})})
  end

  defp caller(requests, id) do
    case requests do
      %{^id => %{from: from, ref: ref}} when is_pid(from) -> {from, ref}
      _of_no_request -> nil
    end
  end

  defp term({:referring, message}), do: Py.Object.adopt(term(message))
  defp term(message), do: :erlang.binary_to_term(message, [:safe])

  defp addressee(:pid, etf), do: :erlang.binary_to_term(etf)
  defp addressee(:name, name), do: String.to_existing_atom(name)

  @doc "May it be given a request of this size now?"
  @spec takes?(t, non_neg_integer) :: boolean
  def takes?(%__MODULE__{stage: :ready, crowded: false} = worker, size),
    do: room?(worker.load, worker.bytes, size)

  def takes?(_worker, _size), do: false

  @doc "The same for one that is free to take requests at all, and has so many of so many bytes."
  @spec room?(non_neg_integer, non_neg_integer, non_neg_integer) :: boolean
  def room?(load, bytes, size), do: load == 0 or (load < @ahead and bytes + size <= @pipe)

  # Where the worker has the pipe of its requests: see `native/worker/src/ffi.rs`.
  @requests 3

  @doc """
  Notes which process it is. The pipe that it reads is held open: a port that writes to a pipe nobody reads ends at once,
  and the exit status of a worker that died just now would be lost with it.
  """
  @spec met(t, pos_integer, String.t()) :: t
  def met(worker, os_pid, version) do
    pipe =
      case :file.open("/proc/#{os_pid}/fd/#{@requests}", [:read, :raw, :device]) do
        {:ok, pipe} -> pipe
        {:error, _dead_or_not_linux} -> nil
      end

    %{worker | os_pid: os_pid, version: version, pipe: pipe}
  end

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

  @doc "Requests that it was given, in whatever way."
  @spec calls(t) :: non_neg_integer
  def calls(worker), do: worker.calls + Lane.calls(worker)

  @doc "Has it nothing to do?"
  @spec idle?(t) :: boolean
  def idle?(worker),
    do: worker.load == 0 and worker.awaiting == 0 and worker.guests == %{} and Lane.free?(worker)

  @doc "Writes what waits to go out."
  @spec flush(t) :: t
  def flush(%__MODULE__{outgoing: []} = worker), do: worker

  def flush(worker) do
    # One that reads nothing, stopped as a process, must not stop the pool: what it does not take waits.
    if Port.command(worker.port, worker.outgoing, [:nosuspend]),
      do: %{worker | outgoing: []},
      else: worker
  rescue
    # It is dead: its end is on the way, and with it what becomes of these.
    ArgumentError -> %{worker | outgoing: []}
  end

  @doc "Takes a connection of its."
  @spec connect(t, :control | :output, :gen_tcp.socket()) :: t
  def connect(worker, :control, socket) do
    :inet.setopts(socket, packet: 1, send_timeout: @reads_within, send_timeout_close: true)
    # It may have said before that it serves.
    stage = if worker.stage == :unconnected, do: :ready, else: worker.stage
    %{worker | control: socket, stage: stage}
  end

  def connect(worker, :output, socket),
    do: %{worker | output: Output.connect(worker.output, socket)}

  @doc "Sends what the control thread of the worker listens to."
  @spec control(t, iodata) :: :ok
  def control(%__MODULE__{control: nil}, _frame), do: :ok

  def control(worker, frame) do
    # `packet: 1` puts the length in front. One that is alive reads it at once, whatever Python is at.
    case :gen_tcp.send(worker.control, frame) do
      {:error, :timeout} -> kill(worker)
      _dead_or_sent -> :ok
    end
  end

  # --- shared memory

  @doc "Lets it read a segment of ours."
  @spec lend(t, Py.Segments.shared()) :: {:ok, t} | :error
  def lend(worker, {id, segment, _len}) do
    if MapSet.member?(worker.known, id) or show(worker, id, segment),
      do:
        {:ok,
         %{worker | known: MapSet.put(worker.known, id), lent: Map.put(worker.lent, id, segment)}},
      else: :error
  end

  @doc "What it was lent for a request that it gave back: it returns that too, when the request may be at another, or there again."
  @spec unlend(t, Py.Segments.id()) :: t
  def unlend(%{lent: lent, owed: owed} = worker, id) when is_map_key(lent, id),
    do: %{worker | lent: Map.delete(lent, id), owed: Map.update(owed, id, 1, &(&1 + 1))}

  # It was returned already.
  def unlend(worker, _id), do: worker

  @doc "It has returned a segment: the memory is free, or, with `nil`, it is not."
  @spec returned(t, Py.Segments.id()) :: {Base.segment() | nil, t}
  def returned(%{owed: owed} = worker, id) do
    case owed do
      %{^id => 1} -> {nil, %{worker | owed: Map.delete(owed, id)}}
      %{^id => times} -> {nil, %{worker | owed: %{owed | id => times - 1}}}
      _nothing -> give_lent(worker, id)
    end
  end

  defp give_lent(worker, id) do
    {memory, lent} = Map.pop(worker.lent, id)
    {memory, %{worker | lent: lent}}
  end

  defp show(worker, id, segment, left \\ 100) do
    with {:ok, fd} <- :inet.getfd(worker.control) do
      case Base.segment_send(fd, Frame.segment(id), segment) do
        :ok -> true
        :again when left > 0 -> Process.sleep(1) && show(worker, id, segment, left - 1)
        _it_is_dead -> false
      end
    else
      _closed -> false
    end
  end

  @doc "Takes the segments that it has sent."
  @spec receive_segments(t) :: t
  def receive_segments(%__MODULE__{control: nil} = worker), do: worker

  def receive_segments(worker) do
    with {:ok, fd} <- :inet.getfd(worker.control),
         {header, segment} when is_binary(header) and segment != nil <- Base.segment_receive(fd) do
      worker |> keep(Frame.came(header), segment) |> receive_segments()
    else
      _no_more -> worker
    end
  end

  defp keep(worker, :page, segment), do: %{worker | page: segment}

  defp keep(worker, {:segment, id}, segment),
    do: %{worker | segments: Map.put(worker.segments, id, segment)}

  @doc "Tells it of segments of ours that there are no more."
  @spec forget(t, [Py.Segments.id()]) :: t
  def forget(worker, ids) do
    for id <- ids, MapSet.member?(worker.known, id), do: control(worker, Frame.dropped(id))
    %{worker | known: MapSet.difference(worker.known, MapSet.new(ids))}
  end

  # Where the page has what: see `native/worker/src/page.rs`.
  @threads 126
  @written 126
  @len 127
  @kept 1024
  @more_threads 0xFFFF_FFFF_FFFF_FFFF

  @doc "What the page of a dead worker tells: the ids of requests that had begun, and frames that it did not write."
  @spec last_page(t) :: {MapSet.t() | :unknown, [tuple]}
  def last_page(%__MODULE__{page: nil}), do: {:unknown, []}

  def last_page(%__MODULE__{page: page} = worker) do
    begun = MapSet.new(0..(@threads - 1), &Base.segment_word(page, &1))
    begun = if MapSet.member?(begun, @more_threads), do: :unknown, else: begun
    len = min(Base.segment_word(page, @len), Base.segment_size(page) - @kept)
    # Some of it, or all, may have been written just before the end.
    known =
      :counters.get(worker.read, 1) - byte_size(worker.partial) -
        Base.segment_word(page, @written)

    known = known |> max(0) |> min(len)
    {frames, _rest} = page |> Base.segment_read(@kept + known, len - known) |> Frame.split()
    {begun, frames}
  end

  @doc "Ends the process and all that it started, at once."
  @spec stop(t) :: :ok
  def stop(worker) do
    Reception.forget(worker.token)
    if Port.info(worker.port), do: kill(worker), else: end_family(worker)
    # Its control thread sees the end of either, whatever Python is at.
    if worker.control, do: :gen_tcp.close(worker.control)
    close(worker.port)
    # What waits to be written keeps the port from closing for as long as somebody might read it.
    if worker.pipe, do: :file.close(worker.pipe)
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
    _ended_or_gone = Base.kill(-os_pid, 9)
    :ok
  end

  # What a dead worker had started, unless it is another process that has its number.
  defp end_family(worker), do: unless(state(worker) in ~w(R S D T t I), do: kill(worker))

  @doc "Was it stopped as a process, by a signal or a debugger?"
  @spec stopped?(t) :: boolean
  def stopped?(worker), do: state(worker) in ["T", "t"]

  # The name of the program, in parentheses, may hold anything.
  defp state(worker) do
    with {:ok, stat} <- File.read("/proc/#{worker.os_pid}/stat"),
         do: stat |> String.split(") ") |> List.last() |> String.first()
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

  @doc "The same in words; nil where the process closed what connects it."
  @spec cause({:code | :signal, non_neg_integer} | nil) :: String.t()
  def cause(nil), do: "closed the files that connect it to its pool"
  def cause({:code, code}), do: "exited with status #{code}"
  def cause({:signal, signal}), do: "was killed by signal #{signal}#{signal_name(signal)}"

  @signals %{
    1 => "SIGHUP",
    2 => "SIGINT",
    3 => "SIGQUIT",
    4 => "SIGILL",
    5 => "SIGTRAP",
    6 => "SIGABRT",
    7 => "SIGBUS",
    8 => "SIGFPE",
    9 => "SIGKILL",
    10 => "SIGUSR1",
    11 => "SIGSEGV",
    12 => "SIGUSR2",
    13 => "SIGPIPE",
    14 => "SIGALRM",
    15 => "SIGTERM",
    24 => "SIGXCPU",
    25 => "SIGXFSZ",
    31 => "SIGSYS"
  }

  defp signal_name(signal), do: if(name = @signals[signal], do: " (#{name})", else: "")

  @spec now() :: integer
  def now, do: System.monotonic_time(:millisecond)
end
