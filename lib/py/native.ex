defmodule Py.Native do
  @moduledoc false

  # Loaded by Py.Runtime when a Python was chosen, and not by @on_load: a release loads every module first.
  @spec load(Path.t()) :: :ok | {:error, String.t()}
  def load(path) do
    case :erlang.load_nif(path |> Path.rootname(".so") |> String.to_charlist(), 0) do
      :ok -> :ok
      {:error, {:reload, _already_loaded}} -> :ok
      {:error, {_reason, text}} -> {:error, List.to_string(text)}
    end
  end

  # The interpreter
  def boot(_ref, _config), do: not_loaded()

  # Questions of Python code
  def answer(_number, _answer), do: not_loaded()
  def answer_large(_number, _answer), do: not_loaded()
  def abandon_questions, do: not_loaded()
  def asker(_number), do: not_loaded()

  # A pool
  def open_pool(_name, _size, _max_queue, _grace), do: not_loaded()
  def start_pool(_pool, _ref, _group_leader, _config, _timeout), do: not_loaded()
  def pool_id(_pool), do: not_loaded()
  def close_pool(_pool), do: not_loaded()
  def info(_pool), do: not_loaded()
  def stacktrace(_pool, _tag), do: not_loaded()

  # A request
  def submit(_pool, _tag, _group_leader, _request, _timeout, _wants_ticket?), do: not_loaded()

  def ask(_pool, _ref, _group_leader, _request, _timeout, _wants_ticket?), do: not_loaded()

  def submit_large(_pool, _tag, _group_leader, _request, _timeout, _wants_ticket?),
    do: not_loaded()

  def run_inline(_pool, _group_leader, _request, _timeout), do: not_loaded()
  def cancel(_ticket), do: not_loaded()
  def times(_ticket), do: not_loaded()

  # An object
  @spec object_pool(term) :: atom | nil
  def object_pool(_handle), do: not_loaded()

  defp not_loaded, do: :erlang.nif_error(:not_loaded)
end
