defmodule Py.TraceTest do
  use ExUnit.Case, async: true

  import Py.Trace, only: [parent?: 1]

  @trace "0af7651916cd43dd8448eb211c80319c"
  @span "b7ad6b7169203331"

  test "what is a traceparent" do
    assert parent?("00-#{@trace}-#{@span}-01")
    assert parent?("00-#{@trace}-#{@span}-00")
    assert parent?("cc-#{@trace}-#{@span}-01")
    assert parent?("cc-#{@trace}-#{@span}-01-more")
  end

  test "what is none" do
    for other <- [
          nil,
          :atom,
          "",
          "00",
          "00-#{@trace}-#{@span}-01-more",
          "00-#{@trace}-#{@span}-01 ",
          "cc-#{@trace}-#{@span}-01more",
          "ff-#{@trace}-#{@span}-01",
          "00-#{String.upcase(@trace)}-#{@span}-01",
          "00-#{String.duplicate("0", 32)}-#{@span}-01",
          "00-#{@trace}-#{String.duplicate("0", 16)}-01",
          "00-#{@trace}-#{@span}-0g",
          "00_#{@trace}_#{@span}_01"
        ] do
      refute parent?(other)
    end
  end
end
