defmodule Py.Cases.CallbacksTest do
  # CASES.md 55 to 66 with functions that are registered: Python calls Elixir.
  use Py.Case, on: [:thread, :process]

  import ExUnit.CaptureIO
  import ExUnit.CaptureLog

  require Logger

  @moduletag :capture_log

  setup context do
    name = "f#{System.unique_integer([:positive])}"
    on_exit(fn -> Py.unregister(name) end)
    Map.put(context, :name, name)
  end

  defp register(%{name: name}, function), do: :ok = Py.register(name, function)

  # Calls the registered function from Python, with these arguments as Python writes them.
  defp from_python(%{name: name, pool: pool}, arguments, options \\ []) do
    eval(pool, "import erlang\nerlang.#{name}(#{arguments})", %{}, options)
  end

  test "arguments and results of all kinds", %{pool: pool, name: name} = context do
    register(context, & &1)

    for value <- [
          nil,
          true,
          1,
          1.5,
          "text",
          [1, [2]],
          {1, "a"},
          %{"a" => 1},
          ~D[2024-01-02],
          self(),
          :atom,
          []
        ] do
      assert eval(pool, "import erlang\nerlang.call(name, value)", %{name: name, value: value}) ==
               {:ok, value}
    end

    large = Enum.to_list(1..50_000)

    assert eval(pool, "import erlang\nerlang.call(name, value)", %{name: name, value: large}) ==
             {:ok, large}

    text = String.duplicate("x", 300_000)

    assert eval(pool, "import erlang\nerlang.call(name, value)", %{name: name, value: text}) ==
             {:ok, text}
  end

  @tag on: [:process]
  test "child processes are told that they cannot ask", %{pool: pool, name: name} = context do
    register(context, & &1)

    import_file(pool, "py_children", """
    import multiprocessing

    def ask(name):
        import erlang
        return erlang.call(name, 1)

    def run(method, name):
        with multiprocessing.get_context(method).Pool(1) as pool:
            return pool.map(ask, [name])
    """)

    for {method, type} <- [{"spawn", "ImportError"}, {"fork", "RuntimeError"}] do
      refused = error(call(pool, :py_children, :run, [method, name]))
      assert {refused.type, refused.message =~ "parent"} == {type, true}
      assert from_python(context, "5") == {:ok, 5}
    end
  end

  # What another thread had locked when a child was forked is locked in it for ever: many are forked to meet that.
  @tag on: [:process]
  test "forked children that ask in any way hang at nothing",
       %{pool: pool, name: name} = context do
    register(context, & &1)

    import_file(pool, "py_forks", """
    import asyncio, erlang, logging, os

    def statuses(count, name, channel):
        # The coroutine leaves a thread that hears for others, which the children do not have.
        asyncio.run(acall(name))
        return [(erlang.call(name, 1), status(name, channel))[1] for _ in range(count)]

    def status(name, channel):
        child = os.fork()
        if child == 0:
            logging.error("of a child")
            os._exit(0 if has_no_way(name, channel) else 1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def has_no_way(name, channel):
        return (
            refuses(erlang.call, name, 1)
            and refuses(lambda: asyncio.run(acall(name)))
            and refuses(channel.put, 1)
            and not erlang.send("Elixir.Py.Output", 1)
        )

    def refuses(ask, *arguments):
        try:
            ask(*arguments)
        except RuntimeError as error:
            return "parent" in str(error)

    async def acall(name):
        return await erlang.acall(name, 1)
    """)

    {:ok, session} = Py.Session.start_link(on: pool, thread: true)

    log =
      capture_log(fn ->
        for where <- [pool, session] do
          assert call(where, :py_forks, :statuses, [20, name, Py.Channel.new()]) ==
                   {:ok, List.duplicate(0, 20)}
        end

        # What a process printed comes by another way than its answers.
        Process.sleep(50)
      end)

    assert log =~ "of a child"
  end

  defp import_file(pool, name, code) do
    folder = Path.join(System.tmp_dir!(), "py_children_#{System.unique_integer([:positive])}")
    File.mkdir_p!(folder)
    on_exit(fn -> File.rm_rf(folder) end)
    File.write!(Path.join(folder, name <> ".py"), code)
    :ok = exec(pool, "import sys\nsys.path.append(folder)", %{folder: folder})
  end

  test "by name, as an attribute and imported", %{pool: pool, name: name} = context do
    register(context, fn a, b -> a - b end)
    assert eval(pool, "import erlang\nerlang.call('#{name}', 5, 3)") == {:ok, 2}
    assert eval(pool, "import erlang\nerlang.#{name}(5, 3)") == {:ok, 2}
    assert eval(pool, "from erlang import #{name}\n#{name}(5, 3)") == {:ok, 2}
    assert eval(pool, "from erlang import #{name}\n#{name}.__name__") == {:ok, name}
    assert eval(pool, "import erlang\nhasattr(erlang, '#{name}')") == {:ok, true}
    Py.unregister(name)
    assert eval(pool, "import erlang\nhasattr(erlang, '#{name}')") == {:ok, false}

    assert %{type: "AttributeError"} =
             error(eval(pool, "import erlang\nerlang.call('#{name}', 5, 3)"))

    assert %{type: "ImportError"} = error(eval(pool, "from erlang import #{name}"))
  end

  test "keywords, and arguments that do not fit", context do
    register(context, fn a, options -> {a, Enum.sort(options)} end)
    assert from_python(context, "1, timeout=2, name='x'") == {:ok, {1, [name: "x", timeout: 2]}}
    wrong = error(from_python(context, "1"))
    assert wrong.type == "TypeError"
    assert wrong.message == "#{context.name}() takes 2 arguments, and 1 were given"
    no_atom = error(from_python(context, "1, surely_no_atom_of_this_name=2"))
    assert no_atom.type == "TypeError"
    assert no_atom.message =~ "surely_no_atom_of_this_name"

    assert_raise ArgumentError, fn ->
      String.to_existing_atom("surely_no_atom_" <> "of_this_name")
    end

    assert error(from_python(context, "'\\ud800'")).type == "TypeError"

    assert error(from_python(context, "erlang.Atom('no atom of this' + ' name')")).type ==
             "TypeError"
  end

  test "a module and the name of a function in it", context do
    register(context, {String, :pad_leading})
    assert from_python(context, "'7', 3") == {:ok, "  7"}
    assert from_python(context, "'7', 3, ['0']") == {:ok, "007"}
    assert error(from_python(context, "")).message =~ "takes 2 or 3 arguments"
  end

  test "what it raises, throws or exits with is an exception in Python",
       %{pool: pool} = context do
    register(context, fn
      "raise" -> raise ArgumentError, "no such thing"
      "throw" -> throw(:ball)
      "exit" -> exit({:shutdown, 3})
      "kill" -> Process.exit(self(), :kill)
      "bits" -> <<1::3>>
    end)

    raised = error(from_python(context, "'raise'"))
    assert {raised.type, raised.module} == {"ElixirError", "erlang"}
    assert raised.message == "(ArgumentError) no such thing"
    assert error(from_python(context, "'throw'")).message == "(throw) :ball"
    assert error(from_python(context, "'exit'")).message == "(exit) {:shutdown, 3}"
    assert error(from_python(context, "'kill'")).message =~ "ended: :killed"
    assert error(from_python(context, "'bits'")).type == "TypeError"

    code = """
    import erlang
    try:
        erlang.#{context.name}("raise")
    except erlang.ElixirError as error:
        caught = [error.kind, error.type, error.reason, "callbacks_test.exs" in error.stacktrace]
    caught
    """

    assert eval(pool, code) == {:ok, ["error", "ArgumentError", "no such thing", true]}
  end

  test "what Python does not catch is raised again as it was", %{pool: pool} = context do
    register(context, fn
      "raise" -> raise KeyError, key: :a, term: %{}
      "throw" -> throw({:ball, 1})
      "exit" -> exit(:gone)
    end)

    code = "import erlang\nerlang.#{context.name}(how)"
    raised = assert_raise KeyError, fn -> Py.eval!(code, %{how: "raise"}, on: pool) end
    assert raised.key == :a
    assert catch_throw(Py.eval!(code, %{how: "throw"}, on: pool)) == {:ball, 1}
    assert catch_exit(Py.eval!(code, %{how: "exit"}, on: pool)) == :gone

    wrapped =
      "import erlang\ntry: erlang.#{context.name}('raise')\nexcept Exception as e: raise ValueError('x') from e"

    assert_raise Py.Error, ~r/ValueError: x/, fn -> Py.eval!(wrapped, %{}, on: pool) end
  end

  test "it runs in a process of its own, in the name of the caller", context do
    Logger.metadata(request: "r1")

    register(context, fn ->
      IO.puts("printed by the function")
      {self() == context[:test_pid], Process.get(:"$callers"), Logger.metadata()[:request]}
    end)

    me = self()
    printed = capture_io(fn -> send(me, from_python(context, "")) end)
    assert printed == "printed by the function\n"
    assert_received {:ok, {false, [^me | _], "r1"}}
  end

  test "any number at the same time, in coroutines", %{pool: pool} = context do
    me = self()

    register(context, fn n ->
      send(me, {:waits, n, self()})
      receive(do: (:go -> n))
    end)

    code =
      "import asyncio, erlang\nawait asyncio.gather(*(erlang.acall('#{context.name}', n) for n in range(100)))"

    task = Task.async(fn -> eval(pool, code) end)

    functions =
      for n <- 0..99 do
        assert_receive {:waits, ^n, function}, 10_000
        function
      end

    Enum.each(functions, &send(&1, :go))
    assert Task.await(task, 20_000) == {:ok, Enum.to_list(0..99)}
  end

  test "a coroutine that is cancelled ends what it waits for", %{pool: pool} = context do
    me = self()

    register(context, fn ->
      send(me, {:waits, self()})
      Process.sleep(:infinity)
    end)

    future = Py.async_call(:erlang, :acall, [context.name], on: pool)
    assert_receive {:waits, function}, 10_000
    monitor = Process.monitor(function)
    assert Py.cancel(future) == :ok
    assert_receive {:DOWN, ^monitor, :process, ^function, :killed}, 10_000
  end

  test "in that name from threads, tasks and executors of asyncio too", context do
    me = self()
    Logger.metadata(request: "r2")
    register(context, fn -> {Process.get(:"$callers"), Logger.metadata()[:request]} end)
    name = context.name

    codes = [
      "erlang.#{name}()",
      "[await asyncio.sleep(0), erlang.#{name}()][1]",
      "await erlang.acall('#{name}')",
      "await asyncio.to_thread(erlang.#{name})",
      "(await asyncio.gather(asyncio.create_task(erlang.acall('#{name}'))))[0]",
      """
      found = []
      thread = threading.Thread(target=lambda: found.append(erlang.#{name}()))
      thread.start(); thread.join()
      found[0]
      """,
      """
      found = []
      def inner(): found.append(erlang.#{name}())
      def outer():
          thread = threading.Thread(target=inner)
          thread.start(); thread.join()
      await asyncio.to_thread(outer)
      found[0]
      """
    ]

    for code <- codes do
      result = eval(context.pool, "import asyncio, erlang, threading\n" <> code)
      assert {:ok, {[^me | _], "r2"}} = result, inspect({code, result})
    end
  end

  test "a thread that outlives its call asks in nobody's name", %{pool: pool} = context do
    me = self()
    register(context, fn -> send(me, {:asked, Process.get(:"$callers")}) && nil end)

    code = """
    import builtins, erlang, threading
    builtins.py_go = threading.Event()
    threading.Thread(target=lambda: builtins.py_go.wait() and erlang.#{context.name}()).start()
    """

    assert exec(pool, code) == :ok
    assert exec(pool, "import builtins; builtins.py_go.set()") == :ok
    assert_receive {:asked, nil}, 5_000
  end

  @tag pool: [size: 1]
  test "to any depth, into the same pool", %{pool: pool} = context do
    register(context, fn
      0 -> 0
      n -> 1 + Py.eval!("import erlang\nerlang.#{context.name}(n)", %{n: n - 1}, on: pool)
    end)

    assert from_python(context, "30", timeout: 20_000) == {:ok, 30}
    assert from_python(context, "3") == {:ok, 3}
    assert_no_messages()
  end

  @tag pool: [size: 1]
  test "while it runs its thread takes no place", %{pool: pool} = context do
    me = self()

    register(context, fn ->
      send(me, {:runs, self()})
      receive(do: (:go -> :gone))
    end)

    task = Task.async(fn -> from_python(context, "") end)
    assert_receive {:runs, function}, 5_000
    for n <- 1..20, do: assert(eval(pool, "n", %{n: n}) == {:ok, n})
    send(function, :go)
    assert Task.await(task) == {:ok, :gone}
    assert eval(pool, "1") == {:ok, 1}
  end

  @tag pool: [size: 2]
  test "it ends with the call that called it, however that ends", context do
    me = self()

    register(context, fn ->
      send(me, {:runs, self()})
      Process.sleep(:infinity)
    end)

    assert error(from_python(context, "", timeout: 100)).kind == :timeout
    assert_receive {:runs, function}
    eventually(fn -> not Process.alive?(function) end)

    caller = spawn(fn -> from_python(context, "") end)
    assert_receive {:runs, function}, 5_000
    Process.exit(caller, :kill)
    eventually(fn -> not Process.alive?(function) end)

    future = Py.async_call(:erlang, :call, [context.name], on: context.pool)
    assert_receive {:runs, function}, 5_000
    assert Py.cancel(future) == :ok
    eventually(fn -> not Process.alive?(function) end)
    assert eval(context.pool, "1") == {:ok, 1}
    eventually(fn -> match?(%{running: 0}, Py.Pool.info(context.pool)) end)
  end

  test "from threads, executors and coroutines", %{pool: pool, name: name} = context do
    register(context, &(&1 * 2))

    threads = """
    import erlang, threading
    from concurrent.futures import ThreadPoolExecutor
    found = []
    thread = threading.Thread(target=lambda: found.append(erlang.#{name}(1)))
    thread.start(); thread.join()
    with ThreadPoolExecutor(4) as executor:
        found += executor.map(erlang.#{name}, range(2, 20))
    found
    """

    assert eval(pool, threads) == {:ok, Enum.map(1..19, &(&1 * 2))}

    awaited =
      "import asyncio, erlang\nawait asyncio.gather(*(erlang.acall('#{name}', n) for n in range(20)))"

    assert eval(pool, awaited) == {:ok, Enum.map(0..19, &(&1 * 2))}
  end

  test "many at once, each exactly once", %{pool: pool} = context do
    counter = :counters.new(1, [])

    register(context, fn n ->
      :counters.add(counter, 1, 1)
      n + 1
    end)

    code = "import erlang\n[erlang.#{context.name}(n) for n in range(50)]"
    expected = {:ok, Enum.to_list(1..50)}
    tasks = for _ <- 1..20, do: Task.async(fn -> eval(pool, code) end)
    assert Enum.all?(Task.await_many(tasks, 30_000), &(&1 == expected))
    assert :counters.get(counter, 1) == 1_000
  end

  test "names that the module has itself are those that cannot be registered", %{pool: pool} do
    code = "import erlang\nsorted(name for name in vars(erlang) if not name.startswith('_'))"

    for name <- elem(eval(pool, code), 1), name != "TYPE_CHECKING" do
      assert_raise ArgumentError, ~r/of its own/, fn -> Py.register(name, fn -> 1 end) end
    end
  end

  test "init: calls functions too", %{name: name} = context do
    register(context, fn -> 42 end)
    init = "import erlang\nfound = erlang.#{name}()"
    options = [name: :py_init_calls, in: context.in, size: 1, init: init]
    start_supervised!({Py.Pool, options}, id: :py_init_calls)
    assert Py.eval("found", %{}, on: :py_init_calls) == {:ok, 42}
  end

  @tag on: [:process]
  test "init: with prefork: true says that it cannot", %{name: name} = context do
    register(context, fn -> 42 end)

    init =
      "import erlang\ntry: erlang.#{name}()\nexcept RuntimeError as error: found = str(error)"

    options = [name: :py_init_calls, in: :process, size: 1, prefork: true, init: init]
    start_supervised!({Py.Pool, options}, id: :py_init_calls)
    assert Py.eval!("found", %{}, on: :py_init_calls) =~ "prefork: true cannot call Elixir"
    assert Py.eval("import erlang\nerlang.#{name}()", %{}, on: :py_init_calls) == {:ok, 42}
  end

  test "questions that Python code makes up harm nobody", %{pool: pool} = context do
    register(context, fn -> 1 end)

    for message <- [
          "'garbage'",
          "None",
          "(erlang.Atom('py_ask'), 1, None, 'garbage')",
          "(erlang.Atom('py_ask'), 2**70, None, None)",
          "(erlang.Atom('py_ask'), 'x', None, None)",
          "(erlang.Atom('py_forget'), 1)",
          "(erlang.Atom('py_ask'), 1, None, (None, (erlang.Atom('call'), 'f', 1, 2)))"
        ] do
      eval(pool, "import erlang\nerlang.send('Elixir.Py.Callbacks', #{message})")
    end

    eval(
      pool,
      "import erlang\nerlang.send('Elixir.Py.Callbacks', erlang.Atom('no atom of' + ' this name'))"
    )

    assert from_python(context, "") == {:ok, 1}
    assert Process.alive?(Process.whereis(Py.Callbacks))
    if context.in == :process, do: assert(Py.Pool.info(pool).restarts == 0)
  end

  test "the name goes with its owner", %{pool: pool, name: name} do
    owner = spawn(fn -> Process.sleep(:infinity) end)
    Py.register(name, fn -> 1 end, owner: owner)
    has = "import erlang\nhasattr(erlang, '#{name}')"
    assert eval(pool, has) == {:ok, true}
    Process.exit(owner, :kill)
    eventually(fn -> eval(pool, has) == {:ok, false} end)
    Py.register(name, fn -> 2 end, owner: owner)
    eventually(fn -> eval(pool, has) == {:ok, false} end)
  end

  @tag on: [:thread]
  test "a call inline says that it cannot wait", %{pool: pool, name: name} = context do
    register(context, fn -> 1 end)
    exec(pool, "import erlang")

    for _ <- 1..20 do
      case Py.call(:erlang, :call, [name], on: pool, inline: true) do
        {:ok, 1} -> :ok
        refused -> assert error(refused).message =~ "inline: true"
      end
    end
  end

  @tag on: [:process], pool: [size: 1]
  test "the worker dies while it waits", %{pool: pool} = context do
    me = self()

    register(context, fn os_pid ->
      send(me, {:runs, self()})
      System.cmd("kill", ["-9", "#{os_pid}"])
      Process.sleep(200)
      :too_late
    end)

    assert %{kind: :crashed} = error(from_python(context, "__import__('os').getpid()"))
    assert eval(pool, "1", %{}, timeout: 10_000) == {:ok, 1}
  end

  describe "functions as arguments" do
    test "are called by whatever takes a callable", %{pool: pool} do
      names = ["ccc", "a", "bb"]

      assert call(pool, :builtins, :sorted, [names], key: &String.length/1) ==
               {:ok, ["a", "bb", "ccc"]}

      assert call(pool, :functools, :reduce, [fn a, b -> a * b end, [1, 2, 3, 4]]) == {:ok, 24}
      offset = 10
      assert eval(pool, "list(map(f, range(3)))", %{f: &(&1 + offset)}) == {:ok, [10, 11, 12]}
    end

    test "come back as what they were", %{pool: pool} do
      closure = fn n -> n + 1 end

      for function <- [closure, &String.length/1, &Enum.map/2] do
        assert eval(pool, "f", %{f: function}) == {:ok, function}

        assert eval(pool, "[f, {'f': f}]", %{f: function}) ==
                 {:ok, [function, %{"f" => function}]}
      end

      big = Enum.to_list(1..20_000)
      assert eval(pool, "f()", %{f: fn -> length(big) end}) == {:ok, 20_000}
    end

    test "get functions and give them", %{pool: pool} do
      twice = fn f -> fn n -> f.(f.(n)) end end
      assert eval(pool, "twice(inc)(5)", %{twice: twice, inc: &(&1 + 1)}) == {:ok, 7}
    end

    test "live as long as Python holds them", %{pool: pool} do
      counter = :counters.new(1, [])
      keep = "import builtins\nbuiltins.py_kept = f"
      assert exec(pool, keep, %{f: fn -> :counters.add(counter, 1, 1) end}) == :ok
      for _ <- 1..5, do: assert(eval(pool, "import builtins\nbuiltins.py_kept()") == {:ok, :ok})
      assert :counters.get(counter, 1) == 5
      assert exec(pool, "import builtins\ndel builtins.py_kept") == :ok
    end

    test "say what is wrong with a call", %{pool: pool} do
      wrong = error(eval(pool, "f(1, 2)", %{f: fn _ -> 1 end}))
      assert wrong.type == "TypeError"
      assert wrong.message =~ "takes 1 arguments, and 2 were given"
      assert error(eval(pool, "f()", %{f: fn -> raise "no" end})).message == "(RuntimeError) no"

      assert eval(pool, "f(1, key=2)", %{f: fn a, options -> {a, options} end}) ==
               {:ok, {1, [key: 2]}}
    end

    test "cannot be made up in Python", %{pool: pool} do
      external = :erlang.term_to_binary(&System.pid/0)
      made = "import erlang\n"

      assert error(eval(pool, made <> "type(f)(etf)", %{f: fn -> 1 end, etf: Py.bytes(external)})).type ==
               "TypeError"

      assert error(eval(pool, made <> "erlang.Pid(etf)", %{etf: Py.bytes(external)})).kind ==
               :decode

      assert %{type: "AttributeError"} =
               error(eval(pool, "f._handle = 1", %{f: fn -> 1 end}))
    end
  end

  test "names and functions that cannot be registered" do
    assert_raise ArgumentError, ~r/letters, digits/, fn -> Py.register("a-b", fn -> 1 end) end

    assert_raise ArgumentError, ~r/send of its own/, fn -> Py.register("send", fn -> 1 end) end

    assert_raise ArgumentError, ~r/letters, digits/, fn ->
      Py.register("_private", fn -> 1 end)
    end

    assert_raise ArgumentError, ~r/function or {module, name}/, fn -> Py.register("a", 1) end

    assert_raise ArgumentError, ~r/owner: pid/, fn ->
      Py.register("a", fn -> 1 end, woner: self())
    end
  end
end
