defmodule Py.PythonDouble do
  @moduledoc "Pythons that are not what they seem."

  @doc """
  An executable that is a static build, as far as anybody can tell: it says that it has no libpython, and is the real
  Python for everything else. `worker` is a shell command that it does in place of serving.
  """
  def static(file, real, worker \\ "") do
    facts = [
      executable: file,
      version: real.version,
      minor: real.minor,
      prefix: real.prefix,
      base_prefix: real.base_prefix,
      libpython: "",
      free_threaded: "0",
      implementation: "cpython"
    ]

    fields = Enum.map_join(facts, "\\000", fn {key, value} -> "#{key}\\000#{value}" end)

    File.write!(file, """
    #!/bin/sh
    if [ "$1" = -I ]; then printf -- '--py-probe--#{fields}--py-probe--'; exit; fi
    #{worker}
    exec #{real.executable} "$@"
    """)

    File.chmod!(file, 0o755)
    file
  end
end
