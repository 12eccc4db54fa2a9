defmodule Py.FutureTest do
  use Py.Case, on: [:thread, :process], pool: :default

  test "the message is {:py_result, ref, result}" do
    %Py.Future{ref: ref, owner: owner, pool: Py} = Py.async_call(:math, :sqrt, [16])
    assert owner == self()
    assert_receive {:py_result, ^ref, {:ok, 4.0}}, 5_000
  end

  test "yield gives nil while there is no result, and never cancels" do
    future = Py.async_call(:time, :sleep, [0.2])
    assert Py.yield(future, 0) == nil
    assert Py.yield(future, 10) == nil
    assert Py.yield(future) == {:ok, nil}
    assert_raise ArgumentError, ~r/awaited or cancelled already/, fn -> Py.yield(future, 0) end
  end

  test "a result is given once" do
    future = Py.async_call(:math, :sqrt, [16])
    assert Py.await(future) == {:ok, 4.0}
    assert_raise ArgumentError, ~r/awaited or cancelled already/, fn -> Py.await(future) end
    assert Py.cancel(future) == :ok
  end

  test "another process can neither await nor cancel" do
    future = Py.async_call(:math, :sqrt, [16])

    for fun <- [&Py.await/1, &Py.yield/1, &Py.cancel/1] do
      task =
        Task.async(fn -> assert_raise(ArgumentError, ~r/belongs to/, fn -> fun.(future) end) end)

      assert %ArgumentError{} = Task.await(task)
    end

    assert Py.await(future) == {:ok, 4.0}
  end

  test "cancel of a call whose message was received by hand" do
    future = Py.async_call(:math, :sqrt, [16])
    ref = future.ref
    assert_receive {:py_result, ^ref, {:ok, 4.0}}, 5_000
    assert Py.cancel(future) == :ok
  end

  test "await_many has one deadline for all, and cancels what is late" do
    futures = for _ <- 1..3, do: Py.async_call(:time, :sleep, [60])
    quick = Py.async_call(:math, :sqrt, [16])

    eventually(fn ->
      match?({:message_queue_len, 1}, Process.info(self(), :message_queue_len))
    end)

    results = Py.await_many(futures ++ [quick], 100)
    assert Enum.map(Enum.take(results, 3), &error(&1).kind) == [:timeout, :timeout, :timeout]
    assert List.last(results) == {:ok, 4.0}
    assert_no_messages()
  end

  test "await_many! raises the first error after all have ended" do
    futures = [
      Py.async_call(:math, :sqrt, [16]),
      Py.async_call(:builtins, :chr, [-1]),
      Py.async_call(:math, :nope, [])
    ]

    assert_raise Py.Error, ~r/arg not in range/, fn -> Py.await_many!(futures) end
    assert_no_messages()
  end

  test "gather gives each its result, and checks all before it starts one" do
    assert [{:ok, 4.0}, {:error, %Py.Error{type: "ValueError"}}] =
             Py.gather([{:math, :sqrt, [16]}, {:math, :sqrt, [-1]}])

    assert Py.gather([]) == []
    assert_raise ArgumentError, fn -> Py.gather([{:math, :sqrt, [16]}, {:math, :sqrt, 16}]) end
    assert_no_messages()
  end

  test "a refusal arrives like a result" do
    future = Py.async_call(:math, :sqrt, [16], on: :py_nobody)
    ref = future.ref
    assert_receive {:py_result, ^ref, {:error, %Py.Error{kind: :no_pool}}}

    assert error(Py.await(Py.async_call(:math, :sqrt, [1], on: :py_nobody))).kind == :no_pool
    assert error(Py.cancel(Py.async_call(:math, :sqrt, [1], on: :py_nobody))).kind == :no_pool

    far = [return: :object, on: {Py, :nowhere@nohost}]
    assert error(Py.await(Py.async_call(:math, :sqrt, [1], far))).kind == :not_available
    assert error(Py.call(:math, :sqrt, [1], far)).kind == :not_available

    assert_no_messages()
  end

  test "when the owner dies its call ends", %{in: kind} do
    pool = :py_future_owner
    start_supervised!({Py.Pool, name: pool, in: kind})

    owner =
      spawn(fn ->
        Py.async_call(:time, :sleep, [60], on: pool, timeout: :infinity)
        Process.sleep(:infinity)
      end)

    eventually(fn -> Py.Pool.info(pool).running == 1 end)
    Process.exit(owner, :kill)
    eventually(fn -> Py.Pool.info(pool).running == 0 end)
  end
end
