defmodule Py.DoctestTest do
  # README.md is the moduledoc of Py, so its examples run here too.
  use ExUnit.Case, async: false

  doctest Py
  doctest Py.Code
end
