defmodule Py.ErrorTest do
  use ExUnit.Case, async: true

  doctest Py.Error

  @frame %{file: "a.py", line: 3, function: "f", source: "  g()  "}

  test "a Python error reads like Python's traceback" do
    error = %Py.Error{
      type: "E",
      module: "m",
      message: "x",
      traceback: [@frame],
      notes: ["n1\nn2"]
    }

    assert Exception.message(error) == """
           Traceback (most recent call last):
             File "a.py", line 3, in f
               g()
           m.E: x
           n1
           n2\
           """
  end

  test "without message, source or type" do
    assert Exception.message(%Py.Error{type: "E", module: "builtins"}) == "E"
    frame = %{@frame | source: nil}
    error = %Py.Error{type: "E", module: "__main__", traceback: [frame]}

    assert Exception.message(error) ==
             "Traceback (most recent call last):\n  File \"a.py\", line 3, in f\nE"

    assert Exception.message(%Py.Error{}) == "Exception"
  end

  test "a group with a cause, notes, and groups inside, as Python 3.11 prints it" do
    leaf = &%Py.Error{type: "V", module: "builtins", message: &1}
    group = &%Py.Error{type: "EG", module: "builtins", message: &1, exceptions: &2}
    inner = %{group.("inner", [leaf.("b"), group.("in2", [leaf.("c")])]) | notes: ["n"]}
    error = %{group.("two", [inner, leaf.("a")]) | cause: leaf.("1")}

    assert Exception.message(error) == """
           V: 1

           The above exception was the direct cause of the following exception:

             + EG: two
             +-+---------------- 1 ----------------
               | EG: inner
               | n
               +-+---------------- 1 ----------------
                 | V: b
                 +---------------- 2 ----------------
                 | EG: in2
                 +-+---------------- 1 ----------------
                   | V: c
                   +------------------------------------
               +---------------- 2 ----------------
               | V: a
               +------------------------------------\
           """
  end

  test "the other kinds say what they mean" do
    for {kind, text} <- [
          timeout: "the call did not end in time: m",
          cancelled: "the call was cancelled: m",
          encode: "an argument has no counterpart in Python: m",
          decode: "the result has no counterpart in Elixir: m",
          crashed: "what ran the call crashed: m",
          not_available: "not available: m",
          stopped: "the pool was stopped: m",
          starting: "the pool is still starting: m",
          session_lost: "the session was lost: m",
          stale_object: "the object is no longer there: m",
          nodedown: "the node cannot be reached: m"
        ] do
      assert Exception.message(%Py.Error{kind: kind, message: "m"}) == text
    end

    assert Exception.message(%Py.Error{kind: :timeout}) == "the call did not end in time"
  end

  test "it can be raised with fields or with a message" do
    assert_raise Py.Error, "not available: x", fn ->
      raise Py.Error, kind: :not_available, message: "x"
    end

    assert_raise Py.Error, "Exception: x", fn -> raise Py.Error, "x" end
    assert_raise KeyError, fn -> Py.Error.exception(nope: 1) end
  end
end
