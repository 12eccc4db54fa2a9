defmodule Py.Cases.HostileTest do
  # Objects that misbehave while they are converted.
  use Py.Case, on: [:thread, :process]

  test "a hash that raises", %{pool: pool} do
    code = """
    class H:
        armed = False
        def __hash__(self):
            if H.armed: raise ValueError("hash")
            return 1
    x = {H(): 1}
    H.armed = True
    """

    assert {:ok, %{} = map} = eval(pool, code <> "x")
    assert [{%Py.Object{}, 1}] = Map.to_list(map)
    assert error(eval(pool, code <> "{H()}")).type == "ValueError"
    assert error(eval(pool, "x", %{x: map})).message =~ "hash"
  end

  test "__index__, __int__, __float__, __len__ and __iter__ that run code or raise", %{pool: pool} do
    code = """
    class I(int):
        def __index__(self): raise ValueError
        def __int__(self): raise ValueError
        def __eq__(self, other): raise ValueError
        __hash__ = int.__hash__
    class F(float):
        def __float__(self): raise ValueError
    class L(list):
        def __len__(self): return 10 ** 9
        def __iter__(self): raise ValueError
        def __getitem__(self, index): raise ValueError
    class D(dict):
        def __len__(self): return 10 ** 9
        def items(self): raise ValueError
        def __iter__(self): raise ValueError
    class S(str):
        def encode(self, *_): raise ValueError
        def __str__(self): raise ValueError
    [I(7), I(2 ** 80), F(0.5), L([1, 2]), D(a=1), S("s")]
    """

    assert eval(pool, code) == {:ok, [7, Integer.pow(2, 80), 0.5, [1, 2], %{"a" => 1}, "s"]}
  end

  test "objects that lie about their class", %{pool: pool} do
    for base <- ["int", "str", "list", "dict", "bytes"] do
      code = "class C:\n  __class__ = property(lambda self: #{base})\nC()"
      assert {:ok, %Py.Object{type: "__main__.C"}} = eval(pool, code)
    end

    code =
      "class C:\n  __class__ = property(lambda self: 1/0)\n  def __getattr__(self, name): raise SystemExit\nC()"

    assert {:ok, %Py.Object{type: "__main__.C"}} = eval(pool, code)
  end

  test "a repr that raises, where it is shown", %{pool: pool} do
    code =
      "class C:\n  def __repr__(self): raise SystemExit\n  def __str__(self): raise SystemExit\nC()"

    assert {:ok, object} = eval(pool, code)
    assert inspect(object) == "#Py.Object<__main__.C>"
    assert_raise Py.Error, ~r/SystemExit/, fn -> to_string(object) end
    assert eval(pool, "1+1") == {:ok, 2}
  end

  test "a list that changes while it is converted", %{pool: pool} do
    code = """
    import threading, time
    x = list(range(200_000))
    def change():
        for _ in range(200):
            x.clear(); x.extend(range(100_000)); time.sleep(0)
    threading.Thread(target=change).start()
    x
    """

    for _ <- 1..5 do
      result = eval(pool, code)

      assert match?({:ok, [_ | _]}, result) or match?({:ok, []}, result) or
               error(result).kind == :decode
    end

    assert eval(pool, "1+1") == {:ok, 2}
  end

  test "shared parts that unfold without end", %{pool: pool} do
    code = "x = []\nfor _ in range(60):\n  x = [x, x]\nx"
    assert error(eval(pool, code)).kind == :decode
    assert eval(pool, "1+1") == {:ok, 2}
  end

  test "mappings and sequences that are none of the table", %{pool: pool} do
    for code <- [
          "{}.keys()",
          "{}.items()",
          "iter([])",
          "type('M', (), {})()",
          "NotImplemented",
          "...",
          "lambda: 1"
        ] do
      assert {:ok, %Py.Object{type: type}} = eval(pool, code)
      assert type != ""
    end
  end

  test "builtins that were replaced in a namespace", %{pool: pool} do
    assert eval(pool, "len = None\nstr = 1\n[str]") == {:ok, [1]}
    assert eval(pool, "__builtins__ = {}\n1") == {:ok, 1}
    assert eval(pool, "len([1])") == {:ok, 1}
  end

  test "variables whose names are no identifiers", %{pool: pool} do
    assert eval(pool, "globals()['a b']", %{"a b" => 1}) == {:ok, 1}
    assert eval(pool, "globals()['']", %{"" => 1}) == {:ok, 1}
  end

  test "an object whose __del__ raises or prints", %{pool: pool} do
    assert eval(pool, "class C:\n  def __del__(self): raise SystemExit\nc = C()\ndel c\n1") ==
             {:ok, 1}

    assert eval(pool, "1+1") == {:ok, 2}
  end

  test "code that swallows what interrupts it is given up", %{pool: pool} do
    code = """
    import time
    end = time.monotonic() + 3
    while time.monotonic() < end:
        try:
            while time.monotonic() < end: pass
        except BaseException:
            pass
    """

    assert error(exec(pool, code, %{}, timeout: 50)).kind == :timeout
    assert eval(pool, "1+1") == {:ok, 2}
  end
end
