defmodule Py.Encoding do
  @moduledoc false

  # Structs that the type table does not know are replaced by what `Py.Encoder` has for them. Requests without any do not come
  # here: it is the native side, or a search of the encoded bytes, that finds out.

  alias Py.{Encoder, Error}

  # `erlang/_encode.py` builds their values, but for those that the native side makes of what they hold.
  @structs [Date, DateTime, Decimal, MapSet, NaiveDateTime, Range, Time] ++
             [Py.Array, Py.Buffer, Py.Bytes, Py.Channel, Py.Iterator, Py.Object] ++
             [Nx.BinaryBackend, Nx.Tensor]

  @data [Py.Array, Py.Buffer, Py.Bytes, Py.Object]

  # How deep structs may nest in what is given for structs: one that gives itself ends there.
  @deepest 10_000

  # As many steps of a path are shown as the native side shows.
  @longest_path 32

  @nothing_foreign "a struct is foreign to the native side alone; this is a bug, please report it"

  @doc "The structs of the type table."
  @spec structs() :: [module]
  def structs, do: @structs

  @doc "The request with what stands for its structs."
  @spec request(tuple) :: {:ok, tuple} | {:error, Error.t()}
  def request(request) do
    {:ok, parts(request)}
  catch
    {:py_refused, path, why} -> {:error, Error.new(:encode, text(path, why))}
  end

  @doc "What is asked with that request, and with what is left of the time."
  @spec again(tuple, timeout, (tuple, timeout -> result)) :: result | {:error, Error.t()}
        when result: term
  def again(request, timeout, ask) do
    start = System.monotonic_time(:millisecond)

    case request(request) do
      {:ok, ^request} -> {:error, Error.new(:encode, @nothing_foreign)}
      {:ok, encoded} -> ask.(encoded, left(timeout, System.monotonic_time(:millisecond) - start))
      {:error, _error} = refused -> refused
    end
  end

  defp left(:infinity, _spent), do: :infinity
  defp left(timeout, spent), do: max(timeout - spent, 0)

  @doc "The same of an answer to Python code."
  @spec answer({:ok, term} | {:error, term}) :: {:ok, term} | {:error, term}
  def answer(answer) do
    value(answer, ["the answer"], @deepest)
  catch
    {:py_refused, path, why} -> {:error, {:type, text(path, why)}}
  end

  defp parts({:call, target, name, args, kwargs}),
    do: {:call, target, name, part(args, "args"), named(kwargs, "kwargs")}

  defp parts({kind, code, variables, file, line}),
    do: {kind, code, part(variables, "vars"), file, line}

  defp parts({:within, request, context}),
    do: {:within, parts(request), part(context, "context")}

  defp parts(request), do: request

  defp part(term, root), do: value(term, [root], @deepest)

  defp named(pairs, root) when is_list(pairs) do
    for {name, term} <- pairs, do: {name, value(term, [{:key, name}, root], @deepest)}
  end

  defp named(map, root), do: part(map, root)

  defp value(list, path, left) when is_list(list), do: items(list, 0, path, left)

  defp value(%{__struct__: name} = data, _path, _left) when name in @data, do: data

  defp value(%{__struct__: name} = struct, path, left) when name in @structs do
    :maps.map(fn key, field -> value(field, [{:field, key} | path], left) end, struct)
  end

  defp value(%{__struct__: name} = struct, path, left) when is_atom(name),
    do: struct |> encode(name, path, left) |> value(path, left - 1)

  defp value(map, path, left) when is_map(map) do
    encoded =
      Map.new(map, fn {key, item} ->
        {value(key, [:key | path], left), value(item, [{:key, key} | path], left)}
      end)

    if map_size(encoded) < map_size(map),
      do: refuse(path, "two of its keys are the same once they are encoded")

    encoded
  end

  defp value(tuple, path, left) when is_tuple(tuple) do
    items = tuple |> Tuple.to_list() |> Enum.with_index()
    List.to_tuple(for {item, index} <- items, do: value(item, [{:element, index} | path], left))
  end

  defp value(term, _path, _left), do: term

  # An improper list is refused later.
  defp items([item | rest], index, path, left),
    do: [value(item, [{:item, index} | path], left) | items(rest, index + 1, path, left)]

  defp items(tail, _index, _path, _left), do: tail

  defp encode(_struct, name, path, 0),
    do:
      refuse(
        path,
        "Py.Encoder gives for %#{inspect(name)}{} structs over #{@deepest} deep, or itself"
      )

  defp encode(struct, name, path, _left) do
    # Of a protocol that no application has implemented yet the compiler knows that, and warns.
    case Function.identity(Encoder).impl_for(struct) do
      nil -> refuse(path, no_value(name))
      implementation -> run(implementation, struct, name, path)
    end
  end

  defp run(implementation, struct, name, path) do
    implementation.encode(struct)
  catch
    kind, reason ->
      why = Exception.format_banner(kind, reason, __STACKTRACE__)
      refuse(path, "Py.Encoder of %#{inspect(name)}{} failed: #{why}")
  end

  # `erlang/_encode.py` says the same.
  defp no_value(name) do
    "%#{inspect(name)}{} has no Python value; give it one by Py.Encoder (@derive or defimpl), " <>
      "or pass a map (Map.from_struct/1) or one of its fields"
  end

  defp refuse(path, why), do: throw({:py_refused, path, why})

  defp text(path, why) do
    {steps, [root]} = Enum.split(path, -1)
    shown = steps |> Enum.take(@longest_path) |> Enum.reverse() |> Enum.map(&step/1)
    IO.iodata_to_binary([root, shown, ": ", why])
  end

  # As the native side tells them.
  defp step({:item, index}), do: "[#{index}]"
  defp step({:element, index}), do: "{#{index}}"
  defp step({:field, name}), do: ".#{name}"
  defp step({:key, key}) when is_binary(key), do: "[#{key |> String.slice(0, 60) |> inspect()}]"
  defp step({:key, key}) when is_atom(key), do: step({:key, Atom.to_string(key)})
  defp step({:key, key}) when is_integer(key), do: "[#{key}]"
  defp step(_a_key_or_its_value), do: "[a key]"
end
