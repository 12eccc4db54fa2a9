defmodule Py.Trace do
  @moduledoc false

  # https://www.w3.org/TR/trace-context/#traceparent-header-field-values

  @nowhere String.duplicate("0", 32)
  @nobody String.duplicate("0", 16)

  @doc "Is it a `traceparent`, in the format of W3C's Trace Context?"
  @spec parent?(term) :: boolean
  def parent?(
        <<version::2-bytes, "-", trace::32-bytes, "-", span::16-bytes, "-", flags::2-bytes,
          rest::bytes>>
      ) do
    version != "ff" and trace != @nowhere and span != @nobody and ends?(version, rest) and
      hex?(version <> trace <> span <> flags)
  end

  def parent?(_other), do: false

  # Later versions may have more to say.
  defp ends?(_version, ""), do: true
  defp ends?(version, rest), do: version != "00" and String.starts_with?(rest, "-")

  defp hex?(<<digit, rest::bytes>>) when digit in ?0..?9 or digit in ?a..?f, do: hex?(rest)
  defp hex?(rest), do: rest == ""
end
