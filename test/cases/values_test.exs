defmodule Py.Cases.ValuesTest do
  # CASES.md, C: numbers, text, containers; P-A 2.
  use Py.Case, on: [:thread, :process]

  # What Python makes of a value, and what comes back.
  defp echo(pool, value), do: eval(pool, "x", %{x: value})

  defp type(pool, value),
    do: eval(pool, "type(x).__module__ + '.' + type(x).__name__", %{x: value})

  @integers [0, 1, -1, 127, 128, 255, 256] ++
              for(
                power <- [31, 53, 62, 63, 64, 100, 2040],
                near <- [-1, 0, 1],
                sign <- [1, -1],
                do: sign * (Integer.pow(2, power) + near)
              )

  test "34. integers of any size", %{pool: pool} do
    assert echo(pool, @integers) == {:ok, @integers}

    for n <- @integers do
      assert echo(pool, n) == {:ok, n}
      assert call(pool, :builtins, :str, [n]) == {:ok, Integer.to_string(n)}
    end
  end

  @floats [0.0, -0.0, 3.14159265358979, 1.0e-300, 5.0e-324, 1.7976931348623157e308, 1.0]

  test "35. floats, to the bit", %{pool: pool} do
    for float <- @floats do
      assert {:ok, back} = echo(pool, float)
      assert <<back::float>> == <<float::float>>
      assert type(pool, float) == {:ok, "builtins.float"}
    end
  end

  test "36. nan and the infinities, nested too", %{pool: pool} do
    assert eval(pool, "float('nan')") == {:ok, :nan}
    assert eval(pool, "float('inf') - float('inf')") == {:ok, :nan}
    assert eval(pool, "-float('nan')") == {:ok, :nan}
    assert eval(pool, "float('inf')") == {:ok, :infinity}
    assert eval(pool, "float('-inf')") == {:ok, :neg_infinity}

    assert eval(pool, "[float('nan'), {'a': (float('inf'),)}]") ==
             {:ok, [:nan, %{"a" => {:infinity}}]}

    assert eval(pool, "(x != x, y, z)", %{x: :nan, y: :infinity, z: :neg_infinity}) ==
             {:ok, {true, :infinity, :neg_infinity}}

    assert eval(pool, "y > 1e308 and z < -1e308", %{y: :infinity, z: :neg_infinity}) ==
             {:ok, true}
  end

  test "37. text", %{pool: pool} do
    for text <- ["", "aé😀", String.duplicate("aé😀", 150_000), <<0>>, "\u{10FFFF}"] do
      assert echo(pool, text) == {:ok, text}
      assert call(pool, :builtins, :len, [text]) == {:ok, length(String.to_charlist(text))}
    end

    assert type(pool, "a") == {:ok, "builtins.str"}
  end

  test "37. a binary that is no text needs Py.bytes", %{pool: pool} do
    assert %{kind: :encode, message: message} = error(echo(pool, [1, <<255, 254, 128>>]))
    assert message =~ "Py.bytes"
    assert message =~ "[1]"
    # Surrogates and overlong forms are not UTF-8 either.
    assert error(echo(pool, <<0xED, 0xA0, 0x80>>)).kind == :encode
    assert error(echo(pool, <<0xC0, 0x80>>)).kind == :encode

    for bytes <- ["", <<255, 254, 128>>, <<0>>, "text", :binary.copy(<<255>>, 200_000)] do
      assert echo(pool, Py.bytes(bytes)) == {:ok, bytes}
      assert type(pool, Py.bytes(bytes)) == {:ok, "builtins.bytes"}
    end
  end

  test "39. bytes, bytearray and memoryviews", %{pool: pool} do
    assert eval(pool, "b'ab\\xff'") == {:ok, <<"ab", 255>>}
    assert eval(pool, "bytearray(b'ab')") == {:ok, "ab"}
    assert eval(pool, "memoryview(b'abc')") == {:ok, "abc"}
    assert eval(pool, "memoryview(b'abcdef')[::2]") == {:ok, "ace"}
    assert eval(pool, "memoryview(b'abc')[::-1]") == {:ok, "cba"}

    assert eval(pool, "import array\nmemoryview(array.array('i', [1, 2]))") ==
             {:ok, <<1::32-little, 2::32-little>>}

    assert eval(pool, "memoryview(b'abcd').cast('B', (2, 2))") == {:ok, "abcd"}

    assert eval(pool, "bytes(70_000), bytearray(70_000)") ==
             {:ok, {<<0::560_000>>, <<0::560_000>>}}
  end

  test "39. what Python can still write is copied", %{pool: pool} do
    code =
      "x = bytearray(b'a' * 70_000)\ny = memoryview(x)\nimport builtins\nbuiltins.py_case_39 = x\ny"

    assert {:ok, before} = eval(pool, code)
    assert exec(pool, "import builtins\nbuiltins.py_case_39[:] = b'b' * 70_000") == :ok
    assert before == :binary.copy("a", 70_000)
  end

  test "40. sets", %{pool: pool} do
    assert eval(pool, "{1, 2}") == {:ok, MapSet.new([1, 2])}
    assert eval(pool, "frozenset([1])") == {:ok, MapSet.new([1])}
    assert type(pool, MapSet.new([1])) == {:ok, "builtins.set"}
    nested = MapSet.new([{1, 2}, {3, {4}}])
    assert echo(pool, nested) == {:ok, nested}
    assert eval(pool, "{frozenset([1])}") == {:ok, MapSet.new([MapSet.new([1])])}
  end

  test "43. pids and references are opaque: they come back, are equal, have a hash", %{pool: pool} do
    {:ok, port} = :gen_udp.open(0)

    for term <- [self(), make_ref(), port] do
      assert echo(pool, [term, %{term => 1}]) == {:ok, [term, %{term => 1}]}

      assert eval(pool, "a == b and hash(a) == hash(b) and a != c", %{
               a: term,
               b: term,
               c: spawn(fn -> :ok end)
             }) == {:ok, true}
    end

    assert type(pool, self()) |> elem(1) =~ ~r/Pid$/
    remote = :erlang.binary_to_term(<<131, 88, 119, 8, "a@nohost", 1::32, 0::32, 7::32>>)
    assert echo(pool, remote) == {:ok, remote}
  end

  test "43. what has no counterpart is an :encode error with its path", %{pool: pool} do
    for {value, path} <- [
          {[0, [1 | 2]], "[1]"},
          {%{a: <<1::3>>}, "a"},
          {{<<1::7>>}, "{0}"},
          {[%URI{}], "[0]"}
        ] do
      assert %{kind: :encode, message: message} = error(echo(pool, value))
      assert message =~ path
    end

    assert %{kind: :encode} = error(Py.call(:math, :sqrt, [<<1::3>>], on: pool))
  end

  test "44. atoms are themselves, and strings to Python", %{pool: pool} do
    long = String.to_atom(String.duplicate("é", 255))

    for atom <- [:é, :日本, :"", :ok, :"with space", long] do
      assert echo(pool, atom) == {:ok, atom}

      assert eval(pool, "isinstance(x, str) and x == y", %{x: atom, y: Atom.to_string(atom)}) ==
               {:ok, true}
    end

    assert eval(pool, "'ok'") == {:ok, "ok"}
    assert eval(pool, "str(x)", %{x: :ok}) == {:ok, "ok"}
  end

  test "44. atoms are never made from Python's strings", %{pool: pool} do
    name = "never_seen_#{System.unique_integer([:positive])}"
    code = "class #{name}(Exception): pass\nx = {'#{name}': 1}\nraise #{name}('#{name}')"
    error(eval(pool, "raise ValueError"))
    before = :erlang.system_info(:atom_count)
    assert error(eval(pool, code)).type == name
    assert eval(pool, "{'#{name}': ['#{name}']}") == {:ok, %{name => [name]}}
    assert error(call(pool, name, name)).type == "ModuleNotFoundError"
    assert error(call(pool, :math, name)).type == "AttributeError"
    assert :erlang.system_info(:atom_count) == before
  end

  test "44. erlang.Atom of a name that is no atom", %{pool: pool} do
    assert eval(pool, "import erlang\nerlang.Atom('ok')") == {:ok, :ok}
    name = "never_made_#{System.unique_integer([:positive])}"
    result = eval(pool, "import erlang\nerlang.Atom('#{name}')")
    assert result == {:ok, name} or error(result).kind in [:decode, :python]
    assert_raise ArgumentError, fn -> String.to_existing_atom(name) end
  end

  test "45. nil, :undefined, :none and the booleans", %{pool: pool} do
    assert echo(pool, nil) == {:ok, nil}
    assert echo(pool, :undefined) == {:ok, nil}
    assert echo(pool, :none) == {:ok, :none}
    assert echo(pool, [true, false]) == {:ok, [true, false]}

    assert eval(pool, "x is None and y is None and t is True and f is False", %{
             x: nil,
             y: :undefined,
             t: true,
             f: false
           }) == {:ok, true}
  end

  test "46. tuples and their relatives, enums", %{pool: pool} do
    assert eval(pool, "(1,)") == {:ok, {1}}
    assert eval(pool, "()") == {:ok, {}}

    assert eval(pool, "from collections import namedtuple\nnamedtuple('P', 'x y')(1, 2)") ==
             {:ok, {1, 2}}

    assert eval(pool, "import enum\nclass A(enum.IntEnum):\n  B = 2\nA.B") == {:ok, 2}
    assert eval(pool, "class S(str): pass\nS('a')") == {:ok, "a"}
    assert eval(pool, "class I(int): pass\nI(2 ** 70)") == {:ok, Integer.pow(2, 70)}
    assert eval(pool, "class F(float): pass\nF(0.5)") == {:ok, 0.5}
    assert eval(pool, "class L(list): pass\nL([1])") == {:ok, [1]}

    assert eval(pool, "from collections import OrderedDict\nOrderedDict(a=1)") ==
             {:ok, %{"a" => 1}}

    assert {:ok, %Py.Object{}} = eval(pool, "import enum\nclass C(enum.Enum):\n  B = 2\nC.B")
  end

  test "ranges", %{pool: pool} do
    for range <- [1..5, 5..1//-1, 0..10//3, 1..0//1, -(2 ** 70)..(2 ** 70)] do
      assert echo(pool, range) == {:ok, range}
    end

    assert eval(pool, "range(3)") == {:ok, 0..2}
    assert eval(pool, "list(x)", %{x: 1..3}) == {:ok, [1, 2, 3]}
    assert type(pool, 1..3) == {:ok, "builtins.range"}
  end

  test "49. large containers", %{pool: pool} do
    list = Enum.to_list(1..1_000_000)
    assert echo(pool, list) == {:ok, list}
    tuple = List.to_tuple(Enum.to_list(1..10_000))
    assert echo(pool, tuple) == {:ok, tuple}
    bytes = :binary.copy(<<1, 255>>, 50_000_000)
    assert echo(pool, Py.bytes(bytes)) == {:ok, bytes}
    text = :binary.copy("é", 5_000_000)
    assert echo(pool, text) == {:ok, text}
  end

  test "49. a map of ten thousand keys", %{pool: pool} do
    map = Map.new(1..10_000, &{"k#{&1}", &1})
    assert echo(pool, map) == {:ok, map}
    assert echo(pool, MapSet.new(1..10_000)) == {:ok, MapSet.new(1..10_000)}
  end

  @tag :numpy
  test "51. numpy scalars are numbers, arrays are objects", %{pool: pool} do
    case exec(pool, "import numpy") do
      :ok ->
        assert eval(
                 pool,
                 "import numpy as np\n[np.int64(-3), np.float32(0.5), np.bool_(True), np.uint64(2**64-1)]"
               ) ==
                 {:ok, [-3, 0.5, true, Integer.pow(2, 64) - 1]}

        for array <- [
              "np.zeros(3)",
              "np.zeros((2, 2), order='F')",
              "np.array(1)",
              "np.zeros(9)[::2]",
              "np.zeros(2, dtype='i4,f8')"
            ] do
          assert {:ok, object} = eval(pool, "import numpy as np\n" <> array)
          assert Py.Object.type(object) == "numpy.ndarray"
        end

      {:error, error} ->
        assert error.type == "ModuleNotFoundError"
    end
  end

  test "52. what has no counterpart is an object that says what it is, never text", %{
    pool: pool
  } do
    for {code, name} <- [
          {"object()", "object"},
          {"(x for x in [])", "generator"},
          {"len", "builtin_function_or_method"},
          {"import os\nos", "module"},
          {"1j", "complex"}
        ] do
      assert {:ok, object} = eval(pool, code)
      assert Py.Object.type(object) == name
    end

    assert {:ok, [1, %{"a" => {%Py.Object{type: "object"}}}]} =
             eval(pool, "[1, {'a': (object(),)}]")

    assert %{kind: :decode, message: message} = error(eval(pool, "[1, {'a': ('\\ud800',)}]"))
    assert message =~ "[1]" and message =~ "a" and message =~ "[0]"
  end

  test "keys that become one are an error in either direction", %{pool: pool} do
    for map <- [
          %{:a => 1, "a" => 2},
          %{1 => 1, 1.0 => 2},
          %{true => 1, 1 => 2},
          %{nil => 1, :undefined => 2}
        ] do
      assert error(echo(pool, map)).kind == :encode
    end

    assert error(echo(pool, MapSet.new([:a, "a"]))).kind == :encode
    assert error(eval(pool, "{b'a': 1, 'a': 2}")).kind == :decode
    assert error(eval(pool, "{b'a', 'a'}")).kind == :decode
    assert error(eval(pool, "{float('nan'): 1, float('nan'): 2}")).kind == :decode
    assert error(eval(pool, "1", %{:x => 1, "x" => 2})).kind == :encode
  end

  test "keys that Python cannot hash", %{pool: pool} do
    assert error(echo(pool, %{[1] => 2})).kind == :encode
    assert error(echo(pool, MapSet.new([%{}]))).kind == :encode
  end

  test "lone surrogates are :decode errors", %{pool: pool} do
    assert %{kind: :decode} = error(eval(pool, "'\\ud800'"))
    assert %{kind: :decode} = error(eval(pool, "{'\\ud800': 1}"))
    assert error(eval(pool, "raise ValueError('\\ud800')")).message |> String.valid?()
  end

  test "a million nested lists, in both directions", %{pool: pool} do
    deep = Enum.reduce(1..1_000_000, [], fn _, inner -> [inner] end)
    assert %{kind: :encode, message: message} = error(echo(pool, deep))
    assert message =~ "10,000" or message =~ "10000"
    code = "x = []\nfor _ in range(1_000_000):\n  x = [x]\nx"
    assert error(eval(pool, code)).kind == :decode
    assert error(eval(pool, "x = []\nx.append(x)\nx")).kind == :decode
    assert error(eval(pool, "x = {}\nx['a'] = (x,)\nx")).kind == :decode
    nested = Enum.reduce(1..9_000, [], fn _, inner -> [inner] end)
    assert echo(pool, nested) == {:ok, nested}
    assert eval(pool, "1+1") == {:ok, 2}
  end

  test "P-A 2, properties: random terms of the table come back", %{pool: pool} do
    for {term, number} <- Py.Generator.terms(2_000) do
      assert {number, {:ok, back}} = {number, echo(pool, term)}
      assert {number, back} == {number, Py.Generator.returned(term)}
    end
  end

  test "properties: what Python builds, Elixir gets", %{pool: pool} do
    code = """
    import random
    def term(r, depth):
        if depth == 0 or r.random() < 0.4:
            return r.choice([None, True, 1, -2**70, 0.5, "aé😀", b"\\xff", ""])
        if r.random() < 0.3:
            return {r.randrange(10**6): term(r, depth - 1) for _ in range(r.randrange(5))}
        made = [term(r, depth - 1) for _ in range(r.randrange(5))]
        return made if r.random() < 0.5 else tuple(made)
    def text(x):
        if isinstance(x, dict):
            return "%{" + ", ".join(f"{k} => {text(v)}" for k, v in sorted(x.items())) + "}"
        if isinstance(x, (list, tuple)):
            inner = ", ".join(text(v) for v in x)
            return f"[{inner}]" if isinstance(x, list) else "{" + inner + "}"
        return {None: "nil", True: "true", b"\\xff": "<<255>>"}.get(x, None) if x is None or x is True or isinstance(x, bytes) else ('"' + x + '"' if isinstance(x, str) else str(x))
    x = term(random.Random(seed), 4)
    (x, text(x))
    """

    for seed <- 1..300 do
      assert {:ok, {term, text}} = eval(pool, code, %{seed: seed})
      assert {seed, term} == {seed, text |> Code.eval_string() |> elem(0)}
    end
  end
end
