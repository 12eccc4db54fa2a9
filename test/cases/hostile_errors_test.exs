defmodule Py.Cases.HostileErrorsTest do
  # Exceptions that misbehave, that are huge, or that mean something to Python or asyncio itself.
  use Py.Case, on: [:thread, :process]

  for name <- ~w(__traceback__ __cause__ __context__ __suppress_context__ __notes__ __class__ args
                 exceptions __dict__ __reduce__) do
    @tag code: "class E(Exception):\n  #{name} = property(lambda self: 1 / 0)\n"
    test "an exception whose #{name} raises", %{pool: pool, code: code} do
      assert %{kind: :python, type: "E"} = error(eval(pool, code <> "raise E('x')"))

      assert %{type: "ValueError", cause: cause} =
               error(eval(pool, code <> "raise ValueError from E('x')"))

      assert %Py.Error{type: "E"} = cause

      group = error(eval(pool, code <> "raise ExceptionGroup('g', [E('x')])"))
      assert [%Py.Error{type: "E"}] = group.exceptions
      assert is_binary(Exception.message(group))
      assert eval(pool, "1+1") == {:ok, 2}
    end
  end

  test "an exception whose every attribute raises", %{pool: pool} do
    code =
      "class E(Exception):\n  def __getattribute__(self, name): raise SystemExit\nraise E('x')"

    assert %{kind: :python, type: "E"} = error(eval(pool, code))
  end

  test "a class of exceptions that hides its name", %{pool: pool} do
    code = """
    class M(type):
        def __getattribute__(cls, name): raise ValueError(name)
    class E(Exception, metaclass=M): pass
    raise E("x")
    """

    assert %{kind: :python, message: "x"} = error(eval(pool, code))

    assert %{type: "E"} =
             error(eval(pool, "raise type('E', (Exception,), {'__module__': 5})('x')"))
  end

  test "notes that are none", %{pool: pool} do
    for notes <- ["5", "None", "[5, None, object()]", "['\\ud800']", "'text'", "['n'] * 100_000"] do
      code = "e = ValueError('x')\ne.__notes__ = #{notes}\nraise e"
      assert %{kind: :python, type: "ValueError", notes: given} = error = error(eval(pool, code))
      assert Enum.all?(given, &String.valid?/1)
      assert String.valid?(Exception.message(error))
    end
  end

  test "a syntax error that was put together by hand", %{pool: pool} do
    code = """
    e = SyntaxError("m")
    e.lineno, e.offset, e.end_offset, e.text, e.filename = "x", -3, 2 ** 80, 5, object()
    raise e
    """

    assert %{kind: :python, type: "SyntaxError"} = error = error(eval(pool, code))
    assert String.valid?(Exception.message(error))
  end

  test "a group of a thousand, groups in groups, groups that unfold without end", %{pool: pool} do
    code = "raise ExceptionGroup('g', [ValueError(str(n)) for n in range(1000)])"
    assert %{type: "ExceptionGroup", message: message} = error = error(eval(pool, code))
    assert message == "g (1000 sub-exceptions)"

    assert [%Py.Error{type: "ValueError", message: "0"}, %Py.Error{message: "1"} | _] =
             error.exceptions

    assert String.valid?(Exception.message(error))

    for wrap <- ["[e]", "[e, e]"], times <- [25, 5_000], wrap == "[e]" or times == 25 do
      code =
        "e = ValueError('x')\nfor _ in range(#{times}):\n  e = ExceptionGroup('g', #{wrap})\nraise e"

      assert %{type: "ExceptionGroup", exceptions: [_ | _]} = error = error(eval(pool, code))
      assert String.valid?(Exception.message(error))
    end
  end

  test "a chain of a hundred thousand causes", %{pool: pool} do
    for link <- ["__cause__", "__context__"] do
      code =
        "e = None\nfor n in range(100_000):\n  f = ValueError(str(n))\n  f.#{link} = e\n  e = f\nraise e"

      assert %{type: "ValueError", message: "99999"} = error = error(eval(pool, code))
      assert %Py.Error{message: "99998"} = error.cause || error.context
      assert String.valid?(Exception.message(error))
    end
  end

  test "contexts that go in circles", %{pool: pool} do
    code = "a, b = ValueError('a'), ValueError('b')\na.__context__, b.__context__ = b, a\nraise a"
    assert %{message: "a", context: %{message: "b"}} = error(eval(pool, code))
    assert error(eval(pool, "e = ValueError('e')\nraise e from e")).message == "e"
  end

  test "a message of fifty megabytes", %{pool: pool} do
    assert %{type: "ValueError", message: "x" <> _} =
             error(eval(pool, "raise ValueError('x' * 50_000_000)"))

    assert eval(pool, "1+1") == {:ok, 2}
  end

  test "asyncio.CancelledError and erlang.Cancelled that the code raises itself", %{pool: pool} do
    for start <- ["import asyncio, erlang\n", "import asyncio, erlang\nawait asyncio.sleep(0)\n"],
        {raised, type} <- [
          {"asyncio.CancelledError('mine')", "CancelledError"},
          {"erlang.Cancelled('mine')", "Cancelled"}
        ] do
      error = error(eval(pool, start <> "raise " <> raised))
      assert %{kind: :python, type: ^type, message: "mine"} = error
    end

    assert eval(pool, "import asyncio\nawait asyncio.sleep(0, 1)") == {:ok, 1}
  end

  test "exits inside an event loop of the code's own", %{pool: pool} do
    for {raised, type} <- [
          {"SystemExit(3)", "SystemExit"},
          {"KeyboardInterrupt()", "KeyboardInterrupt"}
        ] do
      code = "import asyncio\nasync def f(): raise #{raised}\nasyncio.run(f())"
      assert %{kind: :python, type: ^type} = error(eval(pool, code))
    end
  end

  test "exits in tasks that nobody awaits leave the event loop as it is", %{pool: pool} do
    for raised <- ["SystemExit(3)", "KeyboardInterrupt()", "ValueError()"] do
      code = """
      import asyncio
      async def f(): raise #{raised}
      task = asyncio.ensure_future(f())
      await asyncio.sleep(0.01)
      1
      """

      ExUnit.CaptureLog.capture_log(fn ->
        result = eval(pool, code)
        assert result == {:ok, 1} or error(result).kind in [:python, :crashed]
      end)

      assert eval(pool, "import asyncio\nawait asyncio.sleep(0, 2)", %{}, timeout: 5_000) ==
               {:ok, 2}
    end
  end

  test "code that stops, closes or empties the event loop", %{pool: pool} do
    for code <- [
          "asyncio.get_running_loop().stop()",
          "asyncio.get_running_loop().close()",
          "[task.cancel() for task in asyncio.all_tasks()]",
          "asyncio.current_task().cancel()"
        ] do
      result =
        eval(
          pool,
          "import asyncio\nawait asyncio.sleep(0)\n#{code}\nawait asyncio.sleep(0.01)\n1"
        )

      assert result == {:ok, 1} or error(result).kind in [:python, :crashed]

      assert eval(pool, "import asyncio\nawait asyncio.sleep(0, 2)", %{}, timeout: 5_000) ==
               {:ok, 2}
    end
  end
end
