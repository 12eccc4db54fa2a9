defmodule Py.StressTest do
  # Random traffic for PY_STRESS_SECONDS (3), from PY_STRESS_SEED (ExUnit's own seed): make stress. In a VM of its own:
  # it counts atoms, processes and threads.
  use Py.Case, on: [:thread, :process]

  @moduletag :own_vm
  @moduletag timeout: :infinity

  setup do
    # Every cast that fails is logged, and most of these are meant to.
    Logger.put_module_level(Py.Cast, :none)
    on_exit(fn -> Logger.delete_module_level(Py.Cast) end)
  end

  defp seconds, do: "PY_STRESS_SECONDS" |> System.get_env("3") |> String.to_integer()

  defp seed do
    case System.get_env("PY_STRESS_SEED") do
      nil -> ExUnit.configuration()[:seed]
      seed -> String.to_integer(seed)
    end
  end

  # Of worker processes one, with as many threads: the Python side is one story.
  defp start(kind) do
    size = if kind == :thread, do: [size: 4], else: [size: 1, concurrency: 4]
    options = [name: :py_stress, in: kind, max_queue: 500, init: Py.Stress.init()]
    start_supervised!({Py.Pool, options ++ size})
    :py_stress
  end

  defp counts do
    %{
      atoms: :erlang.system_info(:atom_count),
      processes: length(Process.list()),
      threads: length(File.ls!("/proc/self/task")),
      ports: length(Port.list())
    }
  end

  test "every request has one answer, and it is its own", %{in: kind} do
    pool = start(kind)
    seed = seed()
    # Modules, atoms and threads that come with the first request of each kind.
    first = Py.Stress.run(pool, seconds: 1, seed: seed + 1)
    assert {first.violations, seed} == {[], seed}
    :ok = exec(pool, "started.clear()")
    before = counts()
    report = Py.Stress.run(pool, seconds: seconds(), seed: seed)
    if seconds() > 3, do: IO.inspect(report, label: "stress", limit: 200)

    assert {report.violations, seed} == {[], seed}
    # That there was traffic of every kind: a seed that tests nothing is no test.
    for outcome <- [
          :returned,
          :raised,
          :exited,
          :decode,
          :encode,
          :timeout,
          :cancelled,
          :overloaded
        ],
        do:
          assert(
            {outcome, seed, Map.get(report.outcomes, outcome, 0) > 0} == {outcome, seed, true}
          )

    eventually(fn -> counts().processes <= before.processes end)
    # Of callers that were killed, of answers that nobody waited for.
    :erlang.garbage_collect()
    eventually(fn -> eval(pool, "things()") == {:ok, 0} end)
    eventually(fn -> :sys.get_state(Py.Cast) == %{} end)
    later = counts()
    if seconds() > 3, do: IO.inspect({before, later}, label: "before and after")
    assert {later.atoms - before.atoms < 100, seed} == {true, seed}
    assert {later.ports, seed} == {before.ports, seed}

    # The pool's four and those that take over from one that blocks; a thread is never given up for these sleeps.
    assert {later.threads - before.threads <= 8, seed} == {true, seed}

    if kind == :thread,
      do: assert(%{retired: 0, size: 4} = Py.Pool.info(pool)),
      else: assert(%{restarts: 0, size: 1} = Py.Pool.info(pool))

    assert call(pool, :math, :sqrt, [4]) == {:ok, 2.0}
  end
end
