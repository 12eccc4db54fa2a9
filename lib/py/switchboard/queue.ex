defmodule Py.Switchboard.Queue do
  @moduledoc false

  # Requests that wait, by their ids. Callers take turns, so that one that asks for thousands of calls at once does not
  # have the others wait for all of them. A caller that waits for its answer has one request, which is its own turn.

  alias Py.Switchboard.Request

  # A turn is the id of a request, or a caller whose requests wait in a queue of their own.
  defstruct turns: :queue.new(), callers: %{}

  @type t :: %__MODULE__{
          turns: :queue.queue(pos_integer | pid),
          callers: %{pid => :queue.queue(pos_integer)}
        }

  @spec new() :: t
  def new, do: %__MODULE__{}

  @spec empty?(t) :: boolean
  def empty?(queue), do: :queue.is_empty(queue.turns)

  @doc "Puts a request behind the others of its caller."
  @spec put(t, pos_integer, Request.t()) :: t
  def put(queue, id, request), do: add(queue, id, request, &:queue.in/2)

  @doc "Puts one back that was in front of all that waits."
  @spec put_back(t, pos_integer, Request.t()) :: t
  def put_back(queue, id, request), do: add(queue, id, request, &:queue.in_r/2)

  defp add(queue, id, %{mode: :result, from: caller}, put) do
    case queue.callers do
      %{^caller => ids} ->
        %{queue | callers: %{queue.callers | caller => put.(id, ids)}}

      callers ->
        %{
          queue
          | callers: Map.put(callers, caller, :queue.from_list([id])),
            turns: put.(caller, queue.turns)
        }
    end
  end

  defp add(queue, id, _request, put), do: %{queue | turns: put.(id, queue.turns)}

  @doc "Takes the request whose turn it is."
  @spec pop(t) :: {pos_integer, t} | nil
  def pop(queue) do
    case :queue.out(queue.turns) do
      {{:value, id}, turns} when is_integer(id) -> {id, %{queue | turns: turns}}
      {{:value, caller}, turns} -> pop_of(caller, %{queue | turns: turns})
      {:empty, _turns} -> nil
    end
  end

  defp pop_of(caller, queue) do
    {{:value, id}, ids} = :queue.out(Map.fetch!(queue.callers, caller))

    if :queue.is_empty(ids),
      do: {id, %{queue | callers: Map.delete(queue.callers, caller)}},
      else:
        {id,
         %{
           queue
           | callers: %{queue.callers | caller => ids},
             turns: :queue.in(caller, queue.turns)
         }}
  end
end
