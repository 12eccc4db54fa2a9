# A speech synthesiser that stays: each worker process loads its voice once and speaks from then on; text goes in, WAV
# files come out. Then its worker is killed while eight callers talk to it. Run with: mix run examples/speech_server.exs

defmodule SpeechServer do
  use Supervisor

  def start_link(options), do: Supervisor.start_link(__MODULE__, options, name: __MODULE__)

  @impl true
  def init(options) do
    pool = [
      name: SpeechServer.Py,
      in: :process,
      size: 1,
      paths: [Path.expand("python", __DIR__)],
      init: "import speech\nvoice = speech.Voice(#{inspect(options[:voice])})"
    ]

    Supervisor.init([{Py.Pool, pool}], strategy: :one_for_one)
  end

  @doc "The text, spoken: `{:ok, wav}` or `{:error, error}`. Options: `words_per_minute:`, `pitch:`, `timeout:`."
  def say(text, options \\ []) do
    {timeout, kwargs} = Keyword.pop(options, :timeout, 10_000)

    Py.call(:__main__, "voice.say", [text],
      on: SpeechServer.Py,
      kwargs: kwargs,
      timeout: timeout
    )
  end

  @doc "The OS process that speaks."
  def os_pid do
    [worker] = Py.Pool.info(SpeechServer.Py).workers
    worker.os_pid
  end
end

defmodule SpeechServer.Load do
  @moduledoc "Many callers at once, one of whom kills the worker under the others."

  @requests 300
  @callers 8
  @killer 100

  def run(text) do
    results =
      1..@requests
      |> Task.async_stream(&request(&1, text), max_concurrency: @callers, timeout: :infinity)
      |> Enum.map(fn {:ok, result} -> result end)

    {_result, _at, {os_pid, killed_at}} = Enum.at(results, @killer - 1)

    %{
      requests: @requests,
      wavs: for({{:ok, wav}, _at, _killed} <- results, do: wav),
      errors: for({{:error, error}, _at, _killed} <- results, do: error),
      killed: os_pid,
      silence_ms: silence(results, killed_at)
    }
  end

  defp request(n, text) do
    killed = if n == @killer, do: kill()
    result = SpeechServer.say("Request number #{n}. #{text}")
    {result, System.monotonic_time(:microsecond), killed}
  end

  defp kill do
    os_pid = SpeechServer.os_pid()
    {_, 0} = System.cmd("kill", ["-KILL", to_string(os_pid)])
    {os_pid, System.monotonic_time(:microsecond)}
  end

  # From the error of the call that ran, or the kill where none ran, to the next WAV.
  defp silence(results, killed_at) do
    from = Enum.find_value(results, killed_at, fn {{kind, _}, at, _} -> kind == :error && at end)
    next = Enum.min(for {{:ok, _wav}, at, _killed} <- results, at > from, do: at)
    Float.round((next - from) / 1000, 1)
  end
end

defmodule SpeechServer.Example do
  @sentences [
    hello:
      "Hello! I am a speech synthesiser, and I live in an operating system process of my own.",
    numbers: "One, two, three. Elixir calls, Python speaks.",
    killed: "My process was killed, and here is another one with the same voice."
  ]

  def run do
    {ms, _pid} = timed(fn -> {:ok, _pid} = SpeechServer.start_link(voice: "en-us") end)
    pool = Process.whereis(SpeechServer.Py)
    IO.puts("started, voice loaded in process #{SpeechServer.os_pid()}: #{ms} ms\n")

    Enum.each([:hello, :numbers], &write/1)
    options()
    deadline()
    killed()
    write(:killed)

    check(Process.whereis(SpeechServer.Py) == pool, "the pool itself never went down")
    Supervisor.stop(SpeechServer)
    IO.puts("\nspeech_server: done")
  end

  defp write(name) do
    {ms, {:ok, wav}} = timed(fn -> SpeechServer.say(@sentences[name]) end)
    path = Path.expand("_build/speech/#{name}.wav")
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, wav)
    seconds = seconds(wav)
    IO.puts("#{Path.relative_to_cwd(path)}: #{seconds} s of speech in #{ms} ms")

    check(loud?(wav), "#{name}.wav is not silent")
    # People speak ten to twenty letters a second.
    check(String.length(@sentences[name]) / seconds > 8, "#{name}.wav is not too long")
    check(String.length(@sentences[name]) / seconds < 30, "#{name}.wav is not too short")
  end

  defp options do
    {:ok, usual} = SpeechServer.say("How fast do I speak?")
    {:ok, fast} = SpeechServer.say("How fast do I speak?", words_per_minute: 300)
    check(seconds(fast) < 0.75 * seconds(usual), "more words a minute take less time")
  end

  # Python is interrupted, espeak-ng told to stop, and the same process speaks on.
  defp deadline do
    os_pid = SpeechServer.os_pid()
    novel = String.duplicate("It was the best of times, it was the worst of times. ", 20_000)
    {ms, {:error, error}} = timed(fn -> SpeechServer.say(novel, timeout: 200) end)
    IO.puts("\na novel, with a deadline of 200 ms: #{inspect(error.kind)} after #{ms} ms")

    check(error.kind == :timeout, "the novel ran into its deadline")
    check(match?({:ok, _wav}, SpeechServer.say("I still speak.")), "it speaks after a deadline")
    check(SpeechServer.os_pid() == os_pid, "a deadline costs no process")
  end

  defp killed do
    load = SpeechServer.Load.run("The quick brown fox jumps over the lazy dog.")

    IO.puts("""
    #{load.requests} requests, kill -9 #{load.killed} among them: \
    #{length(load.wavs)} WAVs, #{length(load.errors)} error, next WAV #{load.silence_ms} ms later
    """)

    for error <- load.errors, do: IO.puts(["  ", Exception.message(error), "\n"])

    check(length(load.wavs) + length(load.errors) == load.requests, "each request had an answer")
    check(Enum.all?(load.wavs, &(seconds(&1) > 2)), "each WAV holds its sentence")
    check(length(load.errors) <= 1, "only the call that ran was lost")
    check(Enum.all?(load.errors, &(&1.kind == :crashed)), "it was lost with the error :crashed")
    # It is not known where the node wrote to the process before it was told of its end.
    check(Enum.all?(load.errors, &(&1.exit == {:signal, 9})), "the error names the signal")
    check(SpeechServer.os_pid() != load.killed, "another process speaks now")
  end

  # The header that Python's wave module writes has 44 bytes; bytes a second are at its 28th.
  defp seconds(
         <<"RIFF", _::24-bytes, rate::32-little, _::4-bytes, "data", size::32-little, _::binary>>
       ),
       do: Float.round(size / rate, 2)

  defp loud?(<<"RIFF", _::40-bytes, samples::binary>>) do
    Enum.max(for(<<sample::16-little-signed <- samples>>, do: abs(sample)), fn -> 0 end) > 5_000
  end

  defp timed(fun) do
    {microseconds, result} = :timer.tc(fun)
    {Float.round(microseconds / 1000, 1), result}
  end

  defp check(true, _what), do: :ok
  defp check(false, what), do: raise("this does not hold: #{what}")
end

SpeechServer.Example.run()
