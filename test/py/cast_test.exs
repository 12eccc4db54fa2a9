defmodule Py.CastTest do
  use Py.Case, on: [:thread, :process], pool: false

  import ExUnit.{CaptureIO, CaptureLog}

  @pool :py_cast

  setup context do
    start_supervised!({Py.Pool, [name: @pool] ++ Py.Case.options(context)})
    :ok
  end

  defp idle,
    do: eventually(fn -> :sys.get_state(Py.Cast) == %{} and Py.Pool.info(@pool).queued == 0 end)

  test "it runs, prints to its caller's group leader, and sends nothing" do
    output =
      capture_io(fn ->
        assert Py.cast(:builtins, :print, ["cast"], on: @pool, kwargs: [end: "!"]) == :ok
        idle()
      end)

    assert output == "cast!"
    assert_no_messages()
  end

  @tag pool: [size: 1]
  test "casts of one process run in their order" do
    Py.exec!("import builtins; builtins.py_casts = []", %{}, on: @pool)
    for n <- 1..100, do: Py.cast(:builtins, "py_casts.append", [n], on: @pool)
    casts = fn -> Py.getattr!(:builtins, :py_casts, on: @pool) end
    eventually(fn -> length(casts.()) == 100 end)
    assert casts.() == Enum.to_list(1..100)
  end

  test "a failure is logged" do
    log =
      capture_log(fn ->
        Py.cast(:builtins, :chr, [-1], on: @pool)
        idle()
      end)

    assert log =~ "Py.cast of builtins.chr failed: ValueError: chr() arg not in range"
  end

  test "so are an unknown pool and an overload" do
    log =
      capture_log(fn ->
        Py.cast(:math, :sqrt, [1], on: :py_no_such_pool)
        eventually(fn -> Process.info(self(), :message_queue_len) == {:message_queue_len, 0} end)
        Process.sleep(50)
      end)

    assert log =~ "there is no such pool: :py_no_such_pool"
  end

  @tag pool: [size: 1, max_queue: 1]
  test "an overload never blocks the caller" do
    blocker = Py.async_call(:time, :sleep, [60], on: @pool)
    eventually(fn -> Py.Pool.info(@pool).running == 1 end)

    log =
      capture_log(fn ->
        for _ <- 1..5, do: assert(Py.cast(:math, :sqrt, [1], on: @pool) == :ok)
        :sys.get_state(Py.Cast)
      end)

    assert log |> String.split("the pool is overloaded") |> length() == 5
    Py.cancel(blocker)
    idle()
  end

  test "wrong options raise in the caller" do
    assert_raise ArgumentError, fn -> Py.cast(:math, :sqrt, [1], return: :object) end
  end
end
