defmodule Py.StuckTest do
  # Threads that sit in C cannot be ended. In a BEAM of its own, which they stay with.
  use ExUnit.Case, async: false

  alias Py.Child

  # What is left of a burst belongs to no pool that serves. The one more that sleeps takes Python's main thread, which
  # comes back from everything.
  @start ~S"""
  {:ok, _} = Application.ensure_all_started(:py)
  Py.eval!("1")
  sleep = fn pool -> Py.async_call(:time, :sleep, [600], on: pool, timeout: :infinity) end
  until = fn until, condition -> unless condition.(), do: (Process.sleep(5); until.(until, condition)) end

  burst = fn size, grace ->
    {:ok, pid} = Py.Pool.start_link(name: Own, size: size, grace: grace)
    for _ <- 1..size, do: sleep.(Own)
    until.(until, fn -> Py.Pool.info(Own).running == size end)
    GenServer.stop(pid)
  end

  tell = fn
    {:error, error} -> IO.puts("#{error.kind}: #{error.message}")
    result -> IO.inspect(result)
  end
  """

  @halt "IO.puts(\"ready\"); System.halt(0)"

  defp run(code), do: Child.run(@start <> code <> "\n" <> @halt).output

  test "pools that were stopped leave the threads of the others alone" do
    output =
      run("""
      for n <- 1..2 do
        for _ <- 1..5, do: burst.(5, 1_000)
        until.(until, fn -> Py.Pool.info(Py).retired >= 20 * n end)
      end

      sleep.(Py)
      until.(until, fn -> Py.Pool.info(Py).running == 1 end)
      tell.(Py.eval("1", %{}, timeout: 10_000))
      """)

    assert output =~ "{:ok, 1}\n"
  end

  test "and so do those that were just stopped, whose threads are still given time to end" do
    output =
      run("""
      for _ <- 1..5, do: burst.(10, 600_000)
      sleep.(Py)
      until.(until, fn -> Py.Pool.info(Py).running == 1 end)
      tell.(Py.eval("1", %{}, timeout: 10_000))
      """)

    assert output =~ "{:ok, 1}\n"
  end

  test "the application is stopped while calls sleep, and started, again and again" do
    output =
      run("""
      for n <- 1..10 do
        {:ok, _} = Application.ensure_all_started(:py)
        for _ <- 1..7, do: sleep.(Py)
        until.(until, fn -> Py.Pool.info(Py).running == 7 end)
        {:ok, ^n} = Py.eval("n", %{n: n}, timeout: 10_000)
        :ok = Application.stop(:py)
      end

      IO.puts("ten times")
      """)

    assert output =~ "ten times\n"
  end

  test "beyond 256 threads that are left behind, a call that finds none free is :overloaded" do
    output =
      run("""
      burst.(270, 0)
      until.(until, fn -> Py.Pool.info(Py).retired > 260 end)
      until.(until, fn -> Py.eval("1") == {:ok, 1} end)
      sleeping = [sleep.(Py), sleep.(Py)]
      until.(until, fn -> Py.Pool.info(Py).running == 1 end)
      [waited] = sleeping |> Enum.map(&Py.yield(&1, 1_000)) |> Enum.filter(& &1)
      tell.(waited)
      tell.(Py.eval("1"))
      Enum.each(sleeping, &Py.cancel/1)
      until.(until, fn -> Py.eval("1") == {:ok, 1} end)
      IO.puts("served")
      """)

    assert [waited, refused, "served" | _] = String.split(output, "\n")
    assert waited =~ ~r/^overloaded: .*sit in C code of calls that are over/
    assert refused =~ ~r/^overloaded: Py gets no thread: \d+ of the node sit in C code/
  end
end
