defmodule Py.Switchboard.Request do
  @moduledoc false

  # One request from a caller's message to its single answer.

  alias Py.Survivor
  alias Py.Switchboard.Loan
  alias Py.Worker.Frame

  defstruct [
    # Who gets the answer, and by which reference.
    :from,
    :ref,
    # :raw for a caller that decodes, :result for one that gets a message as from any pool, :start for our own, :over for
    # one whose caller has its answer while the worker is still at it.
    :mode,
    :verb,
    :deadline,
    # Where the time that it ran goes, for those who ask: an atomics array of one.
    :times,
    # The worker that has it, and since when, to about a tick; nil for less.
    :port,
    :since,
    # The number of the one worker that may have it; with the key of a caller that stays there from then on, or with that
    # alone for one that stays with whatever worker it gets: `{number, key}`, `{:choose, key}`. `{number, :object}` for the
    # one that has an object.
    :home,
    body: "",
    # Where the body is, if that is shared memory.
    shared: nil,
    # What it is about, where that cannot be told from the body.
    subject: nil,
    awaiting?: false,
    # Of the pool itself: no load.
    question?: false
  ]

  @type t :: %__MODULE__{}

  # Decoding more than this takes the switchboard too long.
  @small 8 * 1024

  @doc "What a request is about: the text is the same for those that run in the node."
  @spec subject(t | tuple) :: String.t()
  def subject(%__MODULE__{subject: nil, verb: verb, body: body}),
    do: body |> :erlang.binary_to_term() |> put_elem(0, Frame.verb(verb)) |> subject()

  def subject(%__MODULE__{subject: subject}), do: subject
  def subject({:call, target, name, _args, _kwargs}), do: subject({:getattr, target, name})
  def subject({:getattr, %Py.Object{type: type}, name}), do: "#{type}.#{name}"
  def subject({:getattr, {_worker, _number, type}, name}), do: "#{type}.#{name}"
  def subject({:getattr, target, name}), do: "#{target}.#{name}"
  def subject({:reload, module}), do: "reload #{module}"
  def subject({kind, _code, _vars, _file, _line}), do: Atom.to_string(kind)
  def subject({:within, request, _context}), do: subject(request)

  @doc "Hands on what a worker answered."
  @spec reply(t, :reply | :fault | :referring, non_neg_integer, binary) :: term
  # In a message to a process that is dead, objects would be referred to by nobody, and never let go of.
  def reply(%{mode: :raw} = request, :referring, _run, bytes) do
    answer = fn ->
      send(request.from, {:py_result, request.ref, Frame.result(:referring, bytes)})
    end

    if byte_size(bytes) <= @small, do: answer.(), else: spawn(answer)
  end

  def reply(%{mode: :raw} = request, kind, run, bytes),
    do: send(request.from, {:py_reply, request.ref, kind, run, bytes})

  def reply(%{mode: :result} = request, kind, run, bytes) do
    note_times(request, run)
    answer = fn -> send(request.from, {:py_result, request.ref, Frame.result(kind, bytes)}) end
    if byte_size(bytes) <= @small, do: answer.(), else: spawn(answer)
    Survivor.settle(request.ref)
  end

  @doc "The same for what is in memory of the worker's; tells which process is to give it back."
  @spec lend(t, non_neg_integer, Loan.t()) :: pid
  def lend(%{mode: :raw} = request, run, loan) do
    send(request.from, {:py_shared, request.ref, run, loan})
    request.from
  end

  def lend(%{mode: :result} = request, run, loan) do
    note_times(request, run)
    reader = spawn(fn -> send(request.from, {:py_result, request.ref, Loan.take(loan)}) end)
    Survivor.settle(request.ref)
    reader
  end

  @doc "Answers with what is no worker's."
  @spec answer(t, {:error, Py.Error.t()}) :: term
  def answer(%{from: nil}, _result), do: :ok

  def answer(request, result) do
    send(request.from, {:py_result, request.ref, result})
    drop(request)
  end

  @doc "Notes that nobody is owed an answer."
  @spec drop(t) :: term
  def drop(%{mode: :result, ref: ref}), do: Survivor.settle(ref)
  def drop(_request), do: :ok

  defp note_times(%{times: nil}, _run), do: :ok
  defp note_times(%{times: times}, run), do: :atomics.put(times, 1, run)
end
