defmodule Py.Switchboard.Loan do
  @moduledoc false

  # An answer in memory of a worker's, for whoever asked to read it and give it back.

  alias Py.Native.Base
  alias Py.Worker.Frame

  @enforce_keys [:board, :port, :id, :segment, :len]
  defstruct [:board, :port, :id, :segment, :len]

  @type t :: %__MODULE__{
          board: pid,
          port: port,
          id: Py.Segments.id(),
          segment: Base.segment(),
          len: non_neg_integer
        }

  @doc "The result; the worker may use the memory again."
  @spec take(t) :: :ok | {:ok, term} | {:error, Py.Error.t()}
  def take(loan) do
    # Nothing of the result refers to the memory: what `binary_to_term` makes is a copy.
    result = Frame.result(:reply, Base.segment_map(loan.segment, 0, loan.len))
    send(loan.board, {:py_returned, loan.port, loan.id})
    result
  end
end
