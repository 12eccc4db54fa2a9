# README.md is the moduledoc of Py, so its examples run here too.
defmodule Py.DoctestTest do
  use ExUnit.Case, async: false

  doctest Py
  doctest Py.Code
  doctest Py.Encoder
  doctest Py.Channel
  doctest Py.State
  doctest Py.Session
  doctest Py.Stream
  doctest Py.Future
end

defmodule Py.DoctestOnProcessesTest do
  use ExUnit.Case, async: false

  setup_all do: Py.Case.default_pool(:process)

  doctest Py
  doctest Py.Code
  doctest Py.Encoder
  doctest Py.Channel
  doctest Py.State
  doctest Py.Session
  doctest Py.Stream
  doctest Py.Future
end
