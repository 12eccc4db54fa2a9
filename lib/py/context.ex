defmodule Py.Context do
  @moduledoc false

  # What a request brings along: `{:within, request, context}` runs the request in a context of Python's (contextvars) that
  # has the values of the map. Most requests bring nothing, and stay as they are. `erlang/_context.py` is the other half.

  alias Py.Trace

  @typedoc """
  By key what Python enters: `progress` a function, `traceparent` a string, `session` a key, `span` what is open. `return` says
  that the result is to be a reference.
  """
  @type t :: %{optional(atom) => term}

  @doc "The request as the calling process makes it with these options."
  @spec wrap(tuple, map) :: tuple
  def wrap(request, %{return: :object} = options),
    do: request |> wrap(Map.replace(%{options | return: :value}, :inline, false)) |> refer()

  def wrap(request, %{inline: true, progress: nil, traceparent: nil}), do: request
  def wrap(_request, %{inline: true} = options), do: raise(ArgumentError, not_inline(options))

  def wrap(request, %{progress: nil, traceparent: nil}) do
    case Process.get(:"$logger_metadata$") do
      %{traceparent: traceparent} -> traced(request, traceparent)
      _no_trace -> request
    end
  end

  def wrap(request, %{progress: nil, traceparent: traceparent}),
    do: within(request, %{traceparent: traceparent})

  def wrap(request, %{progress: progress} = options),
    do: request |> wrap(%{options | progress: nil}) |> within(%{progress: progress})

  @doc "The request, with a reference to its result as the result."
  @spec refer(tuple) :: tuple
  def refer(request), do: within(request, %{return: :object})

  @doc "The request within a context, or within one that has more."
  @spec within(tuple, t) :: tuple
  def within({:within, request, context}, more), do: {:within, request, Map.merge(context, more)}
  def within(request, context), do: {:within, request, context}

  # Metadata is not written for us: what is no traceparent is somebody else's.
  defp traced(request, traceparent) do
    if Trace.parent?(traceparent),
      do: within(request, %{traceparent: traceparent}),
      else: request
  end

  defp not_inline(options) do
    given = for key <- [:progress, :traceparent], options[key], do: "#{key}:"

    "#{Enum.join(given, " and ")} cannot go with inline: true, which runs on a scheduler of the VM, without a context: " <>
      "make this call without inline: true"
  end
end
