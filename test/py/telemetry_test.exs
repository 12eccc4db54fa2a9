defmodule Py.TelemetryTest do
  use Py.Case, on: [:thread, :process], pool: false

  @pool :py_telemetry

  setup context do
    start_supervised!({Py.Pool, [name: @pool] ++ Py.Case.options(context)})
    :telemetry.listen(self())
    on_exit(fn -> :telemetry.listen(nil) end)
  end

  @asked [:kind, :name, :pool, :target]

  defp keys(map), do: map |> Map.keys() |> Enum.sort()

  defp started do
    assert_receive {:telemetry, [:py, :call, :start], measurements, metadata}, 5_000
    assert keys(measurements) == [:monotonic_time, :system_time]
    assert keys(metadata) == @asked
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
      asked = %{pool: @pool, kind: kind, target: target, name: name}
      assert started() == asked
      assert {_times, facts} = stopped()
      assert facts == Map.put(asked, :result, result)
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
    assert facts == %{pool: @pool, kind: :call, target: "time", name: "sleep"}
    assert {%{duration: duration}, %{result: nil}} = stopped()
    assert duration >= unit(20)

    assert {:ok, 4.0} = Py.call(:math, :sqrt, [16], options)
    assert {%{run_time: _}, %{result: 4.0}} = stopped()
    assert {:error, error} = Py.call(:math, :sqrt, [-1], options)
    assert {_times, %{reason: :python, error: ^error}} = failed()
    refute_received {:telemetry, [:py, :inline, :overrun], _, _}
  end
end
