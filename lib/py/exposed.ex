defmodule Py.Exposed do
  @moduledoc false

  # What Python code of a pool may call besides functions that are registered: those of the modules of its `expose:`.

  alias Py.Asker

  @doc "Lets the code of a pool call the functions of these modules."
  @spec put(Asker.pool(), [module]) :: :ok
  def put(_pool, []), do: :ok
  def put(pool, modules), do: :persistent_term.put(key(pool), Map.new(modules, &{name(&1), &1}))

  @doc "To be called when the pool ends."
  @spec forget(Asker.pool()) :: boolean
  def forget(pool), do: :persistent_term.erase(key(pool))

  @doc "The function that Python calls so, or how to mend that there is none."
  @spec find(Asker.pool() | nil, String.t()) :: {:ok, {module, atom}} | {:error, String.t()}
  def find(pool, name) do
    {path, [function]} = name |> String.split(".") |> Enum.split(-1)
    path = Enum.join(path, ".")

    case :persistent_term.get(key(pool), %{}) do
      %{^path => module} -> exported(module, function, path)
      _others -> {:error, not_exposed(pool, name, path)}
    end
  end

  # Names come from Python: none of them becomes an atom.
  defp exported(module, function, path) do
    Code.ensure_loaded(module)

    case for({name, _arity} <- module.module_info(:exports), callable?(name, function), do: name) do
      [name | _arities] -> {:ok, {module, name}}
      [] -> {:error, "#{path} has no public function #{function}"}
    end
  end

  # What compilers add is not meant, and a macro is no function.
  @no_function ["module_info", "__", "MACRO-"]
  defp callable?(name, function),
    do: Atom.to_string(name) == function and not String.starts_with?(function, @no_function)

  defp not_exposed(_pool, name, ""), do: "no Elixir function is registered as #{inspect(name)}"

  defp not_exposed(nil, name, _path) do
    "#{name} cannot be called from a thread that belongs to no call of a pool: there only registered functions can " <>
      "(Py.register/2)"
  end

  defp not_exposed(_pool, name, path) do
    "#{name} is not exposed to this pool: start the pool with expose: [#{path}], or register a function (Py.register/2)"
  end

  defp name(module), do: module |> Atom.to_string() |> String.replace_prefix("Elixir.", "")

  defp key(pool), do: {__MODULE__, pool}
end
