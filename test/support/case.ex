defmodule Py.Case do
  @moduledoc """
  Runs the same tests on every kind of pool.

      use Py.Case, on: [:thread, :process]

      @tag parallel: 2
      test "25. two calls that sleep", %{pool: pool} do

  Each test has a pool of its own, named by the test, in `pool`. A test that leaves a message of Py in its mailbox fails.
  With `pool: :default` it is the pool `Py` that is of the kind; with `pool: false` the file starts what it needs, with
  the options of `options/1`. Tags of a test:

    * `pool:` options of its pool, on every kind. A `size:` of processes is that many interpreters
    * `parallel: n` it needs that many calls in progress at once in one interpreter: `n` threads of the node, or one
      worker process with `n` threads
    * `on: kinds` the kinds that it makes sense on, where these are not all of the file's

  What is told of neither has one interpreter: 16 threads of the node, or one worker process with one thread.
  """

  defmacro __using__(options) do
    Module.put_attribute(__CALLER__.module, :kinds, Keyword.fetch!(options, :on))

    quote do
      use ExUnit.Case, async: false
      import ExUnit.Case, except: [test: 2, test: 3]
      import Py.Case
      import Py, only: [sigil_P: 2]

      setup context, do: Py.Case.start(unquote(options[:pool]), context)
    end
  end

  defmacro test(name, context \\ quote(do: _context), do: body) do
    tests =
      for kind <- Module.get_attribute(__CALLER__.module, :kinds) do
        quote do
          if Py.Case.tag?(__MODULE__, py_tags, unquote(kind)) do
            ExUnit.Case.test unquote(name) <> unquote(" (in: #{inspect(kind)})"),
                             unquote(context) do
              unquote(body)
              Py.Case.assert_no_messages()
            end
          end
        end
      end

    # ExUnit takes the tags away with the first test that it registers.
    quote do
      py_tags = Py.Case.take_tags(__MODULE__)
      unquote_splicing(tests)
    end
  end

  @doc false
  def take_tags(module) do
    tags = Module.get_attribute(module, :tag)
    Module.delete_attribute(module, :tag)
    tags
  end

  @doc false
  def tag?(module, tags, kind) do
    kinds = for tag when is_list(tag) <- tags, {:on, kinds} <- tag, do: kinds
    wanted? = Enum.all?(kinds, &(kind in &1))
    if wanted?, do: for(tag <- [[in: kind] | tags], do: Module.put_attribute(module, :tag, tag))
    wanted?
  end

  @doc false
  def start(false, _context), do: :ok
  def start(:default, context), do: default_pool(context.in)
  def start(nil, context), do: start_pool(context)

  defp start_pool(context) do
    pid = ExUnit.Callbacks.start_supervised!({Py.Pool, [name: context.test] ++ options(context)})
    %{pool: context.test, pool_pid: pid}
  end

  @doc "Lets the default pool be of a kind until the test or module ends."
  def default_pool(kind, options \\ []) do
    size = if kind == :process, do: [size: 1, concurrency: 16], else: []
    restart_default([in: kind] ++ size ++ options)
    ExUnit.Callbacks.on_exit(fn -> restart_default([]) end)
  end

  defp restart_default(options) do
    Application.put_env(:py, :default, options)
    if pid = Process.whereis(Py), do: DynamicSupervisor.terminate_child(Py.DefaultPool, pid)
    {:ok, nil} = Py.eval("None")
  end

  @doc "The options of a pool of a test: its kind, its size, and what its tags say."
  def options(context),
    do: [in: Map.get(context, :in, :thread)] ++ size(context) ++ Map.get(context, :pool, [])

  defp size(%{in: :thread, parallel: count}), do: [size: count]
  defp size(%{in: :process, parallel: count}), do: [size: 1, concurrency: count]
  defp size(%{in: :process, pool: pool}), do: if(pool[:size], do: [], else: [size: 1])
  defp size(%{in: :process}), do: [size: 1]
  defp size(_context), do: []

  @doc "Fails when a message of Py waits in the mailbox of the calling process."
  def assert_no_messages do
    {:messages, messages} = Process.info(self(), :messages)

    case Enum.filter(messages, &py?/1) do
      [] -> :ok
      left -> ExUnit.Assertions.flunk("messages were left behind: #{inspect(left)}")
    end
  end

  def call(pool, module, function, args \\ [], kwargs \\ [], options \\ []) do
    Py.call(module, function, args, [kwargs: kwargs, on: pool] ++ options)
  end

  def eval(pool, code, variables \\ %{}, options \\ []) do
    Py.eval(code, variables, [on: pool] ++ options)
  end

  def exec(pool, code, variables \\ %{}, options \\ []) do
    Py.exec(code, variables, [on: pool] ++ options)
  end

  @doc "The error of a result, for `%{type: \"ValueError\"} = error(eval(pool, code))`."
  def error({:error, %Py.Error{} = error}), do: error

  def error(other),
    do: ExUnit.Assertions.flunk("expected an error, got: #{inspect(other, limit: 20)}")

  @doc "Milliseconds that a function takes, and its result."
  def timed(fun) do
    {micros, result} = :timer.tc(fun)
    {div(micros, 1000), result}
  end

  @doc "Waits until a condition holds; fails after five seconds."
  def eventually(condition, left \\ 2_000) do
    cond do
      condition.() ->
        :ok

      left == 0 ->
        ExUnit.Assertions.flunk("it never became true")

      true ->
        Process.sleep(10)
        eventually(condition, left - 1)
    end
  end

  @doc "Waits until calls run inline on a pool. The reason why they do not is the failure's message."
  def opens(pool, left \\ 500) do
    case Py.Pool.info(pool).inline do
      :open ->
        :ok

      closed when left == 0 ->
        ExUnit.Assertions.flunk("the gate stays closed: #{inspect(closed)}")

      _closed ->
        Process.sleep(10) && opens(pool, left - 1)
    end
  end

  @doc """
  What a call gives on each way there is: as text, which nothing is remembered of, and as atoms, first and later, in the
  queue and inline. They must be the same, and this is what they are.
  """
  def everywhere(pool, module, name, args \\ [], kwargs \\ []) do
    text = call(pool, Atom.to_string(module), Atom.to_string(name), args, kwargs)

    for options <- [[], [inline: true], [], [inline: true]] do
      if options != [], do: opens(pool)
      result = call(pool, module, name, args, kwargs, options)

      if told(result) !== told(text) do
        ExUnit.Assertions.flunk(
          "#{inspect(options)}: #{inspect(result)}, as text: #{inspect(text)}"
        )
      end
    end

    told(text)
  end

  # Tracebacks have other lines.
  defp told({:error, %Py.Error{kind: kind, type: type, message: message}}),
    do: {kind, type, message}

  defp told(result), do: result

  defp py?(message) when is_tuple(message) and tuple_size(message) > 0 do
    tag = elem(message, 0)
    is_atom(tag) and String.starts_with?(Atom.to_string(tag), "py_")
  end

  defp py?(_message), do: false
end
