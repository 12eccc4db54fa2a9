defmodule Py.Switchboard.Roster do
  @moduledoc false

  # The workers of a pool: who is there, who has least to do, how many are missing, and how long to wait before the next
  # try where they fail.

  alias Py.Switchboard.Dealer
  alias Py.Worker

  @first_delay 100
  @longest_delay 30_000

  # Milliseconds that a worker lives at least, or it died early; so many may do so in a row.
  @early 2_000
  @chances 3

  # Workers that serve or are about to.
  @alive [:starting, :unconnected, :ready]

  defstruct workers: %{},
            wanted: 0,
            next_number: 1,
            # Workers that are to go when a successor is there.
            worn: [],
            failures: 0,
            early_deaths: 0,
            waits?: false,
            # The first failure of a pool that never served.
            failure: nil,
            served?: false,
            last_failure: nil,
            restarts: 0,
            # Of workers that are no more.
            calls: 0,
            # Ports to which there is something to write.
            dirty: []

  @type t :: %__MODULE__{}

  @spec new(non_neg_integer) :: t
  def new(wanted), do: %__MODULE__{wanted: wanted}

  @spec workers(t) :: [Worker.t()]
  def workers(roster), do: Map.values(roster.workers)

  @spec each(t, (Worker.t() -> term)) :: :ok
  def each(roster, fun), do: roster |> workers() |> Enum.each(fun)

  @spec worker(t, port) :: Worker.t()
  def worker(roster, port), do: Map.fetch!(roster.workers, port)

  @spec fetch(t, port) :: {:ok, Worker.t()} | :error
  def fetch(roster, port), do: Map.fetch(roster.workers, port)

  @spec add(t, Worker.t()) :: t
  def add(roster, worker), do: %{put(roster, worker) | next_number: roster.next_number + 1}

  @spec put(t, Worker.t()) :: t
  def put(%{workers: workers} = roster, %{port: port} = worker) do
    dirty = if worker.outgoing == [], do: roster.dirty, else: [port | roster.dirty]
    %{roster | workers: Map.put(workers, port, worker), dirty: dirty}
  end

  @spec update(t, port, (Worker.t() -> Worker.t())) :: t
  def update(%{workers: workers} = roster, port, fun) do
    case workers do
      %{^port => worker} -> %{roster | workers: Map.put(workers, port, fun.(worker))}
      _gone -> roster
    end
  end

  @spec remove(t, Worker.t()) :: t
  def remove(roster, %{port: port} = worker) do
    %{
      roster
      | workers: Map.delete(roster.workers, port),
        dirty: List.delete(roster.dirty, port),
        worn: List.delete(roster.worn, port),
        calls: roster.calls + Worker.calls(worker)
    }
  end

  # --- handing out --------------------------------------------------------------------------------

  @doc "The worker that has least to do and can take a request of this size."
  @spec choose(t, non_neg_integer) :: {:ok, port} | :nobody
  def choose(roster, size) do
    best =
      :maps.fold(
        fn _port, worker, best ->
          if Worker.takes?(worker, size) and (best == nil or worker.load < best.load),
            do: worker,
            else: best
        end,
        nil,
        roster.workers
      )

    if best, do: {:ok, best.port}, else: :nobody
  end

  @spec give(t, port, iodata, non_neg_integer) :: t
  def give(%{workers: workers, dirty: dirty} = roster, port, frame, size) do
    %{^port => worker} = workers
    dirty = if worker.outgoing == [], do: [port | dirty], else: dirty
    %{roster | workers: %{workers | port => Worker.give(worker, frame, size)}, dirty: dirty}
  end

  @doc "What the workers can take, for a batch of requests."
  @spec places(t) :: [Dealer.place()]
  def places(roster) do
    for {port, %{stage: :ready, crowded: false} = worker} <- roster.workers,
        do: {worker.load, worker.bytes, port, [], 0}
  end

  @doc "Notes what was put there."
  @spec fill(t, [Dealer.place()]) :: t
  def fill(roster, places), do: Enum.reduce(places, roster, &fill_place/2)

  defp fill_place({_load, _bytes, _port, _frames, 0}, roster), do: roster

  defp fill_place({load, bytes, port, frames, count}, %{workers: workers} = roster) do
    %{^port => worker} = workers
    outgoing = [worker.outgoing | frames]
    worker = %{worker | load: load, bytes: bytes, calls: worker.calls + count, outgoing: outgoing}
    %{roster | workers: %{workers | port => worker}, dirty: [port | roster.dirty]}
  end

  @doc "Notes that a worker has so many requests of so many bytes less."
  @spec relieve(t, port, non_neg_integer, non_neg_integer) :: t
  def relieve(roster, _port, 0, _size), do: roster

  def relieve(%{workers: workers} = roster, port, count, size) do
    %{^port => worker} = workers
    worker = %{worker | load: worker.load - count, bytes: worker.bytes - size}
    %{roster | workers: %{workers | port => worker}}
  end

  @spec flush(t) :: t
  def flush(%{dirty: []} = roster), do: roster

  def flush(roster) do
    Enum.reduce(roster.dirty, %{roster | dirty: []}, &flush(&2, &1))
  end

  defp flush(%{workers: workers} = roster, port) do
    case workers do
      %{^port => worker} -> put(roster, Worker.flush(worker))
      _gone -> roster
    end
  end

  @doc "The ports of the workers that serve."
  @spec serving(t) :: [port]
  def serving(roster),
    do: for(worker <- workers(roster), worker.stage in [:ready, :draining], do: worker.port)

  # --- how many there are -------------------------------------------------------------------------

  @spec complete?(t) :: boolean
  def complete?(roster), do: count(roster, [:ready]) >= roster.wanted

  @doc "How many are to be started now."
  @spec missing(t) :: non_neg_integer
  def missing(%{waits?: true}), do: 0
  def missing(roster), do: max(roster.wanted + length(roster.worn) - count(roster, @alive), 0)

  @doc "Changes how many there are to be; those too many go when they are done."
  @spec resize(t, pos_integer) :: t
  def resize(roster, wanted) do
    roster = %{roster | wanted: wanted}
    surplus = count(roster, @alive) - wanted - length(roster.worn)

    roster
    |> workers()
    |> Enum.filter(&(&1.stage in @alive))
    |> Enum.sort_by(&{&1.stage == :ready, &1.load})
    |> Enum.take(max(surplus, 0))
    |> Enum.reduce(roster, fn worker, roster ->
      update(roster, worker.port, &%{&1 | stage: :draining})
    end)
  end

  defp count(roster, stages), do: Enum.count(workers(roster), &(&1.stage in stages))

  # --- replacing ----------------------------------------------------------------------------------

  @doc "Notes workers whose successors are to be started."
  @spec replace(t, [port]) :: t
  def replace(roster, worn), do: %{roster | worn: Enum.uniq(worn ++ roster.worn)}

  @doc "Takes one that is worn out of service, where there is one."
  @spec retire(t) :: {Worker.t() | nil, t}
  def retire(%{worn: []} = roster), do: {nil, roster}

  def retire(%{worn: [port | worn]} = roster) do
    if count(roster, [:ready]) > roster.wanted do
      roster = update(%{roster | worn: worn}, port, &%{&1 | stage: :draining})
      {worker(roster, port), roster}
    else
      {nil, roster}
    end
  end

  @spec draining(t) :: [port]
  def draining(roster),
    do: for(worker <- workers(roster), worker.stage == :draining, do: worker.port)

  # --- failing ------------------------------------------------------------------------------------

  @spec served(t) :: t
  def served(roster), do: %{roster | failures: 0, served?: true}

  @spec patient(t) :: t
  def patient(roster), do: %{roster | waits?: false}

  @doc "A worker did not come to serve: after how many milliseconds the next try is, if there is one."
  @spec failed(t, Py.Error.t()) :: {pos_integer | nil, t}
  def failed(%{served?: false, wanted: wanted} = roster, error)
      when wanted > 0 and roster.failure == nil,
      do: {nil, %{roster | failure: error, last_failure: error, waits?: true}}

  def failed(%{waits?: true} = roster, error), do: {nil, %{roster | last_failure: error}}

  def failed(roster, error) do
    {delay(roster.failures),
     %{roster | failures: roster.failures + 1, waits?: true, last_failure: error}}
  end

  @doc """
  A worker that served has died. It is replaced at once, unless one after the other dies as soon as it serves and without
  anything to do: then the next try waits, for as long as the first of the two says.
  """
  @spec died(t, Worker.t(), Py.Error.t()) :: {pos_integer | nil, t}
  def died(roster, worker, error) do
    roster = %{roster | restarts: roster.restarts + 1, last_failure: error}
    early? = Worker.calls(worker) == 0 and Worker.now() - worker.started < @early
    deaths = if early?, do: roster.early_deaths + 1, else: 0
    roster = %{roster | early_deaths: deaths}

    if deaths > @chances and not roster.waits?,
      do: {delay(deaths - @chances - 1), %{roster | waits?: true}},
      else: {nil, roster}
  end

  defp delay(failures), do: min(Bitwise.bsl(@first_delay, min(failures, 16)), @longest_delay)
end
