defmodule Py.FuzzTest do
  # Random bytes, objects, names and code, for PY_FUZZ_SECONDS (2) a test. Each round has a number, from which all of it
  # is drawn; PY_FUZZ_SEED is the number to begin with. In a VM of their own, where calls inline find the gate open.
  use Py.Case, on: [:thread]

  import Py.Fuzz

  @moduletag :own_vm
  @moduletag timeout: :infinity
  @moduletag pool: [size: 4, init: File.read!(Path.join(__DIR__, "fuzz.py"))]

  # Where a round stands that takes the VM with it.
  @standing "_build/fuzz_at"

  # Runs rounds until the time is up; the number of a round is what its failure is known by.
  defp rounds(name, fun) do
    stop_at = System.monotonic_time(:millisecond) + seconds() * 1000

    numbers =
      Stream.iterate(first(), &(&1 + 1))
      |> Stream.take_while(fn _ -> System.monotonic_time(:millisecond) < stop_at end)

    done =
      Enum.reduce(numbers, 0, fn number, done ->
        File.write!(@standing, "#{name} #{number}\n")
        :rand.seed(:exsss, number)
        fun.(number)
        done + 1
      end)

    if seconds() > 2, do: IO.puts("#{name}: #{done} rounds from #{first()}")
    assert done > 10
  end

  defp alive(pool), do: assert(call(pool, :math, :sqrt, [4]) == {:ok, 2.0})

  ## Terms out of bytes that were tampered with

  test "terms out of mutated bytes come back or are refused", %{pool: pool} do
    rounds("terms", fn number ->
      case decoded(mutated(bytes(), :rand.uniform(6) - 1)) do
        {:ok, term} -> check_term(pool, number, term)
        :error -> :ok
      end
    end)

    alive(pool)
  end

  defp check_term(pool, number, term) do
    queued = call(pool, :__main__, :same, [term], [], timeout: 20_000)
    inline = call(pool, :__main__, :same, [term], [], timeout: 20_000, inline: true)
    variable = eval(pool, "x", %{x: term}, timeout: 20_000)
    keyword = call(pool, :__main__, :same, [], [x: term], timeout: 20_000)

    for result <- [queued, inline, variable, keyword] do
      assert {number, verdict(term, result)} == {number, :fits}
    end
  end

  defp verdict(term, {:ok, back}) do
    back = without_abbreviations(back)

    case {kind(term), returned(term)} do
      {:refused, _} -> {:accepted, term, back}
      {_, {:ok, ^back}} -> :fits
      {:any, :unknown} -> :fits
      {_, expected} -> {:differs, inspect({term, back, expected}, structs: false)}
    end
  end

  defp verdict(term, {:error, %Py.Error{kind: :encode, message: message}}) do
    cond do
      kind(term) == :accepted -> {:refused, term, message}
      not String.valid?(message) -> {:message, message}
      true -> :fits
    end
  end

  defp verdict(term, other), do: {:neither, term, other}

  defp returned(%Py.Bytes{data: data}) when is_binary(data), do: {:ok, data}

  defp returned(term) do
    {:ok, term |> Py.Generator.returned() |> without_abbreviations()}
  rescue
    _malformed_struct -> :unknown
  end

  # That of a zone is Python's, whatever was in the struct; and a zone that Python does not know, since its name was
  # tampered with, comes back as one that has its offset.
  defp without_abbreviations(%DateTime{} = datetime),
    do: %{datetime | zone_abbr: nil, time_zone: nil}

  defp without_abbreviations(%MapSet{} = set), do: MapSet.new(set, &without_abbreviations/1)
  defp without_abbreviations([_ | _] = list), do: Enum.map(list, &without_abbreviations/1)

  defp without_abbreviations(tuple) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> without_abbreviations() |> List.to_tuple()

  defp without_abbreviations(map) when is_map(map) and not is_struct(map),
    do: Map.new(map, fn {key, value} -> {key, without_abbreviations(value)} end)

  defp without_abbreviations(other), do: other

  # Whether the table has it. Maps may have keys that are one in Python, structs may be malformed: any answer but a
  # wrong value will do.
  defp kind(term) when is_number(term) or is_atom(term), do: :accepted
  defp kind(term) when is_pid(term) or is_reference(term) or is_port(term), do: :accepted
  defp kind(term) when is_binary(term), do: if(String.valid?(term), do: :accepted, else: :refused)
  defp kind(term) when is_function(term), do: :accepted
  defp kind(term) when is_bitstring(term), do: :refused
  defp kind(term) when is_tuple(term), do: term |> Tuple.to_list() |> kind()
  defp kind(term) when is_map(term), do: :any

  defp kind(term) when is_list(term) do
    if List.improper?(term), do: :refused, else: worst(Enum.map(term, &kind/1))
  end

  defp worst(kinds) do
    cond do
      :refused in kinds -> :refused
      :any in kinds -> :any
      true -> :accepted
    end
  end

  defp bytes, do: :erlang.term_to_binary(term(), minor_version: 2)

  defp term do
    case :rand.uniform(8) do
      1 -> [Py.Generator.term(2) | Py.Generator.term(1)]
      2 -> {<<5::3>>, Py.Generator.term(2)}
      3 -> Py.bytes(:rand.bytes(20))
      4 -> [Py.Generator.term(2), &String.length/1]
      5 -> Version.parse!("1.0.0-a")
      _ -> Py.Generator.term(3)
    end
  end

  defp mutated(bytes, 0), do: bytes
  defp mutated(bytes, left), do: bytes |> mutate() |> mutated(left - 1)

  # The first byte is the version, and without it nothing is decoded.
  defp mutate(<<131, body::binary>>) do
    at = :rand.uniform(byte_size(body) + 1) - 1
    <<before::binary-size(at), rest::binary>> = body

    <<131>> <>
      case :rand.uniform(5) do
        1 -> before <> :rand.bytes(1) <> rest
        2 -> before <> drop(rest)
        3 -> before <> :rand.bytes(1) <> drop(rest)
        4 -> before <> <<Enum.random([0, 1, 97, 98, 106, 108, 109, 110, 255])>> <> drop(rest)
        5 -> before <> binary_part(rest, 0, min(8, byte_size(rest))) <> rest
      end
  end

  defp mutate(bytes), do: bytes

  defp drop(<<_, rest::binary>>), do: rest
  defp drop(""), do: ""

  defp decoded(bytes) do
    {:ok, :erlang.binary_to_term(bytes, [:safe])}
  rescue
    ArgumentError -> :error
  end

  ## Objects out of Python

  test "object graphs out of Python are values, objects in them, or :decode errors", %{pool: pool} do
    # What numpy is to the generator, it imports once.
    assert {:ok, _} = eval(pool, "len(makers())")

    rounds("objects", fn number ->
      queued = call(pool, :__main__, :graph, [number], [], timeout: 20_000)
      inline = call(pool, :__main__, :graph, [number], [], timeout: 20_000, inline: true)
      again = eval(pool, "graph(n)", %{n: number}, timeout: 20_000)
      assert {number, Enum.map([queued, inline, again], &object/1)} |> same?()
    end)

    alive(pool)
  end

  defp same?({number, [one, two, three]}) do
    assert {number, one} == {number, two}
    assert {number, one} == {number, three}
  end

  defp object({:ok, value}), do: {:ok, told(value)}

  # The words may hold an address.
  defp object({:error, %Py.Error{kind: :decode, message: message}}) do
    assert String.valid?(message)
    :decode
  end

  defp object(other), do: flunk("neither a value nor a :decode error: #{inspect(other)}")

  # Each graph has objects of its own.
  defp told(%Py.Object{type: type}), do: {:object, type}
  defp told([head | tail]), do: [told(head) | told(tail)]
  defp told(tuple) when is_tuple(tuple), do: tuple |> Tuple.to_list() |> told()
  defp told(map) when is_map(map), do: map |> :maps.to_list() |> Enum.map(&told/1) |> Enum.sort()
  defp told(value), do: value

  ## Names and code

  @odd [
    "",
    ".",
    "..",
    "a..b",
    ".a",
    "a.",
    <<0>>,
    "a\0b",
    "class",
    "None",
    "__class__",
    "__dict__.x",
    "__builtins__",
    "__name__",
    "__debug__",
    "same.__globals__",
    "same.__call__",
    <<255, 254>>,
    <<0xED, 0xA0, 0x80>>,
    "ﬁ",
    "\u202E",
    "\n",
    "a b",
    String.duplicate("a.", 5_000),
    String.duplicate("x", 100_000)
  ]

  test "names of any kind find something or are an error", %{pool: pool} do
    rounds("names", fn number ->
      [module, name, key] = for _ <- 1..3, do: name()
      short = [timeout: 20_000]
      inline = [timeout: 20_000, inline: true]

      results = [
        call(pool, module, name, [], [], short),
        call(pool, module, name, [], [], inline),
        call(pool, :__main__, name, [1], [], short),
        call(pool, :__main__, :same, [], %{key => 1}, short),
        call(pool, :builtins, :dict, [], %{key => 1}, inline),
        Py.getattr(module, name, on: pool),
        Py.getattr(:__main__, name, on: pool, inline: true),
        eval(pool, "1", %{key => 1}, short),
        eval(pool, name, %{}, short)
      ]

      for {result, place} <- Enum.with_index(results), do: sound({number, place}, result)
    end)

    alive(pool)
  end

  defp name do
    case :rand.uniform(4) do
      1 -> Enum.random(@odd)
      2 -> Py.Generator.text()
      3 -> :rand.bytes(:rand.uniform(12))
      4 -> Enum.random(@odd) <> Enum.random(["", ".", "\0"]) <> Py.Generator.text()
    end
  end

  # Nothing that computes for hours: no **, no <<, no while.
  @tokens ~w"""
          False None True and as assert async await break class continue def del elif else except finally for from
          global if import in is lambda nonlocal not or pass raise return try with yield match case type _ x y same
          ( ) [ ] { } : , ; . = == != + - * / // % @ -> := ~ < > <= ... 0 1 2 0x1F 1e3 1j '' 'a' "b" b'c' f'{x}' \\
          f'{ rb'\\xff' ''' \"\"\" # @x *x $ ? !
          """ ++ ["\n", "\n ", "\n  ", "\t", "\0", "\f", "\r", "é", "\u200B", "\uFEFF"]

  test "code of any kind has a value or is an error", %{pool: pool} do
    rounds("code", fn number ->
      code = code()
      variables = %{x: 1, y: [2, 3]}
      sound({number, code}, eval(pool, code, variables, timeout: 20_000))
      sound({number, code}, eval(pool, code, variables, timeout: 20_000, inline: true))
      sound({number, code}, exec(pool, code, variables, timeout: 20_000))
    end)

    alive(pool)
  end

  defp code do
    case :rand.uniform(12) do
      1 -> :rand.bytes(:rand.uniform(40))
      2 -> String.duplicate(Enum.random(@tokens) <> " ", Enum.random([10, 1_000, 20_000]))
      3 -> Py.Generator.text()
      _ -> Enum.map_join(1..:rand.uniform(20), " ", fn _ -> Enum.random(@tokens) end)
    end
  end

  defp sound(_about, {:ok, _value}), do: :ok
  defp sound(_about, :ok), do: :ok

  defp sound(about, {:error, %Py.Error{kind: kind} = error}) do
    assert {about, kind in [:python, :encode, :decode], error} == {about, true, error}
    assert {about, error |> Exception.message() |> String.valid?()} == {about, true}
  end
end
