defmodule Py.Switchboard.Report do
  @moduledoc false

  # What `Py.Pool.info/1` tells of a pool of processes. What costs something is worked out here, when somebody asks.

  alias Py.Switchboard.{Request, Roster}
  alias Py.Worker
  alias Py.Worker.Frame

  @spec info(map) :: map
  def info(%{options: options, roster: roster} = state) do
    requests = for {id, %{question?: false} = request} <- state.requests, do: {id, request}
    {awaiting, others} = Enum.split_with(requests, fn {_id, request} -> request.awaiting? end)
    running = running(others, options.concurrency)
    workers = Enum.sort_by(Roster.workers(roster), & &1.number)

    %{
      size: options.size,
      concurrency: options.concurrency,
      max_queue: options.max_queue,
      queued: length(others) - length(running),
      running: length(running),
      awaiting: length(awaiting),
      running_calls: running_calls(awaiting ++ running),
      calls: roster.calls + Enum.sum(Enum.map(workers, & &1.calls)),
      restarts: roster.restarts,
      last_failure: roster.last_failure,
      prefork: Py.Worker.Template.describe(state.template),
      workers: Enum.map(workers, &worker_info/1)
    }
  end

  # A worker has requests in advance; those wait as well, but there.
  defp running(requests, concurrency) do
    requests
    |> Enum.filter(fn {_id, request} -> request.port != nil end)
    |> Enum.sort()
    |> Enum.group_by(fn {_id, request} -> request.port end)
    |> Enum.flat_map(fn {_port, had} -> Enum.take(had, concurrency) end)
  end

  defp running_calls(requests) do
    now = Frame.now()

    requests
    |> Enum.sort_by(fn {id, request} -> {request.since || now, id} end)
    |> Enum.map(fn {_id, request} ->
      age_ms = div(now - (request.since || now), 1_000_000)
      %{function: Request.subject(request), age_ms: age_ms, awaiting: request.awaiting?}
    end)
  end

  defp worker_info(worker) do
    %{
      os_pid: worker.os_pid,
      stage: worker.stage,
      rss: Worker.rss(worker),
      calls: worker.calls,
      running: worker.load,
      awaiting: worker.awaiting,
      age_ms: Worker.now() - worker.started
    }
  end
end
