defmodule Py.TelemetryTest do
  use Py.Case, on: [:thread, :process], pool: false

  @pool :py_telemetry

  setup context do
    start_supervised!({Py.Pool, [name: @pool] ++ Py.Case.options(context)})
    :telemetry.listen(self())
    on_exit(fn -> :telemetry.listen(nil) end)
  end

  @spanned [:parent_span_context, :telemetry_span_context]
  @asked [:kind, :name, :pool, :target] ++ @spanned

  defp keys(map), do: map |> Map.keys() |> Enum.sort()

  defp started do
    assert_receive {:telemetry, [:py, :call, :start], measurements, metadata}, 5_000
    assert keys(measurements) == [:monotonic_time, :system_time]
    assert keys(metadata) == Enum.sort(@asked)
    metadata
  end

  defp stopped do
    assert_receive {:telemetry, [:py, :call, :stop], measurements, metadata}, 5_000
    assert keys(metadata) == Enum.sort([:result | @asked])
    {times(measurements), metadata}
  end

  defp failed do
    assert_receive {:telemetry, [:py, :call, :exception], measurements, metadata}, 5_000
    assert keys(metadata) == Enum.sort([:error, :reason | @asked])
    {times(measurements), metadata}
  end

  defp times(measurements) do
    assert keys(measurements) == [:duration, :queue_time, :run_time]
    assert Enum.all?(Map.values(measurements), &(is_integer(&1) and &1 >= 0))
    assert measurements.queue_time + measurements.run_time <= measurements.duration + unit(1)
    measurements
  end

  defp unit(ms), do: System.convert_time_unit(ms, :millisecond, :native)

  test "100, P-D 5. start and stop of each kind of request" do
    for {run, kind, target, name, result} <- [
          {fn -> Py.call(:math, :sqrt, [16], on: @pool) end, :call, :math, :sqrt, 4.0},
          {fn -> Py.eval("1+1", %{}, on: @pool) end, :eval, nil, nil, 2},
          {fn -> Py.exec("1+1", %{}, on: @pool) end, :exec, nil, nil, nil},
          {fn -> Py.getattr("math", "pi", on: @pool) end, :getattr, "math", "pi",
           3.141592653589793},
          {fn -> Py.reload(:colorsys, on: @pool) end, :reload, :colorsys, nil, nil}
        ] do
      run.()
      asked = started()
      assert %{pool: @pool, kind: ^kind, target: ^target, name: ^name} = asked
      assert %{parent_span_context: nil, telemetry_span_context: context} = asked
      assert is_reference(context)
      assert {_times, facts} = stopped()
      assert facts == Map.put(asked, :result, result)
    end
  end

  test "100, P-D 5. start and exception of each kind of request" do
    for {run, kind, target, name} <- [
          {fn -> Py.call(:math, :sqrt, [-1], on: @pool) end, :call, :math, :sqrt},
          {fn -> Py.call("no_such_module", "f", [], on: @pool) end, :call, "no_such_module", "f"},
          {fn -> Py.eval("1/0", %{}, on: @pool) end, :eval, nil, nil},
          {fn -> Py.exec("1/0", %{}, on: @pool) end, :exec, nil, nil},
          {fn -> Py.getattr(:math, :no, on: @pool) end, :getattr, :math, :no},
          {fn -> Py.reload(:no_such_module, on: @pool) end, :reload, :no_such_module, nil},
          {fn -> Py.exec("import asyncio\nawait asyncio.sleep(0)\n1/0", %{}, on: @pool) end,
           :exec, nil, nil}
        ] do
      error = error(run.())
      asked = started()
      assert %{pool: @pool, kind: ^kind, target: ^target, name: ^name} = asked
      assert {_times, facts} = failed()
      assert facts == Map.merge(asked, %{reason: :python, error: error})
    end
  end

  test "times are those of the call" do
    Py.call(:time, :sleep, [0.05], on: @pool)
    started()
    {times, _facts} = stopped()
    assert times.run_time >= unit(50)
    assert times.duration >= times.run_time
  end

  @tag pool: [size: 1]
  test "waiting counts as queue_time" do
    blocker = Py.async_call(:time, :sleep, [0.1], on: @pool)
    Py.call(:math, :sqrt, [16], on: @pool)
    {times, %{name: :sqrt}} = stopped()
    assert times.queue_time >= unit(40)
    Py.await(blocker)
    assert {_times, %{name: :sleep}} = stopped()
  end

  test "a Python exception, a timeout" do
    error = error(Py.call(:math, :sqrt, [-1], on: @pool))
    started()
    assert {_times, %{reason: :python, error: ^error, target: :math}} = failed()

    error(Py.call(:time, :sleep, [60], on: @pool, timeout: 20))
    assert {times, %{reason: :timeout, error: %Py.Error{kind: :timeout}}} = failed()
    assert times.duration >= unit(20)
  end

  test "asynchronous calls: stop comes with await, yield or cancel" do
    future = Py.async_call(:math, :sqrt, [16], on: @pool)
    started()
    refute_receive {:telemetry, [:py, :call, :stop], _, _}, 50
    Py.await(future)
    assert {_times, %{kind: :call, result: 4.0}} = stopped()

    Py.yield(Py.async_call(:math, :sqrt, [16], on: @pool))
    stopped()

    Py.cancel(Py.async_call(:time, :sleep, [60], on: @pool))
    assert {_times, %{reason: :cancelled}} = failed()

    Py.await(Py.async_call(:time, :sleep, [60], on: @pool), 10)
    assert {_times, %{reason: :timeout}} = failed()
  end

  test "a cast" do
    Py.cast(:math, :sqrt, [16], on: @pool)
    assert %{kind: :call, target: :math} = started()
    stopped()

    ExUnit.CaptureLog.capture_log(fn ->
      Py.cast(:math, :sqrt, [-1], on: @pool)
      assert {_times, %{reason: :python}} = failed()
      :sys.get_state(Py.Cast)
    end)
  end

  @tag pool: [size: 1, max_queue: 1]
  test "100. overload" do
    running = Py.async_call(:time, :sleep, [60], on: @pool)
    eventually(fn -> Py.Pool.info(@pool).running == 1 end)
    queued = Py.async_call(:time, :sleep, [60], on: @pool)
    error(Py.call(:math, :sqrt, [16], on: @pool))

    assert_receive {:telemetry, [:py, :pool, :overloaded], measurements, metadata}
    assert measurements == %{queued: 1, running: 1}
    assert metadata == %{pool: @pool, size: 1, max_queue: 1}
    assert {%{queue_time: 0, run_time: 0}, %{reason: :overloaded, name: :sqrt}} = failed()
    Enum.each([running, queued], &Py.cancel/1)
  end

  test "100. span nesting across callback" do
    Py.register(
      "telemetry_nests",
      fn n -> Py.eval!("import erlang\nwith erlang.span('inner'): n + 1", %{n: n}, on: @pool) end,
      owner: self()
    )

    code = """
    import erlang
    with erlang.span("outer", rows=3, file="a.csv") as span:
        erlang.telemetry_nests(1)
        span.metadata["done"] = True
    erlang.telemetry_nests(2)
    """

    assert Py.exec(code, %{}, on: @pool) == :ok

    assert [
             call: {:start, call, nil},
             span: {:start, outer, call},
             callback: {:start, callback, outer},
             call: {:start, nested, callback},
             span: {:start, inner, nested},
             span: {:stop, inner, nested},
             call: {:stop, nested, callback},
             callback: {:stop, callback, outer},
             span: {:stop, outer, call},
             callback: {:start, second, call},
             call: {:start, nested2, second},
             span: {:start, inner2, nested2},
             span: {:stop, inner2, nested2},
             call: {:stop, nested2, second},
             callback: {:stop, second, call},
             call: {:stop, call, nil}
           ] = spans = spans(emitted())

    # That a name above stands for the same each time is what the pattern says.
    contexts = for {_what, {:start, context, _parent}} <- spans, do: context
    assert length(Enum.uniq(contexts)) == 8
    assert Enum.all?([call, callback, nested], &is_reference/1)
  end

  # What was emitted, the first first.
  defp emitted do
    receive do
      {:telemetry, event, measurements, metadata} -> [{event, measurements, metadata} | emitted()]
    after
      0 -> []
    end
  end

  defp spans(events) do
    for {[:py, what, stage], _measurements, facts} <- events do
      {what, {stage, facts.telemetry_span_context, facts.parent_span_context}}
    end
  end

  test "a span of Python's" do
    me = self()

    code = """
    import erlang, time
    with erlang.span("load", rows=3, at=at) as span:
        time.sleep(0.02)
        span.metadata["read"] = [1, 2]
    """

    assert Py.exec(code, %{at: ~D[2024-01-02]}, on: @pool) == :ok
    assert [{_, _, call}, started, stopped, _stopped] = emitted()
    assert {[:py, :span, :start], times, facts} = started
    assert keys(times) == [:monotonic_time, :system_time]

    assert keys(facts) ==
             Enum.sort([:caller, :metadata, :name] ++ @spanned)

    assert %{name: "load", caller: ^me, telemetry_span_context: <<_::16-bytes>>} = facts
    assert facts.metadata == %{"rows" => 3, "at" => ~D[2024-01-02]}
    assert facts.parent_span_context == call.telemetry_span_context
    assert {[:py, :span, :stop], %{duration: duration}, last} = stopped
    assert duration >= unit(20)
    assert last == put_in(facts, [:metadata, "read"], [1, 2])
  end

  test "a span that fails, and one of a call that is interrupted" do
    code = "import erlang\nwith erlang.span('fails'): 1 / 0"
    assert {:error, error} = Py.exec(code, %{}, on: @pool)
    assert [_call, {_, _, facts}, failed, _failed] = emitted()
    assert {[:py, :span, :exception], %{duration: _}, raised} = failed
    assert raised == Map.merge(facts, %{reason: :python, error: raised.error})
    assert raised.error.type == error.type
    assert raised.error.message == error.message

    code = "import erlang, time\nwith erlang.span('stops'): time.sleep(60)"
    assert error(Py.exec(code, %{}, on: @pool, timeout: 100)).kind == :timeout
    assert_receive {:telemetry, [:py, :span, :exception], _times, %{error: error}}, 5_000
    assert error.type == "Cancelled"
  end

  test "spans in coroutines and threads" do
    code = """
    import asyncio, erlang, threading

    async def part(n):
        with erlang.span("part", n=n):
            await asyncio.sleep(0)
            with erlang.span("inner", n=n):
                await asyncio.to_thread(span, "thread", n)

    def span(name, n):
        with erlang.span(name, n=n): pass

    with erlang.span("whole"):
        await asyncio.gather(part(1), part(2))
        thread = threading.Thread(target=span, args=("thread", 0))
        thread.start(); thread.join()
    """

    assert Py.exec(code, %{}, on: @pool) == :ok
    [{[:py, :call, :start], _, call} | events] = emitted()
    started = for {[:py, :span, :start], _, facts} <- events, do: facts
    find = fn name, n -> Enum.find(started, &(&1.name == name and &1.metadata["n"] == n)) end
    whole = find.("whole", nil)
    assert whole.parent_span_context == call.telemetry_span_context

    for n <- 1..2 do
      assert find.("part", n).parent_span_context == whole.telemetry_span_context
      part = find.("part", n).telemetry_span_context
      assert find.("inner", n).parent_span_context == part
      inner = find.("inner", n).telemetry_span_context
      assert find.("thread", n).parent_span_context == inner
    end

    assert find.("thread", 0).parent_span_context == whole.telemetry_span_context
    assert Enum.count(events, &match?({[:py, :span, :stop], _, _}, &1)) == length(started)
    assert Enum.all?(started, &(&1.caller == self()))
  end

  test "spans of calls at the same time are those of their own calls" do
    code = "import erlang\nwith erlang.span('same'): erlang.whereis('x')"
    futures = for _ <- 1..3, do: Py.async_call(:builtins, :exec, [code, %{}], on: @pool)
    Py.await_many!(futures)
    Task.await_many(for _ <- 1..3, do: Task.async(fn -> Py.exec(code, %{}, on: @pool) end))
    events = emitted()
    calls = for {[:py, :call, :start], _, facts} <- events, do: facts.telemetry_span_context
    spans = for {[:py, :span, :start], _, facts} <- events, do: facts.parent_span_context
    assert length(calls) == 6
    assert Enum.sort(calls) == Enum.sort(spans)
  end

  test "spans of a stream are part of it, and that of what it is enumerated in", context do
    code = """
    import erlang
    def rows(n):
        for row in range(n):
            with erlang.span("row", row=row): yield row
    """

    options = [name: :py_telemetry_rows, in: context.in, init: code, size: 1]
    start_supervised!({Py.Pool, options}, id: :rows)
    me = self()

    enumerate = fn ->
      options = [on: :py_telemetry_rows, progress: fn _, _, _ -> :ok end]
      send(me, {:rows, Enum.to_list(Py.stream(:__main__, :rows, [3], options))})
      nil
    end

    assert Py.eval("f()", %{f: enumerate}, on: @pool) == {:ok, nil}
    assert_received {:rows, [0, 1, 2]}
    assert_received {:telemetry, [:py, :callback, :start], _, %{telemetry_span_context: callback}}
    assert_received {:telemetry, [:py, :stream, :start], _, stream}
    assert %{parent_span_context: ^callback, telemetry_span_context: span} = stream
    assert_received {:telemetry, [:py, :stream, :stop], %{items: 3}, %{reason: :done} = stopped}
    assert Map.delete(stopped, :reason) == stream

    for row <- 0..2 do
      assert_received {:telemetry, [:py, :span, :start], _,
                       %{metadata: %{"row" => ^row}} = row_span}

      assert row_span.parent_span_context == span
    end
  end

  test "of a cast and of a future in a function that Python calls" do
    me = self()

    Py.register(
      "telemetry_starts",
      fn ->
        Py.cast(:math, :sqrt, [1], on: @pool)
        send(me, {:future, Py.await(Py.async_call(:math, :sqrt, [4], on: @pool))})
        nil
      end,
      owner: self()
    )

    assert Py.call(:erlang, :call, ["telemetry_starts"], on: @pool) == {:ok, nil}
    assert_receive {:future, {:ok, 2.0}}
    assert_receive {:telemetry, [:py, :callback, :start], _, %{telemetry_span_context: callback}}

    for _ <- 1..2 do
      assert_receive {:telemetry, [:py, :call, :start], _, %{name: :sqrt} = facts}, 5_000
      assert facts.parent_span_context == callback
    end

    # The cast has ended before its pool does.
    eventually(fn -> :sys.get_state(Py.Cast) == %{} end)
  end

  test "events of Python's own" do
    measurements = %{count: 3, duration: 1.5}

    assert Py.call(:erlang, :telemetry, [["py", "pool", "info"], measurements, %{name: "n"}],
             on: @pool
           ) == {:ok, nil}

    assert_received {:telemetry, [:py, :pool, :info], ^measurements, %{name: "n"}}

    code =
      "import erlang\nerlang.telemetry(('py', erlang.Atom('info')), metadata={'name': {'x': 1}})"

    assert Py.exec(code, %{}, on: @pool) == :ok
    assert_received {:telemetry, [:py, :info], %{}, %{name: %{"x" => 1}}}

    for {arguments, type, part} <- [
          {"['py', 'no atom of ' + 'this name']", "ValueError", "no atom of this name"},
          {"['py'], {'no measure of ' + 'this name': 1}", "ValueError",
           "no measure of this name"},
          {"['py'], {}, {'no key of ' + 'this name': 1}", "ValueError", "no key of this name"},
          {"['py', 1]", "ValueError", "1"},
          {"'py'", "TypeError", "expects the names of an event"},
          {"['py'], [1]", "TypeError", "expects measurements and metadata (dict), got list"},
          {"['py'], {'count': '\\ud800'}", "TypeError", "surrogates"}
        ] do
      error = error(Py.eval("import erlang\nerlang.telemetry(#{arguments})", %{}, on: @pool))
      assert {error.type, error.message =~ part} == {type, true}, inspect(error)
    end

    assert_raise ArgumentError, fn -> String.to_existing_atom("no key of " <> "this name") end
    assert emitted() |> Enum.reject(&match?({[:py, :call, _], _, _}, &1)) == []
  end

  test "what Python makes up harms nobody" do
    output = Process.whereis(Py.Output)

    for made_up <- [
          "1, 2",
          "('span', 1, 2), None",
          "(erlang.Atom('span'), 1, 2), 3",
          "None, None"
        ] do
      code =
        "import erlang\nerlang.send('Elixir.Py.Output', (erlang.Atom('py_tell'), #{made_up}))"

      assert Py.exec(code, %{}, on: @pool) == :ok
    end

    Py.Output.flush()
    assert Process.whereis(Py.Output) == output
  end

  test "what is no name of a span" do
    assert error(Py.eval("import erlang\nerlang.span(1)", %{}, on: @pool)).type == "TypeError"
    code = "import erlang\nwith erlang.span('x', y='\\ud800'): pass"
    assert error(Py.eval(code, %{}, on: @pool)).type == "TypeError"
    events = for {[:py, :span | _] = event, _, _} <- emitted(), do: event
    assert events == []
  end

  @tag own_vm: true, on: [:thread]
  test "a call inline emits without waiting" do
    code = "import erlang\nwith erlang.span('inline'): erlang.telemetry(['py', 'info'])"
    assert Py.exec(code, %{}, on: @pool) == :ok
    emitted()

    for _ <- 1..10 do
      opens(@pool)
      assert Py.exec(code, %{}, on: @pool, inline: true) == :ok
      Py.Output.flush()
      events = for {event, _, _} <- emitted(), hd(tl(event)) != :call, do: event
      assert events == [[:py, :span, :start], [:py, :info], [:py, :span, :stop]]
    end
  end

  test "callbacks" do
    me = self()
    {:ok, -3} = Py.call(:builtins, :max, [[-3, 2]], kwargs: [key: &abs/1], on: @pool)
    assert_receive {:telemetry, [:py, :callback, :start], times, facts}
    assert keys(times) == [:monotonic_time, :system_time]
    assert %{function: function, arity: 1, caller: ^me} = facts
    assert is_function(function, 1)
    assert_receive {:telemetry, [:py, :callback, :stop], %{duration: duration}, ^facts}
    assert duration >= 0

    Py.register("telemetry_fails", fn _ -> raise "no" end, owner: self())
    {:error, _} = Py.eval("import erlang; erlang.telemetry_fails(1)", %{}, on: @pool)
    assert_receive {:telemetry, [:py, :callback, :exception], %{duration: _}, raised}
    assert %{function: "telemetry_fails", arity: 1, caller: ^me, kind: :error} = raised
    assert %{reason: %RuntimeError{message: "no"}, stacktrace: [_ | _]} = raised
  end

  @tag own_vm: true, on: [:thread]
  test "an inline call that takes too long, and one that does not" do
    options = [on: @pool, inline: true]
    Py.call(:math, :sqrt, [16], on: @pool)
    assert {_times, _facts} = stopped()
    eventually(fn -> Py.Pool.info(@pool).inline == :open end)

    # As text it is another function than the one that other tests have overrun with.
    assert {:ok, nil} = Py.call("time", "sleep", [0.02], options)
    assert_receive {:telemetry, [:py, :inline, :overrun], %{duration: duration}, facts}, 1_000
    assert duration >= unit(20)
    assert %{pool: @pool, kind: :call, target: "time", name: "sleep"} = facts
    assert {%{duration: duration}, %{result: nil}} = stopped()
    assert duration >= unit(20)

    assert {:ok, 4.0} = Py.call(:math, :sqrt, [16], options)
    assert {%{run_time: _}, %{result: 4.0}} = stopped()
    assert {:error, error} = Py.call(:math, :sqrt, [-1], options)
    assert {_times, %{reason: :python, error: ^error}} = failed()
    refute_received {:telemetry, [:py, :inline, :overrun], _, _}
  end
end
