defmodule Py.Worker.Template do
  @moduledoc false

  # The process that has run `init` of a pool with `prefork: true`, and forks its workers. Its switchboard gets
  # `{:py_template, pid, what}`: `:active` once it forks; `{:off, why}` where it may not be forked, `{:failed, error}` where
  # it did not come to, `{:died, error}` where it did. After each of the last three it is gone. `native/worker/src/template.rs` is the other half.

  use GenServer, restart: :temporary

  alias Py.{Error, Worker}
  alias Py.Native.Base
  alias Py.Worker.{Frame, Output}

  # The number of the one request that it gets.
  @start 1

  @typedoc "No prefork; none there; a process, and the name of the socket at which it forks; why there is none."
  @type t :: nil | :wanted | {:starting | :active, pid, String.t()} | {:off, String.t()}

  @doc "Starts one, which ends with the calling process."
  @spec start(Py.Python.t(), map, tuple, pid) :: t
  def start(python, options, facts, leader) do
    socket = "py-template-#{Elixir.Base.encode16(:crypto.strong_rand_bytes(16), case: :lower)}"

    {:ok, pid} =
      GenServer.start_link(__MODULE__, {self(), socket, python, options, facts, leader})

    {:starting, pid, socket}
  end

  @doc "How workers are started."
  @spec role(t) :: Worker.role()
  def role({:active, _pid, socket}), do: {:forked, socket}
  def role(_no_template), do: :plain

  @doc "What people are told."
  @spec describe(t) :: false | :starting | :active | {:off, String.t()}
  def describe(nil), do: false
  def describe(:wanted), do: :starting
  def describe({:off, why}), do: {:off, why}
  def describe({stage, _pid, _socket}), do: stage

  @spec stop(t) :: :ok
  def stop({_stage, pid, _socket}) when is_pid(pid) do
    GenServer.stop(pid)
  catch
    :exit, _it_ends_already -> :ok
  end

  def stop(_no_template), do: :ok

  @impl true
  def init({owner, socket, python, options, facts, leader}) do
    Process.flag(:trap_exit, true)
    state = %{owner: owner, worker: nil, options: options, leader: leader}
    {:ok, state, {:continue, {socket, python, facts}}}
  end

  @impl true
  def handle_continue({socket, python, facts}, state) do
    case Worker.start(0, python, state.options, facts, {:template, socket}) do
      {:ok, worker} ->
        start_timer(state.options.start_timeout)
        {:noreply, %{state | worker: worker}}

      {:error, text} ->
        failed(state, Error.new(:not_available, text))
    end
  end

  defp start_timer(:infinity), do: :ok
  defp start_timer(timeout), do: Process.send_after(self(), :start_timeout, timeout)

  @impl true
  def handle_info({port, {:data, bytes}}, %{worker: %{port: port} = worker} = state) do
    {frames, rest} = Frame.split(worker.partial <> bytes)
    handle_frames(frames, %{state | worker: %{worker | partial: rest}})
  end

  def handle_info({port, {:exit_status, status}}, %{worker: %{port: port}} = state),
    do: ended(state, Worker.exit(status))

  def handle_info({:EXIT, port, _reason}, %{worker: %{port: port}} = state), do: ended(state, nil)

  def handle_info({:py_socket, _token, role, socket}, state),
    do: {:noreply, %{state | worker: Worker.connect(state.worker, role, socket)}}

  def handle_info({:tcp, _socket, bytes}, %{worker: worker} = state),
    do:
      {:noreply,
       %{state | worker: %{worker | output: Output.take(worker.output, bytes, facts(state))}}}

  def handle_info(
        {:tcp_closed, socket},
        %{worker: %{output: %{socket: socket}} = worker} = state
      ),
      do: {:noreply, %{state | worker: %{worker | output: Output.closed(worker.output)}}}

  def handle_info(:start_timeout, %{worker: %{stage: :starting}} = state) do
    Worker.kill(state.worker)
    failed(state, Error.new(:timeout, "the time was up while it ran"))
  end

  def handle_info(_other, state), do: {:noreply, state}

  defp handle_frames([], state), do: {:noreply, state}

  defp handle_frames([frame | frames], state) do
    with {:noreply, state} <- handle_frame(frame, state), do: handle_frames(frames, state)
  end

  defp handle_frame({:hello, os_pid, version}, %{worker: worker} = state) do
    worker = %{worker | os_pid: os_pid, version: version}
    frame = Worker.start_frame(worker, @start, state.options, state.leader)
    {:noreply, %{state | worker: Worker.flush(%{worker | outgoing: frame})}}
  end

  defp handle_frame({kind, @start, _run, bytes}, state) when kind in [:reply, :fault],
    do: handle_result(Frame.result(kind, bytes), state)

  # A long traceback.
  defp handle_frame({:shared, @start, _run, segment, len, _begin}, state) do
    worker = Worker.receive_segments(state.worker)

    handle_result(
      Frame.result(:reply, Base.segment_read(worker.segments[segment], 0, len)),
      state
    )
  end

  defp handle_frame({:forks, ""}, state) do
    tell(state, :active)
    {:noreply, put_in(state.worker.stage, :ready)}
  end

  defp handle_frame({:forks, obstacle}, state), do: stop_telling(state, {:off, obstacle})

  defp handle_frame({:send, _kind, _to, _message} = frame, state) do
    Worker.deliver(frame)
    {:noreply, state}
  end

  defp handle_result(:ok, state), do: {:noreply, state}
  defp handle_result({:error, error}, state), do: failed(state, error)

  defp ended(state, exit) do
    {output, words} = Output.last_words(state.worker.output, facts(state))
    cause = if exit, do: Worker.cause(exit), else: "ended"
    text = String.trim_trailing("the template process #{state.worker.os_pid} #{cause}\n#{words}")

    failed(%{state | worker: %{state.worker | output: output}}, %{
      Error.new(:crashed, text)
      | exit: exit
    })
  end

  defp failed(%{worker: %{stage: :ready}} = state, error), do: stop_telling(state, {:died, error})
  defp failed(state, error), do: stop_telling(state, {:failed, error})

  defp stop_telling(state, what) do
    tell(state, what)
    {:stop, :normal, state}
  end

  defp tell(state, what), do: send(state.owner, {:py_template, self(), what})

  defp facts(state), do: %{pool: state.options.name, os_pid: state.worker.os_pid}

  @impl true
  def terminate(_reason, %{worker: nil}), do: :ok
  def terminate(_reason, state), do: Worker.stop(state.worker)
end
