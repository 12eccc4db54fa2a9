defmodule Py.Cases.DlpackTest do
  # Arrays that cross between Elixir and libraries other than numpy: DLPack's capsules both ways, Arrow's interfaces.
  use Py.Case, on: [:thread, :process]

  alias Py.Array

  # What a library is that knows DLPack and nothing else, of before its version 1 (`Old`) or since; `Raw` is one
  # that reads and makes capsules by the letter of dlpack.h.
  @libraries """
  import ctypes, numpy

  class Tensor:
      def __init__(self, array): self.array = array
      def __dlpack_device__(self): return 1, 0
      def __dlpack__(self, *, max_version=None): return self.array.__dlpack__(max_version=max_version)

  class Old(Tensor):
      def __dlpack__(self, stream=None): return self.array.__dlpack__()

  class Gpu(Tensor):
      def __dlpack_device__(self): return 2, 1
      def __dlpack__(self, **options): return self.array

  class DLTensor(ctypes.Structure):
      _fields_ = [('data', ctypes.c_void_p), ('device', ctypes.c_int32), ('device_id', ctypes.c_int32),
                  ('ndim', ctypes.c_int32), ('code', ctypes.c_uint8), ('bits', ctypes.c_uint8),
                  ('lanes', ctypes.c_uint16), ('shape', ctypes.POINTER(ctypes.c_int64)),
                  ('strides', ctypes.POINTER(ctypes.c_int64)), ('byte_offset', ctypes.c_uint64)]

  class Managed(ctypes.Structure):
      pass

  class Versioned(ctypes.Structure):
      pass

  DELETE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
  Managed._fields_ = [('tensor', DLTensor), ('context', ctypes.c_void_p), ('deleter', DELETE)]
  Versioned._fields_ = [('major', ctypes.c_uint32), ('minor', ctypes.c_uint32), ('context', ctypes.c_void_p),
                        ('deleter', DELETE), ('flags', ctypes.c_uint64), ('tensor', DLTensor)]

  api = ctypes.pythonapi
  api.PyCapsule_New.restype = ctypes.py_object
  api.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
  api.PyCapsule_GetName.restype = ctypes.c_char_p
  api.PyCapsule_GetName.argtypes = [ctypes.py_object]
  api.PyCapsule_GetPointer.restype = ctypes.c_void_p
  api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]

  class Raw:
      deleted = 0

      def __init__(self, data=b'abcd', shape=(4,), strides=None, code=1, bits=8, lanes=1, device=1, offset=0,
                   ndim=None, major=None, null=False, name=None):
          self.data = ctypes.create_string_buffer(data, len(data))
          axes = ctypes.c_int64 * len(shape)
          self.shape = axes(*shape)
          self.strides = axes(*strides) if strides is not None else None
          @DELETE
          def delete(pointer):
              assert pointer == ctypes.addressof(self.made)
              self.deleted += 1
          tensor = DLTensor(data=None if null else ctypes.addressof(self.data), device=device,
                            ndim=len(shape) if ndim is None else ndim,
                            code=code, bits=bits, lanes=lanes, shape=self.shape, strides=self.strides, byte_offset=offset)
          if major is None:
              self.made = Managed(tensor=tensor, deleter=delete)
          else:
              self.made = Versioned(major=major, tensor=tensor, deleter=delete)
          self.name = name or (b'dltensor' if major is None else b'dltensor_versioned')

      def __dlpack_device__(self): return 1, 0

      def __dlpack__(self, *, max_version=None):
          self.capsule = api.PyCapsule_New(ctypes.addressof(self.made), self.name, None)
          return self.capsule

  def seen(capsule):
      name = api.PyCapsule_GetName(capsule)
      pointer = api.PyCapsule_GetPointer(capsule, name)
      made = (Versioned if name == b'dltensor_versioned' else Managed).from_address(pointer)
      t = made.tensor
      n = t.ndim
      strides = tuple(t.strides[:n])
      count = 1 + sum((s - 1) * abs(d) for s, d in zip(t.shape[:n], strides)) if all(t.shape[:n]) else 0
      low = sum((s - 1) * d for s, d in zip(t.shape[:n], strides) if d < 0) if count else 0
      item = t.bits // 8
      memory = ctypes.string_at(t.data + t.byte_offset + low * item, count * item) if count else b''
      flags = made.flags if name == b'dltensor_versioned' else None
      return name, (t.device, t.code, t.bits, t.lanes), tuple(t.shape[:n]), strides, flags, memory, (t.data or 0) % item
  """

  setup %{pool: pool} do
    case exec(
           pool,
           "import sys, types\nm = types.ModuleType('dl_libraries')\nexec(code, m.__dict__)\nsys.modules['dl_libraries'] = m",
           %{code: @libraries}
         ) do
      :ok -> :ok
      {:error, %{type: "ModuleNotFoundError"}} -> %{pool: nil}
    end
  end

  # The tests of this file need numpy.
  defmacrop numpy(pool, do: body), do: quote(do: if(unquote(pool), do: unquote(body)))

  defp run(pool, code, variables \\ %{}),
    do: eval(pool, "import erlang, numpy, sys\nfrom dl_libraries import *\n" <> code, variables)

  test "numbers of libraries that know DLPack and nothing else", %{pool: pool} do
    numpy pool do
      for {name, dtype} <- [
            {"b1", {:bool, 8}},
            {"i1", {:s, 8}},
            {"i8", {:s, 64}},
            {"u2", {:u, 16}},
            {"f2", {:f, 16}},
            {"f4", {:f, 32}},
            {"f8", {:f, 64}},
            {"c8", {:c, 64}}
          ],
          class <- ["Tensor", "Old"] do
        code =
          "a = numpy.arange(6).astype('#{name}').reshape(2, 3)\nerlang.array(#{class}(a)), a.tobytes()"

        assert {:ok, {%Array{} = array, bytes}} = run(pool, code)
        assert {name, array} == {name, Array.new(bytes, dtype, {2, 3})}
      end
    end
  end

  test "random shapes and strides, as numpy has them", %{pool: pool} do
    numpy pool do
      code = """
      import random
      def step(r): return r.choice([1, 1, -1, 2, -3])
      r = random.Random(seed)
      dtype = r.choice(['b1', 'i2', 'u4', 'f8', 'c16'])
      shape = [r.randrange(0, 5) if r.random() < 0.1 else r.randrange(1, 7) for _ in range(r.randrange(0, 5))]
      a = numpy.arange(numpy.prod(shape, dtype=int)).astype(dtype).reshape(shape)
      if a.ndim: a = a[tuple(slice(None, None, step(r)) for _ in shape)]
      a = a.transpose(r.sample(range(a.ndim), a.ndim))
      erlang.array(r.choice([Tensor, Old])(a)), erlang.array(a), a.tobytes()
      """

      for seed <- 1..200 do
        assert {:ok, {array, same, bytes}} = run(pool, code, %{seed: seed})
        assert {seed, array.shape, array.dtype} == {seed, same.shape, same.dtype}
        assert {seed, Array.to_binary(array)} == {seed, bytes}
      end
    end
  end

  test "types that numpy lacks, there and back", %{pool: pool} do
    numpy pool do
      # 1.0, -2.0 and infinity.
      bf16 = for n <- [0x3F80, 0xC000, 0x7F80], into: "", do: <<n::16-native>>

      for {dtype, data, name, code} <- [
            {{:bf, 16}, bf16, "bfloat16", 4},
            {{:f, 8}, <<0x3C, 0xC0, 0x7C>>, "float8_e5m2", 12},
            {{:f8_e4m3fn, 8}, <<0x38, 0xC0, 0x7E>>, "float8_e4m3fn", 10}
          ] do
        array = Array.new(data, dtype, {3, 1})
        bits = elem(dtype, 1)

        asked =
          "assert isinstance(x, erlang.Tensor)\nx.dtype, x.shape, x.bits.tobytes(), repr(x), " <>
            "seen(x.__dlpack__(max_version=(1, 1)))"

        # Read-only, which flag 1 says.
        seen = {"dltensor_versioned", {1, code, bits, 1}, {3, 1}, {1, 1}, 1, data, 0}

        assert run(pool, asked, %{x: array}) ==
                 {:ok, {name, {3, 1}, data, "erlang.Tensor(#{name}, (3, 1))", seen}}

        plain = %{array | dtype: {:u, bits}}

        assert run(pool, through("[erlang.array(y) for y in (x, Through(x), Tensor(x.bits))]"), %{
                 x: array
               }) ==
                 {:ok, [array, array, plain]}

        assert run(pool, "x.data", %{x: %{array | shape: {4}}}) |> error() |> Map.get(:kind) ==
                 :encode
      end
    end
  end

  # A tensor of a library's that has nothing but DLPack.
  defp through(code) do
    """
    class Through:
        def __init__(self, tensor): self.tensor = tensor
        def __dlpack_device__(self): return self.tensor.__dlpack_device__()
        def __dlpack__(self, **options): return self.tensor.__dlpack__(**options)
    """ <> code
  end

  test "what a library sees of them: strides, what it may write, where they begin", %{pool: pool} do
    numpy pool do
      data = for n <- 0..5, into: "", do: <<n::16-native>>
      array = Array.new(data, {:bf, 16}, {2, 3})
      see = "seen(x.__dlpack__(max_version=(1, 0)))[2:]"
      assert run(pool, see, %{x: array}) == {:ok, {{2, 3}, {3, 1}, 1, data, 0}}
      turned = %{array | shape: {3, 2}, strides: {2, 6}}
      assert run(pool, see, %{x: turned}) == {:ok, {{3, 2}, {1, 3}, 1, data, 0}}
      back = %{array | strides: {-6, -2}}
      assert run(pool, see, %{x: back}) == {:ok, {{2, 3}, {-3, -1}, 1, data, 0}}
      assert run(pool, "erlang.array(x)", %{x: back}) == {:ok, back}
      gaps = %{array | shape: {2}, strides: {4}, data: binary_part(data, 0, 6)}
      packed = binary_part(data, 0, 2) <> binary_part(data, 4, 2)
      # A copy, which may be written.
      assert run(pool, see, %{x: gaps}) == {:ok, {{2}, {1}, 0, packed, 0}}
      none = Array.new("", {:bf, 16}, {0, 3})
      assert run(pool, see, %{x: none}) == {:ok, {{0, 3}, {3, 1}, 1, "", 0}}
      one = Array.new(<<1, 2>>, {:bf, 16}, {})
      assert run(pool, see, %{x: one}) == {:ok, {{}, {}, 1, <<1, 2>>, 0}}
      assert run(pool, "erlang.array(x)", %{x: one}) == {:ok, one}

      # A part of a binary begins anywhere; numbers do not.
      for shift <- 1..3, size <- [6, 70_002] do
        whole = :binary.copy(<<7>>, shift) <> :binary.copy(<<1>>, size)
        part = binary_part(whole, shift, size)
        odd = Array.new(part, {:bf, 16}, {div(size, 2)})

        assert {:ok, {{_}, {1}, _flags, ^part, 0}} = run(pool, see, %{x: odd})
        assert run(pool, "erlang.array(x)", %{x: odd}) == {:ok, odd}
      end

      # Without a version nobody can be told that the memory is read-only.
      assert %{type: "BufferError", message: message} =
               error(run(pool, "x.__dlpack__()", %{x: array}))

      assert message =~ "writable: true"
      own = %{array | writable: true}
      plain = {"dltensor", {1, 4, 16, 1}, {2, 3}, {3, 1}, nil, data, 0}
      assert run(pool, "seen(x.__dlpack__())", %{x: own}) == {:ok, plain}
      assert {:ok, {_, _, 0, _, _}} = run(pool, see, %{x: own})
      copied = "c = x.__dlpack__(max_version=(1, 0), copy=True)\nseen(c)[4:6]"
      assert run(pool, copied, %{x: array}) == {:ok, {0, data}}
      assert error(run(pool, "x.__dlpack__(stream=1)", %{x: array})).type == "BufferError"
      assert error(run(pool, "x.__dlpack__(dl_device=(2, 0))", %{x: array})).type == "BufferError"
    end
  end

  test "tensors of Nx of such types", %{pool: pool} do
    numpy pool do
      data = <<0x3F80::16-native, 0x4000::16-native>>
      tensor = Array.to_nx(Array.new(data, {:bf, 16}, {2}))
      assert %{__struct__: Nx.Tensor, type: {:bf, 16}} = tensor
      assert Array.from_nx(tensor) == Array.new(data, {:bf, 16}, {2})

      assert run(pool, "x.dtype, erlang.array(x)", %{x: tensor}) ==
               {:ok, {"bfloat16", Array.new(data, {:bf, 16}, {2})}}
    end
  end

  test "a capsule keeps what it is of, and no longer than it is used", %{pool: pool} do
    numpy pool do
      array = Array.new(:binary.copy(<<1>>, 100_000), {:bf, 16}, {50_000})

      # One that nobody took, and one that somebody did.
      code = """
      import weakref, gc
      x.bits = x.bits.copy()
      weak = weakref.ref(x.bits)
      capsule = x.__dlpack__(max_version=(1, 0))
      x.bits = None
      kept = weak() is not None
      if taken:
          made = seen(capsule)
          view = sys.modules['_erlang'].from_dlpack(capsule)
          del capsule
          kept = kept and weak() is not None and view[0][:2] == bytes([1, 1])
          del view
      else:
          del capsule
      gc.collect()
      kept, weak() is None
      """

      for taken <- [true, false] do
        assert {taken, run(pool, code, %{x: array, taken: taken})} == {taken, {:ok, {true, true}}}
      end
    end
  end

  # As torch does: its threads let others in before they free anything.
  test "a library may let go of it on any thread, in any state", %{pool: pool} do
    numpy pool do
      array = Array.new(:binary.copy(<<1>>, 100_000), {:bf, 16}, {50_000})

      code = """
      import weakref, threading
      api.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]
      bits = x.bits.copy()
      weak = weakref.ref(bits)
      def free(version, used):
          x.bits = bits.view()
          capsule = x.__dlpack__(max_version=version)
          name = api.PyCapsule_GetName(capsule)
          pointer = api.PyCapsule_GetPointer(capsule, name)
          api.PyCapsule_SetName(capsule, used)
          made = (Versioned if version else Managed).from_address(pointer)
          # ctypes lets others in during the call.
          made.deleter(pointer)
      for version, used in [(None, b'used_dltensor'), ((1, 0), b'used_dltensor_versioned')]:
          free(version, used)
          thread = threading.Thread(target=free, args=(version, used))
          thread.start()
          thread.join()
      x.bits = None
      before = weak() is not None
      del bits
      before, weak() is None
      """

      assert run(pool, code, %{x: array}) == {:ok, {true, true}}
    end
  end

  test "what is borrowed of a library is given back once, when nothing is on it", %{pool: pool} do
    numpy pool do
      for major <- ["None", "1"] do
        code = "sys.dl_raw = r = Raw(b'abcdef', (2, 3), major=#{major})\nerlang.array(r)"
        assert run(pool, code) == {:ok, Array.new("abcdef", {:u, 8}, {2, 3})}
        used = if major == "None", do: "used_dltensor", else: "used_dltensor_versioned"
        # It was copied.
        assert run(pool, "sys.dl_raw.deleted, api.PyCapsule_GetName(sys.dl_raw.capsule)") ==
                 {:ok, {1, used}}
      end

      in_node? = run(pool, "__import__('os').getpid()") == {:ok, String.to_integer(System.pid())}

      # A process whose garbage goes with it.
      Task.await(
        Task.async(fn ->
          made =
            "sys.dl_raw = Raw(bytes(range(256)) * 400, (102_400,))\nerlang.array(sys.dl_raw, copy=False)"

          assert {:ok, array} = run(pool, made)
          assert byte_size(array.data) == 102_400
          assert run(pool, "sys.dl_raw.deleted") == {:ok, if(in_node?, do: 0, else: 1)}
          assert run(pool, "sys.dl_raw.data[0] = b'!'\nNone") == {:ok, nil}
          assert :binary.first(array.data) == if(in_node?, do: ?!, else: 0)
        end)
      )

      eventually(fn -> run(pool, "sys.dl_raw.deleted") == {:ok, 1} end)
    end
  end

  test "capsules that are none, or of what no memory is", %{pool: pool} do
    numpy pool do
      for {arguments, text} <- [
            {"lanes=2", "2 times 8 bits"},
            {"bits=4", "1 times 4 bits"},
            {"bits=0", "1 times 0 bits"},
            {"bits=1", "1 times 1 bits"},
            {"code=3, bits=64", "type 3"},
            {"code=17", "type 17"},
            {"device=2", "device 2"},
            {"shape=(-1,)", "shape"},
            {"shape=(0, -1)", "shape"},
            {"shape=(2**62, 2**62)", "shape"},
            {"shape=(2, 2), strides=(2**63 - 1, 2**62)", "shape"},
            {"shape=(2, 2), strides=(-2**63, 1)", "shape"},
            {"shape=(4,), ndim=65", "shape"},
            {"shape=(4,), ndim=-1", "shape"},
            {"null=True", "nowhere"},
            {"major=2", "version 2"},
            {"name=b'other'", "no capsule"}
          ] do
        code =
          "r = Raw(#{arguments})\ntry: erlang.array(r)\nexcept Exception as e: m = str(e)\nm, r.deleted"

        deleted = if arguments =~ "name", do: 0, else: 1
        assert {:ok, {message, ^deleted}} = run(pool, code)
        assert {arguments, message =~ text, message} == {arguments, true, message}
      end

      # No elements are nowhere.
      assert run(pool, "erlang.array(Raw(shape=(0, 3), null=True))") ==
               {:ok, Array.new("", {:u, 8}, {0, 3})}

      assert run(pool, "erlang.array(Raw(offset=1, shape=(3,)))") ==
               {:ok, Array.new("bcd", {:u, 8}, {3})}

      used = "c = Raw().__dlpack__()\nf = sys.modules['_erlang'].from_dlpack\nf(c)\nf(c)"
      assert error(run(pool, used)).message =~ "unused"

      for junk <- ["None", "object()", "b'x'"],
          do:
            assert(
              error(run(pool, "sys.modules['_erlang'].from_dlpack(#{junk})")).type == "TypeError"
            )

      lend = "sys.modules['_erlang'].to_dlpack(memoryview(b'abcd'), 1, "

      for {rest, type} <- [
            {"8, (5,), (1,), True)", "ValueError"},
            {"8, (2,), (-4,), True)", "ValueError"},
            {"8, (2, 2), (1,), True)", "ValueError"},
            {"8, (2**62, 2**62), (2**62, 1), True)", "ValueError"},
            {"16, (1,), (1,), True)", "BufferError"},
            {"8, 4, (1,), True)", "TypeError"},
            {"8, (4,), (1,))", "TypeError"}
          ] do
        assert {rest, error(run(pool, lend <> rest)).type} == {rest, type}
      end
    end
  end

  test "what is on a GPU stays there: it is an object, and handed on", %{pool: pool} do
    numpy pool do
      assert {:ok, %Py.Object{} = tensor} = run(pool, "Gpu('an address')")
      assert %{type: "TypeError", message: message} = error(Array.from(tensor))
      assert message =~ "this Gpu are on cuda:1"
      # Another library gets the capsule itself.
      assert exec(
               pool,
               "import dl_libraries\ndl_libraries.take = lambda t: t.__dlpack__(stream=2)"
             ) == :ok

      assert Py.call("dl_libraries", "take", [tensor], on: pool) == {:ok, "an address"}
    end
  end
end
