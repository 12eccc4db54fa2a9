defmodule Py.Build do
  @moduledoc """
  Builds the native libraries and knows where they are.

  What every Python shares is built once: the base library, which needs none, what the worker processes of a pool
  load, and the program that starts them. Beside that there is one library for each minor version of Python that may
  run in the node. Each is built by one `cargo build --release`, which needs no Python of that version, and copied to
  `priv/native`:

      priv/native/py_base.so
      priv/native/py_worker.abi3.so
      priv/native/py_launcher
      priv/native/py_nif-3.11.so

  `mix compile` builds for the Python that `Py.Python` finds, when it is not there yet or when the contents of a file in
  `native/`, of `Cargo.toml` or of `Cargo.lock` have changed. The environment can say otherwise:

    * `PY_VERSIONS=3.11,3.13` builds for these versions as well: for a release that will meet them,
    * `PY_SKIP_NATIVE=1` builds nothing and only checks that the files are there,
    * `PY_TARGET_DIR` is where cargo works, `_build/native` unless told.
  """

  require Logger

  @source_root Path.expand("../..", __DIR__)

  @typedoc "Where the sources are, where the libraries go, and where cargo works."
  @type place :: %{root: Path.t(), native: Path.t(), target: Path.t()}

  @typedoc "What was built last: from which sources, and which files came out of it."
  @type manifest :: %{sources: binary, files: %{String.t() => {integer, integer}}}

  @doc "Where the application `:py` that runs has its sources and libraries; `app` is its folder under `_build`."
  @spec place(Path.t(), Path.t()) :: place
  def place(app \\ Application.app_dir(:py), root \\ @source_root) do
    target = System.get_env("PY_TARGET_DIR") || Path.expand("../../../native", app)
    %{root: root, native: Path.join(app, "priv/native"), target: Path.expand(target)}
  end

  # What is built without a version of Python: cargo's packages, and cargo's names for their files with ours.
  @base_packages ["py_base", "py_worker", "py_launcher"]
  @base_files [
    {{:library, "py_base"}, "py_base.so"},
    {{:library, "py_worker"}, "py_worker.abi3.so"},
    {{:program, "py_launcher"}, "py_launcher"}
  ]

  @doc "The base library."
  @spec base_file(place) :: Path.t()
  def base_file(place \\ place()), do: Path.join(place.native, "py_base.so")

  @doc "The extension module that the Python of a worker process loads: one for all versions."
  @spec worker_file(place) :: Path.t()
  def worker_file(place \\ place()), do: Path.join(place.native, "py_worker.abi3.so")

  @doc "The program that starts worker processes and scripts."
  @spec launcher_file(place) :: Path.t()
  def launcher_file(place \\ place()), do: Path.join(place.native, "py_launcher")

  @doc "The library for a minor version of Python, such as `\"3.11\"`."
  @spec nif_file(String.t(), place) :: Path.t()
  def nif_file(minor, place \\ place()), do: Path.join(place.native, "py_nif-#{minor}.so")

  @doc "The versions of Python for which a library is there."
  @spec built(place) :: [String.t()]
  def built(place \\ place()) do
    for file <- Enum.sort(Path.wildcard(Path.join(place.native, "py_nif-*.so"))) do
      file |> Path.basename(".so") |> String.replace_prefix("py_nif-", "")
    end
  end

  @doc "The versions asked for by `PY_VERSIONS`."
  @spec asked() :: {:ok, [String.t()]} | {:error, String.t()}
  def asked do
    versions = "PY_VERSIONS" |> System.get_env("") |> String.split([",", " "], trim: true)

    case Enum.reject(versions, &(&1 =~ ~r/^3\.\d+$/)) do
      [] ->
        {:ok, versions}

      wrong ->
        {:error,
         "PY_VERSIONS lists minor versions such as 3.11,3.13; it has #{Enum.join(wrong, ", ")}."}
    end
  end

  @doc "Does `PY_SKIP_NATIVE` say that nothing is to be built?"
  @spec skip?() :: boolean
  def skip?, do: System.get_env("PY_SKIP_NATIVE") not in [nil, "", "0"]

  @doc """
  Makes sure that the libraries for a version of Python are there; for `nil`, what needs no version.

  Under Mix a missing one is built. Elsewhere, in a release, the error names what to build.
  """
  @spec ensure(String.t() | nil) :: :ok | {:error, String.t()}
  def ensure(minor) do
    place = place()

    cond do
      missing(List.wrap(minor), place) == [] -> :ok
      buildable?(place) -> build_now(minor, place)
      true -> {:error, not_built(minor, place)}
    end
  end

  @doc "The names of the libraries that these versions of Python need and that are not there."
  @spec missing([String.t()], place) :: [String.t()]
  def missing(minors, place) do
    for name <- names(minors), not File.regular?(Path.join(place.native, name)), do: name
  end

  @doc """
  Brings the libraries for these versions up to date and returns the new manifest, or `:noop` when they were.

  Whether the sources changed is seen from their contents; whether a library is the one that was built, from its size
  and time.
  """
  @spec update([String.t()], manifest | nil, place) ::
          {:ok, manifest} | :noop | {:error, String.t()}
  def update(minors, manifest, place) do
    sources = digest(place.root)
    known = if manifest && manifest.sources == sources, do: manifest.files, else: %{}

    case outdated(minors, known, place) do
      [] ->
        :noop

      outdated ->
        with :ok <- build_all(outdated, place) do
          # Cargo may have completed Cargo.lock.
          names = Enum.uniq(names(minors) ++ Map.keys(known))
          remove_others(names, known, place)
          {:ok, %{sources: digest(place.root), files: stamps(names, place)}}
        end
    end
  end

  @doc "Builds the library for one version of Python; for `nil`, what needs no version."
  @spec build(String.t() | nil, place) :: :ok | {:error, String.t()}
  def build(minor, place) do
    case cargo() do
      nil ->
        {:error, cargo_missing()}

      cargo ->
        :global.trans({{__MODULE__, place.target}, self()}, fn -> run(cargo, minor, place) end, [
          node()
        ])
    end
  end

  @doc "The cargo to build with."
  @spec cargo() :: Path.t() | nil
  def cargo do
    installed = Path.join(System.get_env("CARGO_HOME", Path.expand("~/.cargo")), "bin/cargo")
    System.find_executable("cargo") || if(File.regular?(installed), do: installed)
  end

  @doc "What to do when there is no cargo."
  @spec cargo_missing() :: String.t()
  def cargo_missing do
    "Py's native part is built with Rust, and cargo is neither on PATH nor in ~/.cargo/bin. Install Rust " <>
      "(curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh, or see https://rustup.rs) and compile again; " <>
      "or supply the libraries in priv/native and set PY_SKIP_NATIVE=1."
  end

  defp buildable?(place) do
    List.keymember?(Application.started_applications(), :mix, 0) and
      File.regular?(Path.join(place.root, "Cargo.toml")) and
      not skip?()
  end

  defp build_now(minor, place) do
    Logger.info(
      "Py: building #{described(minor)}, which was not built when the project was compiled"
    )

    if missing([], place) == [] or minor == nil,
      do: build(minor, place),
      else: build_all([nil, minor], place)
  end

  defp described(nil), do: "what worker processes need"
  defp described(minor), do: "for Python #{minor}"

  defp not_built(minor, place) do
    there =
      if built(place) == [],
        do: "there are none",
        else: "there are those for #{Enum.join(built(place), ", ")}"

    versions = if minor, do: "PY_VERSIONS=#{minor} "

    "Py has no native library for #{if minor, do: "Python #{minor}", else: "processes"}: " <>
      "#{Enum.join(missing(List.wrap(minor), place), " and ")} is not in #{place.native} (#{there}). Build it where the " <>
      "application is compiled, with #{versions}mix compile, and make the release again; or choose a Python for which " <>
      "there is one."
  end

  defp names(minors), do: base_names() ++ for(minor <- minors, do: "py_nif-#{minor}.so")

  defp base_names, do: for({_cargo, name} <- @base_files, do: name)

  # `nil` stands for what needs no version.
  defp outdated(minors, known, place) do
    fresh? = &(Map.has_key?(known, &1) and stamp(Path.join(place.native, &1)) == known[&1])
    base = if Enum.all?(base_names(), fresh?), do: [], else: [nil]
    base ++ for minor <- minors, not fresh?.("py_nif-#{minor}.so"), do: minor
  end

  defp build_all(minors, place) do
    Enum.reduce_while(minors, :ok, fn minor, :ok ->
      case build(minor, place) do
        :ok -> {:cont, :ok}
        error -> {:halt, error}
      end
    end)
  end

  # A library of other sources must not be found when that Python is chosen later.
  defp remove_others(names, known, place) do
    others = for minor <- built(place), name = "py_nif-#{minor}.so", name not in names, do: name
    if known == %{}, do: Enum.each(others, &File.rm(Path.join(place.native, &1)))
  end

  defp stamps(names, place), do: Map.new(names, &{&1, stamp(Path.join(place.native, &1))})

  defp stamp(file) do
    case File.stat(file, time: :posix) do
      {:ok, stat} -> {stat.mtime, stat.size}
      {:error, _reason} -> nil
    end
  end

  defp digest(root) do
    named = ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", ".cargo/config.toml"]
    sources = Path.wildcard(Path.join(root, "native/**/*"))

    files =
      Enum.map(named, &Path.join(root, &1)) ++
        Enum.reject(sources, &String.contains?(&1, "/native/target/"))

    :erlang.md5(
      for file <- files,
          {:ok, contents} <- [File.read(file)],
          do: :erlang.md5([file, 0, contents])
    )
  end

  defp run(cargo, minor, place) do
    target = Path.join(place.target, minor || "base")
    packages = if minor, do: ["py_nif"], else: @base_packages
    arguments = ["build", "--release" | Enum.flat_map(packages, &["-p", &1])]

    options = [
      cd: place.root,
      env: environment(minor, target),
      into: IO.stream(),
      stderr_to_stdout: true
    ]

    case System.cmd(cargo, arguments, options) do
      {_output, 0} ->
        install(minor, target, place)

      {_output, status} ->
        {:error,
         "cargo could not build Py's native part (status #{status}); its output is above."}
    end
  end

  # pyo3 reads all about Python from the file and looks at no interpreter. Link lines are suppressed because libpython
  # is opened at run time.
  defp environment(minor, target) do
    config = Path.join(target, "pyo3.config")
    write_changed(config, config(minor))

    [
      {"CARGO_TARGET_DIR", target},
      {"CARGO_BUILD_TARGET", nil},
      {"PYO3_CONFIG_FILE", config},
      {"PYO3_NO_PYTHON", nil},
      {"PYO3_PYTHON", nil},
      {"RUSTLER_PRIMARY_NIF_INIT", "1"}
    ]
  end

  # The extension module of the workers keeps to the limited API, from the oldest Python that Py supports on.
  defp config(minor) do
    """
    implementation=CPython
    version=#{minor || "3.11"}
    shared=true
    abi3=#{minor == nil}
    pointer_width=#{8 * :erlang.system_info({:wordsize, :external})}
    suppress_build_script_link_lines=true
    """
  end

  # Cargo builds again whatever read a file that is newer.
  defp write_changed(file, contents) do
    if File.read(file) != {:ok, contents} do
      File.mkdir_p!(Path.dirname(file))
      File.write!(file, contents)
    end
  end

  defp install(minor, target, place) do
    File.mkdir_p!(place.native)
    files = if minor, do: [{{:library, "py_nif"}, "py_nif-#{minor}.so"}], else: @base_files

    for {built, name} <- files,
        do: copy(Path.join([target, "release", cargo_name(built)]), Path.join(place.native, name))

    :ok
  end

  defp cargo_name({:program, name}), do: name

  defp cargo_name({:library, name}) do
    extension = if :os.type() == {:unix, :darwin}, do: "dylib", else: "so"
    "lib#{name}.#{extension}"
  end

  # A node that runs has the old file mapped: it is replaced, never written to.
  defp copy(source, destination) do
    contents = File.read!(source)

    if File.read(destination) != {:ok, contents} do
      temporary = "#{destination}.#{System.pid()}"
      File.write!(temporary, contents)
      File.chmod!(temporary, 0o755)
      File.rename!(temporary, destination)
    end
  end
end
