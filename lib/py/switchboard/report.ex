defmodule Py.Switchboard.Report do
  @moduledoc false

  # What `Py.Pool.info/1` tells of a pool of processes. What costs something is worked out here, when somebody asks.

  alias Py.Switchboard.{Request, Roster}
  alias Py.Worker
  alias Py.Worker.Frame

  @spec info(map) :: map
  def info(%{options: options, roster: roster} = state) do
    {queued, awaiting, handed} = :maps.fold(&sort/3, {0, [], []}, state.requests)
    running = running(handed, options.concurrency)
    workers = Enum.sort_by(Roster.workers(roster), & &1.number)

    %{
      size: options.size,
      concurrency: options.concurrency,
      max_queue: options.max_queue,
      queued: queued + length(handed) - length(running),
      running: length(running),
      awaiting: length(awaiting),
      running_calls: running_calls(awaiting ++ running),
      calls: roster.calls + Enum.sum(Enum.map(workers, &Worker.calls/1)),
      restarts: roster.restarts,
      last_failure: roster.last_failure,
      prefork: Py.Worker.Template.describe(state.template),
      workers: Enum.map(workers, &worker_info/1)
    }
  end

  # There may be many thousands.
  defp sort(_id, %{question?: true}, sorted), do: sorted
  defp sort(_id, %{mode: :over}, sorted), do: sorted
  defp sort(_id, %{port: nil}, {queued, awaiting, handed}), do: {queued + 1, awaiting, handed}

  defp sort(id, %{awaiting?: true} = request, {queued, awaiting, handed}),
    do: {queued, [{id, request} | awaiting], handed}

  defp sort(id, request, {queued, awaiting, handed}),
    do: {queued, awaiting, [{id, request} | handed]}

  # A worker has requests in advance; those wait as well, but there.
  defp running(handed, concurrency) do
    handed
    # Those that came through a lane have numbers of their own, and had begun when they were heard of.
    |> Enum.sort_by(fn {id, request} -> {request.since || :later, id} end)
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
      calls: Worker.calls(worker),
      running: worker.load,
      awaiting: worker.awaiting,
      age_ms: Worker.now() - worker.started
    }
  end
end
