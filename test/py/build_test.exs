defmodule Py.BuildTest do
  # PATH and PY_VERSIONS belong to the VM.
  use ExUnit.Case, async: false

  alias Py.Build

  setup do
    root = Path.join(System.tmp_dir!(), "py-build-#{System.unique_integer([:positive])}")
    File.mkdir_p!(Path.join(root, "native/nif/src"))
    File.write!(Path.join(root, "Cargo.toml"), "[workspace]")
    File.write!(Path.join(root, "native/nif/src/lib.rs"), "one")

    saved =
      Map.new(
        ["PATH", "CARGO_HOME", "PY_VERSIONS", "PY_TARGET_DIR", "PY_SKIP_NATIVE"],
        &{&1, System.get_env(&1)}
      )

    for name <- ["PY_TARGET_DIR", "PY_SKIP_NATIVE"], do: System.delete_env(name)

    on_exit(fn ->
      for {name, value} <- saved,
          do: if(value, do: System.put_env(name, value), else: System.delete_env(name))

      File.rm_rf!(root)
    end)

    %{root: root, place: Build.place(Path.join(root, "_build/dev/lib/py"), root)}
  end

  test "where things are", %{root: root, place: place} do
    assert Build.base_file(place) == "#{root}/_build/dev/lib/py/priv/native/py_base.so"
    assert Build.nif_file("3.11", place) == "#{root}/_build/dev/lib/py/priv/native/py_nif-3.11.so"
    assert place.target == "#{root}/_build/native"

    System.put_env("PY_TARGET_DIR", "/elsewhere")
    assert Build.place(Path.join(root, "app"), root).target == "/elsewhere"
  end

  test "builds what is missing, for each version, and nothing the second time", %{
    root: root,
    place: place
  } do
    cargo(root)
    assert {:ok, manifest} = Build.update(["3.11", "3.13"], nil, place)
    assert Build.built(place) == ["3.11", "3.13"]
    assert File.read!(Build.nif_file("3.13", place)) =~ "version=3.13"
    assert File.regular?(Build.base_file(place))
    assert runs(root) == 3

    assert Build.update(["3.11", "3.13"], manifest, place) == :noop
    assert Build.update(["3.13"], manifest, place) == :noop
    assert runs(root) == 3
  end

  test "cargo gets all that pyo3 must know, and no interpreter", %{root: root, place: place} do
    System.put_env("PYO3_PYTHON", "/usr/bin/python3")
    cargo(root)
    assert :ok = Build.build("3.12", place)
    System.delete_env("PYO3_PYTHON")

    built = File.read!(Build.nif_file("3.12", place))
    assert built =~ "arguments=build --release -p py_nif\n"
    assert built =~ "python=-"
    assert built =~ "init=1"
    assert built =~ "suppress_build_script_link_lines=true"
    assert built =~ "pointer_width=64"
    assert built =~ "abi3=false"
  end

  test "changed contents are built again, a touched file is not", %{root: root, place: place} do
    cargo(root)
    {:ok, manifest} = Build.update(["3.11"], nil, place)

    File.touch!(Path.join(root, "native/nif/src/lib.rs"), 1_900_000_000)
    assert Build.update(["3.11"], manifest, place) == :noop

    File.write!(Path.join(root, "native/nif/src/lib.rs"), "two")
    assert {:ok, changed} = Build.update(["3.11"], manifest, place)
    assert changed.sources != manifest.sources
    assert runs(root) == 4
  end

  test "another version is added; with other sources, libraries of the old ones go", %{
    root: root,
    place: place
  } do
    cargo(root)
    {:ok, manifest} = Build.update(["3.11"], nil, place)
    {:ok, manifest} = Build.update(["3.12"], manifest, place)
    assert Build.built(place) == ["3.11", "3.12"]

    File.write!(Path.join(root, "Cargo.toml"), "[workspace] # changed")
    {:ok, _manifest} = Build.update(["3.12"], manifest, place)
    assert Build.built(place) == ["3.12"]
  end

  test "a library that is gone or replaced is built again", %{root: root, place: place} do
    cargo(root)
    {:ok, manifest} = Build.update(["3.11"], nil, place)

    File.rm!(Build.base_file(place))
    assert {:ok, manifest} = Build.update(["3.11"], manifest, place)
    assert File.regular?(Build.base_file(place))

    File.write!(Build.nif_file("3.11", place), "other")
    assert {:ok, _manifest} = Build.update(["3.11"], manifest, place)
    assert File.read!(Build.nif_file("3.11", place)) =~ "version=3.11"
  end

  test "without a Python, what needs no version is built", %{root: root, place: place} do
    cargo(root)
    assert {:ok, _manifest} = Build.update([], nil, place)

    assert Enum.sort(File.ls!(place.native)) == ["py_base.so", "py_launcher", "py_worker.abi3.so"]

    worker = File.read!(Build.worker_file(place))
    assert worker =~ "arguments=build --release -p py_base -p py_worker -p py_launcher\n"
    assert worker =~ "abi3=true"
    assert worker =~ "version=3.11"
    assert {:ok, %{mode: mode}} = File.stat(Build.launcher_file(place))
    assert Bitwise.band(mode, 0o111) == 0o111
  end

  test "a failure of cargo is an error, and changes nothing", %{root: root, place: place} do
    cargo(root, "exit 101")
    assert {:error, message} = Build.update(["3.11"], nil, place)
    assert message =~ "status 101"
    assert Build.built(place) == []
  end

  test "a missing cargo is an error that says how to install it", %{root: root, place: place} do
    System.put_env("PATH", root)
    System.put_env("CARGO_HOME", root)
    assert {:error, message} = Build.update(["3.11"], nil, place)
    assert message =~ "https://sh.rustup.rs"
    assert message =~ "PY_SKIP_NATIVE=1"
  end

  test "PY_VERSIONS" do
    System.put_env("PY_VERSIONS", "3.11, 3.13")
    assert Build.asked() == {:ok, ["3.11", "3.13"]}
    System.delete_env("PY_VERSIONS")
    assert Build.asked() == {:ok, []}
    System.put_env("PY_VERSIONS", "3.11,3.12.1,all")
    assert {:error, message} = Build.asked()
    assert message =~ "3.12.1, all"
  end

  test "what is missing is named", %{place: place} do
    base = ["py_base.so", "py_worker.abi3.so", "py_launcher"]
    assert Build.missing(["3.11"], place) == base ++ ["py_nif-3.11.so"]
    File.mkdir_p!(place.native)
    for name <- base, do: File.write!(Path.join(place.native, name), "")
    assert Build.missing(["3.11"], place) == ["py_nif-3.11.so"]
  end

  test "where nothing may be built, the error names what to build" do
    System.put_env("PY_SKIP_NATIVE", "1")
    assert {:error, message} = Build.ensure("3.99")
    assert message =~ "py_nif-3.99.so"
    assert message =~ "PY_VERSIONS=3.99 mix compile"
    refute message =~ "\n"
  end

  # A cargo that says in the libraries with what it was called.
  defp cargo(root, last \\ "exit 0") do
    bin = Path.join(root, "bin")
    File.mkdir_p!(bin)

    File.write!(Path.join(bin, "cargo"), """
    #!/bin/sh
    echo run >>#{root}/runs
    mkdir -p "$CARGO_TARGET_DIR/release"
    cd "$CARGO_TARGET_DIR/release"
    { echo "arguments=$*"; echo "python=${PYO3_PYTHON:--}"; echo "init=$RUSTLER_PRIMARY_NIF_INIT"; } >py_launcher
    cat py_launcher ${PYO3_CONFIG_FILE:+"$PYO3_CONFIG_FILE"} | tee libpy_base.so libpy_worker.so >libpy_nif.so
    #{last}
    """)

    File.chmod!(Path.join(bin, "cargo"), 0o755)
    System.put_env("PATH", bin <> ":" <> System.get_env("PATH"))
  end

  defp runs(root), do: root |> Path.join("runs") |> File.read!() |> String.split() |> length()
end
