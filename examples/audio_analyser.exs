# WAV files, analysed at a bounded concurrency: tempo, key and spectral features. One of them is cut off, and one makes
# the decoder crash; the others do not notice. Run with: mix run examples/audio_analyser.exs

defmodule AudioAnalyser do
  @pool AudioAnalyser.Py

  def child_spec(_options) do
    Py.Pool.child_spec(
      name: @pool,
      in: :process,
      size: 2,
      paths: [Path.expand("python", __DIR__)],
      init: "import audio, tunes"
    )
  end

  @doc "Analyses files, four at a time; `{path, result}` for each, in their order."
  def analyse(paths) do
    paths
    |> Task.async_stream(&Py.call(:audio, :analyse, [&1], on: @pool, timeout: 15_000),
      max_concurrency: 4,
      timeout: :infinity
    )
    |> Enum.zip_with(paths, fn {:ok, result}, path -> {path, result} end)
  end
end

defmodule AudioAnalyser.Inputs do
  @moduledoc "Tunes of known tempo and key, a tone, and files that no analyser should be given."

  @tunes [
    {"C", "major", 120},
    {"A", "minor", 96},
    {"Eb", "major", 144},
    {"F#", "minor", 84},
    {"G", "major", 108},
    {"D", "minor", 132}
  ]

  def write(folder) do
    tunes = Enum.map(@tunes, &tune(&1, folder))
    [{good, _what} | _] = tunes
    tunes ++ [tone(folder), truncated(folder, good), text(folder), crashing(folder)]
  end

  defp tune({tonic, mode, tempo}, folder) do
    path = Path.join(folder, String.replace("#{tonic}_#{mode}_#{tempo}.wav", "#", "sharp"))
    Py.call!(:tunes, :write, [path, tonic, mode, tempo], on: AudioAnalyser.Py)
    {path, %{key: "#{tonic} #{mode}", tempo: tempo}}
  end

  defp tone(folder) do
    path = Path.join(folder, "tone_440.wav")
    Py.call!(:tunes, :tone, [path, 440.0, 3.0], on: AudioAnalyser.Py)
    {path, %{tempo: nil, centroid: 440}}
  end

  defp truncated(folder, good) do
    path = Path.join(folder, "truncated.wav")
    File.write!(path, good |> File.read!() |> binary_part(0, 50_000))
    {path, :python}
  end

  defp text(folder) do
    path = Path.join(folder, "notes.wav")
    File.write!(path, "These are no notes to play.")
    {path, :python}
  end

  # Its format has an "address" of the samples, which the decoder follows: see audio.py.
  defp crashing(folder) do
    path = Path.join(folder, "crashing.wav")

    format =
      <<0x7079::16-little, 1::16-little, 22_050::32-little, 44_100::32-little, 2::16-little,
        16::16-little>>

    data = <<8::64-little, 4096::32-little>>

    chunks = [
      "WAVE",
      "fmt ",
      <<byte_size(format)::32-little>>,
      format,
      "data",
      <<byte_size(data)::32-little>>,
      data
    ]

    File.write!(path, ["RIFF", <<IO.iodata_length(chunks)::32-little>>, chunks])
    {path, :crashed}
  end
end

defmodule AudioAnalyser.Example do
  @columns [
    {"tempo", :tempo, 1},
    {"key", :key, nil},
    {"centroid", :centroid, 0},
    {"rolloff", :rolloff, 0},
    {"bandwidth", :bandwidth, 0},
    {"crossings", :zero_crossings, 3},
    {"rms", :rms, 3}
  ]

  def run do
    # The last words of the process that crashes; its error has them too.
    Logger.configure(level: :warning)
    {:ok, supervisor} = Supervisor.start_link([AudioAnalyser], strategy: :one_for_one)
    folder = Path.expand("_build/audio")
    File.mkdir_p!(folder)
    inputs = AudioAnalyser.Inputs.write(folder)
    # The one that crashes goes first, so that the others are analysed beside it and after it.
    paths =
      inputs |> Enum.map(&elem(&1, 0)) |> Enum.sort_by(&(Path.basename(&1) != "crashing.wav"))

    IO.puts(
      "#{length(paths)} files in #{Path.relative_to_cwd(folder)}, four at a time over two processes\n"
    )

    {microseconds, results} = :timer.tc(fn -> AudioAnalyser.analyse(paths) end)
    table(results)
    IO.puts("\nanalysed in #{div(microseconds, 1000)} ms; processes that crashed: #{restarts()}")

    results = Map.new(results)
    for {path, expected} <- inputs, do: verify(Path.basename(path), expected, results[path])
    check(map_size(results) == length(inputs), "each file has a result")
    check(restarts() == 1, "one process crashed, and was replaced")
    Supervisor.stop(supervisor)
    IO.puts("\naudio_analyser: done")
  end

  defp restarts, do: Py.Pool.info(AudioAnalyser.Py).restarts

  defp table(results) do
    IO.puts([cell("file"), Enum.map(@columns, fn {title, _key, _digits} -> number(title) end)])
    for {path, result} <- results, do: IO.puts([cell(Path.basename(path)), row(result)])
  end

  defp row({:ok, analysis}) do
    for {_title, key, digits} <- @columns do
      analysis |> Map.fetch!(to_string(key)) |> shown(digits) |> number()
    end
  end

  defp row({:error, %{kind: :python} = error}), do: ["  ", error.type, ": ", error.message]

  defp row({:error, error}) do
    ["  ", error |> Exception.message() |> String.split("\n") |> hd()]
  end

  defp shown(nil, _digits), do: "-"
  defp shown(text, nil), do: text
  defp shown(number, digits), do: :erlang.float_to_binary(number, decimals: digits)

  defp cell(text), do: String.pad_trailing(text, 20)
  defp number(text), do: String.pad_leading(text, 10)

  defp verify(file, kind, result) when is_atom(kind) do
    check(
      match?({:error, %{kind: ^kind}}, result),
      "#{file} is an error of kind #{inspect(kind)}"
    )

    {:error, error} = result
    # It is not known where the node wrote to the process before it was told of its end.
    if kind == :crashed, do: check(error.exit == {:signal, 11}, "#{file} is a SIGSEGV")
    if kind == :python, do: check(error.type == "BadFileError", "#{file} is a BadFileError")
  end

  defp verify(file, expected, result) do
    check(match?({:ok, _analysis}, result), "#{file} is analysed")
    {:ok, analysis} = result

    for {feature, wanted} <- expected do
      got = analysis[to_string(feature)]

      check(
        close?(wanted, got),
        "#{feature} of #{file} is #{inspect(wanted)}, not #{inspect(got)}"
      )
    end
  end

  # Numbers, within two per cent.
  defp close?(wanted, got) when is_number(wanted) and is_number(got),
    do: abs(got - wanted) < 0.02 * wanted

  defp close?(wanted, got), do: wanted == got

  defp check(true, _what), do: :ok
  defp check(false, what), do: raise("this does not hold: #{what}")
end

AudioAnalyser.Example.run()
