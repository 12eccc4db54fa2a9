defmodule Py.Worker.Frame do
  @moduledoc false

  # What crosses the pipes of a worker. `native/worker/src/frames.rs` is the other half.

  @configure 1
  @start 2
  @request 3
  @cancel 4
  @stacks 5
  @segment 6
  @returned 7
  @dropped 8
  @shared_request 9
  @answer 10

  # What a worker sends with a segment.
  @their_segment 1
  @their_page 2

  @verbs %{call: 0, eval: 1, exec: 2, getattr: 3, reload: 4, within: 5}

  # Added to a verb: large binaries of the answer stay in memory of the worker's.
  @mapped 0x80

  @names Map.new(@verbs, fn {name, verb} -> {verb, name} end)

  @spec verb(byte) :: atom
  def verb(number) when number >= @mapped, do: verb(number - @mapped)
  def verb(number), do: Map.fetch!(@names, number)

  @doc "The number of what is asked, where large binaries of its answer are not to be copied."
  @spec mapped(byte) :: byte
  def mapped(verb), do: verb + @mapped

  @spec mapped?(byte) :: boolean
  def mapped?(verb), do: is_integer(verb) and verb >= @mapped

  # Where it is nanoseconds anyway, the conversion is what costs.
  @perf_counter_unit :erlang.convert_time_unit(1, :second, :perf_counter)

  @type id :: non_neg_integer

  @doc "Nanoseconds on the clock that the processes of a machine share; 0 for no deadline."
  @spec deadline(timeout) :: non_neg_integer
  def deadline(:infinity), do: 0
  def deadline(timeout), do: now() + timeout * 1_000_000

  @spec now() :: integer
  def now do
    case @perf_counter_unit do
      1_000_000_000 -> :os.perf_counter()
      _other -> :os.perf_counter(:nanosecond)
    end
  end

  @doc "The number of what is asked, and its body: all of a request that its caller can make."
  @spec encode(pid, tuple) :: {byte, [binary]}
  def encode(leader, request) do
    verb = Map.fetch!(@verbs, elem(request, 0))
    body = put_elem(request, 0, leader)

    if plain?(request),
      do: {verb, [:erlang.term_to_binary(body)]},
      else: {verb, :erlang.term_to_iovec(body)}
  end

  @doc "Whether it is a call with few arguments, none of them large or made of others: one binary of it is made faster."
  @spec plain?(tuple) :: boolean
  def plain?({:call, _target, _name, args, []}), do: plain?(args, 8)
  def plain?(_other), do: false

  defp plain?([], _left), do: true

  defp plain?([arg | args], left) when is_number(arg) or is_atom(arg),
    do: left > 0 and plain?(args, left - 1)

  defp plain?([arg | args], left) when is_binary(arg),
    do: left > 0 and byte_size(arg) < 1024 and plain?(args, left - 1)

  defp plain?(_args, _left), do: false

  # The names of known structs, as they stand behind the key.
  @structs Map.new(Py.Encoding.structs(), &{Atom.to_string(&1), []})
  @binary 109

  @doc "Whether there may be a struct in an encoded term that the type table does not know."
  @spec foreign?([binary]) :: boolean
  def foreign?([piece | rest]),
    do: foreign_in?(piece) or rest |> behind_head(piece) |> foreign?()

  def foreign?([]), do: false

  # A large binary is a piece of its own, behind its length: it may be of any size.
  defp behind_head([content | rest] = pieces, piece) when byte_size(piece) >= 5 do
    if binary_part(piece, byte_size(piece), -5) == <<@binary, byte_size(content)::32>>,
      do: rest,
      else: pieces
  end

  defp behind_head(pieces, _piece), do: pieces

  defp foreign_in?(piece) do
    piece
    |> :binary.matches(struct_key())
    |> Enum.any?(fn {at, len} -> not known?(piece, at + len) end)
  end

  # To compile it takes five times as long as to look for it in a short request.
  defp struct_key do
    with nil <- :persistent_term.get(__MODULE__, nil) do
      pattern = :binary.compile_pattern("__struct__")
      :persistent_term.put(__MODULE__, pattern)
      pattern
    end
  end

  # An atom: its tag, the length of its name in one byte or two, its name.
  defp known?(piece, at) do
    case binary_part(piece, at, byte_size(piece) - at) do
      <<tag, len, name::binary-size(len), _::binary>> when tag in [115, 119] ->
        is_map_key(@structs, name)

      <<tag, len::16, name::binary-size(len), _::binary>> when tag in [100, 118] ->
        is_map_key(@structs, name)

      _no_atom ->
        false
    end
  end

  @spec request(id, byte, non_neg_integer, binary) :: iodata
  def request(id, verb, deadline, body),
    do: [<<byte_size(body) + 18::32, @request, verb, id::64, deadline::64>>, body]

  @spec shared_request(id, byte, non_neg_integer, Py.Segments.shared()) :: binary
  def shared_request(id, verb, deadline, {segment, _memory, len}),
    do: <<30::32, @shared_request, verb, id::64, deadline::64, segment::32, len::64>>

  @spec start(id, non_neg_integer, tuple) :: iodata
  def start(id, deadline, parts) do
    body = :erlang.term_to_binary(parts)
    [<<byte_size(body) + 17::32, @start, id::64, deadline::64>>, body]
  end

  @spec answer(non_neg_integer, term) :: iodata
  def answer(number, answer) do
    body = :erlang.term_to_binary({answer})
    [<<byte_size(body) + 9::32, @answer, number::64>>, body]
  end

  @spec configure(tuple) :: iodata
  def configure(facts) do
    body = :erlang.term_to_binary(facts)
    [<<byte_size(body) + 1::32, @configure>>, body]
  end

  # On the control socket, which puts the length in front.

  @spec cancel(id) :: binary
  def cancel(id), do: <<@cancel, id::64>>

  @spec stacks(id) :: binary
  def stacks(id), do: <<@stacks, id::64>>

  @spec segment(Py.Segments.id()) :: binary
  def segment(id), do: <<@segment, id::32>>

  @spec returned(Py.Segments.id()) :: binary
  def returned(id), do: <<@returned, id::32>>

  @spec dropped(Py.Segments.id()) :: binary
  def dropped(id), do: <<@dropped, id::32>>

  @doc "What it is that came along with this on the control socket."
  @spec came(binary) :: {:segment, Py.Segments.id()} | :page
  def came(<<@their_segment, id::32>>), do: {:segment, id}
  def came(<<@their_page>>), do: :page

  @doc "The first frame, if it is whole, and the rest."
  @spec first(binary) :: {tuple | atom, binary} | nil
  def first(<<size::32, frame::binary-size(size), rest::binary>>), do: {parse(frame), rest}
  def first(_partial), do: nil

  @doc "The whole frames at the beginning, and the rest."
  @spec split(binary) :: {[tuple], binary}
  def split(bytes), do: split(bytes, [])

  defp split(<<size::32, frame::binary-size(size), rest::binary>>, frames),
    do: split(rest, [parse(frame) | frames])

  defp split(rest, frames), do: {Enum.reverse(frames), rest}

  @doc "What is in a frame."
  @spec parse(binary) :: tuple | atom
  def parse(<<1, id::64, run::64, result::binary>>), do: {:reply, id, run, result}
  def parse(<<2, id::64, run::64, fault::binary>>), do: {:fault, id, run, fault}
  def parse(<<3, id::64>>), do: {:given_back, id}
  def parse(<<4, id::64>>), do: {:awaits, id}
  def parse(<<5, 0, n::16, to::binary-size(n), message::binary>>), do: {:send, :pid, to, message}

  def parse(<<5, 1, n::16, to::binary-size(n), message::binary>>),
    do: {:send, :name, to, message}

  def parse(<<5, 2, n::16, to::binary-size(n), message::binary>>),
    do: {:send, :pid, to, {:referring, message}}

  def parse(<<5, 3, n::16, to::binary-size(n), message::binary>>),
    do: {:send, :name, to, {:referring, message}}

  def parse(<<6, crowded>>), do: {:crowded, crowded == 1}
  def parse(<<7, os_pid::32, version::binary>>), do: {:hello, os_pid, version}
  def parse(<<8>>), do: :stuck

  def parse(<<9, id::64, run::64, segment::32, len::64>>),
    do: {:shared, id, run, segment, len, nil}

  def parse(<<15, id::64, run::64, segment::32, len::64, begin::64>>),
    do: {:shared, id, run, segment, len, begin}

  def parse(<<10, segment::32>>), do: {:returned, segment}
  def parse(<<11, segment::32>>), do: {:dropped, segment}
  def parse(<<13, number::64>>), do: {:forget, number}

  def parse(<<14, id::64, run::64, n::32, _numbers::binary-size(n)-unit(64), result::binary>>),
    do: {:referring, id, run, result}

  def parse(<<12, obstacle::binary>>), do: {:forks, obstacle}

  # What Python writes by itself: where this module is loaded, these atoms exist.
  @vocabulary [
    %Py.Error{},
    MapSet.new(),
    1..2//1,
    ~D[2000-01-01],
    ~T[00:00:00.000000],
    ~N[2000-01-01 00:00:00],
    ~U[2000-01-01 00:00:00Z],
    %{frames: [], function: "", age_ms: 0, awaiting: true, file: "", line: 0, source: nil},
    %Py.Array{dtype: {:f, 32}, shape: {}, data: ""},
    [:s, :u, :f, :c, :bool, :big, :little],
    %Py.Object{type: ""},
    [Decimal, :sign, :coef, :exp, :nan, :infinity, :neg_infinity, true, nil],
    [:io_request, :put_chars, :unicode, :py_output, :py_log, :py_forward],
    [:leader, :logger, :module, :thread, :critical, :error, :warning, :info, :debug]
  ]

  @doc false
  @spec vocabulary() :: list
  def vocabulary, do: @vocabulary

  @doc "What a fault says: the number of the worker that has what was asked for, or what went wrong."
  @spec fault(binary) :: {:elsewhere, non_neg_integer} | {:error, Py.Error.t()}
  def fault(bytes) do
    case :erlang.binary_to_term(bytes) do
      {:elsewhere, number} -> {:elsewhere, String.to_integer(number)}
      {kind, message} -> {:error, Py.Error.new(kind, message)}
    end
  end

  @doc "A result as the caller gets it."
  @spec result(:reply | :fault | :referring | {:referring, list}, binary) ::
          {:elsewhere, non_neg_integer} | :ok | {:ok, term} | {:error, Py.Error.t()}
  def result(:fault, bytes), do: fault(bytes)

  def result(:referring, bytes), do: Py.Object.adopt(result(:reply, bytes))

  def result({:referring, handles}, bytes),
    do: Py.Object.adopt(result(:reply, bytes), Map.new(handles))

  def result(:reply, bytes) do
    :erlang.binary_to_term(bytes, [:safe])
  rescue
    ArgumentError -> {:error, Py.Error.new(:decode, Py.Worker.Undecodable.explain(bytes))}
  end
end
