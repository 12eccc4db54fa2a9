defmodule Py.Python.Probe do
  @moduledoc false

  alias Py.Aside

  @time_limit 10_000
  @output_limit 1_000_000
  @mark "--py-probe--"

  # Runs on any Python since 2.7, so that an old one is named rather than reported as a crash. Fields are separated by
  # NUL, which no path contains; the marks set them off from what .pth files and sitecustomize print.
  @script """
  import os, sys, sysconfig

  def var(name):
      return sysconfig.get_config_var(name) or ""

  minor = "%d.%d" % sys.version_info[:2]
  base = getattr(sys, "base_prefix", sys.prefix)
  names = [var("INSTSONAME"), var("LDLIBRARY"), "libpython%s%s.so.1.0" % (minor, getattr(sys, "abiflags", ""))]
  folders = [os.path.join(base, "lib"), var("LIBDIR"), os.path.join(var("LIBDIR"), var("MULTIARCH")), os.path.join(base, "lib64")]
  libraries = [os.path.join(f, n) for n in names for f in folders if (".so" in n or ".dylib" in n) and os.path.isabs(f)]
  facts = [
      ("executable", sys.executable),
      ("version", "%d.%d.%d" % sys.version_info[:3]),
      ("minor", minor),
      ("prefix", sys.prefix),
      ("base_prefix", base),
      ("libpython", next((path for path in libraries if os.path.isfile(path)), "")),
      ("free_threaded", str(var("Py_GIL_DISABLED"))),
      ("bits", "64" if sys.maxsize > 2 ** 32 else "32"),
      ("implementation", getattr(getattr(sys, "implementation", None), "name", "cpython")),
  ]
  encode = getattr(os, "fsencode", lambda text: text)
  fields = [encode(field) for fact in facts for field in fact]
  mark = b"#{@mark}"
  os.write(1, mark + b"\\0".join(fields) + mark)
  """

  # Runs the executable once and returns the fields of `Py.Python` it knows. The answer is kept for as long as the
  # files it came from are unchanged.
  @spec run(Path.t()) :: {:ok, map} | {:error, String.t()}
  def run(executable) do
    key = {__MODULE__, executable}
    stamp = stamp(executable)

    case :persistent_term.get(key, nil) do
      {^stamp, facts} ->
        {:ok, facts}

      _none_or_changed ->
        with {:ok, facts} <- ask(executable) do
          if lasting?(executable, facts), do: :persistent_term.put(key, {stamp, facts})
          {:ok, facts}
        end
    end
  end

  defp stamp(executable) do
    config = Path.join([Path.dirname(executable), "..", "pyvenv.cfg"])

    for path <- [executable, config],
        {:ok, stat} <- [File.stat(path, time: :posix)],
        do: {stat.inode, stat.mtime}
  end

  # A shim (pyenv, asdf) is one file that stands for many Pythons, and a missing library may be installed any time.
  defp lasting?(executable, facts),
    do: facts.libpython != nil and same_file?(executable, facts.executable)

  defp same_file?(one, other) do
    case {File.stat(one), File.stat(other)} do
      {{:ok, a}, {:ok, b}} -> {a.major_device, a.inode} == {b.major_device, b.inode}
      _gone -> false
    end
  end

  # In a process of its own: what a killed port still sends must not reach the caller.
  defp ask(executable) do
    {:ok, answer} = Aside.run(fn -> execute(executable) end)
    answer
  end

  defp execute(executable) do
    options = [
      :binary,
      :exit_status,
      :hide,
      :use_stdio,
      :stderr_to_stdout,
      args: ["-I", "-c", @script]
    ]

    port = Port.open({:spawn_executable, executable}, options)
    deadline = System.monotonic_time(:millisecond) + @time_limit
    result = collect(port, deadline, "")
    stop(port)
    result
  rescue
    error in ErlangError ->
      {:error, "it cannot be started (#{:file.format_error(error.original)})."}
  end

  defp collect(port, deadline, output) do
    receive do
      {^port, {:data, data}} -> data_came(port, deadline, output <> data)
      {^port, {:exit_status, status}} -> {:error, ended(status, output)}
    after
      max(deadline - System.monotonic_time(:millisecond), 0) ->
        {:error,
         "it did not answer within #{div(@time_limit, 1000)} seconds and was killed#{last_words(output)}"}
    end
  end

  defp data_came(port, deadline, output) do
    case String.split(output, @mark) do
      [_before, fields, _after] ->
        parse(fields, output)

      _incomplete when byte_size(output) > @output_limit ->
        {:error, "it does not stop printing#{last_words(output)}"}

      _incomplete ->
        collect(port, deadline, output)
    end
  end

  defp parse(fields, output) do
    fields = fields |> String.split(<<0>>) |> Enum.chunk_every(2) |> Map.new(&List.to_tuple/1)

    case fields do
      %{
        "executable" => "/" <> _,
        "version" => version,
        "minor" => minor,
        "prefix" => _,
        "implementation" => _
      } ->
        if version =~ ~r/^#{minor}\.\d+$/, do: {:ok, facts(fields)}, else: garbled(output)

      _incomplete ->
        garbled(output)
    end
  rescue
    ArgumentError -> garbled(output)
  end

  defp garbled(output), do: {:error, "its answer is garbled#{last_words(output)}"}

  defp facts(fields) do
    %{
      executable: fields["executable"],
      version: fields["version"],
      minor: fields["minor"],
      prefix: fields["prefix"],
      base_prefix: fields["base_prefix"],
      libpython: if(fields["libpython"] != "", do: fields["libpython"]),
      free_threaded: fields["free_threaded"] == "1",
      bits: String.to_integer(fields["bits"] || "64"),
      implementation: fields["implementation"],
      venv?: fields["prefix"] != fields["base_prefix"]
    }
  end

  defp ended(status, output) do
    if output =~ "Unknown option: -I",
      do: "it is Python 2, and Py needs CPython 3.11 or later.",
      else: "it ended with status #{status} before it could say what it is#{last_words(output)}"
  end

  defp last_words(output) do
    text = for <<byte <- output>>, byte in 32..126 or byte == ?\n, into: "", do: <<byte>>

    case text
         |> last(500)
         |> String.split("\n", trim: true)
         |> Enum.map_join(" / ", &String.trim/1) do
      "" -> "."
      words -> ": #{String.trim_trailing(words, ".")}."
    end
  end

  defp last(text, size), do: binary_part(text, byte_size(text), -min(size, byte_size(text)))

  defp stop(port) do
    with {:os_pid, pid} <- Port.info(port, :os_pid),
         do: System.cmd("/bin/sh", ["-c", "kill -KILL #{pid} 2>&1"])

    if Port.info(port), do: Port.close(port)
  rescue
    # The port may end between the question and the closing.
    ArgumentError -> :ok
  end
end
