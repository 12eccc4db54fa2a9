# A photo of 12 megapixels: numpy and Pillow work on it where it is, and for comparison on bytes that are copied in and out
# at each step. Run with: mix run examples/image_pipeline.exs

defmodule ImagePipeline do
  @pool ImagePipeline.Py
  @height 3000
  @width 4000

  def run do
    paths = [Path.expand("python", __DIR__)]
    {:ok, _pool} = Py.Pool.start_link(name: @pool, paths: paths, init: "import images")
    photo = call(:photo, [@height, @width])
    IO.puts("a photo of #{@height * @width} pixels, #{byte_size(photo.data)} bytes")

    {picture, light} = result = steps(photo, "shared")
    # The same numbers, and the same file.
    ^result = steps({photo.data, photo.shape}, "copied")

    path = Path.expand("../_build/image_pipeline.png", __DIR__)
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, picture)

    IO.puts(
      "#{Path.relative_to_cwd(path)}: #{byte_size(picture)} bytes, #{round(light)} % bright"
    )

    IO.puts("image_pipeline: done")
  end

  defp steps(photo, way) do
    half = timed("upper half", way, fn -> upper_half(photo) end)
    turned = timed("upside down", way, fn -> upside_down(half) end)
    light = timed("brightness", way, fn -> brightness(turned) end)
    {timed("thumbnail", way, fn -> thumbnail(turned, 400) end), light}
  end

  # Parts and other orders of an array from Elixir are its memory still, in Python and back here.
  defp upper_half(%Py.Array{} = photo), do: call(:upper_half, [photo])

  defp upper_half({rgb, {height, width, 3} = shape}),
    do: {call(:upper_half_of_bytes, [Py.bytes(rgb), shape]), {div(height, 2), width, 3}}

  defp upside_down(%Py.Array{} = photo), do: call(:upside_down, [photo])

  defp upside_down({rgb, shape}),
    do: {call(:upside_down_of_bytes, [Py.bytes(rgb), shape]), shape}

  defp brightness(%Py.Array{} = photo), do: call(:brightness, [photo])
  defp brightness({rgb, shape}), do: call(:brightness_of_bytes, [Py.bytes(rgb), shape])

  defp thumbnail(%Py.Array{} = photo, width), do: call(:thumbnail, [photo, width])

  defp thumbnail({rgb, shape}, width),
    do: call(:thumbnail_of_bytes, [Py.bytes(rgb), shape, width])

  defp call(function, args), do: Py.call!(:images, function, args, on: @pool)

  # The best of three: the first one finds modules and memory that the others have.
  defp timed(name, way, fun) do
    {micros, result} = Enum.min_by(for(_ <- 1..3, do: :timer.tc(fun)), &elem(&1, 0))
    milliseconds = :io_lib.format("~9.2f", [micros / 1000])
    IO.puts("  #{String.pad_trailing(name, 12)} #{way} #{milliseconds} ms")
    result
  end
end

ImagePipeline.run()
