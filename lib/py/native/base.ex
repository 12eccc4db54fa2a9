defmodule Py.Native.Base do
  @moduledoc false

  @typedoc "Memory shared with another process: unmapped when no term refers to it any longer."
  @opaque segment :: reference

  @opaque loan :: reference

  @opaque lanes :: reference

  @typedoc "The descriptor of a unix stream socket that does not block, as `:inet.getfd/1` tells it; only borrowed."
  @type socket :: non_neg_integer

  @type reason :: atom | {:errno, integer}

  @spec load(Path.t()) :: :ok | {:error, String.t()}
  def load(path) do
    case :erlang.load_nif(path |> Path.rootname(".so") |> String.to_charlist(), 0) do
      :ok -> :ok
      {:error, {:reload, _already_loaded}} -> :ok
      {:error, {_reason, text}} -> {:error, List.to_string(text)}
    end
  end

  # Python
  @spec open(Path.t()) :: {:ok, String.t()} | {:error, String.t()}
  def open(_libpython), do: not_loaded()

  # A segment: Linux only. Whoever shares one agrees on who writes when; see native/shared.
  @spec segment_create(non_neg_integer) :: segment | {:error, reason}
  def segment_create(_len), do: not_loaded()

  @spec segment_size(segment) :: pos_integer
  def segment_size(_segment), do: not_loaded()

  @spec segment_write(segment, [binary]) :: non_neg_integer | {:error, reason}
  def segment_write(_segment, _iovec), do: not_loaded()

  @spec segment_read(segment, non_neg_integer, non_neg_integer) :: binary | {:error, reason}
  def segment_read(_segment, _offset, _len), do: not_loaded()

  # Without a copy: the binary changes when the segment is written again, and parts of it that were matched out do too.
  @spec segment_map(segment, non_neg_integer, non_neg_integer) :: binary
  def segment_map(_segment, _offset, _len), do: not_loaded()

  # A segment of which a process gets a message when neither the loan nor a binary on it is there any more.
  @spec segment_lend(segment, pid, term) :: loan
  def segment_lend(_segment, _owner, _message), do: not_loaded()

  @spec loan_map(loan, non_neg_integer, non_neg_integer) :: binary
  def loan_map(_loan, _offset, _len), do: not_loaded()

  @spec segment_word(segment, non_neg_integer) :: non_neg_integer
  def segment_word(_segment, _index), do: not_loaded()

  # The header has at most 255 bytes. After :malformed the socket is of no use.
  @spec segment_send(socket, binary, segment) :: :ok | :again | {:error, reason}
  def segment_send(_socket, _header, _segment), do: not_loaded()

  @spec segment_receive(socket) ::
          {binary, segment | nil} | :again | {:error, :closed | :malformed | reason}
  def segment_receive(_socket), do: not_loaded()

  # The lanes of a pool's workers: see Py.Lane
  @spec lanes_new() :: lanes
  def lanes_new, do: not_loaded()

  @spec lanes_add(lanes, non_neg_integer, segment) :: boolean
  def lanes_add(_lanes, _worker, _page), do: not_loaded()

  @spec lanes_remove(lanes, non_neg_integer) :: :ok
  def lanes_remove(_lanes, _worker), do: not_loaded()

  @spec lanes_ask(
          lanes,
          {pid, atom, non_neg_integer | nil},
          reference,
          byte,
          non_neg_integer,
          binary
        ) :: binary | {[{pos_integer, reference}], binary} | :left | :busy
  def lanes_ask(_lanes, _board_and_worker, _ref, _verb, _deadline, _body), do: not_loaded()

  @spec lane_free(segment) :: boolean
  def lane_free(_page), do: not_loaded()

  @spec lane_calls(segment) :: non_neg_integer
  def lane_calls(_page), do: not_loaded()

  # What is collected like any term, and then tells Py.Object.Keeper: `{:py_dropped, pool, board, worker, numbers}`
  @spec handle_new(atom, pid, non_neg_integer, non_neg_integer) :: reference
  def handle_new(_pool, _board, _worker, _number), do: not_loaded()

  # A process of the operating system; a negative number is its group
  @spec kill(integer, non_neg_integer) :: :ok | {:error, reason}
  def kill(_os_pid, _signal), do: not_loaded()

  defp not_loaded, do: :erlang.nif_error(:not_loaded)
end
