defmodule Py.Switchboard.Dealer do
  @moduledoc false

  # The way of short calls: many requests to a worker with one write, many answers out of one read. What is particular
  # (a request in shared memory, a caller that is monitored, an answer that is not an answer) is left to the switchboard.

  alias Py.{Pool, Worker}
  alias Py.Switchboard.{Queue, Request, Roster}
  alias Py.Worker.Frame

  @typedoc "What a worker can take: its load, the bytes on their way to it, its port, what it is given, how many."
  @type place :: {non_neg_integer, non_neg_integer, port, iodata, non_neg_integer}

  @doc "Gives requests that just came to workers that have room; tells which are left."
  @spec deal([Request.t()], map) :: {[Request.t()], map}
  def deal(requests, state) do
    {left, places, booked, id} =
      deal(requests, Roster.places(state.roster), state.requests, state.next_id)

    {left, %{state | roster: Roster.fill(state.roster, places), requests: booked, next_id: id}}
  end

  defp deal([%Request{shared: nil, home: nil} = request | rest] = all, places, booked, id) do
    case put(places, id, request) do
      nil -> {all, places, booked, id}
      {port, places} -> deal(rest, places, Map.put(booked, id, %{request | port: port}), id + 1)
    end
  end

  defp deal(left, places, booked, id), do: {left, places, booked, id}

  @doc "The same for requests that wait."
  @spec deal_queued(map) :: map
  def deal_queued(state) do
    {queue, places, booked} =
      deal_queued(state.queue, Roster.places(state.roster), state.requests)

    %{state | queue: queue, roster: Roster.fill(state.roster, places), requests: booked}
  end

  defp deal_queued(queue, places, booked) do
    with {id, rest} <- Queue.pop(queue),
         %{^id => %Request{shared: nil, home: nil} = request} <- booked,
         {port, places} <- put(places, id, request) do
      deal_queued(rest, places, %{booked | id => %{request | port: port}})
    else
      _nothing_that_can_be_dealt -> {queue, places, booked}
    end
  end

  # The request in the place that is best for it.
  defp put(places, id, request) do
    size = byte_size(request.body)

    with {{load, bytes, port, frames, count}, others} <- pick(places, size) do
      frame = Frame.request(id, request.verb, request.deadline, request.body)
      {port, [{load + 1, bytes + size, port, [frames | frame], count + 1} | others]}
    end
  end

  # The place with the least load, if it has room: one that has not has more than another.
  defp pick([place], size), do: if(room?(place, size), do: {place, []})
  defp pick([], _size), do: nil

  defp pick(places, size) do
    best = Enum.min_by(places, &elem(&1, 0))
    if room?(best, size), do: {best, List.delete(places, best)}
  end

  defp room?({load, bytes, _port, _frames, _count}, size), do: Worker.room?(load, bytes, size)

  @doc "Hands on the answers at the beginning of what a worker sent; tells what comes after them."
  @spec answer(binary, port, map) :: {binary, map}
  def answer(bytes, port, state) do
    {rest, requests, count, size} = answer(bytes, state.requests, state.old, 0, 0)
    Pool.settled(state.pool, count)
    roster = Roster.relieve(state.roster, port, count, size)
    {rest, %{state | requests: requests, roster: roster}}
  end

  # Kind 1 is an answer; its result begins 17 bytes on.
  defp answer(<<len::32, 1, id::64, run::64, tail::binary>> = bytes, requests, old, count, size)
       when byte_size(tail) >= len - 17 and not is_map_key(old, id) do
    case requests do
      %{^id => %Request{mode: mode, awaiting?: false, question?: false} = request}
      when mode != :start ->
        {result, rest} = :erlang.split_binary(tail, len - 17)
        Request.reply(request, :reply, run, result)
        size = size + byte_size(request.body)
        answer(rest, Map.delete(requests, id), old, count + 1, size)

      _particular ->
        {bytes, requests, count, size}
    end
  end

  defp answer(bytes, requests, _old, count, size), do: {bytes, requests, count, size}
end
