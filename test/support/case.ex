defmodule Py.Case do
  @moduledoc """
  Runs the same tests on every kind of pool.

      use Py.Case, on: [:thread]

      @tag pool: [size: 2]
      test "25. a call that sleeps", %{pool: pool} do

  Each test has a pool of its own, named by the test, in `pool`; `@tag pool:` gives its options. A test that leaves a
  message of Py in its mailbox fails.
  """

  defmacro __using__(options) do
    Module.put_attribute(__CALLER__.module, :kinds, Keyword.fetch!(options, :on))

    quote do
      use ExUnit.Case, async: false
      import ExUnit.Case, except: [test: 2, test: 3]
      import Py.Case
      import Py, only: [sigil_P: 2]

      setup context, do: Py.Case.start_pool(context)
    end
  end

  defmacro test(name, context \\ quote(do: _context), do: body) do
    for kind <- Module.get_attribute(__CALLER__.module, :kinds) do
      quote do
        @tag in: unquote(kind)
        ExUnit.Case.test unquote(name) <> unquote(" (in: #{inspect(kind)})"), unquote(context) do
          unquote(body)
          Py.Case.assert_no_messages()
        end
      end
    end
  end

  def start_pool(context) do
    options = [name: context.test, in: context.in] ++ Map.get(context, :pool, [])
    pid = ExUnit.Callbacks.start_supervised!({Py.Pool, options})
    %{pool: context.test, pool_pid: pid}
  end

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
  def eventually(condition, left \\ 500) do
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

  defp py?(message) when is_tuple(message) and tuple_size(message) > 0 do
    tag = elem(message, 0)
    is_atom(tag) and String.starts_with?(Atom.to_string(tag), "py_")
  end

  defp py?(_message), do: false
end
