defmodule Py.Object do
  @moduledoc """
  A Python object that stays where it is: what Elixir has is a reference to it.

  Results that have no Elixir value (a model, a data frame, an open file, a generator) are objects, wherever in a result
  they are; with `return: :object` any result is one.

      iex> {:ok, counter} = Py.call(:collections, :Counter, ["abracadabra"], return: :object)
      iex> Py.call(counter, :most_common, [1])
      {:ok, [{"a", 5}]}
      iex> Py.getattr!(counter, :__class__) |> Py.Object.type()
      "type"

  An object is the target of `Py.call/4`, `Py.getattr/3`, `Py.async_call/4` and the others, and an argument anywhere, in
  lists and maps too: Python gets the object itself. Calls on it go to the pool that it came from, unless they say `on:`.

      iex> queue = Py.call!(:collections, :deque, [[1, 2, 3]])
      iex> Py.call!(:builtins, :sum, [queue])
      6
      iex> Enum.map(queue, & &1 * 2)
      [2, 4, 6]

  ## Where it is, and how long

  It lives as long as something in Elixir refers to it or something in Python does; when the last reference of Elixir's is
  collected it is let go of, soon, on a thread of Python's. A `__del__` that takes more than 30 s is interrupted.

  An object of the node can be used in every pool `in: :thread`. One of a pool of processes is in one worker process, where
  each call that has it is made; if that ends, or is replaced (`max_calls:` and others of `Py.Pool`), so does the object, and
  calls are errors of kind `:not_available`, as they are in another pool or on another node. `copy/2` moves one, by `pickle`. A call can have objects of one worker only.

  What a call has as arguments lives until it has begun; in a pool of processes, of a `Py.async_call/4`, for as long as its
  future is referred to.

  ## In Elixir

  `inspect/1` shows type and `repr`, if Python has time to tell it, `to_string/1` is `str`, `object["key"]` is `__getitem__` with
  `nil` for a key that is not there, and an object that can be iterated is an `Enumerable`.
  """

  alias Py.{Error, Native, Pool}
  alias Py.Native.Base
  alias Py.Switchboard.Homes

  @module "erlang._objects"

  # Milliseconds that whoever inspects waits for Python.
  @moment 50

  @enforce_keys [:type]
  defstruct [:type, :pool, :place, :number, :handle]

  @typedoc "Its fields are nobody else's business: `type/1` tells the type."
  @opaque t :: %__MODULE__{
            type: String.t(),
            pool: atom | nil,
            place: {pid, non_neg_integer} | nil,
            number: pos_integer | nil,
            handle: reference | nil
          }

  # --- what it is ---------------------------------------------------------------------------------

  @doc """
  The name of its type, with the module unless that is `builtins`. Python is not asked.

      iex> Py.eval!("iter([])") |> Py.Object.type()
      "list_iterator"
      iex> Py.call!(:threading, :Lock) |> Py.Object.type()
      "_thread.lock"
  """
  @spec type(t) :: String.t()
  def type(%__MODULE__{type: type}), do: type

  @doc """
  The names of its attributes.

      iex> Py.eval!("object()") |> Py.Object.dir() |> Enum.member?("__hash__")
      true
  """
  @spec dir(t, keyword) :: [String.t()]
  def dir(%__MODULE__{} = object, options \\ []),
    do: value!(on(object, :builtins, :dir, [object], options))

  @doc """
  Whether two references are to the same object, as Python's `is` says.

      iex> object = Py.eval!("object()")
      iex> {Py.Object.same?(object, object), Py.Object.same?(object, Py.eval!("object()"))}
      {true, false}
  """
  @spec same?(t, t) :: boolean
  def same?(%__MODULE__{} = one, %__MODULE__{} = other) do
    case on(one, :operator, :is_, [one, other], []) do
      {:ok, same?} -> same?
      # What is in different places is not the same.
      {:error, %Error{kind: :not_available}} -> false
      {:error, error} -> Error.raise(error)
    end
  end

  @doc """
  The object as an Elixir value, where the type table has one; else an error of kind `:decode`.

      iex> {:ok, list} = Py.eval("[1, [2, 3]]", %{}, return: :object)
      iex> Py.Object.to_term(list)
      {:ok, [1, [2, 3]]}
      iex> {:error, error} = "object()" |> Py.eval!() |> Py.Object.to_term()
      iex> error.kind
      :decode
  """
  @spec to_term(t, keyword) :: {:ok, term} | {:error, Error.t()}
  def to_term(%__MODULE__{} = object, options \\ []) do
    case on(object, @module, :same, [object], options) do
      {:ok, %__MODULE__{type: type}} ->
        {:error, Error.new(:decode, "a value of type #{type} has no Elixir value")}

      result ->
        result
    end
  end

  @doc """
  The object in another pool: a copy of it, made by `pickle`.

      iex> {:ok, _pool} = Py.Pool.start_link(name: Doc.Copies)
      iex> counter = Py.call!(:collections, :Counter, ["aab"], return: :object)
      iex> {:ok, copy} = Py.Object.copy(counter, on: Doc.Copies)
      iex> {Py.call!(copy, :total), Py.Object.same?(copy, counter)}
      {3, false}
  """
  @spec copy(t, keyword) :: {:ok, t} | {:error, Error.t()}
  def copy(%__MODULE__{} = object, options) do
    with {:ok, pickled} <-
           on(object, :pickle, :dumps, [object], Keyword.take(options, [:timeout])),
         do: Py.call(:pickle, :loads, [Py.bytes(pickled)], [return: :object] ++ options)
  end

  # --- what it does -------------------------------------------------------------------------------

  @doc """
  Calls the object.

      iex> double = Py.eval!("lambda x: 2 * x")
      iex> Py.Object.apply(double, [21])
      {:ok, 42}
  """
  @spec apply(t, list, keyword) :: {:ok, term} | {:error, Error.t()}
  def apply(%__MODULE__{} = object, args, options \\ []),
    do: Py.call(object, :__call__, args, options)

  @doc """
  Sets an attribute.

      iex> simple = Py.call!(:types, :SimpleNamespace)
      iex> :ok = Py.Object.setattr(simple, :answer, 42)
      iex> Py.getattr(simple, :answer)
      {:ok, 42}
  """
  @spec setattr(t, atom | String.t(), term, keyword) :: :ok | {:error, Error.t()}
  def setattr(%__MODULE__{} = object, name, value, options \\ []),
    do: object |> on(:builtins, :setattr, [object, to_string(name), value], options) |> done()

  @doc """
  The item of a key or index.

      iex> {:ok, dict} = Py.eval("{'a': 1}", %{}, return: :object)
      iex> Py.Object.get_item(dict, "a")
      {:ok, 1}
      iex> {:error, error} = Py.Object.get_item(dict, "b")
      iex> error.type
      "KeyError"
  """
  @spec get_item(t, term, keyword) :: {:ok, term} | {:error, Error.t()}
  def get_item(%__MODULE__{} = object, key, options \\ []),
    do: on(object, :operator, :getitem, [object, key], options)

  @doc """
  Sets the item of a key or index.

      iex> {:ok, dict} = Py.eval("{}", %{}, return: :object)
      iex> :ok = Py.Object.put_item(dict, "a", 1)
      iex> Py.Object.to_term(dict)
      {:ok, %{"a" => 1}}
  """
  @spec put_item(t, term, term, keyword) :: :ok | {:error, Error.t()}
  def put_item(%__MODULE__{} = object, key, value, options \\ []),
    do: object |> on(:operator, :setitem, [object, key, value], options) |> done()

  @doc """
  Python's `len`.

      iex> Py.call!(:collections, :deque, ["abc"]) |> Py.Object.length()
      {:ok, 3}
  """
  @spec length(t, keyword) :: {:ok, non_neg_integer} | {:error, Error.t()}
  def length(%__MODULE__{} = object, options \\ []),
    do: on(object, :builtins, :len, [object], options)

  # --- Access -------------------------------------------------------------------------------------

  @behaviour Access

  @doc false
  @impl Access
  def fetch(object, key) do
    case get_item(object, key) do
      {:ok, value} -> {:ok, value}
      {:error, %Error{type: type}} when type in ["KeyError", "IndexError"] -> :error
      {:error, error} -> Error.raise(error)
    end
  end

  # The object itself is changed: there is one of it.
  @doc false
  @impl Access
  def get_and_update(object, key, function) do
    value = with :error <- fetch(object, key), do: {:ok, nil}

    case function.(elem(value, 1)) do
      {got, new} ->
        done!(put_item(object, key, new))
        {got, object}

      :pop ->
        pop(object, key)
    end
  end

  @doc false
  @impl Access
  def pop(object, key) do
    case fetch(object, key) do
      {:ok, value} ->
        done!(done(on(object, :operator, :delitem, [object, key], [])))
        {value, object}

      :error ->
        {nil, object}
    end
  end

  # --- for the rest of the library ----------------------------------------------------------------

  @doc false
  @spec pool(t) :: atom
  # One of the node that came with no answer of a pool's is at home in each pool of the node.
  def pool(%__MODULE__{pool: nil, handle: handle}) do
    Native.object_pool(handle) || Py
  rescue
    # Python is not in this node: the object is of another one, and the call says so.
    ErlangError -> Py
  end

  def pool(%__MODULE__{pool: pool}), do: pool

  @doc false
  # What a worker process sent, with what tells when it is not referred to any more. Python code may have made it up.
  @spec adopt(term) :: term
  def adopt(term), do: adopt(term, nil)

  @doc false
  # With what tells of each object already, by its number.
  @spec adopt(term, %{pos_integer => reference} | nil) :: term
  def adopt(%__MODULE__{handle: nil, number: number} = object, handles) when is_map(handles),
    do: %{object | handle: Map.get(handles, number)}

  def adopt(
        %__MODULE__{handle: nil, pool: pool, place: {board, worker}, number: number} = object,
        nil
      )
      when is_atom(pool) and is_pid(board) and node(board) == node() and
             is_integer(worker) and worker >= 0 and is_integer(number) and number > 0,
      do: %{object | handle: Base.handle_new(pool, board, worker, number)}

  def adopt([head | tail], handles), do: [adopt(head, handles) | adopt(tail, handles)]

  def adopt(tuple, handles) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> adopt(handles) |> List.to_tuple()

  def adopt(map, handles) when is_map(map),
    do: Map.new(:maps.to_list(map), &adopt(&1, handles))

  def adopt(other, _handles), do: other

  @doc false
  # The worker that has the target of a request is to get it, which takes less to find it there.
  @spec at_home(Pool.t(), tuple) :: {Pool.t(), tuple}
  def at_home(pool, {:call, %__MODULE__{} = object, name, args, kwargs}) do
    {pool, target} = at(pool, object)
    {pool, {:call, target, name, args, kwargs}}
  end

  def at_home(pool, {:getattr, %__MODULE__{} = object, name}) do
    {pool, target} = at(pool, object)
    {pool, {:getattr, target, name}}
  end

  def at_home(pool, {:within, request, context}) do
    {pool, request} = at_home(pool, request)
    {pool, {:within, request, context}}
  end

  def at_home(pool, request), do: {pool, request}

  defp at(%{pid: board} = pool, %{place: {board, worker}} = object) do
    here = {worker, object.number, object.type}

    case {Homes.number(pool), Homes.at(pool.home, worker)} do
      {^worker, _home} -> {pool, here}
      {_any, {:ok, home}} -> {%{pool | home: home}, here}
      _another -> {pool, object}
    end
  end

  defp at(pool, from_elsewhere), do: {pool, from_elsewhere}

  @doc false
  # To have been passed here, what is in a term was referred to until now.
  @spec hold(term) :: :ok
  def hold(_term), do: :ok

  @doc false
  # Whoever inspects waits a moment, and never has Python stopped: what takes longer is shown by its type.
  @spec show(t, pos_integer) :: String.t() | nil
  def show(%__MODULE__{type: type, handle: nil}, _limit), do: type

  def show(%__MODULE__{type: type} = object, limit) do
    me = :erlang.alias([:reply])

    spawn(fn ->
      send(me, {me, on(object, @module, :show, [object, limit], timeout: :infinity)})
    end)

    receive do
      {^me, {:ok, shown}} -> "#{type}: #{shown}"
      {^me, {:error, _error}} -> type
    after
      @moment -> late(me, type)
    end
  end

  defp late(me, type) do
    :erlang.unalias(me)
    receive(do: ({^me, _shown} -> type), after: (0 -> type))
  end

  @doc false
  @spec with(t, (term -> result), keyword) :: result | nil when result: term
  def with(object, function, options) do
    entered = value!(Py.call(object, :__enter__, [], options))

    try do
      function.(entered)
    catch
      kind, reason ->
        stack = __STACKTRACE__

        if leave(object, raised(kind, reason, stack), options),
          do: nil,
          else: :erlang.raise(kind, reason, stack)
    else
      result ->
        value!(Py.call(object, :__exit__, [nil, nil, nil], options))
        result
    end
  end

  defp leave(object, raised, options),
    do: value!(on(object, @module, :leave, [object | raised], options))

  defp raised(:error, reason, stack) do
    exception = Exception.normalize(:error, reason, stack)

    [
      "error",
      Exception.message(exception),
      Exception.format_stacktrace(stack),
      inspect(exception.__struct__)
    ]
  end

  defp raised(kind, reason, stack),
    do: [to_string(kind), inspect(reason), Exception.format_stacktrace(stack), ""]

  defp on(object, target, name, args, options),
    do: Py.call(target, name, args, Keyword.put_new(options, :on, pool(object)))

  defp done({:ok, _nothing}), do: :ok
  defp done({:error, error}), do: {:error, error}

  defp done!(:ok), do: :ok
  defp done!({:error, error}), do: Error.raise(error)

  defp value!({:ok, value}), do: value
  defp value!({:error, error}), do: Error.raise(error)
end

defimpl Inspect, for: Py.Object do
  # Characters of `repr`.
  @limit 200

  def inspect(object, _options), do: "#Py.Object<#{Py.Object.show(object, @limit)}>"
end

defimpl String.Chars, for: Py.Object do
  def to_string(object), do: Py.call!(object, :__str__)
end

defimpl Enumerable, for: Py.Object do
  def reduce(object, acc, function), do: Enumerable.reduce(Py.stream(object), acc, function)

  # An iterator has no length, and what is looked for in it is gone.
  def count(object) do
    case Py.Object.length(object) do
      {:ok, length} -> {:ok, length}
      {:error, _error} -> {:error, __MODULE__}
    end
  end

  def member?(_object, _value), do: {:error, __MODULE__}
  def slice(_object), do: {:error, __MODULE__}
end
