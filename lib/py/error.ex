defmodule Py.Error do
  @moduledoc """
  Why a call has no value. Every function of `Py` returns it in `{:error, error}`; its `!` twin raises it.

  | kind | when |
  |---|---|
  | `:python` | Python raised: `type`, `module`, `message`, `traceback`, `notes`, `cause`, `context`, `exceptions` tell what |
  | `:timeout` | the deadline passed, in the queue or while it ran |
  | `:cancelled` | it was cancelled |
  | `:overloaded` | the queue of the pool is full, or the threads that could run it sit in C code of calls that are over |
  | `:encode` | an argument has no counterpart in Python; `message` holds the path to it |
  | `:decode` | the result has no counterpart in Elixir; `message` holds the path to it |
  | `:crashed` | what ran it ended; `exit` is `{:code, n}` or `{:signal, n}` where it is known |
  | `:not_available` | there is no Python or script that can be used, or this version of Py lacks what was asked for |
  | `:no_pool`, `:stopped`, `:starting` | no pool of that name, it was stopped, it did not start in time |
  | `:nodedown` | the node of `on: {pool, node}` cannot be reached |
  | `:session_lost`, `:stale_object` | kept for sessions and objects |

  `module` and `type` are those of the Python class ("builtins" and "ValueError"), `traceback` is a list of
  `%{file: _, line: _, function: _, source: _}`, the outermost first, as in Python. `cause` is what `raise ... from`
  named, `context` the exception that was being handled, `exceptions` the members of an `ExceptionGroup`.

  What an Elixir function raised that Python called is, where Python did not catch it, an error of `type` "ElixirError" and
  `module` "erlang"; the `!` functions raise the original again, as does a call of its `object`.

  After `Py.run_script/3`, `object` is the map of what the script left: `status`, `stdout`, `stderr` and `json`.

  `Exception.message/1` reads like Python's own traceback:

      iex> {:error, error} = Py.eval("1 / 0")
      iex> {error.kind, error.type, error.message}
      {:python, "ZeroDivisionError", "division by zero"}
      iex> error |> Exception.message() |> String.split("\\n") |> List.last()
      "ZeroDivisionError: division by zero"
  """

  alias Py.Error.Rendering

  defexception kind: :python,
               type: nil,
               module: nil,
               message: nil,
               traceback: [],
               notes: [],
               cause: nil,
               context: nil,
               exceptions: [],
               exit: nil,
               object: nil

  @type kind ::
          :python
          | :timeout
          | :cancelled
          | :overloaded
          | :encode
          | :decode
          | :crashed
          | :not_available
          | :no_pool
          | :stopped
          | :starting
          | :session_lost
          | :stale_object
          | :nodedown

  @type frame :: %{
          file: String.t(),
          line: pos_integer | nil,
          function: String.t(),
          source: String.t() | nil
        }

  @type t :: %__MODULE__{
          kind: kind,
          type: String.t() | nil,
          module: String.t() | nil,
          message: String.t() | nil,
          traceback: [frame],
          notes: [String.t()],
          cause: t | nil,
          context: t | nil,
          exceptions: [t],
          exit: {:code, integer} | {:signal, integer} | nil,
          object: term
        }

  # `:erlang.raise/3` keeps eight entries: the innermost Python frames leave room for who called.
  @raised_frames 5

  @doc """
  What `raise Py.Error, fields` makes.

      iex> Py.Error.exception(kind: :timeout, message: "after 5 ms").kind
      :timeout
  """
  @impl true
  @spec exception(keyword | String.t()) :: t
  def exception(message) when is_binary(message), do: %__MODULE__{message: message}
  def exception(fields), do: struct!(__MODULE__, fields)

  @doc """
  The error as Python would print it, or for the other kinds a sentence.

      iex> Exception.message(%Py.Error{kind: :overloaded, message: "10 calls wait"})
      "the pool is overloaded: 10 calls wait"
  """
  @impl true
  @spec message(t) :: String.t()
  def message(%__MODULE__{} = error), do: Rendering.text(error)

  @doc false
  @spec new(kind, String.t()) :: t
  def new(kind, message), do: %__MODULE__{kind: kind, message: message}

  @doc false
  @spec raise(t) :: no_return
  # What an Elixir function raised, and Python did not catch, is raised as what it was.
  def raise(%__MODULE__{type: "ElixirError", module: "erlang", object: again})
      when is_function(again, 0),
      do: again.()

  def raise(%__MODULE__{} = error) do
    {:current_stacktrace, [_info, _here | stacktrace]} = Process.info(self(), :current_stacktrace)

    :erlang.raise(:error, error, frames(error) ++ stacktrace)
  end

  # Python's names must not become atoms, so a frame's function is shown as an argument:
  # `app.py:12: :python.in("fetch")`.
  defp frames(%__MODULE__{traceback: traceback}) do
    for frame <- traceback |> Enum.take(-@raised_frames) |> Enum.reverse() do
      location = [file: String.to_charlist(frame.file), line: frame.line || 0]
      {:python, :in, [frame.function], location}
    end
  end
end
