defmodule Py.Cases.ArrowTest do
  # Arrow's C data interface, its IPC format and its arrays, with pyarrow and polars themselves.
  use Py.Case, on: [:thread, :process]

  alias Py.Array

  setup %{pool: pool} do
    case exec(pool, "import polars, pyarrow, numpy") do
      :ok -> :ok
      {:error, %{type: "ModuleNotFoundError"}} -> %{pool: nil}
    end
  end

  # The tests of this file need libraries that not every version of Python has yet.
  defmacrop arrow(pool, do: body), do: quote(do: if(unquote(pool), do: unquote(body)))

  defp run(pool, code, variables \\ %{}),
    do: eval(pool, "import erlang, sys, io, polars, pyarrow, pyarrow.ipc\n" <> code, variables)

  test "batches, tables and frames are objects, which libraries hand on without a copy", %{
    pool: pool
  } do
    arrow pool do
      made =
        "pyarrow.record_batch({'n': list(range(100_000)), 'city': ['Oslo', 'Rome'] * 50_000})"

      {:ok, %Py.Object{} = batch} = run(pool, made)

      assert {Py.Object.type(batch), Py.Object.length(batch)} ==
               {"pyarrow.lib.RecordBatch", {:ok, 100_000}}

      # By __arrow_c_array__ to polars, and by __arrow_c_stream__ back.
      {:ok, %Py.Object{} = frame} = Py.call(:polars, :DataFrame, [batch], on: pool)
      {:ok, %Py.Object{} = table} = Py.call(:pyarrow, :table, [frame], on: pool)
      assert {:ok, {100_000, 2}} = Py.getattr(frame, :shape)
      address = "x.column('n')%s.buffers()[1].address"
      {:ok, first} = run(pool, String.replace(address, "%s", ""), %{x: batch})
      assert run(pool, String.replace(address, "%s", ".chunk(0)"), %{x: table}) == {:ok, first}

      # A small result is values.
      {:ok, sums} = Py.call(frame, :group_by, ["city"])
      {:ok, sums} = Py.call(sums, :sum, [])
      {:ok, sums} = Py.call(sums, :sort, ["city"])

      assert Py.call(sums, :to_dicts) ==
               {:ok,
                [
                  %{"city" => "Oslo", "n" => 2_499_950_000},
                  %{"city" => "Rome", "n" => 2_500_000_000}
                ]}
    end
  end

  test "IPC bytes are read where they are", %{pool: pool} do
    arrow pool do
      # What Explorer.DataFrame.dump_ipc_stream!/1 gives, and load_ipc_stream!/1 takes.
      made =
        "out = io.BytesIO()\npolars.DataFrame({'n': range(100_000)}).write_ipc_stream(out)\nout.getvalue()"

      {:ok, bytes} = run(pool, made)
      assert is_binary(bytes) and byte_size(bytes) > 800_000

      read = """
      import numpy
      table = pyarrow.ipc.open_stream(x).read_all()
      column = table.column('n').chunk(0)
      begin = numpy.frombuffer(x, 'u1').ctypes.data
      at = column.buffers()[1].address
      sum(column.to_numpy().tolist()), begin <= at < begin + len(x)
      """

      assert run(pool, read, %{x: Py.buffer(bytes)}) == {:ok, {4_999_950_000, true}}

      written = """
      sink = pyarrow.BufferOutputStream()
      batch = pyarrow.record_batch({'n': list(range(100_000))})
      with pyarrow.ipc.new_stream(sink, batch.schema) as writer: writer.write(batch)
      sink.getvalue()
      """

      {:ok, bytes} = run(pool, written)
      assert run(pool, read, %{x: Py.buffer(bytes)}) == {:ok, {4_999_950_000, true}}
    end
  end

  @tag on: [:thread]
  test "IPC bytes come back as they are, where nobody can change them", %{pool: pool} do
    arrow pool do
      for {code, copied?} <- [
            {"out = io.BytesIO()\nout.write(bytes(50_000_000))\nout.getvalue()", false},
            {"pyarrow.py_buffer(bytes(50_000_000))", false},
            # Whoever has the buffer may write to it.
            {"sink = pyarrow.BufferOutputStream()\nsink.write(bytes(50_000_000))\nsink.getvalue()",
             true}
          ] do
        :erlang.garbage_collect()
        before = :erlang.memory(:binary)
        {:ok, bytes} = run(pool, code)
        grown = :erlang.memory(:binary) - before
        assert byte_size(bytes) == 50_000_000
        assert {code, grown > 40_000_000} == {code, copied?}
      end
    end
  end

  test "arrays and series, with and without what DLPack has no word for", %{pool: pool} do
    arrow pool do
      ints = for n <- [1, 2, 3], into: "", do: <<n::64-native>>

      for code <- ["pyarrow.array([1, 2, 3])", "polars.Series([1, 2, 3])"] do
        assert {code, run(pool, "erlang.array(#{code})")} ==
                 {code, {:ok, Array.new(ints, {:s, 64}, {3})}}

        {:ok, object} = run(pool, code)
        assert {code, Array.from(object)} == {code, {:ok, Array.new(ints, {:s, 64}, {3})}}
      end

      assert run(pool, "erlang.array(pyarrow.array([True, False]))") ==
               {:ok, Array.new(<<1, 0>>, {:bool, 8}, {2})}

      # numpy's way to leave a number out.
      assert {:ok, %Array{dtype: {:f, 64}, data: <<1.0::float-native, _nan::64>>}} =
               run(pool, "erlang.array(pyarrow.array([1, None]))")

      assert error(run(pool, "erlang.array(pyarrow.array(['a', 'b']))")).type == "TypeError"
      assert error(run(pool, "erlang.array(polars.Series(['a', 'b']))")).type == "TypeError"
      # The other way, on the memory of the binary.
      array = Array.new(ints, {:s, 64}, {3})

      assert run(pool, "pyarrow.array(x).to_pylist(), polars.Series(x).to_list()", %{x: array}) ==
               {:ok, {[1, 2, 3], [1, 2, 3]}}
    end
  end
end
