defmodule Py.Cases.ErrorsTest do
  # CASES.md, A 14 to 20; P-A 6: what is visible of a Python exception.
  use Py.Case, on: [:thread, :process]

  test "16. messages are UTF-8", %{pool: pool} do
    assert error(eval(pool, "raise ValueError('é日')")).message == "é日"
    assert error(eval(pool, "raise ValueError(b'\\xff')")).message == "b'\\xff'"
    assert String.valid?(error(eval(pool, "raise ValueError('a\\udcff')")).message)
  end

  test "18. cause, context, notes", %{pool: pool} do
    code = """
    try:
        1 / 0
    except ZeroDivisionError as error:
        failed = ValueError("wrong")
        failed.add_note("first note")
        failed.add_note("second note")
        raise failed from error
    """

    error = error(eval(pool, code, %{}, file: "cause.py"))
    assert %{type: "ValueError", notes: ["first note", "second note"], context: nil} = error

    assert %Py.Error{kind: :python, type: "ZeroDivisionError", message: "division by zero"} =
             error.cause

    assert [%{line: 2, file: "cause.py"}] = error.cause.traceback

    assert Exception.message(error) == """
           Traceback (most recent call last):
             File "cause.py", line 2, in <module>
               1 / 0
           ZeroDivisionError: division by zero

           The above exception was the direct cause of the following exception:

           Traceback (most recent call last):
             File "cause.py", line 7, in <module>
               raise failed from error
           ValueError: wrong
           first note
           second note\
           """
  end

  test "18. the exception that was being handled", %{pool: pool} do
    code = "try:\n  1/0\nexcept ZeroDivisionError:\n  {}['k']"
    error = error(eval(pool, code))
    assert %{type: "KeyError", message: "'k'", cause: nil} = error
    assert %Py.Error{type: "ZeroDivisionError"} = error.context

    assert Exception.message(error) =~
             "During handling of the above exception, another exception occurred"

    code = "try:\n  1/0\nexcept ZeroDivisionError:\n  raise KeyError from None"
    assert %{cause: nil, context: nil} = error(eval(pool, code))
  end

  test "18. the members of a group", %{pool: pool} do
    code =
      "raise ExceptionGroup('two', [ValueError('a'), ExceptionGroup('inner', [TypeError('b')])])"

    error = error(eval(pool, code, %{}, file: "group.py"))
    assert %{type: "ExceptionGroup", message: "two (2 sub-exceptions)"} = error

    assert [%Py.Error{type: "ValueError", message: "a"}, %Py.Error{exceptions: [inner]}] =
             error.exceptions

    assert inner.type == "TypeError"

    # As Python prints it.
    assert Exception.message(error) == """
             + Exception Group Traceback (most recent call last):
             |   File "group.py", line 1, in <module>
             |     raise ExceptionGroup('two', [ValueError('a'), ExceptionGroup('inner', [TypeError('b')])])
             | ExceptionGroup: two (2 sub-exceptions)
             +-+---------------- 1 ----------------
               | ValueError: a
               +---------------- 2 ----------------
               | ExceptionGroup: inner (1 sub-exception)
               +-+---------------- 1 ----------------
                 | TypeError: b
                 +------------------------------------\
           """
  end

  test "P-A 6. a user's own exception, with the file and line of each frame", %{pool: pool} do
    folder = Path.join(System.tmp_dir!(), "py case P-A 6")
    File.mkdir_p!(folder)
    file = Path.join(folder, "py_case_pa6.py")

    File.write!(
      file,
      "class Odd(Exception): pass\n\ndef outer():\n    inner()\n\ndef inner():\n    raise Odd('日')\n"
    )

    :ok = exec(pool, "import sys; sys.path.insert(0, folder)", %{folder: folder})

    assert %{type: "Odd", module: "py_case_pa6", message: "日"} =
             error = error(call(pool, :py_case_pa6, :outer))

    assert error.traceback == [
             %{file: file, line: 4, function: "outer", source: "inner()"},
             %{file: file, line: 7, function: "inner", source: "raise Odd('日')"}
           ]
  end

  test "SystemExit, KeyboardInterrupt and GeneratorExit are errors, everywhere", %{pool: pool} do
    for {code, type} <- [
          {"import sys; sys.exit(3)", "SystemExit"},
          {"exit()", "SystemExit"},
          {"raise KeyboardInterrupt", "KeyboardInterrupt"},
          {"raise GeneratorExit", "GeneratorExit"},
          {"import asyncio, sys\nawait asyncio.sleep(0)\nsys.exit(3)", "SystemExit"},
          {"import asyncio\nawait asyncio.sleep(0)\nraise KeyboardInterrupt", "KeyboardInterrupt"}
        ] do
      assert %{kind: :python, type: ^type} = error(eval(pool, code))
    end

    assert error(call(pool, :sys, :exit, [3])).type == "SystemExit"
    assert call(pool, :asyncio, :sleep, [0, 1]) == {:ok, 1}
    assert eval(pool, "1+1") == {:ok, 2}
  end

  test "exceptions raised while another is rendered", %{pool: pool} do
    code = """
    class Hostile(Exception):
        def __str__(self): raise RuntimeError("in str")
        def __repr__(self): raise RuntimeError("in repr")
        __notes__ = property(lambda self: 1 / 0)
    raise Hostile("x")
    """

    assert %{kind: :python, type: "Hostile", message: message} = error(eval(pool, code))
    assert message =~ "RuntimeError"

    assert error(eval(pool, "class E(Exception):\n  def __str__(self): return 5\nraise E()")).type ==
             "E"

    assert error(
             eval(pool, "class E(Exception):\n  def __str__(self): raise SystemExit\nraise E()")
           ).type == "E"

    assert eval(pool, "1+1") == {:ok, 2}
  end

  test "causes that go in circles", %{pool: pool} do
    code = "a, b = ValueError('a'), ValueError('b')\na.__cause__, b.__cause__ = b, a\nraise a"
    assert %{message: "a", cause: %{message: "b", cause: nil}} = error(eval(pool, code))
  end

  test "a bang function raises with Python's frames in front", %{pool: pool} do
    {error, stacktrace} =
      try do
        Py.eval!("def f():\n  1/0\nf()", %{}, on: pool, file: "app.py")
        flunk("it did not raise")
      rescue
        error in Py.Error -> {error, __STACKTRACE__}
      end

    assert error.type == "ZeroDivisionError"

    assert [
             {:python, :in, ["f"], [file: ~c"app.py", line: 2]},
             {:python, :in, ["<module>"], [file: ~c"app.py", line: 3]},
             {__MODULE__, _test, 1, location} | _
           ] = stacktrace

    assert location[:line] == __ENV__.line - 14
    assert Exception.format_stacktrace(stacktrace) =~ ~s|app.py:2: :python.in("f")|
  end

  test "errors inside errors are whole Py.Error structs", %{pool: pool} do
    error =
      error(eval(pool, "try:\n  1/0\nexcept ZeroDivisionError as e:\n  raise ValueError from e"))

    fields = %Py.Error{} |> Map.keys() |> Enum.sort()
    assert error |> Map.keys() |> Enum.sort() == fields
    assert error.cause |> Map.keys() |> Enum.sort() == fields

    timeout = error(eval(pool, "while True: pass", %{}, timeout: 10))
    assert timeout |> Map.keys() |> Enum.sort() == fields
  end

  test "P-D 4. a missing package: its name and the command to run", %{pool: pool} do
    error = error(call(pool, :py_no_such_package, :f))
    assert error.message == "No module named 'py_no_such_package'"
    assert Exception.message(error) =~ ~r/-m pip install py_no_such_package/
  end
end
