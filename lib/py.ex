defmodule Py do
  @external_resource readme = Path.expand("../README.md", __DIR__)
  @moduledoc File.read!(readme)

  alias Py.{Buffer, Bytes, Caller, Cast, Code, Context, Error, Future, Object, Options, Script}

  @typedoc "A module, as an atom or a string (`:math`, `\"os.path\"`), or an object."
  @type target :: atom | String.t() | Object.t()

  @typedoc "A function or attribute, which may be dotted: `:sqrt`, `\"path.join\"`."
  @type name :: atom | String.t()

  @type code :: String.t() | Code.t()
  @type variables :: %{optional(atom | String.t()) => term}
  @type result :: {:ok, term} | {:error, Error.t()}

  @typedoc "What `gather/2` takes."
  @type call ::
          {target, name, list} | {target, name, list, keyword | %{(atom | String.t()) => term}}

  @doc """
  Calls a Python function and converts its result. A coroutine function is awaited.

      iex> Py.call(:math, :sqrt, [16.0])
      {:ok, 4.0}
      iex> Py.call("os.path", "join", ["a", "b"])
      {:ok, "a/b"}
      iex> Py.call(:json, :dumps, [%{a: 1}], kwargs: [sort_keys: true], timeout: 5_000)
      {:ok, ~s({"a": 1})}
      iex> Py.call(:uuid, :UUID, [String.duplicate("00", 16)], decode: &String.length/1)
      {:ok, 36}

  ## Options

  #{Options.docs(:call)}
  """
  @spec call(target, name, list, keyword) :: result
  def call(target, name, args \\ [], options \\ []) do
    {request, options} = request!(target, name, args, options, :call, "Py.call")
    request |> Context.wrap(options) |> Caller.run(options)
  end

  @doc """
  Runs statements and converts the value of the last expression; `nil` where the last statement is none.

  The variables are globals of the code, which leaves nothing behind: each call has a namespace of its own, above the
  names that the pool's `init:` made. The code may `await`.

      iex> Py.eval("x * y", %{x: 6, y: 7})
      {:ok, 42}
      iex> Py.eval("x = 1")
      {:ok, nil}

  ## Options

  #{Options.docs(:eval)}
  """
  @spec eval(code, variables, keyword) :: result
  def eval(code, variables \\ %{}, options \\ []) do
    {request, options} = code!(:eval, code, variables, options, "Py.eval")
    request |> Context.wrap(options) |> Caller.run(options)
  end

  @doc """
  Like `eval/3`, and returns `:ok`.

      iex> Py.exec("import json")
      :ok
  """
  @spec exec(code, variables, keyword) :: :ok | {:error, Error.t()}
  def exec(code, variables \\ %{}, options \\ []) do
    {request, options} = code!(:exec, code, variables, options, "Py.exec")
    request |> Context.wrap(options) |> Caller.run(options)
  end

  @doc """
  The value of an attribute.

      iex> Py.getattr(:math, :pi)
      {:ok, 3.141592653589793}
  """
  @spec getattr(target, name, keyword) :: result
  def getattr(target, name, options \\ []) do
    options = options |> Options.check!(:getattr, "Py.getattr") |> at(target, options)
    request = {:getattr, target!(target), name!(name, :name)}

    if options.return == :object,
      do: request |> Context.refer() |> Caller.run(options),
      else: Caller.run(request, options)
  end

  @doc """
  Calls a Python function without waiting for it. A failure is logged and emitted (see `Py.Telemetry`).

      iex> Py.cast(:time, :sleep, [0])
      :ok

  ## Options

  #{Options.docs(:cast)}
  """
  @spec cast(target, name, list, keyword) :: :ok
  def cast(target, name, args \\ [], options \\ []) do
    {request, options} = request!(target, name, args, options, :cast, "Py.cast")
    request |> Context.wrap(options) |> Cast.cast(options)
  end

  @doc """
  Starts a call and returns a `Py.Future`.

  The calling process gets `{:py_result, future.ref, result}`, which `await/2` receives.

      iex> future = Py.async_call(:math, :factorial, [5])
      iex> Py.await(future)
      {:ok, 120}

  With `stream_to: pid` that process gets the items of what is returned, as `Py.Stream` says.

  ## Options

  #{Options.docs(:async_call)}
  """
  @spec async_call(target, name, list, keyword) :: Future.t()
  def async_call(target, name, args \\ [], options \\ []) do
    {request, options} = request!(target, name, args, options, :async_call, "Py.async_call")
    request |> Context.wrap(options) |> Future.start(options)
  end

  @doc """
  The items of an iterable that a Python function returns, as a lazy enumerable: of a generator, an asynchronous one too, a
  list, a file, a cursor, whatever Python can iterate.

  Nothing is called before it is enumerated, and each enumeration calls anew. Items are bare values; an error raises
  `Py.Error`, after the items that came before it. `timeout:` and `decode:` are for each item. When the consumer has enough
  or fails, the generator is closed before the stream returns: its `finally` has run.

      iex> Py.stream(:builtins, :range, [5]) |> Enum.map(& &1 * 2)
      [0, 2, 4, 6, 8]
      iex> Py.stream(:itertools, :count, [10]) |> Enum.take(3)
      [10, 11, 12]

  ## Options

  #{Options.docs(:stream)}
  """
  @spec stream(target, name, list, keyword) :: Enumerable.t()
  def stream(target, name, args \\ [], options \\ []) do
    {request, options} = request!(target, name, args, options, :stream, "Py.stream")
    request |> Context.wrap(options) |> Py.Stream.new(options)
  end

  @doc """
  The items of an object that can be iterated, as those of `stream/4`.

      iex> Py.eval!("(n * n for n in range(4))") |> Py.stream() |> Enum.to_list()
      [0, 1, 4, 9]
  """
  @spec stream(Object.t()) :: Enumerable.t()
  def stream(%Object{} = object),
    do: stream(:builtins, :iter, [object], on: Object.pool(object))

  @doc """
  Enters an object, a context manager as Python's `with` takes, calls the function with what it gives, and leaves the
  object, whatever becomes of the function. Returns what the function returns.

  What it raises, throws or exits with is an `erlang.ElixirError` for `__exit__`, and goes on, unless that returns true: then the
  result is `nil`. An error of Python's, on entering or leaving, raises `Py.Error`.

      iex> path = Path.join(System.tmp_dir!(), "py_with.txt")
      iex> file = Py.call!(:builtins, :open, [path, "w"])
      iex> Py.with(file, fn file -> Py.call!(file, :write, ["text"]) end)
      4
      iex> Py.getattr!(file, :closed)
      true
  """
  @spec with(Object.t(), (term -> result), keyword) :: result | nil when result: term
  def with(%Object{} = object, function, options \\ []) when is_function(function, 1),
    do: Object.with(object, function, options)

  @doc """
  Waits for the result of a future. The call's own deadline rules; a timeout given here cancels the call when it expires.

  A result is given once: to await a second time raises `ArgumentError`, and so does awaiting in another process.

      iex> future = Py.async_call(:time, :sleep, [60])
      iex> {:error, error} = Py.await(future, 10)
      iex> error.kind
      :timeout
  """
  @spec await(Future.t(), timeout) :: result
  def await(%Future{} = future, timeout \\ :infinity),
    do: future |> Future.await(timeout) |> Caller.decode(future.decode)

  @doc """
  The result of a future if it comes within the timeout, else `nil`; never cancels.

      iex> future = Py.async_call(:time, :sleep, [60])
      iex> Py.yield(future, 10)
      nil
      iex> Py.cancel(future)
      :ok
  """
  @spec yield(Future.t(), timeout) :: result | nil
  def yield(%Future{} = future, timeout \\ 5_000),
    do: future |> Future.yield(timeout) |> Caller.decode(future.decode)

  @doc """
  Ends a call: `:ok`, or its result if that was already there. No message of it is left or will come.

      iex> future = Py.async_call(:time, :sleep, [60])
      iex> Py.cancel(future)
      :ok
  """
  @spec cancel(Future.t()) :: :ok | result
  def cancel(%Future{} = future),
    do: future |> Future.cancel() |> Caller.decode(future.decode)

  @doc """
  Waits for several futures; the results are in the order of the futures. The timeout is one for all of them.

      iex> futures = for n <- 1..3, do: Py.async_call(:math, :factorial, [n])
      iex> Py.await_many(futures)
      [{:ok, 1}, {:ok, 2}, {:ok, 6}]
  """
  @spec await_many([Future.t()], timeout) :: [result]
  def await_many(futures, timeout \\ :infinity)

  def await_many(futures, :infinity),
    do: futures |> Enum.map(&Future.await(&1, :infinity)) |> decode(futures)

  def await_many(futures, timeout) do
    deadline = System.monotonic_time(:millisecond) + timeout

    results =
      for future <- futures do
        Future.await(future, max(deadline - System.monotonic_time(:millisecond), 0))
      end

    decode(results, futures)
  end

  # When all are there: what a function raises leaves no messages behind.
  defp decode(results, futures) do
    for {result, future} <- Enum.zip(results, futures), do: Caller.decode(result, future.decode)
  end

  @doc """
  Makes several calls at once, each `{target, name, args}` or `{target, name, args, kwargs}`; the results are in their order.

      iex> Py.gather([{:math, :sqrt, [16]}, {:builtins, :int, ["ff"], [base: 16]}])
      [{:ok, 4.0}, {:ok, 255}]

  ## Options

  #{Options.docs(:gather)}
  """
  @spec gather([call], keyword) :: [result]
  def gather(calls, options \\ []) do
    given = options
    options = Options.check!(options, :gather, "Py.gather")
    # All are checked before the first one runs.
    requests = for call <- calls, do: gathered!(call, options, given)
    futures = for {request, options} <- requests, do: Future.start(request, options)
    await_many(futures)
  end

  @doc """
  Reloads a module that was imported, in every interpreter of the pool.

      iex> Py.call!(:colorsys, :rgb_to_hsv, [0, 0, 0])
      iex> Py.reload(:colorsys)
      :ok
  """
  @spec reload(target, keyword) :: :ok | {:error, Error.t()}
  def reload(module, options \\ []) do
    options = Options.check!(options, :reload, "Py.reload")
    with {:ok, _module} <- Caller.run({:reload, name!(module, :module)}, options), do: :ok
  end

  @doc """
  Registers a function under a name by which Python code may call it: `erlang.call("name", ...)`, `erlang.name(...)`,
  `from erlang import name`; in a coroutine `await erlang.acall("name", ...)`. Nothing else of Elixir can be called, but
  functions that are passed along, and those of the modules that a pool was given as `expose:` (see `Py.Pool`).

  `function` is a function, or `{module, name}` for one of any arity. Arguments and results are converted as those of
  calls are. Keyword arguments arrive as a keyword list behind the others; only atoms that exist can be their keys. A wrong
  number of arguments is a `TypeError` in Python; what the function raises, throws or exits with is an
  `erlang.ElixirError` with `kind`, `type`, `reason` and `stacktrace`.

  It runs in a process of its own with the group leader, the Logger metadata and, as the first of its `$callers`, the
  process whose call of Python called it; it has no time limit, but ends with that call. The Python thread that waits takes
  no place of its pool, so it may call into the same pool, to any depth.

  A call with `inline: true` cannot call back: it runs on a scheduler, which must not wait. Names that `erlang` has itself, such
  as `send`, cannot be given. A name that is taken is given anew. Options:

    * `owner:` a process: the name is free again when it ends. Default: none

  ## Example

      iex> Py.register("shout", &String.upcase/1, owner: self())
      :ok
      iex> Py.eval("import erlang; [erlang.shout(word) for word in words]", %{words: ["a", "b"]})
      {:ok, ["A", "B"]}
      iex> {:error, error} = Py.eval("import erlang; erlang.shout()")
      iex> {error.type, error.message}
      {"TypeError", "shout() takes 1 arguments, and 0 were given"}
  """
  @spec register(atom | String.t(), function | {module, atom}, keyword) :: :ok
  def register(name, function, options \\ []) do
    owner = registration!(function, options)
    Py.Callbacks.register(callable!(name), function, owner)
  end

  defp registration!(function, options) do
    unless is_function(function) or
             match?({module, name} when is_atom(module) and is_atom(name), function) do
      raise ArgumentError,
            "Py.register takes a function or {module, name}, got: #{inspect(function)}"
    end

    case options do
      [] ->
        nil

      [owner: owner] when is_pid(owner) ->
        owner

      _other ->
        raise ArgumentError,
              "the one option of Py.register is owner: pid, got: #{inspect(options)}"
    end
  end

  # What `erlang/__init__.py` has: a function of that name could be called by `erlang.call` only.
  @own_names ~w(Atom Cancelled Channel Closed DecodeError ElixirError EncodeError Pid Port Ref SessionLostError Tensor acall
                annotations aprogress array call progress register_encoder send span state_clear state_decr state_delete
                state_get state_incr state_keys state_set telemetry traceparent whereis)

  # Names that Python can write as such.
  defp callable!(name) do
    text = to_string(name!(name, "name"))

    cond do
      text in @own_names ->
        raise ArgumentError,
              "Python's module erlang has a #{text} of its own; register another name"

      text =~ ~r/^[A-Za-z][A-Za-z0-9_]*$/ ->
        text

      true ->
        raise ArgumentError,
              "a function is registered under letters, digits and underscores, a letter first, got: #{inspect(name)}"
    end
  end

  @doc """
  Takes a name back that `register/3` gave.

      iex> Py.register(:twice, &(&1 * 2))
      iex> Py.unregister(:twice)
      :ok
      iex> Py.eval!("import erlang; hasattr(erlang, 'twice')")
      false
  """
  @spec unregister(atom | String.t()) :: :ok
  def unregister(name), do: name |> callable!() |> Py.Callbacks.unregister()

  @doc """
  Runs a Python program to its end, in a process of its own, as `python path argv...` would; it needs no pool.

  The path is expanded from the node's current directory, whatever `cd:` is; arguments are strings, numbers and atoms.

      iex> path = Path.join(System.tmp_dir!(), "py_run_script.py")
      iex> File.write!(path, "import json, sys; json.dump([sys.argv[1:], sys.stdin.read()], sys.stdout)")
      iex> Py.run_script!(path, ["--size", 3], stdin: "text", json: true)
      %{status: 0, stdout: ~s([["--size", "3"], "text"]), stderr: "", json: [["--size", "3"], "text"]}

  That is for status 0. Any other end is an error whose `object` is the same map: see `Py.Script`. Nothing that a script
  starts outlives it.

  ## Options

  #{Options.docs(:script)}
  """
  @spec run_script(Path.t(), [Script.argument()], keyword) ::
          {:ok, Script.result()} | {:error, Error.t()}
  def run_script(path, argv \\ [], options \\ []), do: Script.run(path, argv, options)

  @doc """
  A binary that becomes Python `bytes`; a bare binary becomes `str`.

      iex> Py.call(:builtins, :len, [Py.bytes(<<255, 0>>)])
      {:ok, 2}
  """
  @spec bytes(binary) :: Bytes.t()
  def bytes(binary) when is_binary(binary), do: %Bytes{data: binary}

  @doc """
  A binary that Python sees through a read-only `memoryview`. In the node that is the binary's own memory, whatever its
  size: the binary lives as long as Python has the view, or an array or image on it. To a worker process
  (`in: :process`) one of 64 KB and more goes in shared memory, where Python sees it without a copy of its own.

  Back in the node, such a view and parts of it are the binary and parts of it again.

      iex> Py.eval("data.readonly, data[0], len(data)", %{data: Py.buffer(<<255, 0>>)})
      {:ok, {true, 255, 2}}
  """
  @spec buffer(binary) :: Buffer.t()
  def buffer(binary) when is_binary(binary), do: %Buffer{data: binary}

  @doc """
  An enumerable that Python sees as an iterator: it is enumerated as Python asks, a few items ahead at most, once.

  It is a process of its own that enumerates, in the name of whoever made the call, and so it can be a `File.stream!`; it ends when Python
  lets go of the iterator, and with the process that made the call. What the enumerable raises is an `erlang.ElixirError`. In
  coroutines `async for` leaves the event loop to others.

      iex> Py.call(:builtins, :list, [Py.iter(Stream.map(1..3, & &1 * 2))])
      {:ok, [2, 4, 6]}
      iex> Py.eval("next(numbers) + next(numbers)", %{numbers: Py.iter(Stream.iterate(20, & &1 + 2))})
      {:ok, 42}
  """
  @spec iter(Enumerable.t()) :: Py.Iterator.t()
  def iter(enumerable), do: Py.Iterator.new(enumerable)

  @doc """
  Like `call/4`, but returns the value or raises `Py.Error`, with Python's frames in front of the stacktrace.

      iex> Py.call!(:math, :sqrt, [16.0])
      4.0
      iex> Py.call!(:builtins, :chr, [-1])
      ** (Py.Error) ValueError: chr() arg not in range(0x110000)
  """
  @spec call!(target, name, list, keyword) :: term
  def call!(target, name, args \\ [], options \\ []),
    do: value!(call(target, name, args, options))

  @doc """
  Like `eval/3`, but returns the value or raises `Py.Error`.

      iex> Py.eval!("x + 1", %{x: 1})
      2
  """
  @spec eval!(code, variables, keyword) :: term
  def eval!(code, variables \\ %{}, options \\ []), do: value!(eval(code, variables, options))

  @doc """
  Like `exec/3`, but raises `Py.Error`.

      iex> Py.exec!("assert True")
      :ok
  """
  @spec exec!(code, variables, keyword) :: :ok
  def exec!(code, variables \\ %{}, options \\ []), do: value!(exec(code, variables, options))

  @doc """
  Like `getattr/3`, but returns the value or raises `Py.Error`.

      iex> Py.getattr!(:string, :digits)
      "0123456789"
  """
  @spec getattr!(target, name, keyword) :: term
  def getattr!(target, name, options \\ []), do: value!(getattr(target, name, options))

  @doc """
  Like `await/2`, but returns the value or raises `Py.Error`.

      iex> Py.await!(Py.async_call(:math, :sqrt, [16]))
      4.0
  """
  @spec await!(Future.t(), timeout) :: term
  def await!(%Future{} = future, timeout \\ :infinity), do: value!(await(future, timeout))

  @doc """
  Like `await_many/2`, but returns the values or raises the first error, after all have ended.

      iex> Py.await_many!([Py.async_call(:math, :sqrt, [16])])
      [4.0]
  """
  @spec await_many!([Future.t()], timeout) :: [term]
  def await_many!(futures, timeout \\ :infinity),
    do: values!(await_many(futures, timeout))

  @doc """
  Like `gather/2`, but returns the values or raises the first error, after all have ended.

      iex> Py.gather!([{:math, :sqrt, [16]}, {:math, :sqrt, [25]}])
      [4.0, 5.0]
  """
  @spec gather!([call], keyword) :: [term]
  def gather!(calls, options \\ []), do: values!(gather(calls, options))

  @doc """
  Like `reload/2`, but raises `Py.Error`.

      iex> Py.reload!(:string)
      :ok
  """
  @spec reload!(target, keyword) :: :ok
  def reload!(module, options \\ []), do: value!(reload(module, options))

  @doc """
  Like `run_script/3`, but returns the result or raises `Py.Error`.

      iex> Py.run_script!("/no/such/script.py")
      ** (Py.Error) not available: there is no script /no/such/script.py
  """
  @spec run_script!(Path.t(), [Script.argument()], keyword) :: Script.result()
  def run_script!(path, argv \\ [], options \\ []), do: value!(run_script(path, argv, options))

  @doc ~S'''
  Python source that knows its place, so that tracebacks point into the Elixir file. Nothing in it is interpolated.

      iex> import Py, only: [sigil_P: 2]
      iex> Py.eval(~P"[x ** 2 for x in range(4)]")
      {:ok, [0, 1, 4, 9]}
  '''
  defmacro sigil_P({:<<>>, meta, [source]}, []) when is_binary(source) do
    Macro.escape(Code.new(source, meta, __CALLER__))
  end

  defp request!(target, name, args, options, schema, who) do
    if not proper?(args), do: raise(ArgumentError, not_a_list(args, who))

    if options == [] and Options.misplaced?(args, schema),
      do: raise(ArgumentError, misplaced(args, who))

    options = options |> Options.check!(schema, who) |> at(target, options)
    {{:call, target!(target), name!(name, :name), args, options.kwargs}, options}
  end

  # An object is asked where it is, unless somebody says otherwise.
  defp at(options, %Object{} = object, given),
    do: if(given[:on], do: options, else: %{options | on: Object.pool(object)})

  defp at(options, _name, _given), do: options

  defp target!(%Object{} = object), do: object
  defp target!(name), do: name!(name, :target)

  defp code!(kind, code, variables, options, who) do
    if not is_map(variables) or is_struct(variables),
      do: raise(ArgumentError, no_map(variables, who))

    options = Options.check!(options, kind, who)
    {source, file, line} = place(code, options, who)
    {{kind, source, variables, file, line}, options}
  end

  defp place(%Code{source: source, file: file, line: line}, %{file: nil}, _who),
    do: {source, file, line}

  defp place(%Code{source: source}, options, _who), do: {source, options.file, options.line}

  defp place(source, options, _who) when is_binary(source),
    do: {source, options.file, options.line}

  defp place(other, _options, who) do
    raise ArgumentError, "the code of #{who} must be a string or ~P code, got: #{inspect(other)}"
  end

  defp gathered!({target, name, args}, options, given),
    do: gathered!({target, name, args, []}, options, given)

  defp gathered!({target, name, args, kwargs}, options, given) do
    {request, _options} = request!(target, name, args, [kwargs: kwargs], :call, "Py.gather")
    {Context.wrap(request, options), at(options, target, given)}
  end

  defp gathered!(other, _options, _given) do
    raise ArgumentError,
          "a call of Py.gather is {target, name, args} or {target, name, args, kwargs}, got: #{inspect(other)}"
  end

  defp name!(name, _which) when is_binary(name), do: name
  defp name!(name, _which) when is_atom(name) and name not in [nil, true, false], do: name

  defp name!(other, which) do
    raise ArgumentError, "the #{which} must be an atom or a string, got: #{inspect(other)}"
  end

  defp proper?(args) when length(args) >= 0, do: true
  defp proper?(_args), do: false

  defp not_a_list(args, who), do: "the arguments of #{who} must be a list, got: #{inspect(args)}"

  defp misplaced(args, who) do
    "#{inspect(args)} stands in the place of the arguments of #{who}, and these are its options: " <>
      "give the arguments first, #{who}(target, name, [], #{args |> inspect() |> String.slice(1..-2//1)})"
  end

  defp no_map(variables, who) do
    place =
      if Keyword.keyword?(variables),
        do: "; options come after it: #{who}(code, %{}, options)",
        else: ""

    "the variables of #{who} must be a map, got: #{inspect(variables)}#{place}"
  end

  defp value!({:ok, value}), do: value
  defp value!(:ok), do: :ok
  defp value!({:error, %Error{} = error}), do: Error.raise(error)

  defp values!(results), do: Enum.map(results, &value!/1)
end
