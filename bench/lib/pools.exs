defmodule Py.Bench.Pools do
  @moduledoc "The pools that are measured beside the default one."

  @python Path.expand("../python", __DIR__)

  @doc "The pool with one worker process."
  def worker, do: Py.Bench.One

  def start do
    for {name, size} <- [{Py.Bench.One, 1}, {Py.Bench.Two, 2}] do
      options = [name: name, in: :process, size: size, paths: [@python], init: "import py_bench"]
      {:ok, _} = Py.Pool.start_link(options)
    end

    Py.exec!("import sys; sys.path.insert(0, path); import py_bench", %{path: @python})
  end

  @doc "A way for each kind of pool; `fun` gets the options of a call."
  def both(fun),
    do: [{"queue", fn -> fun.([]) end}, {"process", fn -> fun.(on: Py.Bench.One) end}]
end
