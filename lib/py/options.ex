defmodule Py.Options do
  @moduledoc false

  # The one place that knows the options: their check, their defaults and their documentation come from these lists.

  @longest_timeout 4_294_967_295
  @most_bytes 9_223_372_036_854_775_807
  # As many calls as a worker is handed, and as it can tell of when it dies.
  @most_threads 120

  @call [
    kwargs: [
      type: :kwargs,
      default: [],
      doc: "keyword arguments, a keyword list or a map with atoms or strings as keys"
    ],
    timeout: [
      type: :timeout,
      default: nil,
      doc:
        "milliseconds or `:infinity`; one deadline that includes waiting in the queue. Default: the pool's, which is `30_000`"
    ],
    on: [
      type: :pool,
      default: Py,
      doc:
        "the name of a pool, `{pool, node}`, or a session: see `Py.Session`. Where the target is a `Py.Object`, its pool by default"
    ],
    return: [
      type: {:in, [:value, :object]},
      default: :value,
      doc: "`:value`, or `:object` for a reference to the result, whatever it is: see `Py.Object`"
    ],
    inline: [
      type: :boolean,
      default: false,
      doc:
        "says that the function returns within a fraction of a millisecond: run it on the calling scheduler, where Python is free and that is safe, else through the queue, with the same result. See `Py.Pool.info/1` for why it is not"
    ],
    copy: [
      type: :boolean,
      default: true,
      doc:
        "with `false`, binaries from 64 KB up in the result of a worker process stay in its shared memory, which it can use again when the last of them, and of their parts, is garbage; of a result that holds a `Py.Object` they are copied; in the node there is no copy to save"
    ],
    progress: [
      type: {:function, 3},
      default: nil,
      doc:
        "a function of `done, total, note`, called with what Python gives to `erlang.progress`; see \"Progress\" in `Py`. With `on: {pool, node}` it runs on that node"
    ],
    traceparent: [
      type: :traceparent,
      default: nil,
      doc:
        "the trace that the call is part of, as in the HTTP header of that name; see \"Telemetry\" in `Py`. Default: `traceparent` of the caller's Logger metadata"
    ]
  ]

  @stream [
    buffer: [
      type: :positive,
      default: 256,
      doc: "how many items Python may be ahead of the consumer"
    ]
  ]

  @stream_to [
    stream_to: [
      type: :pid,
      default: nil,
      doc:
        "a process that gets the items of the iterable that is returned, each as a message: see `Py.Stream`"
    ]
  ]

  @place [
    file: [type: :text, default: nil, doc: "the file that tracebacks name as the code's"],
    line: [type: :positive, default: 1, doc: "the line of that file on which the code starts"]
  ]

  @short Keyword.take(@call, [:timeout, :on])

  @pool [
    name: [type: :name, default: Py, doc: "an atom, by which `on:` finds the pool"],
    in: [
      type: {:in, [:thread, :process, :subinterpreter]},
      default: :thread,
      doc:
        "where Python runs: on threads of the node, or in OS processes of their own, which may crash and use several cores"
    ],
    size: [
      type: :positive,
      default: nil,
      doc:
        "in `:thread`, how many calls are in progress at once, blocked ones included; in `:process`, how many worker processes there are. Default: `16` threads, or as many processes as there are schedulers"
    ],
    concurrency: [
      type: :threads,
      default: 1,
      doc:
        "calls in progress at once in each worker process, up to 120; beyond 1 a worker that has to be killed costs the calls beside that which would not stop"
    ],
    max_queue: [
      type: :count,
      default: 10_000,
      doc: "how many calls may wait; beyond it a call is `:overloaded` at once"
    ],
    timeout: [type: :timeout, default: 30_000, doc: "the timeout of calls that give none"],
    grace: [
      type: :count,
      default: 1_000,
      doc: "milliseconds that an interrupted call gets to end before its thread is given up"
    ],
    start_timeout: [
      type: :timeout,
      default: 60_000,
      doc: "milliseconds that `init:` may take"
    ],
    init: [
      type: :code,
      default: nil,
      doc:
        "code that runs once before the pool serves; its names are visible to all code of the pool"
    ],
    paths: [type: {:list, :text}, default: [], doc: "folders put in front of `sys.path`"],
    expose: [
      type: :modules,
      default: [],
      doc:
        "modules whose public functions Python code of this pool may call, as `erlang.call(\"MyApp.Tools.search\", ...)`, besides those of `Py.register/3`"
    ],
    env: [
      type: :env,
      default: %{},
      doc: "a map of strings, set in `os.environ`; of a pool of processes, their environment"
    ],
    cd: [type: :text, default: nil, doc: "the working directory of worker processes"],
    lazy: [
      type: :boolean,
      default: false,
      doc: "worker processes are started by the first call, and not with the pool"
    ],
    prefork: [
      type: :boolean,
      default: false,
      doc:
        "`init:` runs once, in a process that is then forked into the workers: they start in milliseconds, and share the memory of what it loaded; see \"Forked workers\""
    ],
    max_calls: [
      type: :limit,
      default: :infinity,
      doc: "a worker process that has served so many calls is replaced, without losing any"
    ],
    max_lifetime: [
      type: :limit,
      default: :infinity,
      doc: "the same for one that has lived so many milliseconds"
    ],
    max_memory: [
      type: :limit,
      default: :infinity,
      doc: "the same for one whose resident memory has so many bytes"
    ],
    memory_limit: [
      type: :bytes,
      default: nil,
      doc:
        "bytes of address space that a worker process may have; beyond it Python raises `MemoryError`"
    ],
    max_sessions: [
      type: :limit,
      default: :infinity,
      doc: "how many sessions there may be; beyond it to start one is `:overloaded`"
    ],
    python: [
      type: :text,
      default: nil,
      doc:
        "an executable or a virtual environment; a node holds one Python, so all pools in `:thread` must agree; each pool in `:process` may have its own"
    ]
  ]

  @script [
    timeout: [
      type: :timeout,
      default: 30_000,
      doc: "milliseconds or `:infinity`; decoding of JSON included"
    ],
    stdin: [
      type: :iodata,
      default: nil,
      doc: "iodata for the script to read. Without it the script reads the end of file"
    ],
    env: [
      type: :env,
      default: %{},
      doc: "a map of strings, environment variables beside those of the node"
    ],
    cd: [
      type: :text,
      default: nil,
      doc: "the current directory of the script. Default: that of the node"
    ],
    python: [
      type: :text,
      default: nil,
      doc: "an executable or a virtual environment. Default: what `Py.Python.find/2` finds"
    ],
    memory_limit: [
      type: :bytes,
      default: nil,
      doc:
        "bytes of address space for each process of the script (`RLIMIT_AS`); Python raises MemoryError beyond it. Default: none"
    ],
    json: [
      type: :boolean,
      default: false,
      doc: "decodes stdout, with Python's `json`"
    ],
    max_output: [
      type: :bytes,
      default: 67_108_864,
      doc:
        "bytes that the script may print on stdout, and as many on stderr; beyond it it is killed"
    ]
  ]

  @session [
    on: [type: :pool_name, default: Py, doc: "the name of a pool"],
    name: [type: :name, default: nil, doc: "an atom, by which `on:` finds the session"],
    thread: [
      type: :boolean,
      default: false,
      doc:
        "all that runs in the session runs on one thread of its own, as `sqlite3`, CUDA contexts and `threading.local` want it"
    ],
    timeout: [
      type: :timeout,
      default: nil,
      doc: "milliseconds that it may take to start it. Default: the pool's"
    ]
  ]

  @idle_timeout [
    type: :limit,
    doc: "milliseconds without a call after which the session ends by itself"
  ]

  @channel [
    name: [type: :name, default: nil, doc: "an atom, by which Elixir and Python find the channel"],
    max_size: [
      type: :positive,
      default: 256,
      doc: "how many items the buffer holds; whoever puts one more waits"
    ]
  ]

  @schemas %{
    call: @call,
    async_call: @call ++ @stream_to ++ @stream,
    stream: Keyword.drop(@call, [:return, :inline, :copy]) ++ @stream,
    session: @session ++ [idle_timeout: [default: :infinity] ++ @idle_timeout],
    kept_session:
      Keyword.delete(@session, :name) ++ [idle_timeout: [default: 300_000] ++ @idle_timeout],
    code: Keyword.delete(@call, :kwargs) ++ @place,
    getattr: Keyword.drop(@call, [:kwargs, :progress, :traceparent]),
    gather: Keyword.drop(@call, [:kwargs, :inline]),
    cast: Keyword.take(@call, [:kwargs, :timeout, :on, :progress, :traceparent]),
    reload: @short,
    pool: @pool,
    script: @script,
    channel: @channel,
    session_call: Keyword.take(@call, [:timeout])
  }

  @type schema ::
          :call
          | :async_call
          | :stream
          | :code
          | :getattr
          | :gather
          | :cast
          | :reload
          | :pool
          | :script
          | :channel
          | :session
          | :kept_session
          | :session_call

  for {name, schema} <- @schemas do
    @defaults Map.new(schema, fn {key, facts} -> {key, facts[:default]} end)
    @doc false
    def defaults(unquote(name)), do: unquote(Macro.escape(@defaults))
  end

  @doc "Checks a keyword list against a schema and fills in the defaults; raises ArgumentError."
  @spec check!(keyword, schema, String.t()) :: map
  def check!([], schema, _who), do: defaults(schema)

  # The calls that mind each nanosecond come with nothing else.
  for {name, schema} <- @schemas, schema[:inline] do
    @inline schema
            |> Map.new(fn {key, facts} -> {key, facts[:default]} end)
            |> Map.put(:inline, true)
    def check!([inline: true], unquote(name), _who), do: unquote(Macro.escape(@inline))
  end

  def check!(options, schema, who), do: check(options, defaults(schema), schema, who, options)

  # Calls come through here: a clause for each option is looked up in no list.
  defp check([{key, value} | rest], checked, schema, who, options) do
    case type(schema, key) do
      nil ->
        raise ArgumentError, refused(options, schema, who)

      type ->
        case cast(type, value) do
          {:ok, value} -> check(rest, %{checked | key => value}, schema, who, options)
          {:error, expected} -> raise ArgumentError, wrong(key, value, expected, who)
        end
    end
  end

  defp check([], checked, _schema, _who, _options), do: checked

  defp check(_other, _checked, schema, who, options),
    do: raise(ArgumentError, refused(options, schema, who))

  for {name, schema} <- @schemas, {key, facts} <- schema do
    defp type(unquote(name), unquote(key)), do: unquote(Macro.escape(facts[:type]))
  end

  defp type(_schema, _key), do: nil

  defp refused(options, schema, who) do
    if Keyword.keyword?(options) do
      known = Keyword.keys(Map.fetch!(@schemas, schema))
      unknown(Keyword.keys(options) -- known, Map.fetch!(@schemas, schema), who)
    else
      "options of #{who} must be a keyword list, got: #{inspect(options)}"
    end
  end

  @doc "Is this list made of nothing but options? Then it stands in the place of the arguments."
  @spec misplaced?(list, schema) :: boolean
  def misplaced?([{key, _value} | _rest] = args, schema) when is_atom(key) do
    known = Map.fetch!(@schemas, schema)
    Keyword.keyword?(args) and Enum.all?(args, fn {key, _} -> Keyword.has_key?(known, key) end)
  end

  def misplaced?(_args, _schema), do: false

  @doc "The documentation of a schema, as a Markdown list."
  @spec docs(schema) :: String.t()
  def docs(schema) do
    Enum.map_join(Map.fetch!(@schemas, schema), "\n", fn {name, facts} ->
      "  * `#{name}:` #{facts[:doc]}#{default(facts[:default])}"
    end)
  end

  defp default(nil), do: ""
  defp default(value), do: ". Default: `#{inspect(value)}`"

  defp unknown(unknown, known, who) do
    "unknown option#{if tl(unknown) != [], do: "s"} #{list(unknown)} for #{who}; known are #{list(Keyword.keys(known))}"
  end

  defp list(names), do: Enum.map_join(names, ", ", &inspect/1)

  defp wrong(key, value, expected, who) do
    "option #{key}: of #{who} must be #{expected}, got: #{inspect(value)}"
  end

  defp cast(:pid, value) when is_pid(value) or is_nil(value), do: {:ok, value}
  defp cast(:pid, _value), do: {:error, "a pid"}
  defp cast(:boolean, value) when is_boolean(value), do: {:ok, value}
  defp cast(:boolean, _value), do: {:error, "true or false"}
  defp cast(:timeout, :infinity), do: {:ok, :infinity}
  defp cast(:timeout, ms) when ms in 0..@longest_timeout, do: {:ok, ms}

  defp cast(:timeout, _value),
    do: {:error, "milliseconds (0 to #{@longest_timeout}) or :infinity"}

  defp cast(:limit, :infinity), do: {:ok, :infinity}
  defp cast(:limit, n) when is_integer(n) and n > 0, do: {:ok, n}
  defp cast(:limit, _value), do: {:error, "a positive integer or :infinity"}
  defp cast(:positive, n) when n in 1..@longest_timeout, do: {:ok, n}
  defp cast(:positive, _value), do: {:error, "a positive integer"}
  defp cast(:threads, n) when n in 1..@most_threads, do: {:ok, n}
  defp cast(:threads, _value), do: {:error, "an integer from 1 to #{@most_threads}"}
  defp cast(:count, n) when n in 0..@longest_timeout, do: {:ok, n}
  defp cast(:count, _value), do: {:error, "a non-negative integer"}
  defp cast(:bytes, n) when n in 1..@most_bytes, do: {:ok, n}
  defp cast(:bytes, _value), do: {:error, "a positive number of bytes"}
  defp cast(:iodata, nil), do: {:ok, nil}

  defp cast(:iodata, value) do
    {:ok, IO.iodata_to_binary(value)}
  rescue
    ArgumentError -> {:error, "iodata"}
  end

  defp cast(:text, value) when is_binary(value) or is_nil(value), do: {:ok, value}
  defp cast(:text, _value), do: {:error, "a string"}

  defp cast(:name, value) when is_atom(value) and value not in [nil, true, false],
    do: {:ok, value}

  defp cast(:name, _value), do: {:error, "an atom"}

  defp cast(:pool_name, value) when is_atom(value) and value not in [nil, true, false],
    do: {:ok, value}

  defp cast(:pool_name, _value), do: {:error, "the name of a pool"}
  defp cast(:pool, session) when is_pid(session), do: {:ok, session}
  defp cast(:pool, {pool, node}) when is_atom(pool) and is_atom(node), do: {:ok, {pool, node}}

  defp cast(:pool, value) when is_atom(value) and value not in [nil, true, false],
    do: {:ok, value}

  defp cast(:pool, _value), do: {:error, "the name of a pool, {pool, node}, or a session"}
  defp cast(:code, %Py.Code{} = code), do: {:ok, code}
  defp cast(:code, value) when is_binary(value) or is_nil(value), do: {:ok, value}
  defp cast(:code, _value), do: {:error, "a string or ~P code"}

  defp cast(:traceparent, nil), do: {:ok, nil}

  defp cast(:traceparent, value) do
    if Py.Trace.parent?(value),
      do: {:ok, value},
      else: {:error, "like \"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\""}
  end

  defp cast({:function, _arity}, nil), do: {:ok, nil}
  defp cast({:function, arity}, value) when is_function(value, arity), do: {:ok, value}
  defp cast({:function, arity}, _value), do: {:error, "a function of arity #{arity}"}

  defp cast({:in, values}, value) do
    if value in values, do: {:ok, value}, else: {:error, "one of #{list(values)}"}
  end

  defp cast({:list, :text}, value) do
    strings? = is_list(value) and Enum.all?(value, &is_binary/1)
    if strings?, do: {:ok, value}, else: {:error, "a list of strings"}
  end

  defp cast(:modules, value) do
    atoms? = is_list(value) and Enum.all?(value, &is_atom/1)

    case atoms? && Enum.find(value, &(not Code.ensure_loaded?(&1))) do
      nil -> {:ok, value}
      false -> {:error, "a list of modules"}
      module -> {:error, "a list of modules, and there is no #{inspect(module)}"}
    end
  end

  defp cast(:env, value) do
    pairs = if is_map(value) or is_list(value), do: Enum.to_list(value), else: [nil]

    if Enum.all?(pairs, &variable?/1),
      do: {:ok, Map.new(pairs, fn {name, value} -> {to_string(name), value} end)},
      else: {:error, "a map or list of names and strings, without NUL bytes, and names without ="}
  end

  defp cast(:kwargs, value) do
    if names?(value),
      do: {:ok, value},
      else: {:error, "a keyword list or a map, with atoms or strings as keys"}
  end

  # What the system cannot hold would be refused where nobody can tell which it was.
  defp variable?({name, value}) when (is_atom(name) or is_binary(name)) and is_binary(value) do
    name = to_string(name)
    texts? = String.valid?(name) and String.valid?(value)

    texts? and name != "" and not String.contains?(name, ["=", <<0>>]) and
      not String.contains?(value, <<0>>)
  end

  defp variable?(_other), do: false

  defp names?(%{__struct__: _}), do: false
  defp names?(value) when is_map(value), do: value |> Map.keys() |> Enum.all?(&name?/1)
  defp names?([{name, _value} | rest]), do: name?(name) and names?(rest)
  defp names?(value), do: value == []

  defp name?(name), do: is_atom(name) or is_binary(name)
end
