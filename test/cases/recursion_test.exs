defmodule Py.Cases.RecursionTest do
  # Deep recursion in C code ends a VM whose schedulers run Python: here it is a value, or an error of Python's.
  use Py.Case, on: [:thread, :process]

  # SyntaxError: the parser's own "too many nested parentheses".
  @errors ["RecursionError", "MemoryError", "SyntaxError"]

  @in_coroutine "import asyncio\nawait asyncio.sleep(0)\n"

  # A thread that Python made has Python's stack, not ours.
  @in_thread """
  import threading
  result = []
  def run():
      try:
          exec(code, {})
          result.append("returned")
      except BaseException as error:
          result.append(type(error).__name__)
  thread = threading.Thread(target=run)
  thread.start()
  thread.join()
  result[0]
  """

  # Some of it takes seconds, and on a busy machine more of them.
  @long [timeout: 170_000]

  for {name, code} <- Py.Recursion.cases() do
    @tag code: code
    test name, %{pool: pool, code: code} do
      harmless(eval(pool, code, %{}, @long))
      assert eval(pool, "1+1") == {:ok, 2}
    end

    @tag code: code, parallel: 2
    test name <> ", while another call has the main thread", %{pool: pool, code: code} do
      blocker = Py.async_call(:time, :sleep, [60], on: pool)
      eventually(fn -> Py.Pool.info(pool).running == 1 end)
      harmless(eval(pool, code, %{}, @long))
      assert Py.cancel(blocker) == :ok
    end

    @tag code: code
    test name <> ", in a coroutine", %{pool: pool, code: code} do
      harmless(eval(pool, @in_coroutine <> code, %{}, @long))
      assert eval(pool, @in_coroutine <> "2") == {:ok, 2}
    end

    @tag code: code
    test name <> ", in a thread of Python's", %{pool: pool, code: code} do
      assert {:ok, outcome} = eval(pool, @in_thread, %{code: code}, @long)
      assert outcome in ["returned" | @errors]
    end
  end

  defp harmless({:ok, value}), do: assert(is_integer(value) or is_boolean(value))
  defp harmless(failed), do: assert(error(failed).type in @errors)
end
