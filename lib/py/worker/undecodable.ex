defmodule Py.Worker.Undecodable do
  @moduledoc false

  # Why a term that Python wrote is none here. The only way to it is an answer that `binary_to_term` refused, so this
  # takes its time.

  @doc "Says which atom does not exist, or that keys are equal."
  @spec explain(binary) :: String.t()
  def explain(bytes), do: "result: " <> trouble(bytes)

  @doc "The number of a question that Python asked, and the same of it."
  @spec question(binary) :: {non_neg_integer, String.t()} | nil
  def question(<<131, 104, 4, 119, n, _kind::binary-size(n), number::binary>> = bytes),
    do: {integer(number), "arguments: " <> trouble(bytes)}

  def question(_made_up), do: nil

  defp integer(<<97, number, _rest::binary>>), do: number
  defp integer(<<98, number::32, _rest::binary>>), do: number

  defp integer(<<110, n, 0, number::little-unit(8)-size(n), _rest::binary>>), do: number
  defp integer(_made_up), do: 0

  defp trouble(<<131, term::binary>>) do
    case Enum.find(atoms(term, []), &(not exists?(&1))) do
      nil ->
        "two of its keys or elements are the same in Elixir"

      name ->
        "the atom #{inspect(name)} does not exist in Elixir, and atoms are never made from Python"
    end
  end

  defp exists?(name) do
    String.to_existing_atom(name)
    true
  rescue
    ArgumentError -> false
  end

  # https://www.erlang.org/doc/apps/erts/erl_ext_dist.html: containers are gone through by leaving their heads out.
  defp atoms(<<119, n, name::binary-size(n), rest::binary>>, found),
    do: atoms(rest, [name | found])

  defp atoms(<<118, n::16, name::binary-size(n), rest::binary>>, found),
    do: atoms(rest, [name | found])

  defp atoms(<<97, _, rest::binary>>, found), do: atoms(rest, found)
  defp atoms(<<98, _::32, rest::binary>>, found), do: atoms(rest, found)
  defp atoms(<<70, _::64, rest::binary>>, found), do: atoms(rest, found)
  defp atoms(<<109, n::32, _::binary-size(n), rest::binary>>, found), do: atoms(rest, found)
  defp atoms(<<110, n, _, _::binary-size(n), rest::binary>>, found), do: atoms(rest, found)
  defp atoms(<<111, n::32, _, _::binary-size(n), rest::binary>>, found), do: atoms(rest, found)
  defp atoms(<<106, rest::binary>>, found), do: atoms(rest, found)
  defp atoms(<<104, _, rest::binary>>, found), do: atoms(rest, found)

  defp atoms(<<tag, _::32, rest::binary>>, found) when tag in [105, 108, 116],
    do: atoms(rest, found)

  # A pid, reference or port was made by an Erlang: it is no trouble, but its length is.
  defp atoms(_other, found), do: Enum.reverse(found)
end
