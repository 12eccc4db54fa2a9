defmodule Py.Switchboard.Loan do
  @moduledoc false

  # An answer in memory of a worker's, for whoever asked to read it and give it back. Large binaries of an answer may be
  # behind it, and may stay there: then the memory comes back by itself, when the last of them is garbage.

  alias Py.Error
  alias Py.Native.Base
  alias Py.Worker.Frame

  @enforce_keys [:board, :port, :id, :segment, :len]
  defstruct [:board, :port, :id, :segment, :len, :begin, stays?: false]

  @type t :: %__MODULE__{
          board: pid,
          port: port,
          id: Py.Segments.id(),
          segment: Base.segment(),
          len: non_neg_integer,
          # Where the large binaries are, if they are behind the answer.
          begin: non_neg_integer | nil,
          stays?: boolean
        }

  @doc "The result; the worker may use the memory again, but for what stays."
  @spec take(t) :: :ok | {:ok, term} | {:error, Py.Error.t()}
  def take(%{stays?: false} = loan) do
    result = loan |> read() |> copied(loan)
    send(loan.board, {:py_returned, loan.port, loan.id})
    result
  end

  def take(%{begin: begin} = loan) do
    token = make_ref()
    message = {:py_returned, loan.port, {loan.id, token}}
    memory = Base.segment_lend(loan.segment, loan.board, message)
    # From here on it is not this process that gives it back, however it ends.
    send(loan.board, {:py_kept, loan.port, loan.id, token})
    loan |> read() |> put_back(&Base.loan_map(memory, begin + &1, &2))
  end

  defp copied(result, %{begin: nil}), do: result

  defp copied(result, %{begin: begin, segment: segment}) do
    put_back(result, fn at, len ->
      with {:error, reason} <- Base.segment_read(segment, begin + at, len), do: throw(reason)
    end)
  catch
    reason ->
      {:error, Error.new(:decode, "there is no memory for the result: #{inspect(reason)}")}
  end

  # Nothing of the term refers to the memory: what `binary_to_term` makes is a copy.
  defp read(loan), do: Frame.result(:reply, Base.segment_map(loan.segment, 0, loan.len))

  # In the place of a binary stands where it is and how long, as an improper list: Python has no other ones.
  defp put_back([at | len], read) when is_integer(len), do: read.(at, len)
  defp put_back(list, read) when is_list(list), do: Enum.map(list, &put_back(&1, read))

  defp put_back(tuple, read) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> put_back(read) |> List.to_tuple()

  defp put_back(map, read) when is_map(map),
    do: :maps.map(fn _key, value -> put_back(value, read) end, map)

  defp put_back(other, _read), do: other
end
