defmodule Py.Session do
  @moduledoc """
  A namespace in Python that outlives a call: what one call assigns the next one finds.

      iex> {:ok, session} = Py.Session.start_link()
      iex> Py.exec!("total = 0\\ndef add(n):\\n  global total\\n  total += n\\n  return total", %{}, on: session)
      iex> Py.call!(:__main__, :add, [40], on: session)
      iex> Py.eval!("add(2)", %{}, on: session)
      42

  A session is given as `on:` to every function of `Py`: a pid, or the name it was started with. Code runs in its
  namespace, above the names that the pool's `init:` made; the variables given to `Py.eval/3` and `Py.exec/3` become names of
  it; `:__main__` is it.

  It is a process, a child of a supervisor or linked to whoever starts it, and it ends with its owner, the process that
  called `start_link/1` or the supervisor. When it ends, in whatever way, its names are gone from Python, once; what runs in
  it then runs on.

  All that runs in a session runs in one interpreter: in a pool of processes, in the same worker. Its calls wait for that
  worker, whatever others are free. When the worker ends, so does the session, with the reason `{:shutdown, error}`; a call
  to a session that has ended is an error of kind `:session_lost`, never one in an empty namespace. A worker that is to be
  replaced (`max_calls:`, `Py.Pool.resize/2`) serves its sessions until they end.

  Calls of different processes in one session run at the same time, as far as the pool lets them. With `thread: true` they
  run one after another, on a thread that is the session's alone; while one of them waits for an Elixir function others
  may run, so that this function may use the session too. Such a thread is Python's own: while there is one in the node no call
  runs inline (`inline: true`).

  ## Options

  #{Py.Options.docs(:session)}
  """

  use GenServer

  alias Py.{Caller, Error, Options, Pool, Telemetry, Tenants}

  @module "erlang._sessions"
  @supervisor __MODULE__.Supervisor
  @registry __MODULE__.Registry

  # `asked` is the request that finds out whether it ends, if there is one, and `waiting` are those who want to know.
  defstruct [:pool, :key, :idle_timeout, :began, :timer, :asked, waiting: []]

  @typedoc "A session: its process, or the name that it has."
  @type t :: pid | atom

  # --- starting -----------------------------------------------------------------------------------

  @doc """
  Starts a session, linked to the calling process. See the options above.

      iex> {:ok, session} = Py.Session.start_link(name: MySession)
      iex> Py.eval("x = 1", %{}, on: MySession)
      {:ok, nil}
      iex> GenServer.stop(session)
      :ok
  """
  @spec start_link(keyword) :: {:ok, pid} | {:error, Error.t() | {:already_started, pid}}
  def start_link(options \\ []) do
    options = Options.check!(options, :session, "Py.Session")
    begin(options, %{owner: self(), from: nil, registered: options.name})
  end

  defp begin(options, more) do
    argument = options |> Map.merge(more) |> Map.put(:leader, Process.group_leader())
    name = if argument.registered, do: [name: argument.registered], else: []

    case GenServer.start_link(__MODULE__, argument, name) do
      {:error, {:shutdown, %Error{} = error}} -> {:error, error}
      other -> other
    end
  end

  @doc false
  @spec start_kept(map) :: GenServer.on_start()
  def start_kept(options), do: begin(options, %{})

  @doc """
  The session of a key, which is any term, on a pool; started if there is none.

  It is linked to nobody and lives by `idle_timeout:`, whose default here is `300_000`.

      iex> {:ok, session} = Py.Session.fetch_or_start(Py, {:user, 1}, idle_timeout: 60_000)
      iex> Py.Session.fetch_or_start(Py, {:user, 1}) == {:ok, session}
      true
      iex> GenServer.stop(session)
      :ok

  ## Options

  #{Options.docs(:kept_session)}
  """
  @spec fetch_or_start(atom, term, keyword) :: {:ok, pid} | {:error, Error.t()}
  def fetch_or_start(pool, key, options \\ []) do
    checked = Options.check!([on: pool] ++ options, :kept_session, "Py.Session.fetch_or_start")

    case Registry.lookup(@registry, {pool, key}) do
      [{session, _}] -> if stay(session), do: {:ok, session}, else: start(checked, pool, key)
      [] -> start(checked, pool, key)
    end
  end

  # One that is about to end by itself may have ended before it could hear this.
  defp stay(session) do
    GenServer.call(session, :stay, :infinity)
  catch
    :exit, _it_ended -> false
  end

  defp start(options, pool, key) do
    name = {:via, Registry, {@registry, {pool, key}}}
    argument = Map.merge(options, %{name: nil, owner: nil, from: nil, registered: name})

    child = %{
      id: __MODULE__,
      start: {__MODULE__, :start_kept, [argument]},
      restart: :temporary
    }

    case DynamicSupervisor.start_child(@supervisor, child) do
      {:error, {:already_started, session}} ->
        if stay(session), do: {:ok, session}, else: start(options, pool, key)

      other ->
        other
    end
  end

  @doc """
  A new session with names of another one, in the same interpreter and linked to the calling process: both have the same
  objects under them until one assigns anew. It takes the options `name:`, `thread:` and `idle_timeout:`.

      iex> {:ok, session} = Py.Session.start_link()
      iex> :ok = Py.Session.put(session, %{x: [1]})
      iex> {:ok, other} = Py.Session.fork(session, [:x])
      iex> Py.exec!("x = x + [2]", %{}, on: other)
      iex> {Py.eval!("x", %{}, on: session), Py.eval!("x", %{}, on: other)}
      {[1], [1, 2]}
  """
  @spec fork(t, [atom | String.t()], keyword) :: {:ok, pid} | {:error, Error.t()}
  def fork(session, names, options \\ []) do
    names!(names, "Py.Session.fork")
    checked = Options.check!(options, :session, "Py.Session.fork")

    with {:ok, pool, _timeout} <- Caller.pool(session, nil),
         do: begin(checked, %{owner: self(), from: {pool, names}, registered: checked.name})
  end

  # --- names --------------------------------------------------------------------------------------

  @doc """
  Sets names of a session; takes `timeout:`.

      iex> {:ok, session} = Py.Session.start_link()
      iex> Py.Session.put(session, %{"a" => 1, b: 2})
      :ok
      iex> Py.eval("a + b", %{}, on: session)
      {:ok, 3}
  """
  @spec put(t, %{(atom | String.t()) => term}, keyword) :: :ok | {:error, Error.t()}
  def put(session, values, options \\ [])

  def put(session, values, options) when is_map(values) and not is_struct(values) do
    request = {:call, @module, "put", [values], []}
    with {:ok, nil} <- run(session, request, options, "Py.Session.put"), do: :ok
  end

  def put(_session, values, _options),
    do: raise(ArgumentError, "Py.Session.put takes a map of names, got: #{inspect(values)}")

  @doc """
  The values of names of a session, under the names as they are given; takes `timeout:`. A name that it does not have is
  Python's `NameError`.

      iex> {:ok, session} = Py.Session.start_link()
      iex> Py.exec!("a, b = 1, 'two'", %{}, on: session)
      iex> Py.Session.get(session, [:a, "b"])
      {:ok, %{:a => 1, "b" => "two"}}
  """
  @spec get(t, [atom | String.t()], keyword) :: {:ok, map} | {:error, Error.t()}
  def get(session, names, options \\ []) do
    names!(names, "Py.Session.get")
    run(session, {:call, @module, "get", [names], []}, options, "Py.Session.get")
  end

  defp names!(names, who) do
    unless is_list(names) and Enum.all?(names, &(is_atom(&1) or is_binary(&1))) do
      raise ArgumentError, "#{who} takes a list of names, got: #{inspect(names)}"
    end
  end

  defp run(session, request, options, who) do
    options = Options.check!(options, :session_call, who)

    Caller.run(
      request,
      Map.merge(Options.defaults(:call), %{on: session, timeout: options.timeout})
    )
  end

  # --- for callers --------------------------------------------------------------------------------

  @doc false
  @spec pool(t) :: {:ok, Pool.t()} | :error
  def pool(name) when is_atom(name) do
    case Process.whereis(name) do
      session when is_pid(session) -> pool(session)
      nil -> :error
    end
  end

  def pool(session) do
    case Process.alive?(session) and :ets.lookup(__MODULE__, session) do
      [{^session, pool}] -> {:ok, pool}
      _dead_or_none -> :error
    end
  end

  @doc false
  @spec lost(t) :: Error.t()
  def lost(session),
    do:
      Error.new(:session_lost, "there is no session #{inspect(session)} any more; start another")

  # A request as one of a session. A reload is one of an interpreter.
  @doc false
  @spec within(Pool.t(), tuple) :: {Pool.t(), tuple}
  def within(%{session: key} = pool, request),
    do: {%{pool | session: nil}, request |> here() |> Py.Context.within(%{session: key})}

  defp here({:call, target, name, args, kwargs}) when target in [:__main__, "__main__"],
    do: {:call, @module, "call", [to_string(name), args], kwargs}

  defp here({:getattr, target, name}) when target in [:__main__, "__main__"],
    do: {:call, @module, "attribute", [to_string(name)], []}

  defp here({:within, request, context}), do: {:within, here(request), context}
  defp here(request), do: request

  @doc false
  @spec result(Caller.result()) :: Caller.result()
  def result({:error, %Error{type: "SessionLostError", module: "erlang", message: message}}),
    do: {:error, Error.new(:session_lost, message)}

  def result(result), do: result

  # --- the process --------------------------------------------------------------------------------

  @impl true
  def init(%{leader: leader} = options) do
    Process.group_leader(self(), leader)
    if options.owner, do: Process.monitor(options.owner)

    with {:ok, pool, timeout} <- find(options),
         session = %__MODULE__{
           pool: pool,
           key: Tenants.new_key(),
           began: Telemetry.start_session(pool)
         },
         :ok <- Tenants.move_in(tenancy(session), pool.max_sessions),
         {:ok, session} <- open(session, options, timeout) do
      Process.monitor(pool.pid)
      :ets.insert(__MODULE__, {self(), session.pool})
      {:ok, rest(%{session | idle_timeout: options.idle_timeout})}
    else
      {:error, error} ->
        # It is told by what start_link returns.
        if options.owner, do: Process.unlink(options.owner)
        {:stop, {:shutdown, error}}
    end
  end

  defp find(%{from: nil, on: name, timeout: timeout}), do: Caller.pool(name, timeout)
  defp find(%{from: {pool, _names}}), do: {:ok, %{pool | session: nil}, pool.timeout}

  defp tenancy(%{pool: pool, key: key, began: began}),
    do: %{pool: %{pool | session: nil}, key: key, module: @module, span: began}

  defp open(%{key: key} = session, %{from: nil, thread: thread?}, timeout),
    do: open(session, :choose, {:call, @module, "begin", [key, thread?], []}, timeout)

  defp open(%{key: key} = session, %{from: {pool, names}, thread: thread?}, timeout) do
    request = {:call, @module, "fork", [key, names, thread?], []}
    {_pool, request} = within(pool, request)
    open(session, pool.home, request, timeout)
  end

  defp open(%{pool: pool, key: key} = session, home, request, timeout) do
    pool = if pool.in == :process, do: %{pool | home: {home, key}}, else: pool
    tag = make_ref()

    case Caller.submit(pool, tag, Process.group_leader(), request, timeout) do
      {:error, error} -> {:error, error}
      _ticket -> opened(%{session | pool: pool}, tag)
    end
  end

  defp opened(%{key: key} = session, tag) do
    receive do
      {:py_home, ^tag, number} -> session |> settle(number) |> opened(tag)
      {:py_result, ^tag, {:ok, nil}} -> {:ok, %{session | pool: %{session.pool | session: key}}}
      {:py_result, ^tag, {:error, error}} -> result({:error, error})
    end
  end

  defp settle(session, number) do
    session = %{session | pool: %{session.pool | home: number}}
    :ok = Tenants.move_in(tenancy(session))
    session
  end

  # Asked while it is not known whether it ends, it answers when that is known.
  @impl true
  def handle_call(:stay, from, %{asked: nil} = session) do
    GenServer.reply(from, true)
    {:noreply, rest(session)}
  end

  def handle_call(:stay, from, session),
    do: {:noreply, %{session | waiting: [from | session.waiting]}}

  @impl true
  def handle_info({:idle, timer}, %{timer: timer} = session),
    do: {:noreply, close_unused(session)}

  def handle_info({:py_result, tag, {:ok, nil}}, %{asked: tag} = session),
    do: {:stop, :normal, session}

  def handle_info({:py_result, tag, result}, %{asked: tag} = session) do
    for from <- session.waiting, do: GenServer.reply(from, true)
    {:noreply, rest(%{session | asked: nil, waiting: []}, left(result, session))}
  end

  def handle_info({:DOWN, _, :process, pid, _reason}, %{pool: %{pid: pid, name: name}} = session),
    do: {:stop, {:shutdown, Pool.Startup.stopped(name)}, session}

  def handle_info({:DOWN, _, :process, _owner, _reason}, session), do: {:stop, :normal, session}

  def handle_info({:py_evicted, key, error}, %{key: key} = session) do
    message = "its worker process ended: #{Exception.message(error)}"
    lost = %{Error.new(:session_lost, message) | exit: error.exit}
    {:stop, {:shutdown, lost}, session}
  end

  def handle_info(_late, session), do: {:noreply, session}

  defp rest(session), do: rest(session, session.idle_timeout)

  defp rest(session, :infinity), do: session

  defp rest(session, time) do
    timer = make_ref()
    Process.send_after(self(), {:idle, timer}, time)
    %{session | timer: timer}
  end

  # Python knows whether something runs in it, and since when nothing has.
  defp close_unused(%{key: key, pool: pool} = session) do
    tag = make_ref()
    request = {:call, @module, "close_unused", [key, session.idle_timeout / 1000], []}
    pool = %{pool | session: nil}

    case Caller.submit(pool, tag, Process.group_leader(), request, :infinity) do
      {:error, _error} -> rest(session)
      _ticket -> %{session | asked: tag}
    end
  end

  # In milliseconds, rounded up.
  defp left({:ok, seconds}, _session), do: max(ceil(seconds * 1000), 1)
  defp left({:error, _error}, session), do: session.idle_timeout
end
