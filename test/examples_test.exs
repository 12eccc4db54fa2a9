defmodule Py.ExamplesTest do
  # Each file of examples/ runs as `mix run` would run it, in a BEAM of its own: its exit status is part of it.
  use ExUnit.Case, async: false

  @start "{:ok, _} = Application.ensure_all_started(:py)"

  for file <- Path.wildcard("examples/*.exs") do
    @tag example: file, timeout: 120_000
    test file, %{example: file} do
      {output, status} = run(["-e", @start, "-r", file])
      assert status == 0, output
      assert output =~ last_words(file), output
    end
  end

  test "one that fails ends with another status" do
    {output, status} = run(["-e", @start, "-e", "raise(\"this does not hold\")"])
    assert {status, output =~ "this does not hold"} == {1, true}
  end

  defp run(arguments) do
    paths =
      for path <- :code.get_path(), path = to_string(path), path =~ "_build", do: ["-pa", path]

    System.cmd("elixir", List.flatten(paths) ++ arguments, stderr_to_stdout: true)
  end

  defp last_words("examples/demo.exs"), do: "JSONDecodeError: Expecting property name"
  defp last_words(file), do: ~r/^#{Path.basename(file, ".exs")}: done$/m
end
