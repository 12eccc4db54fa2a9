defmodule Py.Cases.EncoderTest do
  # CASES.md, C: 46-48 and 54, of what has a value by Py.Encoder, by erlang.register_encoder or by default.
  use Py.Case, on: [:thread, :process]

  import ExUnit.CaptureLog

  alias MyApp.{Account, Odd, Point, User}

  @point %Point{x: 1, y: 2}
  @as_map %{x: 1, y: 2}

  defp echo(pool, value, options \\ []), do: eval(pool, "x", %{x: value}, options)

  # --- Py.Encoder: what it gives ----------------------------------------------------------------------

  test "48. structs by an implementation, and derived ones", %{pool: pool} do
    assert echo(pool, URI.parse("http://a/b?c")) == {:ok, "http://a/b?c"}
    assert echo(pool, @point) == {:ok, @as_map}
    assert eval(pool, "type(p).__name__, p['x'] + p.get('y')", %{p: @point}) == {:ok, {"dict", 3}}
  end

  test "48. fields that are left out are not looked at", %{pool: pool} do
    user = %User{name: "Ada", password_hash: <<255>>}
    assert echo(pool, user) == {:ok, %{name: "Ada", home: nil}}
    account = %Account{__meta__: Version.parse!("1.0.0"), id: 7, owner: user}
    assert echo(pool, account) == {:ok, %{id: 7, owner: %{name: "Ada", home: nil}}}
  end

  test "48. at any place of a value, and in what stands for others", %{pool: pool} do
    home = URI.parse("http://a")
    date = ~D[2024-02-29]

    for {value, expected} <- [
          {[1, @point, [@point]], [1, @as_map, [@as_map]]},
          {{@point, {:ok, home}}, {@as_map, {:ok, "http://a"}}},
          {%{"a" => %{home => @point}}, %{"a" => %{"http://a" => @as_map}}},
          {MapSet.new([home, 1]), MapSet.new(["http://a", 1])},
          {[date, 1..2, home, Py.bytes("b")], [date, 1..2, "http://a", "b"]},
          {%Point{x: %User{home: home}, y: [@point]},
           %{x: %{name: nil, home: "http://a"}, y: [@as_map]}},
          {%Odd{encode: fn _ -> {date, %Odd{encode: fn _ -> [@point] end}} end},
           {date, [@as_map]}},
          {%Odd{encode: fn _ -> nil end}, nil}
        ] do
      assert echo(pool, value) == {:ok, expected}
    end
  end

  test "structs in random terms of the table", %{pool: pool} do
    for {term, number} <- Py.Generator.terms(100) do
      assert {number, {:ok, [back, @as_map]}} = {number, echo(pool, [term, @point])}
      assert {number, back} == {number, Py.Generator.returned(term)}
    end
  end

  # --- Py.Encoder: wherever Python gets a value ---------------------------------------------------------

  test "48. arguments, keywords and variables", %{pool: pool} do
    assert call(pool, :builtins, :dict, [@point]) == {:ok, @as_map}
    assert call(pool, "builtins", "dict", [], a: @point) == {:ok, %{"a" => @as_map}}

    assert Py.call(:builtins, :dict, [], kwargs: %{"a" => @point}, on: pool) ==
             {:ok, %{"a" => @as_map}}

    assert echo(pool, @point, timeout: :infinity) == {:ok, @as_map}

    assert echo(pool, @point,
             traceparent: "00-#{String.duplicate("a", 32)}-#{String.duplicate("b", 16)}-01"
           ) == {:ok, @as_map}

    assert exec(pool, "assert p['x'] == 1", %{p: @point}) == :ok
    assert eval(pool, "import asyncio\nawait asyncio.sleep(0)\np['y']", %{p: @point}) == {:ok, 2}
    assert call(pool, :builtins, :dict, [@point], [], inline: true) == {:ok, @as_map}
    assert echo(pool, @point, inline: true) == {:ok, @as_map}
  end

  test "48. calls whose answer is a message", %{pool: pool} do
    assert {:ok, @as_map} = Py.await(Py.async_call(:builtins, :dict, [@point], on: pool))
    future = Py.async_call(:builtins, :dict, [], kwargs: [a: [@point]], on: pool)
    assert Py.await(future) == {:ok, %{"a" => [@as_map]}}

    calls = [
      {:builtins, :dict, [@point]},
      {:builtins, :int, [1]},
      {:builtins, :dict, [], [a: @point]}
    ]

    assert Py.gather(calls, on: pool) == [{:ok, @as_map}, {:ok, 1}, {:ok, %{"a" => @as_map}}]
    assert Enum.to_list(Py.stream(:builtins, :list, [[@point, 1]], on: pool)) == [@as_map, 1]
    future = Py.async_call(:builtins, :list, [[@point]], stream_to: self(), on: pool)
    ref = future.ref
    assert_receive {:py_stream, ^ref, {:data, @as_map}}, 5_000
    assert_receive {:py_stream, ^ref, :done}, 5_000
  end

  test "48. casts", %{pool: pool} do
    assert Py.cast(:erlang, :send, [self(), {:told, @point}], on: pool) == :ok
    assert_receive {:told, @as_map}, 5_000
    eventually(fn -> :sys.get_state(Py.Cast) == %{} end)
  end

  test "48. sessions", %{pool: pool} do
    {:ok, session} = Py.Session.start_link(on: pool)
    assert Py.Session.put(session, %{p: @point}) == :ok
    assert Py.eval("p['x'] + q['y']", %{q: @point}, on: session) == {:ok, 3}
    assert Py.exec("def f(p): return p['y']", %{}, on: session) == :ok
    assert Py.call(:__main__, :f, [@point], on: session) == {:ok, 2}
    assert Py.await(Py.async_call(:__main__, :f, [@point], on: session)) == {:ok, 2}
    GenServer.stop(session)
  end

  @tag parallel: 2
  test "48. what Elixir functions give, and items", %{pool: pool} do
    Py.register(:py_point, fn -> @point end, owner: self())
    assert eval(pool, "import erlang\nerlang.py_point()") == {:ok, @as_map}
    assert eval(pool, "import erlang\nawait erlang.acall('py_point')") == {:ok, @as_map}
    assert eval(pool, "f(1)", %{f: fn _ -> [@point] end}) == {:ok, [@as_map]}
    assert eval(pool, "list(i)", %{i: Py.iter([@point, 2])}) == {:ok, [@as_map, 2]}
    large = Enum.to_list(1..10_000)
    assert eval(pool, "f()", %{f: fn -> [@point | large] end}) == {:ok, [@as_map | large]}

    channel = Py.Channel.new()
    for item <- [@point, 2], do: :ok = Py.Channel.put(channel, item)
    Py.Channel.close(channel)
    assert eval(pool, "list(c)", %{c: channel}) == {:ok, [@as_map, 2]}

    Py.State.set("py_point", @point)
    assert eval(pool, "import erlang\nerlang.state_get('py_point')") == {:ok, @as_map}
    Py.State.delete("py_point")
  end

  @tag pool: [size: 2]
  test "48. beside objects, in structs and as what stands for them", %{pool: pool} do
    list = Py.call!(:builtins, :list, [[1]], on: pool, return: :object)
    assert Py.call(list, :append, [@point]) == {:ok, nil}
    assert Py.await(Py.async_call(list, :append, [%Point{x: list}])) == {:ok, nil}

    assert eval(pool, "l[1:2], l[2]['x'] is l, o is l", %{
             l: list,
             o: %Odd{encode: fn _ -> list end}
           }) == {:ok, {[@as_map], true, true}}

    assert {:ok, %Py.Object{} = point} =
             call(pool, :builtins, :dict, [@point], [], return: :object)

    assert Py.Object.to_term(point) == {:ok, @as_map}

    assert eval(pool, "f() is l", %{l: list, f: fn -> {list, @point} |> elem(0) end}) ==
             {:ok, true}

    assert {:ok, {true, 1}} =
             eval(pool, "p = f()\np['x'] is l, p['y']", %{
               l: list,
               f: fn -> %Point{x: list, y: 1} end
             })
  end

  @tag :numpy
  test "48. beside arrays and tensors", %{pool: pool} do
    array = Py.Array.new(<<1, 2>>, {:u, 8}, {2})
    tensor = Nx.from_binary(<<3, 4>>, {:u, 8})

    assert eval(pool, "int(p['x'].sum() + p['y'].sum())", %{p: %Point{x: array, y: tensor}}) ==
             {:ok, 10}

    future = Py.async_call(:operator, :getitem, [[@point, array, tensor], 0], on: pool)
    assert Py.await(future) == {:ok, @as_map}
    assert eval(pool, "bytes(p['x'])", %{p: %Point{x: Py.buffer("ab")}}) == {:ok, "ab"}
  end

  test "requests of all sizes", %{pool: pool} do
    numbers = Enum.to_list(1..100_000)
    text = String.duplicate("é", 50_000)
    deep = Enum.reduce(1..600, [], fn _, inner -> [inner] end)
    function = fn -> 1 end

    for rest <- [
          numbers,
          text,
          [text | numbers],
          deep,
          [deep | numbers],
          [function],
          [function, text]
        ],
        start <- [&echo(pool, &1), &Py.await(Py.async_call(:builtins, :list, [&1], on: pool))] do
      assert {:ok, [back, @as_map]} = start.([rest, @point])
      assert back == rest
    end
  end

  # --- Py.Encoder: what cannot be -------------------------------------------------------------------------

  test "48. a struct without an implementation is an :encode error that says how to give it one",
       %{pool: pool} do
    version = Version.parse!("1.0.0")

    for {result, path} <- [
          {echo(pool, [version]), "vars[\"x\"][0]: %Version{}"},
          {echo(pool, %Point{y: version}), "vars[\"x\"][\"y\"]: %Version{}"},
          {echo(pool, version, inline: true), "vars[\"x\"]: %Version{}"},
          {call(pool, :builtins, :list, [{1, version}]), "args[0]{1}: %Version{}"},
          {call(pool, :builtins, :list, [], a: version), "kwargs[\"a\"]: %Version{}"},
          {Py.await(Py.async_call(:builtins, :list, [version], on: pool)), "args[0]: %Version{}"},
          {hd(Py.gather([{:builtins, :list, [version]}], on: pool)), "args[0]: %Version{}"}
        ] do
      assert %{kind: :encode, message: message} = error(result)
      assert String.starts_with?(message, path)
      assert message =~ "@derive or defimpl"
    end

    stream = Py.stream(:builtins, :list, [[version]], on: pool)
    assert_raise Py.Error, ~r/%Version{} has no Python value/, fn -> Enum.to_list(stream) end

    log =
      capture_log(fn ->
        Py.cast(:builtins, :list, [version], on: pool)
        eventually(fn -> :sys.get_state(Py.Cast) == %{} end)
      end)

    assert log =~ "%Version{} has no Python value"
    code = "try:\n  f()\nexcept TypeError as error:\n  x = str(error)\nx"
    assert {:ok, text} = eval(pool, code, %{f: fn -> version end})
    assert text =~ "the answer{1}: %Version{} has no Python value"
    assert eval(pool, "1 + 1") == {:ok, 2}
  end

  test "48. what an implementation raises, throws and exits with is an :encode error", %{
    pool: pool
  } do
    for {function, text} <- [
          {fn _ -> raise "boom" end, "** (RuntimeError) boom"},
          {fn _ -> throw(:boom) end, "** (throw) :boom"},
          {fn _ -> exit(:boom) end, "** (exit) :boom"},
          {fn odd -> odd end, "over 10000 deep, or itself"},
          {fn odd -> {odd, [odd]} end, "over 10000 deep, or itself"}
        ],
        start <- [&echo(pool, &1), &Py.await(Py.async_call(:builtins, :list, [&1], on: pool))] do
      assert %{kind: :encode, message: message} = error(start.([%Odd{encode: function}]))
      assert message =~ "[0]" or message =~ "{0}{0}"
      assert message =~ "%MyApp.Odd{}"
      assert message =~ text
    end
  end

  test "two keys or members that become one are an error", %{pool: pool} do
    same = fn -> %Odd{encode: fn _ -> "same" end} end

    for value <- [%{same.() => 1, "same" => 2}, MapSet.new([same.(), "same"])] do
      assert %{kind: :encode, message: message} = error(echo(pool, value))
      assert message =~ "same"
    end
  end

  test "what else is wrong is told as ever", %{pool: pool} do
    for {value, text} <- [
          {[@point, <<255>>], "[1]: a binary that is not valid UTF-8"},
          {[@point, [1 | @point]], "[1]: an improper list"},
          {[@point, %{@as_map | x: <<1::3>>}], "[1][\"x\"]: a bitstring"},
          {[@point, %Date{year: 1, month: 13, day: 1}], "%Date{} does not fit"},
          {%Odd{encode: fn _ -> <<255>> end}, "vars[\"x\"]: a binary"}
        ] do
      assert %{kind: :encode, message: message} = error(echo(pool, value))
      assert message =~ text
    end
  end

  test "structs where no value can be are refused, or encoded, and hang nothing", %{pool: pool} do
    odd = [
      [1 | @point],
      [@point | 1],
      %Date{year: @point, month: 1, day: 1},
      %Py.Bytes{data: URI.parse("http://a")},
      %{__struct__: nil, x: @point},
      %{__struct__: Py.Unheard},
      MapSet.new([@point]),
      1..2//1 |> Map.put(:first, @point)
    ]

    for value <- odd do
      assert error(echo(pool, value)).kind == :encode
      assert error(echo(pool, value, inline: true)).kind == :encode
      future = Py.async_call(:builtins, :list, [[value]], on: pool)
      assert error(Py.await(future)).kind == :encode
      assert error(eval(pool, "f()", %{f: fn -> value end})).type == "TypeError"
    end

    no_struct = %{:__struct__ => "Point", "x" => @point}
    assert echo(pool, no_struct) == {:ok, %{no_struct | "x" => @as_map}}
  end

  test "the time that encoding takes is the call's", %{pool: pool} do
    slow = %Odd{encode: fn _ -> Process.sleep(50) end}
    assert error(echo(pool, slow, timeout: 10)).kind == :timeout

    assert error(Py.await(Py.async_call(:builtins, :list, [slow], timeout: 10, on: pool))).kind ==
             :timeout
  end

  # --- decode: ------------------------------------------------------------------------------------------

  test "decode: is applied to values, in the caller", %{pool: pool} do
    me = self()
    decode = fn value -> {self() == me, value} end

    assert call(pool, :math, :sqrt, [4], [], decode: decode) == {:ok, {true, 2.0}}
    assert call(pool, :math, :sqrt, [4], [], decode: decode, inline: true) == {:ok, {true, 2.0}}
    assert eval(pool, "None", %{}, decode: decode) == {:ok, {true, nil}}
    assert Py.getattr(:math, :pi, on: pool, decode: &trunc/1) == {:ok, 3}
    assert Py.call!(:math, :sqrt, [4], on: pool, decode: &trunc/1) == 2
    future = fn -> Py.async_call(:math, :sqrt, [4], on: pool, decode: decode) end
    assert Py.await(future.()) == {:ok, {true, 2.0}}

    assert Py.await_many([future.(), future.()], 5_000) == [
             {:ok, {true, 2.0}},
             {:ok, {true, 2.0}}
           ]

    assert Py.yield(future.(), 5_000) == {:ok, {true, 2.0}}
    calls = [{:math, :sqrt, [4]}, {:math, :sqrt, [-1]}]
    assert [{:ok, 2}, {:error, %{kind: :python}}] = Py.gather(calls, on: pool, decode: &trunc/1)

    assert Enum.to_list(Py.stream(:builtins, :range, [2], on: pool, decode: decode)) == [
             {true, 0},
             {true, 1}
           ]
  end

  test "a message has its value as it came", %{pool: pool} do
    %{ref: ref} = Py.async_call(:math, :sqrt, [4], on: pool, decode: &trunc/1)
    assert_receive {:py_result, ^ref, {:ok, 2.0}}, 5_000

    assert_raise ArgumentError, ~r/decode: cannot go with stream_to:/, fn ->
      Py.async_call(:builtins, :range, [2], on: pool, decode: &trunc/1, stream_to: self())
    end
  end

  test "errors are not decoded, and what decode: raises is the caller's", %{pool: pool} do
    boom = fn _value -> raise "boom" end
    assert error(eval(pool, "1 / 0", %{}, decode: boom)).type == "ZeroDivisionError"
    assert_raise RuntimeError, "boom", fn -> eval(pool, "1", %{}, decode: boom) end
    calls = [{:math, :sqrt, [4]}, {:math, :sqrt, [9]}]
    assert_raise RuntimeError, "boom", fn -> Py.gather(calls, on: pool, decode: boom) end
    stream = Py.stream(:itertools, :count, [], on: pool, decode: boom)
    assert_raise RuntimeError, "boom", fn -> Enum.to_list(stream) end

    assert_raise ArgumentError, ~r/unknown option :decode for Py.exec/, fn ->
      Py.exec("1", %{}, decode: boom)
    end
  end

  # --- Python's own -----------------------------------------------------------------------------------

  test "54. a registered encoder, for its class and those below it", %{pool: pool} do
    code = """
    import erlang
    class Money:
        def __init__(self, amount): self.amount = amount
    class Euro(Money): pass
    class Cent(Euro): pass

    erlang.register_encoder(Money, lambda money: money.amount)

    @erlang.register_encoder(Cent)
    def cents(cent): return ["cent", Money(cent.amount)]

    before = [Money(1), Euro(2.5), {"a": Cent(3)}]
    """

    assert eval(pool, code <> "before") == {:ok, [1, 2.5, %{"a" => ["cent", 3]}]}

    assert eval(pool, code <> "erlang.register_encoder(Cent, None)\nbefore") ==
             {:ok, [1, 2.5, %{"a" => 3}]}

    forget = "erlang.register_encoder(Money, None)\nbefore"

    assert {:ok, [%Py.Object{}, %Py.Object{}, %{"a" => ["cent", %Py.Object{}]}]} =
             eval(pool, code <> forget)
  end

  test "54. a Decimal as text, and back", %{pool: pool} do
    code =
      "import decimal, erlang\nerlang.register_encoder(decimal.Decimal, str)\n[decimal.Decimal('1.10')]"

    assert eval(pool, code, %{}, decode: fn [text] -> Float.parse(text) end) == {:ok, {1.1, ""}}

    assert exec(pool, "import decimal, erlang\nerlang.register_encoder(decimal.Decimal, None)") ==
             :ok
  end

  test "54. an encoder of a subclass of what is plain, and none of what is plain", %{pool: pool} do
    code = """
    import collections, enum, erlang
    Point = collections.namedtuple("Point", "x y")
    class Level(enum.IntEnum):
        LOW = 1
    class Rows(list): pass
    erlang.register_encoder(object, lambda value: "an object")
    plain = [Point(1, 2), Level.LOW, Rows([1]), object()]
    try:
        for cls, encoder in ((Point, Point._asdict), (Level, lambda level: level.name), (Rows, len)):
            erlang.register_encoder(cls, encoder)
        x = repr(plain) and erlang.call("py_same", [Point(1, 2), Level.LOW, Rows([1]), object(), (1,), 1, [1]])
    finally:
        for cls in (Point, Level, Rows):
            erlang.register_encoder(cls, None)
        y = erlang.call("py_same", plain)
        erlang.register_encoder(object, None)
    x, y
    """

    Py.register(:py_same, & &1, owner: self())

    assert eval(pool, code) ==
             {:ok,
              {[%{"x" => 1, "y" => 2}, "LOW", 1, "an object", {1}, 1, [1]],
               [{1, 2}, 1, [1], "an object"]}}

    for cls <- ~w(int str dict bytes erlang.Atom) do
      assert %{type: "TypeError"} =
               error(eval(pool, "import erlang\nerlang.register_encoder(#{cls}, str)"))
    end
  end

  test "54. an encoder that fails is a :decode error with the path", %{pool: pool} do
    code = """
    import erlang
    class Secret: pass
    erlang.register_encoder(Secret, function)
    [1, {"a": Secret()}]
    """

    for {function, text} <- [
          {"lambda secret: 1 / 0", "Secret: ZeroDivisionError: division by zero"},
          {"lambda: 1", "TypeError"},
          {"lambda secret: secret", "nested over 10000 deep"}
        ] do
      result = eval(pool, String.replace(code, "function", function))
      assert %{kind: :decode, message: message} = error(result)
      assert message =~ ~s([1]["a"])
      assert message =~ text
    end

    assert {:ok, [1, %{"a" => %Py.Object{}}]} =
             eval(pool, String.replace(code, "function", "lambda secret: object()"))

    endless = eval(pool, String.replace(code, "function", "lambda secret: [secret]"))
    assert %{kind: :decode, message: "result[0][0]" <> _} = error(endless)
    assert eval(pool, "1 + 1") == {:ok, 2}
  end

  test "46. dataclasses, enums, UUIDs, fractions and paths have values", %{pool: pool} do
    code = """
    import dataclasses, enum, fractions, pathlib, typing, uuid

    class Color(enum.Enum):
        RED = "red"

    @dataclasses.dataclass(frozen=True, slots=True)
    class Item:
        kind: typing.ClassVar = 1
        name: str
        color: Color = Color.RED
        parts: tuple = ()

    item = Item("a", parts=(Item("b", "blue"),))
    [item, uuid.UUID(int=1), fractions.Fraction(1, 3), pathlib.Path("/tmp") / "é", {Color.RED: Color.RED}]
    """

    inner = %{"name" => "b", "color" => "blue", "parts" => {}}

    assert eval(pool, code) ==
             {:ok,
              [
                %{"name" => "a", "color" => "red", "parts" => {inner}},
                "00000000-0000-0000-0000-000000000001",
                "1/3",
                "/tmp/é",
                %{"red" => "red"}
              ]}

    assert eval(pool, "import pathlib\npathlib.Path('a\\udcff')") == {:ok, <<"a", 255>>}
  end

  test "46. a field that a dataclass never got", %{pool: pool} do
    code = """
    import dataclasses
    @dataclasses.dataclass
    class Item:
        name: str
    item = Item("a")
    del item.name
    [item]
    """

    assert %{kind: :decode, message: message} = error(eval(pool, code))
    assert message =~ "[0]" and message =~ "Item cannot be read"
  end

  test "what the table builds in Python is what nobody has to encode in Elixir", %{pool: pool} do
    code = "import erlang._encode\nlist(erlang._encode._BUILDERS)"
    assert {:ok, names} = eval(pool, code)
    # Of these the native side makes what they hold.
    native = ["Elixir.Py.Buffer", "Elixir.Py.Bytes"]

    assert Enum.sort(names ++ native) ==
             Enum.sort(Enum.map(Py.Encoding.structs(), &Atom.to_string/1))
  end
end
