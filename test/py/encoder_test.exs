defmodule Py.EncoderTest do
  use ExUnit.Case, async: true

  test "only: and except: are checked when the struct is compiled" do
    for {options, message} <- [
          {[only: [:b]], "expects a list of fields of %A{}, got: [:b]"},
          {[except: [:a, :b]], "expects a list of fields of %A{}, got: [:b]"},
          {[only: :a], "expects a list of fields of %A{}, got: :a"},
          {[fields: [:a]], "of A takes only: or except:, got: [fields: [:a]]"}
        ] do
      # As @derive does; to define it would be too late for a protocol that is consolidated.
      arguments = [__ENV__, A, %{__struct__: A, a: nil}, options]
      derive = fn -> apply(Py.Encoder.Any, :"MACRO-__deriving__", arguments) end
      assert assert_raise(ArgumentError, derive).message =~ message
    end
  end
end
