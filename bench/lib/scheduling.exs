defmodule Py.Bench.Scheduling do
  @moduledoc "R1: what others in the node feel of Python at work."

  alias Py.Bench.{Case, Measure}

  @burners 8
  @milliseconds 500
  @tail [50, 99, 99.9, 100]

  def cases do
    [
      loaded("R1 ping", "us", "two processes ping", fn -> ping() end),
      loaded("R1 dirty job", "us", "the least job on a dirty CPU scheduler", fn -> dirty_job() end),
      loaded("R1 phash2", "ms", "`phash2` of a list of a million", fn -> phash2() end),
      loaded("R1 collection", "ms", "a process with 40 MB collects", fn -> collection() end),
      %Case{
        id: "R1 background",
        unit: "us",
        what: "two processes ping; a Python thread runs, others call `math.sqrt`",
        ways: [
          {"queue", fn -> beside_callers([]) end},
          {"inline", fn -> beside_callers(inline: true) end}
        ],
        compare: :added
      }
    ]
  end

  defp loaded(id, unit, what, measure) do
    %Case{
      id: id,
      unit: unit,
      what: what <> "; loaded: #{@burners} burn CPU in Python",
      ways: [{"idle", measure}, {"loaded", fn -> beside_burners(measure) end}],
      compare: :added
    }
  end

  defp beside_burners(measure) do
    beside(@burners, fn -> {:ok, nil} = Py.call(:py_bench, :burn, [0.02]) end, measure)
  end

  defp beside_callers(options) do
    Py.call!(:py_bench, :start_background)
    # As many as can all be stuck at once if a call on a scheduler waits for the GIL.
    callers = System.schedulers_online()
    call = fn -> {:ok, 4.0} = Py.call(:math, :sqrt, [16.0], options) end
    figures = beside(callers, call, fn -> ping() end)
    Py.call!(:py_bench, :stop_background)
    figures
  end

  # Each is asked to stop and waited for: nothing of one way is left when the next one begins.
  defp beside(count, fun, measure) do
    workers = for _ <- 1..count, do: Task.async(fn -> until_told(fun) end)
    Process.sleep(50)
    figures = measure.()
    Enum.each(workers, &send(&1.pid, :stop))
    Task.await_many(workers, 60_000)
    figures
  end

  defp until_told(fun) do
    fun.()

    receive do
      :stop -> :ok
    after
      0 -> until_told(fun)
    end
  end

  defp ping do
    peer = spawn_link(&pong/0)
    Measure.latency_over(fn -> pinged(peer) end, @tail, @milliseconds)
  end

  defp pong do
    receive do
      {from, message} -> send(from, message)
    end

    pong()
  end

  defp pinged(peer) do
    send(peer, {self(), :ping})
    receive do: (:ping -> :ok)
  end

  # The only function of OTP that does nothing but this; ERTS has it for its own tests.
  defp dirty_job do
    Measure.latency(fn -> :erts_debug.dirty_cpu(:scheduler, :type) end, @tail, 5_000)
  end

  defp phash2 do
    numbers = Enum.to_list(1..1_000_000)
    slowest(fn -> :erlang.phash2(numbers) end)
  end

  # A heap of that size is collected on a dirty CPU scheduler.
  defp collection do
    Measure.apart(fn ->
      held = Enum.to_list(1..2_500_000)
      figures = slowest(fn -> :erlang.garbage_collect() end)
      true = length(held) > 0
      figures
    end)
  end

  defp slowest(fun) do
    times = for _ <- 1..10, do: Measure.milliseconds(fun)
    [{"p50", Measure.percentile(times, 50)}, {"max", Enum.max(times)}]
  end
end
