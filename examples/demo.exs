# A picture drawn in Elixir, processed by numpy and Pillow in Python, written as _build/demo.png; then a few calls as
# one would make them in iex. Run by `make demo`.

defmodule Demo.Julia do
  # A Julia set as raw RGB, its rows drawn in parallel.

  @cx -0.8
  @cy 0.156
  @most 120

  def draw(width, height) do
    0..(height - 1)
    |> Task.async_stream(&row(&1, width, height), ordered: true, timeout: :infinity)
    |> Enum.map(fn {:ok, row} -> row end)
    |> IO.iodata_to_binary()
  end

  defp row(y, width, height) do
    scale = 3.0 / width
    zy = (y - height / 2) * scale
    for x <- 0..(width - 1), into: <<>>, do: color(steps((x - width / 2) * scale, zy, 0))
  end

  defp steps(x, y, n) when n < @most and x * x + y * y < 16.0,
    do: steps(x * x - y * y + @cx, 2.0 * x * y + @cy, n + 1)

  # A fraction of a step, so that colours change smoothly.
  defp steps(_x, _y, @most), do: @most * 1.0
  defp steps(x, y, n), do: n + 1 - :math.log2(:math.log(x * x + y * y) / 2)

  defp color(steps) do
    t = 0.35 * :math.sqrt(max(steps, 0.0) * 6)
    <<wave(t + 3.6), wave(t + 4.3), wave(t + 5.2)>>
  end

  defp wave(t), do: round(127.5 + 127.5 * :math.sin(t))
end

defmodule Demo do
  @width 960
  @height 640
  @small {480, 320}
  @pool [on: Demo.Py]

  def run do
    start()
    picture()
    transcript()
  end

  defp start do
    paths = [Path.expand("python", __DIR__)]

    step("start Python, import numpy and Pillow", fn ->
      {:ok, _pool} = Py.Pool.start_link(name: Demo.Py, paths: paths, init: "import picture")
    end)
  end

  defp picture do
    drawn =
      step("draw #{@width}x#{@height} in Elixir", fn -> Demo.Julia.draw(@width, @height) end)

    small = step("resize (Pillow)", fn -> python(:resize, drawn, [{@width, @height}, @small]) end)
    blurred = step("blur (Pillow)", fn -> python(:blur, small, [@small], radius: 6.0) end)
    edges = step("edge map (numpy)", fn -> python(:edges, small, [@small]) end)

    png =
      step("side by side, as a PNG (Pillow)", fn ->
        pictures = Enum.map([small, blurred, edges], &Py.bytes/1)
        Py.call!(:picture, :side_by_side, [pictures, @small], [kwargs: [gap: 12]] ++ @pool)
      end)

    path = Path.expand("_build/demo.png")
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, png)
    IO.puts("\nThe picture (#{div(byte_size(png), 1024)} KB): #{path}\n")
  end

  defp python(name, rgb, args, kwargs \\ []) do
    Py.call!(:picture, name, [Py.bytes(rgb) | args], [kwargs: kwargs] ++ @pool)
  end

  defp step(what, fun) do
    {microseconds, result} = :timer.tc(fun)
    milliseconds = :erlang.float_to_binary(microseconds / 1000, decimals: 1)
    IO.puts("#{String.pad_trailing(what, 40)} #{String.pad_leading(milliseconds, 8)} ms")
    result
  end

  # What is printed is run, each line with the variables of those before it.
  defp transcript do
    Enum.reduce(lines(), {[], __ENV__}, fn {line, number}, {binding, env} ->
      IO.puts("iex(#{number})> #{String.replace(line, "\n", "\n...(#{number})> ")}")
      evaluate(line, binding, env)
    end)
  end

  defp evaluate(line, binding, env) do
    {result, binding} = Code.eval_string(line, binding, env)
    IO.puts(inspect(result, pretty: true, limit: 12, printable_limit: 200) <> "\n")
    {binding, env}
  rescue
    error in Py.Error ->
      IO.puts("** (Py.Error) #{Exception.message(error)}\n")
      {binding, env}
  end

  defp lines do
    Enum.with_index(
      [
        ~S|Py.call(:math, :sqrt, [16.0])|,
        ~S|Py.call("os.path", :join, ["/usr", "lib"])|,
        ~S|Py.eval("[n ** 2 for n in range(5)] + [k]", %{k: 2 ** 100})|,
        ~S|Py.call(:json, :dumps, [%{"name" => "José", "tags" => [:a, nil, 1.5]}], kwargs: [indent: 2, ensure_ascii: false])|,
        ~S|Py.eval("import numpy; int(numpy.arange(1_000_000).sum())")|,
        ~S|Py.eval("import asyncio; await asyncio.sleep(0.01, result='awaited')")|,
        ~S|tasks = for n <- [3, 1, 2], do: Py.async_call(:math, :factorial, [n])| <>
          "\n" <> ~S|Py.await_many(tasks)|,
        ~S|{:error, error} = Py.call(:json, :loads, ["{broken"])| <>
          "\n" <> ~S|{error.kind, error.type, error.message}|,
        ~S|Py.call!(:json, :loads, ["{broken"])|
      ],
      1
    )
  end
end

Demo.run()
