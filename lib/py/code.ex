defmodule Py.Code do
  @moduledoc """
  Python source that knows where it stands, so that tracebacks point into the Elixir file. Made by the sigil `~P`.

      iex> import Py, only: [sigil_P: 2]
      iex> code = ~P"1 + 1"
      iex> code.source
      "1 + 1"
      iex> Py.eval!(code)
      2
  """

  @enforce_keys [:source]
  defstruct [:source, :file, line: 1]

  @typedoc "`line` is the line of `file` on which `source` starts."
  @type t :: %__MODULE__{source: String.t(), file: String.t() | nil, line: pos_integer}

  @doc false
  @spec new(String.t(), keyword, Macro.Env.t()) :: t
  def new(source, meta, caller) do
    # Only a heredoc has an indentation, and its text starts on the line below its opening.
    heredoc = if Keyword.has_key?(meta, :indentation), do: 1, else: 0
    line = Keyword.get(meta, :line, caller.line) + heredoc
    %__MODULE__{source: source, file: Path.relative_to_cwd(caller.file), line: line}
  end
end
