defmodule Py.Cases.ObjectsTest do
  # CASES.md 51 to 54 and P-C 6: what has no Elixir value is a live reference.
  use Py.Case, on: [:thread, :process]

  import ExUnit.CaptureLog

  alias Py.Object

  @moduletag :capture_log

  # Things that live in Python as long as Elixir refers to them, and a count of those that do.
  setup %{pool: pool} do
    :ok =
      exec(pool, """
      import sys, types, weakref
      if "py_things" not in sys.modules:
          things = types.ModuleType("py_things")
          exec('''
      import weakref
      living = weakref.WeakSet()
      class Thing:
          def __init__(self, value=None):
              self.value = value
              living.add(self)
          def double(self, times=2):
              return times * self.value
          async def later(self):
              return self
          def __repr__(self):
              return f"Thing({self.value})"
          def __enter__(self):
              self.value = "entered"
              return self
          def __exit__(self, kind, value, traceback):
              self.value = value
              return self.value is not None and str(value).endswith("forgiven")
      def alive():
          import gc
          gc.collect()
          return len(living)
      def pid():
          import os
          return os.getpid()
      ''', vars(things))
          sys.modules["py_things"] = things
      """)

    :ok
  end

  defp eval!(pool, code), do: Py.eval!(code, %{}, on: pool)

  # Another pool, beside that of the test.
  defp start_pool!(options) do
    name = :"py_objects_#{System.unique_integer([:positive])}"
    start_supervised!({Py.Pool, [name: name] ++ options}, id: name)
    name
  end

  defp thing(pool, value \\ nil), do: Py.call!(:py_things, :Thing, [value], on: pool)

  describe "what is an object" do
    test "whatever has no value, nested too, and with return: :object anything", %{pool: pool} do
      for code <- ["object()", "iter([])", "len", "type", "(x for x in [])", "__import__('math')"] do
        assert {:ok, %Object{}} = eval(pool, code)
      end

      assert {:ok, [1, %Object{}, %{"a" => {%Object{}, 2}}]} =
               eval(pool, "[1, object(), {'a': (object(), 2)}]")

      assert {:ok, %Object{} = list} = eval(pool, "[1, 2]", %{}, return: :object)
      assert Object.type(list) == "list"
      assert Object.to_term(list) == {:ok, [1, 2]}
      assert {:ok, %Object{} = pi} = Py.getattr(:math, :pi, on: pool, return: :object)
      assert {:ok, 3.14159} = Py.call(:builtins, :round, [pi, 5], on: pool)
      assert {:ok, %Object{}} = Py.call(:math, :sqrt, [4], on: pool, return: :object)
      assert :ok = exec(pool, "1", %{}, return: :object)
      assert {:error, %{type: "ZeroDivisionError"}} = eval(pool, "1 / 0", %{}, return: :object)
    end

    test "its type, attributes and identity", %{pool: pool} do
      thing = thing(pool, 21)
      assert Object.type(thing) == "py_things.Thing"
      assert "double" in Object.dir(thing)
      assert {:ok, again} = eval(pool, "thing", %{thing: thing})
      assert Object.same?(thing, again)
      refute Object.same?(thing, thing(pool, 21))
    end

    test "a coroutine is awaited, with a reference to its result", %{pool: pool} do
      thing = thing(pool, 1)
      assert {:ok, %Object{} = same} = Py.call(thing, :later)
      assert Object.same?(thing, same)
      code = "import asyncio\nawait asyncio.sleep(0, 5)"
      assert {:ok, %Object{} = five} = eval(pool, code, %{}, return: :object)
      assert Object.to_term(five) == {:ok, 5}
    end
  end

  describe "what is done with one" do
    test "calls, attributes, items", %{pool: pool} do
      thing = thing(pool, 21)
      assert Py.call(thing, :double) == {:ok, 42}
      assert Py.call(thing, "double", [], kwargs: [times: 3]) == {:ok, 63}
      assert Py.call(thing, "double.__func__.__name__.upper") == {:ok, "DOUBLE"}
      assert Py.getattr(thing, :value) == {:ok, 21}
      assert Py.getattr(thing, "value.real") == {:ok, 21}
      assert {:ok, %Object{}} = Py.getattr(thing, :value, return: :object)
      assert Object.setattr(thing, :value, [1, 2]) == :ok
      assert Py.getattr(thing, :value) == {:ok, [1, 2]}
      assert {:error, %{type: "AttributeError"}} = Py.call(thing, :nope)
      assert {:error, %{type: "TypeError"}} = Py.call(thing, "")
      assert Py.call(Py.getattr!(thing, :double), :__call__) == {:ok, [1, 2, 1, 2]}
      assert thing |> Py.getattr!(:double) |> Object.apply([0]) == {:ok, []}

      {:ok, dict} = eval(pool, "{'a': 1}", %{}, return: :object)
      assert Object.get_item(dict, "a") == {:ok, 1}
      assert Object.put_item(dict, "b", thing) == :ok
      assert Object.length(dict) == {:ok, 2}
      assert dict["a"] == 1
      assert dict["c"] == nil
      assert {1, ^dict} = pop_in(dict["a"])
      assert Object.length(dict) == {:ok, 1}
      _ = put_in(dict["c"], 3)
      assert dict["c"] == 3
      assert Object.same?(dict["b"], thing)
    end

    test "as an argument anywhere", %{pool: pool} do
      thing = thing(pool, 1)
      variables = %{a: thing, b: [thing, %{"c" => {thing}}]}
      assert eval(pool, "a is b[0] is b[1]['c'][0]", variables) == {:ok, true}
      assert {:ok, true} = call(pool, :operator, :is_, [thing, thing])
      assert {:ok, true} = call(pool, :py_things, "Thing.__eq__", [thing, thing])

      assert {:ok, %Object{}} =
               Py.call(:builtins, :dict, [], kwargs: [x: thing], return: :object, on: pool)

      large = Enum.to_list(1..100_000)
      assert eval(pool, "a.value + len(b)", %{a: thing, b: large}) == {:ok, 100_001}
    end

    test "asynchronously, cast, gathered and streamed", %{pool: pool} do
      thing = thing(pool, 4)
      assert thing |> Py.async_call(:double) |> Py.await() == {:ok, 8}
      assert {:ok, %Object{}} = thing |> Py.async_call(:double, [], return: :object) |> Py.await()
      assert Py.gather([{thing, :double, []}, {thing, :double, [3]}]) == [{:ok, 8}, {:ok, 12}]
      assert [{:ok, %Object{}}] = Py.gather([{:math, :sqrt, [4]}], on: pool, return: :object)
      Py.cast(thing, :__setattr__, ["value", 5])
      eventually(fn -> Py.getattr!(thing, :value) == 5 end)
      assert thing |> Py.stream(:__dir__) |> Enum.member?("double")
      {:ok, numbers} = eval(pool, "range(1000)", %{}, return: :object)
      assert numbers |> Py.stream() |> Enum.sum() == 499_500
      assert Enum.count(numbers) == 1000
      assert Enum.member?(numbers, 999)
      assert Enum.slice(numbers, 5, 2) == [5, 6]

      assert [%Object{} = streamed | _] =
               :builtins |> Py.stream(:list, [[thing, thing]], on: pool) |> Enum.to_list()

      assert Object.same?(streamed, thing)
    end

    test "in a session, by Elixir functions and back", %{pool: pool} do
      {:ok, session} = Py.Session.start_link(on: pool)
      assert :ok = exec(session, "import py_things\nmine = py_things.Thing(7)")
      {:ok, mine} = eval(session, "mine")
      assert Py.call(mine, :double, [], on: session) == {:ok, 14}
      assert eval(session, "mine is other", %{other: mine}) == {:ok, true}

      name = "f#{System.unique_integer([:positive])}"
      Py.register(name, fn thing -> {Py.call!(thing, :double), thing} end)
      code = "import erlang\nd, same = erlang.call(name, thing)\n(d, same is thing)"
      assert eval(pool, code, %{name: name, thing: mine}) == {:ok, {14, true}}
      Py.unregister(name)
    end

    test "inline", %{pool: pool} do
      thing = thing(pool, 3)
      for _ <- 1..100, do: assert(Py.call(thing, :double, [], inline: true) == {:ok, 6})
      assert {:ok, %Object{}} = Py.call(thing, :double, [], inline: true, return: :object)
    end

    test "as a context manager", %{pool: pool} do
      thing = thing(pool)
      assert Py.with(thing, fn entered -> Py.getattr!(entered, :value) end) == "entered"
      assert Py.getattr(thing, :value) == {:ok, nil}

      assert_raise ArgumentError, "oh", fn ->
        Py.with(thing, fn _ -> raise ArgumentError, "oh" end)
      end

      assert {:ok, "error"} = Py.getattr(thing, "value.kind")
      assert {:ok, "oh"} = Py.getattr(thing, "value.reason")
      assert Py.with(thing, fn _ -> raise "forgiven" end) == nil
      assert catch_throw(Py.with(thing, fn _ -> throw(:ball) end)) == :ball
    end
  end

  describe "in Elixir" do
    test "inspected, also when Python has no time", %{pool: pool} do
      assert inspect(thing(pool, 5)) == "#Py.Object<py_things.Thing: Thing(5)>"
      {:ok, long} = eval(pool, "object() and list(range(10 ** 6))", %{}, return: :object)
      assert byte_size(inspect(long)) < 300
      thing = thing(pool, 5)
      info = Py.Pool.info(pool)
      busy = for _ <- 1..info.size, do: Py.async_call(:time, :sleep, [60], on: pool)
      eventually(fn -> Py.Pool.info(pool).running == info.size end)
      assert inspect(thing) == "#Py.Object<py_things.Thing>"
      Enum.each(busy, &Py.cancel/1)
      eventually(fn -> inspect(thing) =~ "Thing(5)" end)
      hostile = eval!(pool, "type('Hostile', (), {'__repr__': lambda self: 1 / 0})()")
      assert inspect(hostile) =~ "Hostile"
    end

    test "as text", %{pool: pool} do
      assert to_string(thing(pool, 6)) == "Thing(6)"
      assert "#{thing(pool, 6)}" == "Thing(6)"
    end
  end

  describe "how long it lives" do
    # A process that has what the function makes, until it is told to end.
    defp holder(make) do
      me = self()

      holder =
        spawn(fn ->
          made = make.()
          send(me, {:made, self()})
          receive(do: (:release -> length(made)))
        end)

      assert_receive {:made, ^holder}, 60_000
      holder
    end

    test "as long as somebody refers to it", %{pool: pool} do
      before = alive(pool)
      holder = holder(fn -> for n <- 1..10, do: thing(pool, n) end)
      assert alive(pool) == before + 10
      send(holder, :release)
      eventually(fn -> alive(pool) == before end)
    end

    test "one that Python keeps lives on", %{pool: pool} do
      spawn(fn ->
        thing(pool, 1) |> then(&exec(pool, "import py_things\npy_things.kept = t", %{t: &1}))
      end)

      eventually(fn ->
        eval(pool, "import py_things\nhasattr(py_things, 'kept')") == {:ok, true}
      end)

      :ok = exec(pool, "import py_things\npy_things.kept = None")
    end

    test "nobody gets those of an answer that nobody waits for", %{pool: pool} do
      before = alive(pool)

      code =
        "import time, py_things\nt = [py_things.Thing() for _ in range(5)]\ntime.sleep(0.2)\nt"

      caller = spawn(fn -> eval(pool, code) end)
      Process.sleep(100)
      Process.exit(caller, :kill)
      future = Py.async_call(:py_things, :Thing, [1], on: pool)
      Py.cancel(future)
      # A part of this is an object, and a part has no value.
      code = "import py_things\n[py_things.Thing(), '\\ud800']"
      assert error(eval(pool, code)).kind == :decode
      eventually(fn -> alive(pool) == before end)
    end

    test "nobody gets those of a caller that is killed at any moment", %{pool: pool} do
      before = alive(pool)

      for n <- 1..300 do
        caller = spawn(fn -> Enum.each(1..100, &thing(pool, &1)) end)
        wait_micros(rem(n * 37, 600))
        Process.exit(caller, :kill)
      end

      eventually(fn -> alive(pool) == before end)
    end

    @tag on: [:process]
    test "those that are dropped while nobody hears of it", %{pool: pool} do
      before = alive(pool)
      holder = holder(fn -> for n <- 1..2_000, do: thing(pool, n) end)
      assert alive(pool) == before + 2_000
      Process.exit(Process.whereis(Py.Object.Keeper), :kill)
      send(holder, :release)
      eventually(fn -> alive(pool) == before end)
    end

    @tag on: [:thread], pool: [size: 2]
    test "a finalizer that takes its time keeps nothing else waiting", %{pool: pool} do
      before = alive(pool)

      slow =
        "import time, py_things\nclass Slow:\n  def __init__(self): self.thing = py_things.Thing()\n" <>
          "  def __del__(self): time.sleep(3)\nSlow()"

      holder = holder(fn -> for _ <- 1..3, do: eval!(pool, slow) end)
      others = holder(fn -> for n <- 1..2_000, do: thing(pool, n) end)
      assert alive(pool) == before + 2_003
      send(holder, :release)
      Process.sleep(50)
      # An interrupt, which nothing is to be in front of.
      spin = "import time, py_things\nwhile True: time.sleep(0.001)"
      busy = Py.async_call(:time, :sleep, [60], on: pool)
      assert error(eval(pool, spin, %{}, timeout: 100)).kind == :timeout
      eventually(fn -> Py.Pool.info(pool).running == 1 end)
      # The finalizers are not through yet.
      assert alive(pool) > before + 2_000
      Py.cancel(busy)
      send(others, :release)
      eventually(fn -> alive(pool) in before..(before + 3) end)
      eventually(fn -> alive(pool) == before end)
    end

    test "a hundred thousand dropped at once", %{pool: pool} do
      before = alive(pool)
      code = "import py_things\n[py_things.Thing() for _ in range(100_000)]"
      holder = holder(fn -> Py.eval!(code, %{}, on: pool, timeout: :infinity) end)
      assert alive(pool) == before + 100_000
      send(holder, :release)
      eventually(fn -> alive(pool) == before end)
    end

    @tag on: [:process]
    test "whatever Python code sends for an object", %{pool: pool} do
      code = """
      from erlang import Atom, _terms
      fields = {"type": "x", "pool": None, "place": place, "number": number, "handle": None}
      [object(), _terms.Struct("Elixir.Py.Object", fields)]
      """

      for {place, number} <- [
            {1, 1},
            {{1, 1}, 1},
            {{self(), -1}, 1},
            {{self(), 1}, "x"},
            {nil, nil}
          ] do
        variables = %{place: place, number: number}
        assert {:ok, [%Object{}, %Object{handle: nil}]} = eval(pool, code, variables)
      end

      assert eval(pool, "1") == {:ok, 1}
    end

    test "as long as a call that waits for its turn", %{pool: pool} do
      things = for n <- 1..300, do: thing(pool, n)
      busy = Py.async_call(:time, :sleep, [0.5], on: pool)
      futures = for t <- things, do: Py.async_call(:py_things, "Thing.double", [t], on: pool)
      :erlang.garbage_collect()
      Process.sleep(100)
      assert Py.await_many(futures) == for(n <- 1..300, do: {:ok, 2 * n})
      Py.await!(busy)
    end

    test "in a call that drops its last reference", %{pool: pool} do
      for n <- 1..200 do
        assert Py.call(thing(pool, n), :double) == {:ok, 2 * n}
        :erlang.garbage_collect()
      end
    end

    defp wait_micros(micros) do
      until = System.monotonic_time(:microsecond) + micros
      Enum.find(Stream.cycle([:wait]), fn _ -> System.monotonic_time(:microsecond) >= until end)
    end

    defp alive(pool), do: eval!(pool, "import py_things\npy_things.alive()")
  end

  describe "where it is" do
    @tag on: [:thread]
    test "in the node, every pool of the node has it", %{pool: pool} do
      other = start_pool!(in: :thread)
      thing = thing(pool, 8)
      assert Py.call(thing, :double, [], on: other) == {:ok, 16}
    end

    test "elsewhere it is not available, but can be copied", %{pool: pool} do
      other = start_pool!(in: :process, size: 1)
      counter = Py.call!(:collections, :Counter, ["aab"], on: pool, return: :object)

      for wrong <- [
            Py.call(counter, :total, [], on: other),
            Py.call(:builtins, :len, [[[counter]]], on: other),
            Py.eval("counter", %{counter: counter}, on: other),
            Py.await(Py.async_call(:builtins, :len, [counter], on: other))
          ] do
        assert %{kind: :not_available, message: message} = error(wrong)
        assert message =~ "Py.Object.copy"
      end

      assert {:ok, %Object{} = copy} = Object.copy(counter, on: other)
      assert Py.call(copy, :most_common, [1]) == {:ok, [{"a", 2}]}
      {:ok, %Object{} = back} = Object.copy(copy, on: pool)
      refute Object.same?(back, counter)
      refute Object.same?(back, copy)
      assert call(pool, :operator, :eq, [back, counter]) == {:ok, true}
    end
  end

  describe "of several worker processes" do
    # One object in each worker.
    defp spread(pool) do
      code = "import time, collections\ntime.sleep(0.5)\ncollections.Counter('ab')"
      make = fn -> Py.eval!(code, %{}, on: pool, return: :object) end
      1..3 |> Enum.map(fn _ -> Task.async(make) end) |> Enum.map(&Task.await(&1, 60_000))
    end

    @tag on: [:process], pool: [size: 3]
    test "calls go where their objects are", %{pool: pool} do
      objects = spread(pool)
      assert objects |> Enum.uniq_by(& &1.place) |> length() > 1

      for _ <- 1..10, object <- objects do
        assert Py.call(object, :total) == {:ok, 2}
        assert Py.call(:builtins, :len, [object], on: pool) == {:ok, 2}
        assert Py.eval("o[0].total()", %{o: [object]}, on: pool) == {:ok, 2}
        assert :builtins |> Py.async_call(:len, [object], on: pool) |> Py.await() == {:ok, 2}
        assert :builtins |> Py.stream(:sorted, [object], on: pool) |> Enum.to_list() == ["a", "b"]
        assert Enum.sort(object) == ["a", "b"]
      end
    end

    @tag on: [:process], pool: [size: 3]
    test "a call has objects of one worker", %{pool: pool} do
      objects = spread(pool) |> Enum.uniq_by(& &1.place)
      assert length(objects) > 1
      assert error(Py.call(:builtins, :list, [objects], on: pool)).kind == :not_available
      future = Py.async_call(:builtins, :list, [objects], on: pool)
      assert error(Py.await(future)).kind == :not_available
      [one, other | _] = objects
      refute Object.same?(one, other)
    end

    @tag on: [:process], pool: [size: 3]
    test "it ends with its worker", %{pool: pool} do
      [object | _] = spread(pool)

      capture_log(fn ->
        pid = Py.eval!("__import__('os').getpid()", %{o: object}, on: pool)
        System.cmd("kill", ["-9", to_string(pid)])
        eventually(fn -> match?({:error, %{kind: :not_available}}, Py.call(object, :total)) end)
        future = Py.async_call(object, :total)
        assert error(Py.await(future)).kind == :not_available
        assert inspect(object) == "#Py.Object<collections.Counter>"
      end)
    end
  end
end
