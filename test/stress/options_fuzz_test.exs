defmodule Py.OptionsFuzzTest do
  # Options and places of random kinds, for PY_FUZZ_SECONDS (2): a result, a %Py.Error{} or an ArgumentError that says
  # what is wrong, soon and without a message left behind.
  use Py.Case, on: [:thread]

  import Py.Fuzz

  @moduletag :own_vm
  @moduletag timeout: :infinity

  @keys [:kwargs, :timeout, :on, :return, :inline, :file, :line, :nope, "timeout", 5]

  # What a value is compared with is not what it is: each of these is wrong for most options and right for some.
  @values [nil, true, false, 0, 1, -1, 50, 4_294_967_295, 4_294_967_296, 1.5, :infinity, :never] ++
            [:nope, {:nope, :nonode@nohost}, {:nope, :nobody@nowhere}, {1, 2}, "", "Py", <<255>>] ++
            ["a\0b", :value, :object, [], [1], [a: 1], [{"a", 1}], [{:a, 1} | :b], %{}, %{a: 1}] ++
            [%{"a" => 1}, %{1 => 2}, ~c"abc", <<1::3>>, Bitwise.bsl(1, 70)]

  setup do
    # Casts that fail are logged.
    Logger.put_module_level(Py.Cast, :none)
    on_exit(fn -> Logger.delete_module_level(Py.Cast) end)
  end

  test "random options are taken or refused, and never anything else", %{pool: pool} do
    stop_at = System.monotonic_time(:millisecond) + seconds() * 1_000
    {done, seen} = check(pool, first(), stop_at, 0, MapSet.new())
    if seconds() > 2, do: IO.puts("options: #{done} rounds from #{first()}")
    # That some were taken, and some refused.
    assert MapSet.subset?(MapSet.new([:ok, :argument_error, :no_pool]), seen)
    assert call(pool, :math, :sqrt, [4]) == {:ok, 2.0}
  end

  defp check(pool, number, stop_at, done, seen) do
    :rand.seed(:exsss, number)
    {ms, outcome} = timed(fn -> perform(Enum.random(1..12), pool, drawn(pool)) end)
    assert {number, outcome != :odd, ms < 6_000} == {number, true, true}
    assert {number, Process.info(self(), :messages)} == {number, {:messages, []}}
    seen = MapSet.put(seen, outcome)

    if System.monotonic_time(:millisecond) < stop_at,
      do: check(pool, number + 1, stop_at, done + 1, seen),
      else: {done + 1, seen}
  end

  defp perform(which, pool, options) do
    outcome(run(which, pool, options))
  rescue
    error in ArgumentError ->
      assert error |> Exception.message() |> String.valid?()
      :argument_error
  end

  defp run(1, _pool, options), do: Py.call(:builtins, :abs, [-1], options)
  defp run(2, _pool, options), do: Py.eval("1", %{}, options)
  defp run(3, _pool, options), do: Py.exec("1", %{}, options)
  defp run(4, _pool, options), do: Py.getattr(:math, :pi, options)
  defp run(5, _pool, options), do: Py.gather([{:builtins, :abs, [-1]}], options)
  defp run(6, _pool, options), do: Py.cast(:builtins, :abs, [-1], options)
  defp run(7, _pool, options), do: Py.reload(:colorsys, options)

  defp run(8, _pool, options),
    do: Py.async_call(:builtins, :abs, [-1], options) |> Py.await(5_000)

  defp run(9, _pool, options), do: Py.async_call(:builtins, :abs, [-1], options) |> Py.cancel()
  defp run(10, _pool, options), do: Py.call(:builtins, :abs, options)
  defp run(11, pool, _options), do: Py.call(value(), value(), [value()], on: pool, timeout: 1_000)
  defp run(12, pool, _options), do: Py.eval(value(), value(), on: pool, timeout: 1_000)

  defp outcome([result]), do: outcome(result)
  defp outcome(:ok), do: :ok
  defp outcome({:ok, _value}), do: :ok

  defp outcome({:error, %Py.Error{kind: kind} = error}) do
    assert error |> Exception.message() |> String.valid?()
    kind
  end

  defp outcome(_other), do: :odd

  defp drawn(pool) do
    case Enum.random(1..12) do
      1 -> value()
      2 -> [{Enum.random(@keys), value()} | value()]
      _ -> for _ <- 1..Enum.random(1..4), do: option(pool, Enum.random(@keys))
    end
  end

  defp option(pool, :on), do: {:on, Enum.random([pool, pool, value()])}
  defp option(_pool, key), do: {key, value()}

  defp value, do: Enum.random(@values)
end
