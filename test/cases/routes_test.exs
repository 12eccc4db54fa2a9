defmodule Py.Cases.RoutesTest do
  # Where two atoms lead is remembered as far as the module; whatever becomes of that, the result is the one that text
  # gives, which is looked up each time.
  use Py.Case, on: [:thread]

  @moduletag :own_vm
  @moduletag pool: [
               init: """
               import importlib, sys, types

               sys.dont_write_bytecode = True

               def make(name, code, kind=types.ModuleType):
                   module = kind(name)
                   exec(code, module.__dict__)
                   sys.modules[name] = module
                   return module

               def plain(x):
                   return ("of the pool", x)

               class Odd(types.ModuleType):
                   @property
                   def f(self):
                       return lambda x: ("property", x)
               """
             ]

  # Each test has modules of its own: the interpreter is the same.
  defp make(pool, name, code),
    do: :ok = exec(pool, "make(name, code)", %{name: Atom.to_string(name), code: code})

  defp change(pool, code), do: :ok = exec(pool, code)

  test "an attribute that is replaced, deleted and there again", %{pool: pool} do
    make(pool, :routes_patched, "def f(x): return ('old', x)")
    assert everywhere(pool, :routes_patched, :f, [1]) == {:ok, {"old", 1}}
    change(pool, "sys.modules['routes_patched'].f = lambda x: ('new', x)")
    assert everywhere(pool, :routes_patched, :f, [1]) == {:ok, {"new", 1}}
    change(pool, "del sys.modules['routes_patched'].f")
    assert {:python, "AttributeError", _} = everywhere(pool, :routes_patched, :f, [1])
    change(pool, "sys.modules['routes_patched'].f = lambda x: ('again', x)")
    assert everywhere(pool, :routes_patched, :f, [1]) == {:ok, {"again", 1}}
  end

  test "an entry that becomes something of another type", %{pool: pool} do
    make(pool, :routes_typed, "def f(x=0): return ('function', x)")
    assert everywhere(pool, :routes_typed, :f) == {:ok, {"function", 0}}

    for {code, result} <- [
          {"abs", {:ok, 3}},
          {"type('Called', (), {'__call__': lambda self, x: ('object', x)})()",
           {:ok, {"object", -3}}},
          {"importlib.import_module('functools').partial(pow, 2)", {:ok, 0.125}},
          {"str", {:ok, "-3"}},
          {"'x'.join", :refused},
          {"7", :refused},
          {"None", :refused},
          {"sys", :refused}
        ] do
      change(pool, "sys.modules['routes_typed'].__dict__['f'] = #{code}")
      found = everywhere(pool, :routes_typed, :f, [-3])
      if result == :refused, do: assert({:python, "TypeError", _} = found)
      if result != :refused, do: assert(found == result)
    end
  end

  test "a module that another takes the place of", %{pool: pool} do
    make(pool, :routes_taken, "def f(x): return ('first', x)")
    assert everywhere(pool, :routes_taken, :f, [1]) == {:ok, {"first", 1}}
    make(pool, :routes_taken, "def f(x): return ('second', x)")
    assert everywhere(pool, :routes_taken, :f, [1]) == {:ok, {"second", 1}}
    change(pool, "sys.modules['routes_taken'] = types.SimpleNamespace(f=lambda x: ('none', x))")
    assert everywhere(pool, :routes_taken, :f, [1]) == {:ok, {"none", 1}}
    change(pool, "sys.modules['routes_taken'] = None")
    assert {:python, "ModuleNotFoundError", _} = everywhere(pool, :routes_taken, :f, [1])
    change(pool, "del sys.modules['routes_taken']")
    assert {:python, "ModuleNotFoundError", _} = everywhere(pool, :routes_taken, :f, [1])
  end

  test "a module of a file that is loaded again", %{pool: pool} do
    folder = Path.join(System.tmp_dir!(), "py-routes-#{System.unique_integer([:positive])}")
    File.mkdir_p!(folder)
    on_exit(fn -> File.rm_rf!(folder) end)

    write = fn word ->
      File.write!(Path.join(folder, "routes_file.py"), "def f(x): return ('#{word}', x)\n")
      :ok = exec(pool, "importlib.invalidate_caches()")
    end

    :ok = exec(pool, "sys.path.insert(0, folder)", %{folder: folder})
    write.("one")
    assert everywhere(pool, :routes_file, :f, [1]) == {:ok, {"one", 1}}
    write.("two")
    assert everywhere(pool, :routes_file, :f, [1]) == {:ok, {"one", 1}}
    assert Py.reload(:routes_file, on: pool) == :ok
    assert everywhere(pool, :routes_file, :f, [1]) == {:ok, {"two", 1}}
    write.("three")
    change(pool, "importlib.reload(sys.modules['routes_file'])")
    assert everywhere(pool, :routes_file, :f, [1]) == {:ok, {"three", 1}}
    write.("four")
    change(pool, "del sys.modules['routes_file']")
    assert everywhere(pool, :routes_file, :f, [1]) == {:ok, {"four", 1}}
    :ok = exec(pool, "sys.path.remove(folder)", %{folder: folder})
  end

  test "a module with __getattr__", %{pool: pool} do
    make(pool, :routes_lazy, "def __getattr__(name): return lambda x: (name, x)")
    assert everywhere(pool, :routes_lazy, :f, [1]) == {:ok, {"f", 1}}
    change(pool, "sys.modules['routes_lazy'].f = lambda x: ('found', x)")
    assert everywhere(pool, :routes_lazy, :f, [1]) == {:ok, {"found", 1}}
    change(pool, "del sys.modules['routes_lazy'].f")
    assert everywhere(pool, :routes_lazy, :f, [1]) == {:ok, {"f", 1}}
  end

  test "a module of a class with properties, from the beginning and later", %{pool: pool} do
    change(pool, "make('routes_odd', '', Odd).__dict__['f'] = lambda x: ('global', x)")
    assert everywhere(pool, :routes_odd, :f, [1]) == {:ok, {"property", 1}}

    make(pool, :routes_later, "def f(x): return ('global', x)")
    assert everywhere(pool, :routes_later, :f, [1]) == {:ok, {"global", 1}}
    change(pool, "sys.modules['routes_later'].__class__ = Odd")
    assert everywhere(pool, :routes_later, :f, [1]) == {:ok, {"property", 1}}
    change(pool, "sys.modules['routes_later'].__class__ = types.ModuleType")
    assert everywhere(pool, :routes_later, :f, [1]) == {:ok, {"global", 1}}
  end

  test "__main__ is the pool's own, dotted names are followed", %{pool: pool} do
    change(pool, "sys.modules['__main__'].plain = lambda x: ('of the interpreter', x)")
    assert everywhere(pool, :__main__, :plain, [1]) == {:ok, {"of the pool", 1}}
    assert everywhere(pool, :"os.path", :basename, ["a/b"]) == {:ok, "b"}
    assert everywhere(pool, :os, :"path.basename", ["a/b"]) == {:ok, "b"}
    assert {:python, "ModuleNotFoundError", _} = everywhere(pool, :"os.nothing", :f)
    make(pool, :routes_dotted, "class C:\n  @staticmethod\n  def f(x): return ('old', x)")
    assert everywhere(pool, :routes_dotted, :"C.f", [1]) == {:ok, {"old", 1}}
    change(pool, "sys.modules['routes_dotted'].C.f = lambda x: ('new', x)")
    assert everywhere(pool, :routes_dotted, :"C.f", [1]) == {:ok, {"new", 1}}
    assert everywhere(pool, :routes_dotted, :"__class__.__name__.upper") == {:ok, "MODULE"}
    assert {:python, "TypeError", _} = everywhere(pool, :routes_dotted, :"")
  end

  test "pools do not see each other's functions", %{pool: pool} do
    start_supervised!({Py.Pool, name: :routes_other, init: "def plain(x): return ('other', x)"})

    for _ <- 1..2 do
      assert everywhere(:routes_other, :__main__, :plain, [1]) == {:ok, {"other", 1}}
      assert everywhere(pool, :__main__, :plain, [1]) == {:ok, {"of the pool", 1}}
    end
  end

  test "code that changes its own module while it runs", %{pool: pool} do
    make(pool, :routes_flip, """
    import sys, types
    n = 0

    def body(x):
        global n
        n += 1
        module = sys.modules['routes_flip']
        if n % 3 == 0:
            del module.f
            module.f = lambda x: body(x)
        if n % 5 == 0:
            sys.modules['routes_flip'] = copy = types.ModuleType('routes_flip')
            copy.f = body
        if n % 7 == 0:
            module.__dict__.update({f'more{n}_{k}': k for k in range(100)})
        return (n, x)

    f = body
    """)

    for n <- 1..100 do
      opens(pool)
      assert call(pool, :routes_flip, :f, [n], [], inline: rem(n, 4) != 0) == {:ok, {n, n}}
    end
  end

  test "more names than there are places for", %{pool: pool} do
    make(pool, :routes_many, "for n in range(600): exec(f'def f{n}(x): return ({n}, x)')")
    opens(pool)

    for _ <- 1..3, n <- 0..599 do
      name = String.to_atom("f#{n}")
      assert call(pool, :routes_many, name, [n], [], inline: true) == {:ok, {n, n}}
    end
  end
end
