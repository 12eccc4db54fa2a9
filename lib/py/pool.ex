defmodule Py.Pool do
  @moduledoc """
  A pool of threads or processes that run Python, as a child of a supervisor.

      children = [
        {Py.Pool, name: MyApp.Py, size: 4, init: "import json", paths: ["priv/python"]},
        {Py.Pool, name: MyApp.Model, in: :process, size: 2, init: "import app\nmodel = app.load()"}
      ]

  Calls find it by its name: `Py.call(:json, :dumps, [[1]], on: MyApp.Py)`.

  ## Options

  #{Py.Options.docs(:pool)}

  Starting it returns when it serves. It fails with a `Py.Error` when there is no usable Python (`:not_available`), when
  `init:` raises (`:python`), when a worker process ends before it serves (`:crashed`) or takes too long to
  (`:starting`).

  All pools `in: :thread` share the one interpreter of the node, so `sys.modules`, `os.environ` and `sys.path` are
  common; the names that `init:` defines belong to the pool. Pools `in: :process` share nothing; each of their workers
  runs `init:`, or is forked from a process that did (`prefork: true`). A worker that dies is replaced at once, and with
  growing pauses, from 0.1 to 30 s, while its successors do not come to serve.

  ## Forked workers

  With `prefork: true` a template process runs `init:` once and is forked into the workers, `max_calls:`, `resize/2` and
  crashes included: a worker is there in milliseconds, and what `init:` loaded takes memory once.

    * Shared is what nobody writes to: the buffers of arrays and models, code of libraries. Python objects are written to
      by their use (reference counts). The `rss` in `info/1` and `max_memory:` count shared memory for each worker; what
      a pool takes is the sum of `Pss` in `/proc/PID/smaps_rollup` of its template and its workers.
    * A process with threads cannot be forked safely. Where there are threads after `init:`, other than those that their
      libraries end for a fork, as OpenBLAS does, Logger names them once and each worker runs `init:` by itself; so it is
      with an `init:` that awaits, whose event loop has a thread. Start threads in the first call, or by
      `os.register_at_fork(after_in_child=...)`.
    * `random` and the global generator of `numpy.random` are seeded anew in each worker, whatever seed `init:` gave
      them. Generators that `init:` makes (`numpy.random.default_rng`, those of PyTorch) are the same in all workers; so
      is what it opens: files, sockets and connections to databases are to be opened in the worker.
    * A template that dies is started again, with the pauses of workers; living workers go on. How those end is not known
      from then on: their calls are `:crashed` with `{:code, 125}`.

  ## Example

      iex> {:ok, pid} = Py.Pool.start_link(name: MyPool, size: 2, init: "def double(x): return 2 * x")
      iex> Py.call(:__main__, :double, [21], on: MyPool)
      {:ok, 42}
      iex> Py.Pool.info(MyPool).size
      2
      iex> GenServer.stop(pid)
      iex> {:error, error} = Py.eval("1", %{}, on: MyPool)
      iex> error.kind
      :stopped
  """

  use GenServer

  alias Py.{Aside, Error, Exposed, Native, Options, Runtime, Switchboard, Telemetry, Workers}
  alias Py.Pool.Startup

  @enforce_keys [:name, :in, :timeout, :telemetry?]
  defstruct [
    :name,
    :in,
    :native,
    :board,
    :timeout,
    :telemetry?,
    :pid,
    :python,
    :home,
    :session,
    :max_sessions,
    copy?: true
  ]

  @typedoc "What a call needs to know of a pool; read without a process."
  @type t :: %__MODULE__{
          name: atom,
          in: :thread | :process,
          native: reference | nil,
          board: map | nil,
          timeout: timeout,
          telemetry?: boolean,
          pid: pid,
          python: Py.Python.t(),
          home: non_neg_integer | {:choose | non_neg_integer, Py.Tenants.key()} | nil,
          max_sessions: pos_integer | :infinity,
          session: Py.Tenants.key() | nil,
          copy?: boolean
        }

  @doc """
  The child specification: its id is the pool's name.

      iex> Py.Pool.child_spec(name: MyPool).id
      MyPool
  """
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options) do
    %{
      id: Keyword.get(options, :name, Py),
      start: {__MODULE__, :start_link, [options]},
      shutdown: 10_000
    }
  end

  @doc """
  Starts a pool and waits until it serves. See the options above.

      iex> {:ok, pid} = Py.Pool.start_link(name: MyPool, in: :process, size: 1)
      iex> Py.call(:math, :sqrt, [16], on: MyPool)
      {:ok, 4.0}
      iex> GenServer.stop(pid)
      :ok
  """
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(options) do
    checked = options |> Options.check!(:pool, "Py.Pool") |> complete!(options)

    case checked.in do
      :thread ->
        start_thread_pool(checked)

      :process ->
        Switchboard.start_link(checked, process_pool(checked))

      :subinterpreter ->
        {:error,
         Error.new(
           :not_available,
           "pools in: :subinterpreter come with a later version of Py; in: :thread and in: :process are there"
         )}
    end
  end

  @of_processes [
    :concurrency,
    :cd,
    :lazy,
    :prefork,
    :max_calls,
    :max_lifetime,
    :max_memory,
    :memory_limit
  ]

  defp complete!(checked, given) do
    misplaced = for {key, _value} <- given, key in @of_processes, do: key

    if checked.in != :process and misplaced != [] do
      raise ArgumentError,
            "#{Enum.map_join(misplaced, ", ", &"#{&1}:")} of Py.Pool is for pools in: :process, " <>
              "and this one is in: #{inspect(checked.in)}"
    end

    %{checked | size: checked.size || default_size(checked.in)}
  end

  defp default_size(:process), do: System.schedulers_online()
  defp default_size(_in_the_node), do: 16

  @doc """
  The pool of a name, or why there is none: kind `:no_pool`, `:stopped`, `:starting` or, for a default pool that cannot
  boot, `:not_available`. A pool that is starting is waited for.

      iex> {:error, error} = Py.Pool.fetch(:nobody)
      iex> Exception.message(error)
      "there is no such pool: :nobody; start it as a child: {Py.Pool, name: :nobody}"
  """
  @spec fetch(atom, timeout) :: {:ok, t} | {:error, Error.t()}
  def fetch(name, timeout \\ :infinity) do
    case lookup(name) do
      %__MODULE__{} = pool -> {:ok, pool}
      state -> Startup.wait(name, state, timeout)
    end
  end

  @doc """
  What a pool is doing:

    * `size`, `max_queue`: its limits; `in`, `python`, `name`: what it is
    * `queued`: calls that wait; `running`: calls on a thread now; `awaiting`: coroutines in flight
    * `running_calls`: of the last two, the longest first, each `%{function: "module.name", age_ms: n, awaiting: boolean}`
    * `threads`, of a pool in the node: those that serve all its pools; `retired`: those given up because they did not
      come back, in the whole node and of pools that were stopped too
    * `calls`: calls taken since the pool started
    * `workers`, of a pool of processes: of each its `os_pid`, `stage`, `rss` in bytes, `calls` and `age_ms`; `restarts`:
      how many died; `last_failure`: why, of the last
    * `prefork`: `false`, or with `prefork: true` what the template is at: `:starting`, `:active`, `{:off, reason}`
    * `inline`, of a pool in the node: whether a call with `inline: true` would run inline now: `:open`, or `{:closed, reason}` with the reason
      `:busy` (Python is at work), `:foreign_threads` (Python has threads that are not Py's: an executor's, say),
      `:not_serving` or `:unsupported` (CPython 3.14 before it can be told of stacks)
    * `inline_overrun`: functions that took a millisecond or more inline, and therefore take the queue for ten seconds

  ## Example

      iex> Py.eval!("None")
      iex> info = Py.Pool.info(Py)
      iex> {info.size, info.max_queue, info.in}
      {16, 10_000, :thread}
  """
  @spec info(atom) :: map
  def info(name) do
    case fetch(name) do
      {:ok, %{in: :process} = pool} ->
        pool.pid
        |> GenServer.call(:info, :infinity)
        |> Map.merge(%{name: name, in: :process, python: pool.python.executable})

      {:ok, pool} ->
        pool.native
        |> Native.info()
        |> Map.merge(%{name: name, in: :thread, python: pool.python.executable})
        |> Map.update!(:inline, &if(&1, do: {:closed, &1}, else: :open))

      {:error, error} ->
        Error.raise(error)
    end
  end

  @doc """
  The Python stacks of the calls in progress, those of `running_calls` in `info/1`, the longest first: each
  `%{function: "module.name", age_ms: n, awaiting: boolean, frames: frames}`. Frames are as in the `traceback` of a
  `Py.Error`, the innermost last. Of a coroutine they are the places where it waits.

  An error of kind `:timeout` says that Python did not answer within `timeout` milliseconds: some C code keeps its lock.

      iex> future = Py.async_call(:time, :sleep, [60])
      iex> Process.sleep(50)
      iex> {:ok, calls} = Py.Pool.stacktrace(Py)
      iex> Enum.any?(calls, &(&1.function == "time.sleep" and not &1.awaiting))
      true
      iex> Py.cancel(future)
      :ok
  """
  @spec stacktrace(atom, timeout) :: {:ok, [map]} | {:error, Error.t()}
  def stacktrace(name, timeout \\ 5_000) do
    with {:ok, %{in: :thread} = pool} <- fetch(name, timeout) do
      # Its mailbox takes an answer that comes too late.
      case Aside.run(fn -> ask_for_stacks(pool) end, timeout) do
        {:ok, result} ->
          result

        nil ->
          {:error, Error.new(:timeout, "Python did not tell its stacks within #{timeout} ms")}
      end
    else
      {:ok, pool} -> Workers.stacktrace(pool, timeout)
      error -> error
    end
  end

  @doc """
  Changes how many worker processes a pool `in: :process` has, while it serves: those that are too many go when they
  are done with what they are at. Returns at once; see `info/1` for the workers there are.

      iex> {:ok, pid} = Py.Pool.start_link(name: MyPool, in: :process, size: 1)
      iex> Py.Pool.resize(MyPool, 2)
      :ok
      iex> Py.Pool.info(MyPool).size
      2
      iex> GenServer.stop(pid)
      :ok
  """
  @spec resize(atom, pos_integer) :: :ok | {:error, Error.t()}
  def resize(name, size) when is_integer(size) and size > 0 do
    case fetch(name) do
      {:ok, %{in: :process} = pool} ->
        GenServer.call(pool.pid, {:resize, size})

      {:ok, _pool} ->
        {:error,
         Error.new(:not_available, "only pools in: :process can be resized while they serve")}

      error ->
        error
    end
  end

  @doc """
  Waits until a pool serves, `timeout` milliseconds at most.

      iex> {:ok, pid} = Py.Pool.start_link(name: MyPool, size: 1)
      iex> Py.Pool.await_ready(MyPool, 5_000)
      :ok
      iex> GenServer.stop(pid)
      :ok
  """
  @spec await_ready(atom, timeout) :: :ok | {:error, Error.t()}
  def await_ready(name, timeout \\ :infinity) do
    with {:ok, _pool} <- fetch(name, timeout), do: :ok
  end

  defp ask_for_stacks(pool) do
    ref = make_ref()
    :ok = Native.stacktrace(pool.native, ref)
    receive(do: ({:py_result, ^ref, result} -> result))
  end

  @doc false
  @spec lookup(atom) :: t | :starting | :stopped | nil
  def lookup(name), do: :persistent_term.get(key(name), nil)

  # What calls see of a pool that is not there: nil, :starting or :stopped.
  @doc false
  @spec mark(atom, :starting | :stopped | t) :: :ok
  def mark(name, state), do: :persistent_term.put(key(name), state)

  # Every call looks its pool up. An atom is hashed faster than a tuple is.
  defp key(Py), do: __MODULE__
  defp key(name), do: {__MODULE__, name}

  # --- pools of processes, whose callers and switchboard count together

  # One more request: is there a place for it?
  @doc false
  @spec admit?(t) :: boolean
  def admit?(%{board: %{load: load, limit: limit}}) do
    if :atomics.add_get(load, 1, 1) <= limit do
      true
    else
      :atomics.sub(load, 1, 1)
      false
    end
  end

  # Would there be a place for one?
  @doc false
  @spec room?(t) :: boolean
  def room?(%{board: %{load: load, limit: limit}}), do: :atomics.get(load, 1) < limit

  # Is nothing in progress?
  @doc false
  @spec idle?(t) :: boolean
  def idle?(%{board: %{load: load}}), do: :atomics.get(load, 1) == 0

  # One more, whether there is a place or not.
  @doc false
  @spec taken(t) :: :ok
  def taken(%{board: %{load: load}}), do: :atomics.add(load, 1, 1)

  @doc false
  @spec settled(t, non_neg_integer) :: :ok
  def settled(_pool, 0), do: :ok
  def settled(%{board: %{load: load}}, count), do: :atomics.sub(load, 1, count)

  @doc false
  @spec resized(t, pos_integer) :: t
  def resized(%{board: board} = pool, size) do
    size = size * board.concurrency
    %{pool | board: %{board | size: size, limit: size + board.max_queue}}
  end

  defp process_pool(options) do
    board = %{
      load: :atomics.new(1, signed: true),
      # Made by the process that the table is to belong to, and once the library is loaded.
      segments: nil,
      lanes: nil,
      concurrency: options.concurrency,
      max_queue: options.max_queue,
      size: 0,
      limit: 0
    }

    pool = %__MODULE__{
      name: options.name,
      in: :process,
      board: board,
      timeout: options.timeout,
      telemetry?: Telemetry.loaded?(),
      max_sessions: options.max_sessions
    }

    resized(pool, options.size)
  end

  defp start_thread_pool(options) do
    # The reason goes out as the error itself; a crash report about a venv that is missing would only bury it.
    case GenServer.start_link(__MODULE__, {options, Process.group_leader()}, name: options.name) do
      {:error, {:shutdown, %Error{} = error}} -> {:error, error}
      other -> other
    end
  end

  @impl true
  def init({options, leader}) do
    Process.flag(:trap_exit, true)
    mark(options.name, :starting)

    with {:ok, python} <- Runtime.boot(options.python),
         pool = open(options, python),
         mark(options.name, pool),
         :ok <- run_init(pool, options, leader) do
      {:ok, pool}
    else
      {:error, error} ->
        mark(options.name, :stopped)
        {:stop, {:shutdown, error}}
    end
  end

  @impl true
  def handle_call(:ready, _from, pool), do: {:reply, :ok, pool}

  @impl true
  def handle_info({:EXIT, _port_or_process, _reason}, pool), do: {:noreply, pool}
  def handle_info(_late, pool), do: {:noreply, pool}

  @impl true
  def terminate(_reason, pool) do
    mark(pool.name, :stopped)
    close(pool.native)
  end

  defp close(native) do
    Exposed.forget(asker(native))
    Native.close_pool(native)
  end

  defp asker(native), do: {:node, Native.pool_id(native)}

  defp open(options, python) do
    %{name: name, size: size, max_queue: max_queue, grace: grace} = options
    native = Native.open_pool(name, size, max_queue, grace)
    Exposed.put(asker(native), options.expose)

    %__MODULE__{
      name: name,
      in: :thread,
      native: native,
      timeout: options.timeout,
      telemetry?: Telemetry.loaded?(),
      max_sessions: options.max_sessions,
      pid: self(),
      python: python
    }
  end

  defp run_init(pool, options, leader) do
    %{source: init, file: file, line: line} = source(options.init)
    paths = Enum.map(options.paths, &Path.expand/1)
    config = %{init: init, file: file, line: line, paths: paths, env: options.env}
    ref = make_ref()
    :ok = Native.start_pool(pool.native, ref, leader, config, options.start_timeout)

    receive do
      {:py_result, ^ref, :ok} ->
        :ok

      {:py_result, ^ref, {:error, error}} ->
        close(pool.native)
        {:error, error}
    end
  end

  defp source(%Py.Code{} = code), do: code
  defp source(source), do: %{source: source, file: nil, line: 1}
end
