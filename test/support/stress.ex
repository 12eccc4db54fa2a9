defmodule Py.Stress do
  @moduledoc """
  Random traffic on a pool, and what both sides saw of it.

      report = Py.Stress.run(pool, seconds: 3, seed: 1)
      report.violations

  Every request carries a number of its own. Elixir keeps `{number, kind, outcome}` of each, Python the numbers that it
  started; `violations` are the numbers for which the two stories do not fit, and whatever a mailbox got unasked.
  """

  defstruct [:pool, :seed, :table, :violations, :numbers, :stop]

  @doc "What the pool needs as its `init:`."
  def init do
    """
    import asyncio, gc, threading, time

    started = []

    def note(n):
        started.append((n, threading.get_ident()))

    def echo(n, *rest):
        note(n)
        return n

    def through(n, function):
        note(n)
        return function(n)

    def echo_big(n, numbers):
        note(n)
        return [n, *numbers]

    def nap(n, seconds):
        note(n)
        time.sleep(seconds)
        return n

    def spin(n):
        note(n)
        while True:
            pass

    def fail(n):
        note(n)
        raise ValueError(n)

    def leave(n):
        note(n)
        raise SystemExit(n)

    class Thing:
        def __init__(self, n):
            self.n = n

        def number(self, other=None):
            note(self.n)
            assert other is None or other is self
            return self.n

        def copies(self, count):
            return [Thing(self.n) for _ in range(count)]

    def things():
        gc.collect()
        return sum(type(one) is Thing for one in gc.get_objects())

    def read(n, view):
        note(n)
        assert bytes(view[:4]) == n.to_bytes(4, "big") and len(view) == 70_000
        return view

    def strange(n):
        note(n)
        return [n, '\\ud800']

    async def doze(n, seconds):
        note(n)
        await asyncio.sleep(seconds)
        return n

    async def doze_and_fail(n, seconds):
        note(n)
        await asyncio.sleep(seconds)
        raise ValueError(n)
    """
  end

  # Kind, weight, how it may end. Where `:returned` is missing, a value would be somebody else's.
  @kinds [
    {:call, 10, [:returned]},
    {:inline, 10, [:returned]},
    {:getattr, 2, [:returned]},
    {:big, 1, [:returned]},
    {:nap, 4, [:returned]},
    {:spin, 1, []},
    {:fail, 4, [:raised]},
    {:inline_fail, 2, [:raised]},
    {:leave, 1, [:exited]},
    {:strange, 2, [:decode]},
    {:callback, 4, [:returned]},
    {:slow_callback, 1, [:returned]},
    {:unencodable, 2, [:encode]},
    {:inline_unencodable, 1, [:encode]},
    {:coroutine, 4, [:returned]},
    {:coroutine_fail, 2, [:raised]},
    {:eval, 4, [:returned]},
    {:eval_inline, 4, [:returned]},
    {:eval_await, 4, [:returned]},
    {:await, 4, [:returned]},
    {:impatient_await, 3, [:returned]},
    {:yield, 3, [:returned]},
    {:cancel, 8, [:returned, :cancelled]},
    {:cast, 3, [:cast]},
    {:object, 4, [:returned]},
    {:objects, 2, [:returned]},
    {:buffer, 3, [:returned]},
    {:gather, 2, [:returned]},
    {:burst, 1, [:returned, :cancelled]}
  ]
  @weighted Enum.flat_map(@kinds, fn {kind, weight, _ends} -> List.duplicate(kind, weight) end)
  @ends Map.new(@kinds, fn {kind, _weight, ends} -> {kind, [:timeout, :overloaded | ends]} end)
  @quick [:call, :inline, :eval_inline, :eval]

  # Outcomes that only a request that ran has, and those that only one that did not run has.
  @ran [:returned, :raised, :exited, :decode]
  @never_ran [:overloaded, :encode]

  # How long a caller may take to come home after the traffic has stopped. The longest timeout is 50 ms.
  @home 30_000

  @doc "Traffic for some seconds. Options: `seconds:`, `seed:`, `callers:`."
  def run(pool, options) do
    run = %__MODULE__{
      pool: pool,
      seed: options[:seed],
      table: :ets.new(:requests, [:public, write_concurrency: true]),
      violations: :ets.new(:violations, [:public, :bag]),
      numbers: :atomics.new(1, []),
      stop: :atomics.new(1, [])
    }

    :rand.seed(:exsss, options[:seed])
    callers = Map.new(1..Keyword.get(options, :callers, 300), &start_caller(run, &1))
    stop_at = now() + round(options[:seconds] * 1000)
    {callers, killed} = hunt(run, callers, stop_at, 0)
    :atomics.put(run.stop, 1, 1)
    come_home(run, callers)
    report(run, killed)
  end

  # Kills callers at random moments and puts others in their place.
  defp hunt(run, callers, stop_at, killed) do
    if now() >= stop_at do
      {callers, killed}
    else
      Process.sleep(:rand.uniform(10))
      {monitor, pid} = Enum.random(callers)
      Process.exit(pid, :kill)
      receive(do: ({:DOWN, ^monitor, :process, ^pid, reason} -> check_end(run, pid, reason)))
      callers = Map.delete(callers, monitor)
      {monitor, pid} = start_caller(run, 1_000 + killed)
      hunt(run, Map.put(callers, monitor, pid), stop_at, killed + 1)
    end
  end

  defp come_home(_run, callers) when map_size(callers) == 0, do: :ok

  defp come_home(run, callers) do
    receive do
      {:DOWN, monitor, :process, pid, reason} when is_map_key(callers, monitor) ->
        check_end(run, pid, reason)
        come_home(run, Map.delete(callers, monitor))
    after
      @home -> for {_monitor, pid} <- callers, do: give_up(run, pid)
    end
  end

  defp give_up(run, pid) do
    {:current_stacktrace, stack} = Process.info(pid, :current_stacktrace)
    open = :ets.match(run.table, {:"$1", :"$2", pid})
    Process.exit(pid, :kill)
    violation(run, {:hangs, open, stack})
  end

  defp check_end(_run, _pid, reason) when reason in [:normal, :killed], do: :ok
  defp check_end(run, pid, reason), do: violation(run, {:died, pid, reason})

  defp start_caller(run, number) do
    {pid, monitor} =
      spawn_monitor(fn ->
        :rand.seed(:exsss, {run.seed, number, 0})
        live(run)
      end)

    {monitor, pid}
  end

  defp live(run) do
    if :atomics.get(run.stop, 1) == 1 do
      # Long enough for a reply that should not come.
      Process.sleep(100)
      check_mailbox(run, :end)
    else
      kind = kind()
      request(run, kind)
      check_mailbox(run, kind)
      Process.sleep(pause())
      live(run)
    end
  end

  # A quarter of the time is calm, so that inline calls find the gate open.
  defp kind, do: if(calm?(), do: Enum.random(@quick), else: Enum.random(@weighted))
  defp pause, do: if(calm?(), do: :rand.uniform(300), else: :rand.uniform(200))
  defp calm?, do: rem(div(now(), 250), 4) == 0

  defp check_mailbox(run, kind) do
    case Process.info(self(), :messages) do
      {:messages, []} -> :ok
      {:messages, messages} -> violation(run, {:messages_after, kind, messages})
    end
  end

  defp request(run, :gather) do
    numbers = for _ <- 1..(:rand.uniform(6) + 1), do: number(run, :gather)
    calls = for n <- numbers, do: gathered(n)
    results = Py.gather(calls, on: run.pool, timeout: timeout())
    for {n, result} <- Enum.zip(numbers, results), do: close(run, :gather, n, result)
  end

  defp request(run, :burst) do
    futures =
      for _ <- 1..Enum.random([20, 100, 1000]) do
        n = number(run, :burst)
        {n, Py.async_call(:__main__, :echo, [n], on: run.pool, timeout: timeout())}
      end

    Process.sleep(:rand.uniform(10))
    for {n, future} <- Enum.shuffle(futures), do: close(run, :burst, n, Py.cancel(future))
  end

  defp request(run, kind) do
    n = number(run, kind)
    close(run, kind, n, perform(kind, n, on: run.pool, timeout: timeout()))
  end

  defp gathered(n) do
    Enum.random([{:__main__, :echo, [n]}, {:__main__, "doze", [n, 0.003]}])
  end

  defp perform(:call, n, o), do: Py.call(:__main__, :echo, [n], o)
  defp perform(:inline, n, o), do: Py.call(:__main__, :echo, [n], [inline: true] ++ o)
  defp perform(:big, n, o), do: Py.call(:__main__, :echo_big, [n, big()], o)
  defp perform(:nap, n, o), do: Py.call(:__main__, :nap, [n, seconds()], o)
  defp perform(:spin, n, o), do: Py.call(:__main__, :spin, [n], o)
  defp perform(:fail, n, o), do: Py.call(:__main__, :fail, [n], o)
  defp perform(:inline_fail, n, o), do: Py.call(:__main__, :fail, [n], [inline: true] ++ o)
  defp perform(:leave, n, o), do: Py.call(:__main__, :leave, [n], o)
  defp perform(:strange, n, o), do: Py.call(:__main__, :strange, [n], o)
  defp perform(:unencodable, n, o), do: Py.call(:__main__, :echo, [n, [<<1::3>>]], o)
  defp perform(:callback, n, o), do: Py.call(:__main__, :through, [n, & &1], o)

  defp perform(:slow_callback, n, o) do
    seconds = seconds()

    function = fn n ->
      Process.sleep(trunc(seconds * 1000))
      n
    end

    Py.call(:__main__, :through, [n, function], o)
  end

  defp perform(:inline_unencodable, n, o),
    do: Py.call(:__main__, :echo, [n, [1 | 2]], [inline: true] ++ o)

  defp perform(:coroutine, n, o), do: Py.call(:__main__, :doze, [n, seconds()], o)
  defp perform(:coroutine_fail, n, o), do: Py.call(:__main__, :doze_and_fail, [n, seconds()], o)
  defp perform(:eval, n, o), do: Py.eval("note(n)\nn", %{n: n}, o)
  defp perform(:eval_inline, n, o), do: Py.eval("note(n)\nn", %{n: n}, [inline: true] ++ o)

  defp perform(:eval_await, n, o),
    do: Py.eval("note(n)\nawait asyncio.sleep(s)\nn", %{n: n, s: seconds()}, o)

  # An attribute has no arguments: a call of a function without them stands in, by its dotted name.
  defp perform(:getattr, n, o) do
    with {:ok, "echo"} <- Py.getattr(:__main__, "echo.__name__", o) do
      Py.call(:__main__, "echo.__call__", [n], o)
    end
  end

  # The second request is the one that is counted.
  defp perform(:object, n, o) do
    with {:ok, %Py.Object{} = thing} <- Py.call(:__main__, :Thing, [n], o),
         do: Py.call(thing, :number, [thing], Keyword.take(o, [:timeout]))
  end

  defp perform(:objects, n, o) do
    with {:ok, thing} <- Py.call(:__main__, :Thing, [n], o),
         {:ok, things} <-
           Py.call(thing, :copies, [:rand.uniform(50)], Keyword.take(o, [:timeout])),
         do: Py.call(Enum.random(things), :number)
  end

  defp perform(:buffer, n, o) do
    binary = <<n::32, 0::size(69_996)-unit(8)>>

    with {:ok, same} <- Py.call(:__main__, :read, [n, Py.buffer(binary)], o),
         do: if(same == binary, do: {:ok, n}, else: {:ok, same})
  end

  defp perform(:await, n, o), do: n |> slow(o) |> Py.await()
  defp perform(:impatient_await, n, o), do: n |> slow(o) |> Py.await(:rand.uniform(20))

  defp perform(:yield, n, o) do
    future = slow(n, o)
    Py.yield(future, :rand.uniform(5)) || Py.yield(future, :rand.uniform(5)) || Py.await(future)
  end

  defp perform(:cancel, n, o) do
    future = slow(n, o)
    if :rand.uniform(3) > 1, do: Process.sleep(:rand.uniform(10) - 1)
    result = Py.cancel(future)
    :ok = Py.cancel(future)
    result
  end

  defp perform(:cast, n, o) do
    Py.cast(:__main__, Enum.random([:echo, :fail]), [n], o)
    :cast
  end

  defp slow(n, options) do
    case :rand.uniform(3) do
      1 -> Py.async_call(:__main__, :echo, [n], options)
      2 -> Py.async_call(:__main__, :nap, [n, seconds()], options)
      3 -> Py.async_call(:__main__, :doze, [n, seconds()], options)
    end
  end

  defp timeout, do: :rand.uniform(50)
  defp seconds, do: :rand.uniform(10) / 1000
  defp big, do: Enum.to_list(1..20_000)

  defp number(run, kind) do
    n = :atomics.add_get(run.numbers, 1, 1)
    # Until it has an outcome, a request has its caller there.
    :ets.insert(run.table, {n, kind, self()})
    n
  end

  defp close(run, kind, n, result) do
    outcome = outcome(kind, n, result)
    :ets.insert(run.table, {n, kind, outcome})

    if outcome not in @ends[kind], do: violation(run, {:wrong, kind, n, result})
  end

  defp outcome(:big, n, {:ok, [n | numbers]}), do: if(numbers == big(), do: :returned, else: :bad)
  defp outcome(_kind, n, {:ok, n}), do: :returned
  defp outcome(_kind, _n, :ok), do: :cancelled
  defp outcome(_kind, _n, :cast), do: :cast
  defp outcome(_kind, n, {:error, %Py.Error{kind: :python} = error}), do: raised(n, error)
  defp outcome(_kind, _n, {:error, %Py.Error{kind: kind}}), do: kind
  defp outcome(_kind, _n, _other), do: :bad

  defp raised(n, %{type: type, message: message}) do
    case {type, message == Integer.to_string(n)} do
      {"ValueError", true} -> :raised
      {"SystemExit", true} -> :exited
      _somebody_elses -> :bad
    end
  end

  # What a killed caller asked may have run or not.
  defp report(run, killed) do
    # What was cast is with the pool by then.
    :sys.get_state(Py.Cast)
    idle_after = wait_idle(run, now(), 5_000)
    {:ok, started} = Py.eval("started", %{}, on: run.pool, timeout: 60_000)
    requests = :ets.tab2list(run.table)
    threads = Map.new(started)
    check_started(run, started, threads, requests)

    %{
      seed: run.seed,
      killed: killed,
      requests: length(requests),
      started: length(started),
      inline: count_inline(requests, threads),
      idle_after_ms: idle_after,
      outcomes: Enum.frequencies_by(requests, fn {_n, _kind, outcome} -> name(outcome) end),
      kinds: Enum.frequencies_by(requests, fn {_n, kind, outcome} -> {kind, name(outcome)} end),
      violations: run.violations |> :ets.tab2list() |> Keyword.values()
    }
  end

  defp name(caller) when is_pid(caller), do: :caller_killed
  defp name(outcome), do: outcome

  defp check_started(run, started, threads, requests) do
    twice = Enum.map(started, &elem(&1, 0)) -- Map.keys(threads)
    if twice != [], do: violation(run, {:ran_twice, twice})
    if threads != %{}, do: check_known(run, threads)

    for {n, kind, outcome} <- requests do
      case {is_map_key(threads, n), outcome} do
        {true, outcome} when outcome in @never_ran -> violation(run, {:ran, n, kind, outcome})
        {false, outcome} when outcome in @ran -> violation(run, {:never_ran, n, kind, outcome})
        _fits -> :ok
      end
    end
  end

  defp check_known(run, threads) do
    for {n, _thread} <- threads, not :ets.member(run.table, n), do: violation(run, {:unknown, n})
  end

  # On threads where no queued request ever ran: the schedulers.
  defp count_inline(requests, threads) do
    {inline, queued} =
      requests
      |> Enum.filter(fn {n, _kind, _outcome} -> is_map_key(threads, n) end)
      |> Enum.split_with(fn {_n, kind, _outcome} ->
        kind in [:inline, :inline_fail, :eval_inline]
      end)

    ours = MapSet.new(queued, fn {n, _kind, _outcome} -> threads[n] end)
    Enum.count(inline, fn {n, _kind, _outcome} -> threads[n] not in ours end)
  end

  defp wait_idle(run, since, left) do
    case Py.Pool.info(run.pool) do
      %{queued: 0, running: 0, awaiting: 0} ->
        now() - since

      info when left <= 0 ->
        violation(run, {:busy, info})
        now() - since

      _busy ->
        Process.sleep(10)
        wait_idle(run, since, left - 10)
    end
  end

  defp violation(run, what), do: :ets.insert(run.violations, {:violation, what})
  defp now, do: System.monotonic_time(:millisecond)
end
