defmodule Py.MixProject do
  use Mix.Project

  @version "0.1.0"

  def project do
    [
      app: :py,
      version: @version,
      elixir: "~> 1.14",
      # py_native is a task of this very project: it is compiled by the time it runs.
      compilers: Mix.compilers() ++ [:py_native],
      elixirc_paths: elixirc_paths(Mix.env()),
      start_permanent: Mix.env() == :prod,
      deps: [],
      description:
        "Python inside Elixir and Erlang: calls, types, errors and threads, in the node",
      package: package(),
      docs: docs(),
      name: "Py"
    ]
  end

  def application do
    [mod: {Py.Application, []}, extra_applications: [:logger, :crypto]]
  end

  defp elixirc_paths(:test), do: ["lib", "test/support"]
  defp elixirc_paths(_env), do: ["lib"]

  defp package do
    [
      licenses: ["Apache-2.0"],
      links: %{"Changelog" => "https://hexdocs.pm/py/changelog.html"},
      # bench/floor is a member of the workspace, and cargo reads no workspace without it.
      files: ~w(
        lib src native/*/src native/*/build.rs native/*/Cargo.toml priv/python
        bench/floor/src bench/floor/Cargo.toml
        Cargo.toml Cargo.lock mix.exs .formatter.exs README.md CHANGELOG.md LICENSE
      ),
      # Each application compiles it for the Python that it has.
      exclude_patterns: ["__pycache__"]
    ]
  end

  defp docs do
    [
      main: "Py",
      extras: ["README.md", "CHANGELOG.md", "LICENSE"],
      source_ref: "v#{@version}",
      groups_for_modules: [
        Calls: [
          Py,
          Py.Error,
          Py.Encoder,
          Py.Future,
          Py.Stream,
          Py.Session,
          Py.Object,
          Py.Code,
          Py.Script
        ],
        "Shared by both": [Py.Channel, Py.State],
        Data: [Py.Array, Py.Bytes, Py.Buffer],
        "Pools and telemetry": [Py.Pool, Py.Telemetry],
        "Building and finding Python": [Py.Python, Py.Build]
      ]
    ]
  end
end
