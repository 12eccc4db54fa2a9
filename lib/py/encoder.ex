defprotocol Py.Encoder do
  @moduledoc """
  What stands in Python for structs that the type table does not know.

  Dates, `Decimal`, `MapSet` and the other structs of the table (see "Types" in `Py`) are converted as it says. For any other
  an implementation gives a term to be converted in its place:

      defimpl Py.Encoder, for: URI do
        def encode(uri), do: URI.to_string(uri)
      end

  Where a map of fields will do, it is derived; `only:` and `except:` choose the fields:

      defmodule MyApp.User do
        @derive {Py.Encoder, only: [:name, :home]}
        defstruct [:name, :home, :password_hash]
      end

  In Python that is a `dict` with the names of the fields as keys:

      iex> user = %MyApp.User{name: "Ada", home: URI.parse("https://example.org/ada")}
      iex> Py.eval("user['name'], user['home']", %{user: user})
      {:ok, {"Ada", "https://example.org/ada"}}

  For a struct of a library it is derived by `Protocol.derive(Py.Encoder, TheStruct, only: [...])`.

  What `encode/1` gives may have such structs in it again. It works wherever Python gets a value: in arguments, variables, names of
  sessions, results of functions that Python calls, and items of channels and of `Py.iter/1`; in every kind of pool. Nothing is looked
  through for it beforehand: the conversion to Python finds the first such struct before any code ran.

  An implementation only computes: it may run in a process of Py's. What it raises is an error of kind `:encode`, and so is a
  struct without an implementation; the message holds the path to it:

      iex> {:error, error} = Py.call(:builtins, :len, [[Version.parse!("1.0.0")]])
      iex> {error.kind, error.message =~ "args[0][0]: %Version{} has no Python value"}
      {:encode, true}

  With `on: {pool, node}` the implementations of that node count.
  """

  @doc "What is converted in place of the struct."
  @spec encode(t) :: term
  def encode(struct)
end

defimpl Py.Encoder, for: Any do
  defmacro __deriving__(module, struct, options) do
    fields = struct |> Map.keys() |> List.delete(:__struct__) |> chosen(options, module)

    quote do
      defimpl Py.Encoder, for: unquote(module) do
        def encode(struct), do: Map.take(struct, unquote(fields))
      end
    end
  end

  def encode(struct), do: raise(Protocol.UndefinedError, protocol: @protocol, value: struct)

  defp chosen(fields, [], _module), do: fields
  defp chosen(fields, [only: only], module), do: known!(only, fields, module)
  defp chosen(fields, [except: except], module), do: fields -- known!(except, fields, module)

  defp chosen(_fields, options, module) do
    raise ArgumentError,
          "@derive Py.Encoder of #{inspect(module)} takes only: or except:, got: #{inspect(options)}"
  end

  defp known!(names, fields, module) do
    case is_list(names) && names -- fields do
      [] ->
        names

      unknown ->
        raise ArgumentError,
              "@derive Py.Encoder expects a list of fields of %#{inspect(module)}{}, got: #{inspect(unknown || names)}"
    end
  end
end
