defmodule Py.Error.Rendering do
  @moduledoc false

  alias Py.Error

  @headline "Traceback (most recent call last):"
  @group_headline "Exception Group Traceback (most recent call last):"
  @caused "\nThe above exception was the direct cause of the following exception:\n"
  @during "\nDuring handling of the above exception, another exception occurred:\n"

  @meanings %{
    timeout: "the call did not end in time",
    cancelled: "the call was cancelled",
    overloaded: "the pool is overloaded",
    encode: "an argument has no counterpart in Python",
    decode: "the result has no counterpart in Elixir",
    crashed: "what ran the call crashed",
    not_available: "not available",
    no_pool: "there is no such pool",
    stopped: "the pool was stopped",
    starting: "the pool is still starting",
    session_lost: "the session was lost",
    stale_object: "the object is no longer there",
    nodedown: "the node cannot be reached"
  }

  @spec text(Error.t()) :: String.t()
  def text(%Error{kind: :python} = error), do: error |> lines() |> Enum.join("\n")

  def text(%Error{kind: kind, message: message}) do
    meaning = Map.get(@meanings, kind, to_string(kind))
    if message in [nil, ""], do: meaning, else: "#{meaning}: #{message}"
  end

  defp lines(%Error{kind: :python, exceptions: []} = error), do: before(error) ++ own(error)
  defp lines(%Error{kind: :python} = error), do: before(error) ++ group(error)
  defp lines(%Error{} = error), do: [text(error)]

  defp before(%Error{cause: %Error{} = cause}), do: lines(cause) ++ String.split(@caused, "\n")
  defp before(%Error{context: %Error{} = one}), do: lines(one) ++ String.split(@during, "\n")
  defp before(_error), do: []

  defp own(error), do: traceback(error.traceback, @headline) ++ summary(error)

  defp traceback([], _headline), do: []
  defp traceback(frames, headline), do: [headline | Enum.flat_map(frames, &frame/1)]

  defp frame(%{file: file, line: line, function: function, source: source}) do
    place = "  File \"#{file}\", line #{line}, in #{function}"
    if source in [nil, ""], do: [place], else: [place, "    " <> String.trim(source)]
  end

  defp summary(error) do
    Enum.flat_map([headline(error) | error.notes], &String.split(&1, "\n"))
  end

  defp headline(%Error{message: message} = error) when message in [nil, ""], do: class(error)
  defp headline(error), do: "#{class(error)}: #{error.message}"

  defp class(%Error{type: nil}), do: "Exception"

  defp class(%Error{module: module, type: type}) when module in [nil, "builtins", "__main__"],
    do: type

  defp class(%Error{module: module, type: type}), do: "#{module}.#{type}"

  # The bars and corners of Python's traceback module.
  defp group(error) do
    [first | rest] = own_of_group(error)
    last = length(error.exceptions)

    members =
      for {member, number} <- Enum.with_index(error.exceptions, 1),
          line <- member(member, number) do
        line
      end

    ["  + " <> first | Enum.map(rest, &("  | " <> &1))] ++
      ["  +-+---------------- 1 ----------------" | tl(members)] ++
      if(last > 0, do: ["    +------------------------------------"], else: [])
  end

  defp own_of_group(error), do: traceback(error.traceback, @group_headline) ++ summary(error)

  defp member(error, number) do
    [
      "    +---------------- #{number} ----------------"
      | Enum.map(lines(error), &("    | " <> &1))
    ]
  end
end
