defmodule Py.Error.Rendering do
  @moduledoc false

  alias Py.Error

  @headline "Traceback (most recent call last):"
  @group_headline "Exception Group Traceback (most recent call last):"
  @caused "The above exception was the direct cause of the following exception:"
  @during "During handling of the above exception, another exception occurred:"

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
  def text(%Error{kind: :python} = error), do: error |> lines(0) |> Enum.join("\n")

  def text(%Error{kind: kind, message: message}) do
    meaning = Map.get(@meanings, kind, to_string(kind))
    if message in [nil, ""], do: meaning, else: "#{meaning}: #{message}"
  end

  # The layout of Python's traceback module, its bars and corners included. `depth` is that of the groups around.
  defp lines(%Error{kind: :python, exceptions: []} = error, depth) do
    before(error, depth) ++ emit(traceback(error, @headline) ++ summary(error), depth)
  end

  defp lines(%Error{kind: :python} = error, 0), do: before(error, 0) ++ corner(group(error, 1))

  defp lines(%Error{kind: :python} = error, depth),
    do: before(error, depth) ++ group(error, depth)

  defp lines(%Error{} = error, depth), do: emit([text(error)], depth)

  defp before(%Error{cause: %Error{} = cause}, depth),
    do: lines(cause, depth) ++ link(@caused, depth)

  defp before(%Error{context: %Error{} = one}, depth),
    do: lines(one, depth) ++ link(@during, depth)

  defp before(_error, _depth), do: []

  defp link(text, depth), do: emit(["", text, ""], depth)

  defp emit(lines, 0), do: lines
  defp emit(lines, depth), do: Enum.map(lines, &(indent(depth) <> "| " <> &1))

  defp indent(depth), do: String.duplicate(" ", 2 * depth)

  defp corner(["  | " <> first | rest]), do: ["  + " <> first | rest]

  defp group(error, depth) do
    own = emit(traceback(error, @group_headline) ++ summary(error), depth)

    members =
      for {member, number} <- Enum.with_index(error.exceptions, 1),
          line <- [rule(number, depth) | lines(member, depth + 1)],
          do: line

    own ++ members ++ close(List.last(error.exceptions), depth + 1)
  end

  defp rule(number, depth) do
    indent(depth) <>
      if(number == 1, do: "+-", else: "  ") <> "+---------------- #{number} ----------------"
  end

  # A group that comes last has drawn the line already.
  defp close(member, depth) do
    if group?(member), do: [], else: [indent(depth) <> "+------------------------------------"]
  end

  defp group?(%Error{exceptions: []} = error), do: group?(error.cause) or group?(error.context)
  defp group?(%Error{}), do: true
  defp group?(nil), do: false

  defp traceback(%Error{traceback: []}, _headline), do: []
  defp traceback(error, headline), do: [headline | Enum.flat_map(error.traceback, &frame/1)]

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
end
