defmodule Py.Cases.ExposeTest do
  # What Python code may call of Elixir: what is registered, and the modules of its pool's `expose:`.
  use Py.Case, on: [:thread, :process]

  @moduletag :capture_log

  defmodule Tools do
    def search(text, options), do: {text, Enum.sort(options)}
    def both, do: 0
    def both(one), do: one
    def fails, do: raise(ArgumentError, "no")
    def nested(pool, name), do: Py.call!(:erlang, :call, [name], on: pool)
    def pid, do: {self(), Process.get(:"$callers")}
    defmacro made, do: 1
    defp hidden, do: made()
    def uses, do: hidden()
  end

  @tools "Py.Cases.ExposeTest.Tools"

  # Calls it from Python, with arguments as Python writes them.
  defp from_python(pool, name, arguments),
    do:
      eval(
        pool,
        "import erlang\nerlang.call(#{Enum.join(["'#{name}'" | List.wrap(arguments)], ", ")})"
      )

  defp refused(result) do
    error = error(result)
    assert error.type == "AttributeError"
    error.message
  end

  @tag pool: [expose: [Tools, :lists, String]]
  test "functions of exposed modules, by their names", %{pool: pool} do
    assert from_python(pool, "lists.sum", "[1, 2, 3]") == {:ok, 6}
    assert from_python(pool, "String.upcase", "'a'") == {:ok, "A"}
    assert from_python(pool, "#{@tools}.search", "'q', limit=3") == {:ok, {"q", [limit: 3]}}
    assert from_python(pool, "#{@tools}.both", []) == {:ok, 0}
    assert from_python(pool, "#{@tools}.both", "1") == {:ok, 1}
    assert Py.call(:erlang, :call, ["lists.reverse", [1, 2]], on: pool) == {:ok, [2, 1]}

    assert eval(pool, "import erlang\nawait erlang.acall('lists.sum', [1, 2])") == {:ok, 3}
  end

  @tag pool: [expose: [Tools]]
  test "the rules are those of registered functions", %{pool: pool} do
    me = self()
    arity = error(from_python(pool, "#{@tools}.both", "1, 2"))
    assert arity.type == "TypeError"
    assert arity.message == "#{@tools}.both() takes 0 or 1 arguments, and 2 were given"
    keyword = error(from_python(pool, "#{@tools}.search", "'q', surely_no_atom_of_tools=1"))
    assert {keyword.type, keyword.message =~ "surely_no_atom_of_tools"} == {"TypeError", true}
    assert error(from_python(pool, "#{@tools}.fails", [])).message == "(ArgumentError) no"
    assert {:ok, {pid, [^me | _]}} = from_python(pool, "#{@tools}.pid", [])
    assert pid != me
    assert from_python(pool, "#{@tools}.nested", "'#{pool}', '#{@tools}.both'") |> error()
  end

  @tag pool: [expose: [Tools]]
  test "nothing else, and it is said how to mend that", %{pool: pool} do
    for {name, part} <- [
          {"lists.sum", "start the pool with expose: [lists], or register a function"},
          {"Elixir.System.halt", "expose: [Elixir.System]"},
          {"System.halt", "System.halt is not exposed to this pool"},
          {"#{@tools}.hidden", "has no public function hidden"},
          {"#{@tools}.made", "has no public function made"},
          {"#{@tools}.MACRO-made", "has no public function MACRO-made"},
          {"#{@tools}.module_info", "has no public function module_info"},
          {"#{@tools}.__info__", "has no public function __info__"},
          {"#{@tools}.no function of this name", "no public function no function of this name"},
          {"#{@tools}", "is not exposed"},
          {".both", "registered as \".both\""},
          {"no_function", "registered as \"no_function\""},
          {"", "registered as \"\""},
          {".", "registered"}
        ] do
      assert refused(from_python(pool, name, [])) =~ part
    end

    assert_raise ArgumentError, fn ->
      String.to_existing_atom("no function of " <> "this name")
    end

    assert refused(eval(pool, "import erlang\nerlang.System")) =~ "no attribute 'System'"
  end

  @tag pool: [expose: [:lists]]
  test "of each pool its own", %{pool: pool} = context do
    other = [name: :py_exposes_other, in: context.in, size: 1, expose: [String]]
    start_supervised!({Py.Pool, other}, id: :py_exposes_other)
    none = [name: :py_exposes_none, in: context.in, size: 1]
    start_supervised!({Py.Pool, none}, id: :py_exposes_none)

    for {own, foreign} <- [
          {[pool, :py_exposes_other], {"lists.sum", "[1]", 1}},
          {[:py_exposes_other, pool], {"String.upcase", "'a'", "A"}}
        ] do
      {name, argument, result} = foreign
      assert from_python(hd(own), name, argument) == {:ok, result}

      for not_mine <- [List.last(own), :py_exposes_none],
          do: refused(from_python(not_mine, name, argument))
    end

    # One that starts anew under the name has what it is given, and no more.
    stop_supervised!(:py_exposes_other)

    start_supervised!({Py.Pool, [name: :py_exposes_other, in: context.in, size: 1]},
      id: :py_again
    )

    refused(from_python(:py_exposes_other, "String.upcase", "'a'"))
  end

  @tag pool: [expose: [:lists]]
  test "threads and tasks belong to the pool of the call that started them", %{pool: pool} do
    code = """
    import asyncio, erlang, threading
    found = []
    def ask(): found.append(erlang.call("lists.sum", [1, 2]))
    thread = threading.Thread(target=ask)
    thread.start(); thread.join()
    await asyncio.to_thread(ask)
    ask()
    found
    """

    assert eval(pool, code) == {:ok, [3, 3, 3]}
    plain = "import asyncio\n" <> String.replace(code, "await asyncio.to_thread(ask)", "ask()")
    assert eval(pool, plain) == {:ok, [3, 3, 3]}

    late = """
    import builtins, erlang, threading
    def ask():
        builtins.py_go.wait()
        try: builtins.py_late = erlang.call("lists.sum", [1, 2])
        except Exception as error: builtins.py_late = str(error)
        builtins.py_gone.set()
    builtins.py_go, builtins.py_gone = threading.Event(), threading.Event()
    threading.Thread(target=ask).start()
    """

    assert exec(pool, late) == :ok
    fetch = "import builtins\nbuiltins.py_go.set(); builtins.py_gone.wait(); builtins.py_late"
    assert eval(pool, fetch) == {:ok, 3}
  end

  # One that Python does not know of, as those that are made in C.
  @bare """
  import _thread, erlang, queue
  answers = queue.SimpleQueue()
  def ask():
      try: answers.put(erlang.call(name, *arguments))
      except AttributeError as error: answers.put(str(error))
  _thread.start_new_thread(ask, ())
  answers.get()
  """

  @tag pool: [expose: [:lists]]
  test "a thread of nobody's has what is registered", %{pool: pool} = context do
    Py.register("expose_registered", fn -> 1 end, owner: self())
    assert eval(pool, @bare, %{name: "expose_registered", arguments: []}) == {:ok, 1}
    {:ok, answer} = eval(pool, @bare, %{name: "lists.sum", arguments: [[1, 2]]})

    # In a worker process everything belongs to the one pool.
    if context.in == :process,
      do: assert(answer == 3),
      else: assert(answer =~ "cannot be called from a thread that belongs to no call of a pool")
  end

  test "init: calls them too", context do
    options = [name: :py_init_exposed, in: context.in, size: 1, expose: [:lists]]
    init = "import erlang\nfound = erlang.call('lists.sum', [1, 2])"
    start_supervised!({Py.Pool, options ++ [init: init]}, id: :py_init_exposed)
    assert Py.eval("found", %{}, on: :py_init_exposed) == {:ok, 3}
  end

  test "in calls of functions that Python calls the pool is that of the call", context do
    options = [name: :py_exposes_nested, in: context.in, size: 1, expose: [:lists]]
    start_supervised!({Py.Pool, options}, id: :py_exposes_nested)
    inner = fn -> Py.call!(:erlang, :call, ["lists.sum", [1]], on: :py_exposes_nested) end
    assert eval(context.pool, "f()", %{f: inner}) == {:ok, 1}
    refused(from_python(context.pool, "lists.sum", "[1]"))
  end

  test "what is no list of modules", context do
    for {expose, said} <- [
          {Tools, "a list of modules, got"},
          {["Tools"], "a list of modules, got"},
          {[NoSuchModule], "a list of modules, and there is no NoSuchModule, got"}
        ] do
      options = [name: :py_exposes_wrong, in: context.in, expose: expose]
      error = assert_raise ArgumentError, fn -> Py.Pool.start_link(options) end
      assert error.message =~ "option expose: of Py.Pool must be " <> said
    end
  end
end
