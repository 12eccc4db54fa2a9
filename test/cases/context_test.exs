defmodule Py.Cases.ContextTest do
  # Requests that bring a context along (`progress:`, `traceparent:`) do what they do without one.
  use Py.Case, on: [:thread, :process]

  import ExUnit.CaptureIO
  import ExUnit.CaptureLog

  alias Py.{Caller, Context, Options}

  @traceparent "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
  @init """
  import asyncio, erlang

  def shown(*args, **kwargs): return [erlang.traceparent(), list(args), kwargs]

  async def awaited(n):
      await asyncio.sleep(0)
      if n < 0: raise ValueError(n)
      return [erlang.traceparent(), n]

  class Box:
      inner = shown

  def nested(): raise KeyError("deep")
  def raises(): nested()
  """

  defp traced(options), do: [traceparent: @traceparent] ++ options

  # What a request gives without a context, and that it gives the same with one.
  defp same(pool, request) do
    plain = told(Caller.run(request, run_options(pool)))
    within = {:within, request, %{traceparent: @traceparent}}
    assert told(Caller.run(within, run_options(pool))) == plain
    plain
  end

  defp run_options(pool), do: %{Options.defaults(:call) | on: pool}

  defp told({:error, %Py.Error{} = error}),
    do: {:error, Map.take(error, [:kind, :type, :message, :traceback, :notes, :cause, :context])}

  defp told(result), do: result

  @tag pool: [init: @init]
  test "each kind of request, with arguments of all kinds", %{pool: pool} do
    for {request, result} <- [
          {{:call, :math, :sqrt, [16], []}, {:ok, 4.0}},
          {{:call, "os.path", "join", ["a", "b"], %{}}, {:ok, "a/b"}},
          {{:call, :builtins, "str.upper", ["a"], []}, {:ok, "A"}},
          {{:call, :builtins, :int, ["ff"], [base: 16]}, {:ok, 255}},
          {{:call, :__main__, :awaited, [-1], []}, nil},
          {{:eval, "x + y", %{:x => 1, "y" => 2}, nil, 1}, {:ok, 3}},
          {{:eval, "import asyncio\nawait asyncio.sleep(0, x)", %{x: 1}, nil, 1}, {:ok, 1}},
          {{:exec, "x = 1", %{}, nil, 1}, :ok},
          {{:exec, "import asyncio\nawait asyncio.sleep(0)", %{}, nil, 1}, :ok},
          {{:getattr, :math, :pi}, {:ok, :math.pi()}},
          {{:getattr, :__main__, "Box.__name__"}, {:ok, "Box"}}
        ] do
      same = same(pool, request)
      if result, do: assert(same == result)
    end
  end

  @tag pool: [init: @init]
  test "errors are the same, with the same traceback and the same path to a value", %{pool: pool} do
    for {request, part} <- [
          {{:call, :no_such_module, :f, [], []}, "No module named 'no_such_module'"},
          {{:call, :math, :no_such, [], []}, "module 'math' has no attribute 'no_such'"},
          {{:call, :__main__, :no_such, [], []}, "no_such"},
          {{:call, :math, "", [], []}, "is empty"},
          {{:call, :math, :pi, [], []}, "not callable"},
          {{:call, :__main__, :raises, [], []}, "deep"},
          {{:call, :__main__, :awaited, [-1], []}, "-1"},
          {{:call, :builtins, :chr, [0xD800], []}, "surrogates"},
          {{:call, :builtins, :len, [[1, %{a: <<255>>}]], []}, "args[0][1][\"a\"]"},
          {{:call, :builtins, :len, [[]], [key: <<255>>]}, "kwargs[\"key\"]"},
          {{:eval, "1 +", %{}, "some/file.py", 7}, "1 +"},
          {{:eval, "def f():\n  1/0\nf()", %{}, "some/file.py", 7}, "division"},
          {{:eval, "import asyncio\nawait asyncio.sleep(0)\n1/0", %{}, nil, 1}, "division"},
          {{:eval, "x", %{"x" => 1, x: 2}, nil, 1}, "two names"},
          {{:eval, "x", %{x: <<1::3>>}, nil, 1}, "vars[\"x\"]"},
          {{:getattr, :math, :no_such}, "no_such"}
        ] do
      same = same(pool, request)
      if part, do: assert({:error, %{message: message}} = same) && assert(message =~ part)
    end

    assert {:error, %{traceback: frames}} = same(pool, {:call, :__main__, :raises, [], []})
    assert Enum.map(frames, & &1.function) == ["raises", "nested"]
  end

  @tag pool: [init: @init]
  test "what runs sees its context, and nothing else does", %{pool: pool} do
    code = "import erlang\nerlang.traceparent()"
    shown = [@traceparent, [1], %{"progress" => 2}]

    assert Py.call(:__main__, :shown, [1], traced(on: pool, kwargs: [progress: 2])) ==
             {:ok, shown}

    assert Py.eval(code, %{}, traced(on: pool)) == {:ok, @traceparent}
    assert Py.call(:__main__, :awaited, [1], traced(on: pool)) == {:ok, [@traceparent, 1]}
    futures = for n <- 1..3, do: Py.async_call(:__main__, :awaited, [n], traced(on: pool))
    assert Py.await_many!(futures) == for(n <- 1..3, do: [@traceparent, n])
    assert [{:ok, [@traceparent | _]}] = Py.gather([{:__main__, :shown, []}], traced(on: pool))
    assert Py.exec("import erlang\nassert erlang.traceparent()", %{}, traced(on: pool)) == :ok
    for _ <- 1..20, do: assert(eval(pool, code) == {:ok, nil})
    assert Py.call(:__main__, :awaited, [1], on: pool) == {:ok, [nil, 1]}
  end

  @tag parallel: 4
  test "of each its own, at the same time", %{pool: pool} do
    code =
      "import asyncio, erlang, time\nif n % 2: await asyncio.sleep(0.01)\nelse: time.sleep(0.01)\nerlang.traceparent()"

    traceparent = fn n -> "00-0af7651916cd43dd8448eb211c80319c-00000000000000#{10 + n}-01" end

    tasks =
      for n <- 1..16 do
        Task.async(fn -> Py.eval(code, %{n: n}, on: pool, traceparent: traceparent.(n)) end)
      end

    assert Task.await_many(tasks, 30_000) == for(n <- 1..16, do: {:ok, traceparent.(n)})
  end

  test "in what it starts: threads, tasks, executors of asyncio", %{pool: pool} do
    code = """
    import asyncio, erlang, threading
    seen = [await asyncio.to_thread(erlang.traceparent)]
    async def task(): return erlang.traceparent()
    seen.append(await asyncio.create_task(task()))
    thread = threading.Thread(target=lambda: seen.append(erlang.traceparent()))
    thread.start(); thread.join()
    seen
    """

    assert Py.eval(code, %{}, traced(on: pool)) == {:ok, List.duplicate(@traceparent, 3)}
    code = String.replace(code, ~r/.*(await|async def).*\n/, "seen = []\n")
    assert Py.eval(code, %{}, traced(on: pool)) == {:ok, [@traceparent]}
  end

  @tag pool: [size: 1]
  test "it is cancelled and timed out as others are, without a word on stderr", %{pool: pool} do
    sleep = "import asyncio\nawait asyncio.sleep(60)"

    silent =
      capture_io(:stderr, fn ->
        assert error(Py.eval(sleep, %{}, traced(on: pool, timeout: 20))).kind == :timeout
        future = Py.async_call(:asyncio, :sleep, [60], traced(on: pool))
        assert Py.cancel(future) == :ok
        for _ <- 1..20, do: Py.cancel(Py.async_call(:asyncio, :sleep, [60], traced(on: pool)))
        future = Py.async_call(:time, :sleep, [60], traced(on: pool))
        eventually(fn -> Py.Pool.info(pool).running == 1 end)
        assert Py.cancel(future) == :ok
        assert eval(pool, "import gc; gc.collect(); 1", %{}, timeout: 20_000) == {:ok, 1}
      end)

    assert silent == ""
  end

  test "its name where calls in progress are told, and its stack", %{pool: pool} do
    for {start, name} <- [
          {&Py.async_call(:time, :sleep, [60], &1), "time.sleep"},
          {&Py.async_call("asyncio", "sleep", [60], &1), "asyncio.sleep"}
        ] do
      future = start.(traced(on: pool))
      running = fn -> Enum.map(Py.Pool.info(pool).running_calls, & &1.function) end
      eventually(fn -> running.() == [name] end)
      eventually(fn -> match?({:ok, [%{function: ^name}]}, Py.Pool.stacktrace(pool)) end)
      {:ok, [stack]} = Py.Pool.stacktrace(pool)
      refute match?([%{function: "_await"} | _], stack.frames)
      Py.cancel(future)
    end

    task = Task.async(fn -> Py.exec("import time\ntime.sleep(60)", %{}, traced(on: pool)) end)
    eventually(fn -> match?([%{function: "exec"}], Py.Pool.info(pool).running_calls) end)
    Task.shutdown(task, :brutal_kill)
  end

  test "a cast that fails is logged under its name", %{pool: pool} do
    log =
      capture_log(fn ->
        Py.cast(:math, :sqrt, [-1], traced(on: pool))
        eventually(fn -> :sys.get_state(Py.Cast) == %{} end)
        Logger.flush()
      end)

    assert log =~ "Py.cast of math.sqrt failed"
  end

  test "a request that is large", %{pool: pool} do
    list = Enum.to_list(1..100_000)
    assert Py.call(:builtins, :sum, [list], traced(on: pool)) == {:ok, Enum.sum(list)}
    text = String.duplicate("x", 1_000_000)
    assert Py.call(:builtins, :len, [text], traced(on: pool)) == {:ok, 1_000_000}
    assert Py.eval("len(t)", %{t: Py.bytes(text)}, traced(on: pool)) == {:ok, 1_000_000}
  end

  describe "traceparent" do
    @spanned """
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider().get_tracer("test")

    def spanned():
        with tracer.start_as_current_span("outer") as span, tracer.start_as_current_span("inner") as inner:
            trace_id = trace.format_trace_id(inner.get_span_context().trace_id)
            return [trace_id, span.parent and trace.format_span_id(span.parent.span_id)]

    async def awaited():
        import asyncio
        return [spanned(), await asyncio.to_thread(spanned), await asyncio.create_task(later())]

    async def later():
        return spanned()
    """
    @trace "0af7651916cd43dd8448eb211c80319c"
    @span "b7ad6b7169203331"

    @tag pool: [init: @spanned]
    test "is the parent of spans of OpenTelemetry, for as long as the call", %{pool: pool} do
      options = traced(on: pool, timeout: 60_000)
      assert Py.call(:__main__, :spanned, [], options) == {:ok, [@trace, @span]}
      assert Py.eval("spanned()", %{}, options) == {:ok, [@trace, @span]}

      assert Py.call(:__main__, :awaited, [], options) ==
               {:ok, List.duplicate([@trace, @span], 3)}

      assert Py.await(Py.async_call(:__main__, :spanned, [], options)) == {:ok, [@trace, @span]}
      assert Py.gather([{:__main__, :later, []}], options) == [{:ok, [@trace, @span]}]

      for _ <- 1..20 do
        assert {:ok, [other, nil]} = call(pool, :__main__, :spanned)
        assert other != @trace
      end
    end

    test "of the caller's Logger metadata", %{pool: pool} do
      code = "import erlang\nerlang.traceparent()"
      other = String.replace(@traceparent, "0a", "0b")
      Logger.metadata(traceparent: other)
      assert eval(pool, code) == {:ok, other}
      assert Py.eval(code, %{}, traced(on: pool)) == {:ok, @traceparent}
      assert Py.await(Py.async_call(:erlang, :traceparent, [], on: pool)) == {:ok, other}
      assert Py.gather([{:erlang, :traceparent, []}], on: pool) == [{:ok, other}]
      assert Py.call(:erlang, :traceparent, [], on: pool, inline: true) == {:ok, nil}
      assert Py.getattr(:math, :pi, on: pool) == {:ok, :math.pi()}
      me = self()
      told = fn traceparent, _, _ -> send(me, {:traceparent, traceparent}) end
      report = "import erlang\nerlang.progress(erlang.traceparent())"
      assert Py.exec(report, %{}, on: pool, progress: told) == :ok
      assert_received {:traceparent, ^other}

      # A function that Python calls has the metadata of its caller, and so have its calls.
      nested = fn -> Py.call!(:erlang, :traceparent, [], on: pool) end
      assert eval(pool, "f()", %{f: nested}) == {:ok, other}

      for none <- [nil, "none", 1, String.upcase(other)] do
        Logger.metadata(traceparent: none)
        assert eval(pool, code) == {:ok, nil}
      end
    end
  end

  test "not with inline: true", %{pool: pool} do
    for {option, said} <- [
          {[traceparent: @traceparent], "traceparent: cannot go with inline: true"},
          {[progress: fn _, _, _ -> 1 end], "progress: cannot go with inline: true"}
        ] do
      options = [on: pool, inline: true] ++ option
      error = assert_raise ArgumentError, fn -> Py.call(:math, :sqrt, [1], options) end
      assert error.message =~ said
      assert_raise ArgumentError, fn -> Py.eval("1", %{}, options) end
    end
  end

  @tag pool: [expose: [:lists]]
  test "in a session, with a thread of its own or without one", %{pool: pool} do
    me = self()

    code = """
    import asyncio, erlang, threading
    seen = []
    def look():
        erlang.progress(erlang.call("lists.sum", [1, 2]), who())
        seen.append(erlang.traceparent())
    look()
    thread = threading.Thread(target=look)
    thread.start(); thread.join()
    seen
    """

    tell = fn sum, who, _ -> send(me, {:told, sum, who}) end
    variables = %{who: fn -> hd(Process.get(:"$callers")) end}

    for threaded <- [false, true] do
      {:ok, session} = Py.Session.start_link(on: pool, thread: threaded)
      options = traced(on: session, progress: tell)
      assert Py.eval(code, variables, options) == {:ok, [@traceparent, @traceparent]}
      for _ <- 1..2, do: assert_received({:told, 3, ^me})

      awaited =
        "import asyncio, erlang\nawait erlang.aprogress(await erlang.acall('lists.sum', [1]))"

      assert Py.eval(awaited, %{}, options) == {:ok, nil}
      assert_received {:told, 1, nil}
      assert Py.eval("import erlang\nerlang.traceparent()", %{}, on: session) == {:ok, nil}
      GenServer.stop(session)
    end
  end

  test "a context has what both have put there" do
    request = {:call, :math, :sqrt, [16], []}
    within = Context.within(request, %{a: 1, b: 1})
    assert within == {:within, request, %{a: 1, b: 1}}
    assert Context.within(within, %{b: 2, c: 2}) == {:within, request, %{a: 1, b: 2, c: 2}}
  end
end
