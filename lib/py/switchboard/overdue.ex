defmodule Py.Switchboard.Overdue do
  @moduledoc false

  # What looks after requests that take long: their callers are monitored, their time is minded, and a worker that does
  # not tell the end of it is killed.

  alias Py.{Error, Switchboard}
  alias Py.Switchboard.{Request, Requests, Roster, Staff}
  alias Py.Worker.Frame

  # A worker tells the end of a request's time within this, if it can tell anything; in nanoseconds.
  @tells_within 100_000_000

  # What has run when it is seen for the first time: two ticks or so, in nanoseconds.
  @at_first 20_000_000

  @spec look(Switchboard.state()) :: Switchboard.state()
  def look(state) do
    state = Enum.reduce(state.young..(state.newest - 1)//1, state, &grow_old/2)
    state = %{state | young: state.newest, newest: state.next_id}
    now = Frame.now()
    state = Enum.reduce(Map.keys(state.old), state, &look_at(&1, now, &2))
    Enum.reduce(state.silent, state, &kill_if_silent(&1, now, &2))
  end

  @doc "Looks after a request from now on."
  @spec grow_old(Frame.id(), Switchboard.state()) :: Switchboard.state()
  def grow_old(id, state) do
    case state.requests do
      %{^id => %{from: from}} when from != nil ->
        %{state | old: Map.put(state.old, id, watch(from, id))}

      _settled ->
        state
    end
  end

  # The message of its death says which request it is about: a caller may have had thousands.
  defp watch(from, id), do: :erlang.monitor(:process, from, tag: {:py_dead, id})

  defp look_at(id, now, state) do
    case state.requests do
      %{^id => %{since: nil, port: port} = request} when port != nil ->
        %{state | requests: %{state.requests | id => %{request | since: now - @at_first}}}

      %{^id => request} ->
        look_at_time(id, request, now, state)

      # It went with a worker that was ended in this very round.
      _gone ->
        state
    end
  end

  # A worker tells the end of the time of what it has by itself.
  defp look_at_time(id, request, now, state) do
    case request do
      %{deadline: deadline} when deadline in [0, nil] or deadline > now ->
        state

      %{port: nil} ->
        Requests.fail(state, id, too_late(state))

      %{deadline: deadline} = request when now > deadline + @tells_within ->
        give_up_silent(state, id, request)

      _is_being_told ->
        state
    end
  end

  defp too_late(state) do
    text = "the time was up before it could run"

    if Roster.serving(state.roster) == [] and state.roster.last_failure,
      do:
        Error.new(
          :timeout,
          text <> ", since no worker serves: " <> Exception.message(state.roster.last_failure)
        ),
      else: Error.new(:timeout, text)
  end

  # Its caller need not wait until it is sure that the worker will not tell. It keeps the worker busy until then.
  defp give_up_silent(state, id, request) do
    Request.answer(request, {:error, Error.new(:timeout, "its worker process does not answer")})
    over = %{request | mode: :over, from: nil, ref: nil}
    state = Requests.forget(state, id, request)
    limit = request.deadline + (state.options.grace + Staff.kill_after()) * 1_000_000

    %{
      state
      | requests: Map.put(state.requests, id, over),
        silent: Map.put(state.silent, id, limit)
    }
  end

  defp kill_if_silent({id, limit}, now, state) do
    case state.requests do
      %{^id => %{port: port}} when now > limit -> state |> Staff.kill(port) |> Staff.staff()
      %{^id => _request} -> state
      _it_did_answer -> %{state | silent: Map.delete(state.silent, id)}
    end
  end
end
