defmodule Py.Callbacks do
  @moduledoc false

  # Hears what Python code asks the node, and has each question answered by a process of its own, in the name of whoever
  # made the call: with its group leader, its Logger metadata and its `$callers`. The process ends with the question.

  use GenServer

  alias Py.{Asker, Awaiting, Encoding, Exposed, Native, Telemetry}
  alias Py.Worker.Frame

  @names __MODULE__.Names

  @typedoc "Where an answer goes: to a Python thread of the node, or to one of a worker process."
  @type asker :: {:node, non_neg_integer} | {:worker, pid, port, non_neg_integer}

  @spec start_link(term) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "Gives a function a name, in place of what had it before; with an owner for as long as that lives."
  @spec register(String.t(), function | {module, atom}, pid | nil) :: :ok
  def register(name, function, owner),
    do: GenServer.call(__MODULE__, {:register, name, function, owner}, :infinity)

  @spec unregister(String.t()) :: :ok
  def unregister(name), do: GenServer.call(__MODULE__, {:unregister, name}, :infinity)

  # --- the process --------------------------------------------------------------------------------

  @impl true
  def init(nil) do
    :ets.new(@names, [:named_table, read_concurrency: true])
    abandon_questions()

    # By question the process that answers, by its monitor the question, by an owner's monitor its name, by a worker's port
    # the monitor of that.
    {:ok, %{answering: %{}, questions: %{}, owners: %{}, ports: %{}}}
  end

  # Those that were asked before the process that heard them was restarted. Without a Python there are none.
  defp abandon_questions do
    Native.abandon_questions()
  rescue
    ErlangError -> :ok
  end

  @impl true
  def handle_call({:register, name, function, owner}, _from, state) do
    state = forget_name(name, state)
    monitor = owner && Process.monitor(owner)
    :ets.insert(@names, {name, function, monitor})
    owners = if monitor, do: Map.put(state.owners, monitor, name), else: state.owners
    {:reply, :ok, %{state | owners: owners}}
  end

  def handle_call({:unregister, name}, _from, state),
    do: {:reply, :ok, forget_name(name, state)}

  defp forget_name(name, state) do
    case :ets.take(@names, name) do
      [{^name, _function, monitor}] when monitor != nil ->
        Process.demonitor(monitor, [:flush])
        %{state | owners: Map.delete(state.owners, monitor)}

      _none_or_no_owner ->
        state
    end
  end

  @impl true
  def handle_info({:py_ask, number, _request, what}, state) when is_integer(number),
    do: {:noreply, ask({:node, number}, nil, what, state)}

  def handle_info({:py_ask, {:worker, _board, port, _number} = asker, caller, what}, state)
      when is_port(port),
      do: {:noreply, ask(asker, caller, what, watch(port, state))}

  def handle_info({:py_forget, number}, state) when is_integer(number),
    do: {:noreply, forget({:node, number}, state)}

  def handle_info({:py_forget, asker}, state), do: {:noreply, forget(asker, state)}

  def handle_info({:DOWN, monitor, :process, _pid, reason}, state)
      when is_map_key(state.questions, monitor) do
    {asker, questions} = Map.pop!(state.questions, monitor)
    if reason != :normal, do: answer(asker, died(reason))
    {:noreply, %{state | questions: questions, answering: Map.delete(state.answering, asker)}}
  end

  def handle_info({:DOWN, monitor, :process, _pid, _reason}, state) do
    case state.owners do
      %{^monitor => name} -> {:noreply, forget_name(name, state)}
      _answered -> {:noreply, state}
    end
  end

  # A worker process has ended: none of its threads waits any more.
  def handle_info({:DOWN, _monitor, :port, port, _reason}, state) do
    asked = for {:worker, _board, ^port, _number} = asker <- Map.keys(state.answering), do: asker
    state = %{state | ports: Map.delete(state.ports, port)}
    {:noreply, Enum.reduce(asked, state, &forget/2)}
  end

  def handle_info(_other, state), do: {:noreply, state}

  defp watch(port, state) when is_map_key(state.ports, port), do: state
  defp watch(port, state), do: put_in(state.ports[port], Port.monitor(port))

  defp ask(asker, caller, what, state) do
    {pid, monitor} = spawn_monitor(fn -> serve(asker, caller, what) end)

    %{
      state
      | answering: Map.put(state.answering, asker, {pid, monitor}),
        questions: Map.put(state.questions, monitor, asker)
    }
  end

  # Nobody waits for it any more.
  defp forget(asker, state) do
    case Map.pop(state.answering, asker) do
      {{pid, monitor}, answering} ->
        Process.demonitor(monitor, [:flush])
        Process.exit(pid, :kill)
        %{state | answering: answering, questions: Map.delete(state.questions, monitor)}

      {nil, _answering} ->
        state
    end
  end

  # --- the process of one question ----------------------------------------------------------------

  defp serve(question, caller, {leader, what, span}) do
    Process.group_leader(self(), leader)
    asker = %{Asker.of(question, caller) | span: span}
    Asker.impersonate(asker)
    answer(question, perform(what, asker, question))
  end

  defp perform({:await, "open", []}, _asker, question), do: {:ok, Awaiting.open(question)}

  defp perform({:iter, "open", [enumerable]}, asker, question),
    do: Py.Iterator.open(enumerable, asker, question)

  defp perform(what, asker, _question), do: perform(what, asker)

  @doc "What is asked, done by the process that is to answer it."
  @spec perform(term, Asker.t()) :: {:ok, term} | {:error, term}
  def perform({:state, operation, arguments}, _asker),
    do: Py.State.perform(operation, arguments)

  def perform({:channel, operation, arguments}, _asker),
    do: Py.Channel.perform(operation, arguments)

  def perform({:await, operation, arguments}, asker),
    do: Awaiting.perform(operation, arguments, asker)

  def perform({:iter, "next", [pid, count]}, _asker), do: Py.Iterator.next(pid, count)

  def perform({:whereis, name}, _asker), do: {:ok, whereis(name)}

  def perform({:send, name, node, message}, _asker) do
    send({String.to_existing_atom(name), String.to_existing_atom(node)}, message)
    {:ok, true}
  rescue
    # A name that no atom has is nobody's.
    ArgumentError -> {:ok, false}
  end

  def perform({:has, name}, _asker), do: {:ok, :ets.member(@names, name)}

  def perform({:call, function, arguments, keywords}, asker) when is_function(function),
    do: apply_to(function, function, arguments, keywords, asker)

  def perform({:call, name, arguments, keywords}, asker) do
    case :ets.lookup(@names, name) do
      [{^name, function, _owner}] -> apply_to(function, name, arguments, keywords, asker)
      [] -> call_exposed(name, arguments, keywords, asker)
    end
  end

  # Of a call that is over nobody wants to hear.
  def perform({:progress, _function, _arguments}, %{caller: nil}), do: {:ok, nil}

  # What it returns is nobody's, and need not have a value in Python.
  def perform({:progress, function, arguments}, asker) when is_function(function, 3) do
    with {:ok, _ignored} <- apply_to(function, function, arguments, %{}, asker), do: {:ok, nil}
  end

  def perform({:telemetry, event, measurements, metadata}, _asker),
    do: Telemetry.execute(event, measurements, metadata)

  def perform({:span, stage, facts}, asker), do: {:ok, Telemetry.span(stage, facts, asker)}

  defp call_exposed(name, arguments, keywords, asker) do
    case Exposed.find(asker.pool, name) do
      {:ok, function} -> apply_to(function, name, arguments, keywords, asker)
      {:error, text} -> {:error, {:attribute, text}}
    end
  end

  defp whereis(name) do
    case Process.whereis(String.to_existing_atom(name)) do
      pid when is_pid(pid) -> pid
      _port_or_nobody -> nil
    end
  rescue
    ArgumentError -> nil
  end

  defp apply_to(function, subject, arguments, keywords, asker) do
    with {:ok, arguments} <- with_keywords(arguments, keywords, subject),
         :ok <- check_arity(function, subject, arguments, keywords) do
      facts = %{function: subject, arity: length(arguments)}
      {:ok, Telemetry.callback(facts, asker, fn -> run(function, arguments) end)}
    end
  catch
    kind, reason -> raised(kind, reason, __STACKTRACE__)
  end

  @doc "What Elixir code raised, for Python."
  @spec raised(:error | :exit | :throw, term, Exception.stacktrace()) :: {:error, term}
  def raised(kind, reason, stacktrace),
    do: {:error, {:raised, describe(kind, reason, stacktrace)}}

  defp run({module, function}, arguments), do: apply(module, function, arguments)
  defp run(function, arguments), do: apply(function, arguments)

  defp with_keywords(arguments, keywords, _name) when keywords == %{}, do: {:ok, arguments}

  defp with_keywords(arguments, keywords, name) do
    {:ok, arguments ++ [for({key, value} <- keywords, do: {String.to_existing_atom(key), value})]}
  rescue
    # Names come from Python: none of them becomes an atom.
    ArgumentError ->
      {:error,
       {:type, "#{shown(name)} got a keyword that no Elixir code has: #{unknown(keywords)}"}}
  end

  defp shown(name) when is_binary(name), do: name <> "()"
  defp shown(function), do: inspect(function)

  defp unknown(keywords) do
    keywords |> Map.keys() |> Enum.reject(&existing?/1) |> Enum.map_join(", ", &inspect/1)
  end

  defp existing?(name) do
    is_atom(String.to_existing_atom(name))
  rescue
    ArgumentError -> false
  end

  defp check_arity(function, name, arguments, keywords) do
    given = length(arguments)

    if given in arities(function) do
      :ok
    else
      takes = function |> arities() |> Enum.map_join(" or ", &Integer.to_string/1)

      counted =
        if keywords == %{},
          do: "#{given} were given",
          else: "#{given} were given, keywords counting as one"

      {:error, {:type, "#{shown(name)} takes #{takes} arguments, and #{counted}"}}
    end
  end

  defp arities({module, function}) do
    Code.ensure_loaded(module)
    for {^function, arity} <- module.module_info(:exports), do: arity
  end

  defp arities(function), do: [:erlang.fun_info(function, :arity) |> elem(1)]

  defp describe(kind, reason, stacktrace) do
    normal = Exception.normalize(kind, reason, stacktrace)

    %{
      kind: Atom.to_string(kind),
      reason: reason_text(kind, normal),
      type: type_text(kind, normal),
      stacktrace: Exception.format_stacktrace(stacktrace),
      again: fn -> :erlang.raise(kind, reason, stacktrace) end
    }
  end

  defp reason_text(:error, exception), do: Exception.message(exception)
  defp reason_text(_kind, reason), do: inspect(reason)

  defp type_text(:error, %module{}), do: inspect(module)
  defp type_text(kind, _reason), do: Atom.to_string(kind)

  @doc "The answer of a process that ended before it had one."
  @spec died(term) :: {:error, term}
  def died(reason) do
    {:error,
     {:raised,
      %{
        kind: "exit",
        reason: "the process that ran the function ended: #{inspect(reason)}",
        type: "exit",
        stacktrace: "",
        again: fn -> exit(reason) end
      }}}
  end

  # --- answers ------------------------------------------------------------------------------------

  @spec answer(asker, {:ok, term} | {:error, term}) :: term
  defp answer({:node, number}, answer) do
    with :foreign <- hand_over(number, answer), do: hand_over(number, Encoding.answer(answer))
  rescue
    # Python code made the question up: its number is none, or there is no Python in the node.
    _none in [ArgumentError, ErlangError] -> :ok
  end

  defp answer({:worker, board, port, number}, answer) do
    frame = Frame.answer(number, answer)

    frame =
      if Frame.foreign?(frame), do: Frame.answer(number, Encoding.answer(answer)), else: frame

    send(board, {:py_answer, port, frame})
  end

  defp hand_over(number, answer) do
    with :large <- Native.answer(number, {answer}), do: Native.answer_large(number, {answer})
  end
end
