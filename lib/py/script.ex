defmodule Py.Script do
  @moduledoc """
  What becomes of a program that `Py.run_script/3` runs.

  It is run by the Python that `Py.Python.find/2` finds, which needs no shared library, as a process of its own: with
  its own `sys.argv`, `__main__` and tracebacks, its own session, and nothing of the node but its environment variables.

  ## Results

  A script that ends with status 0 has `{:ok, %{status: 0, stdout: binary, stderr: binary, json: term}}`. The two
  outputs are kept apart and are the bytes that were printed. With `json: true`, `json` is stdout decoded by Python's
  `json`, in the terms of the type table (maps with strings as keys, `nil`, integers of any size, `:nan`); else `nil`.
  Any other end is a `Py.Error`; where the script was started, its `object` is the same map, with what was printed:

    * `:crashed`: a status other than 0, or a signal. `exit` is `{:code, n}` or `{:signal, n}`, the message ends with
      the last lines of stderr, `object.status` is `nil` after a signal, and with `json: true` `object.json` is what
      stdout holds if that is JSON. Also when the script printed more than `max_output:`: then it was killed, and `exit`
      is `{:signal, 9}`.
    * `:timeout`: it was killed. What Python has not flushed by then is lost; `env: %{"PYTHONUNBUFFERED" => "1"}` has it
      write at once.
    * `:decode`: with `json: true`, when stdout is no JSON, is nested more deeply than Python's `json` can take, or holds
      a string that is no text (a lone surrogate).
    * `:not_available`: there is no such script, directory or Python. Nothing was started.

  ## The end of a script

  Nothing that a script starts outlives it. When it ends, at its timeout, when the caller dies and when the node does,
  even by `kill -9`, every process below it is killed with SIGKILL, whatever session it made for itself; when
  `Py.run_script/3` returns they are gone. What a process left behind holds in the pipes is still delivered.

  That is the work of a small program between the node and the script (`py_launcher`); killed itself, it takes only
  the script along. Programs that become another user (`sudo`) cannot be killed.
  """

  alias Py.{Build, Error, Options, Python}
  alias Py.Script.Runner

  @who "Py.run_script"
  @decoder "priv/python/erlang/_json_term.py"

  # Of stderr, an error's message holds the end.
  @last_words 2_000

  @typedoc "What `to_string/1` makes of it, at most 131071 bytes without NUL. `nil` is none."
  @type argument :: String.t() | number | atom

  @type result :: %{
          status: non_neg_integer | nil,
          stdout: binary,
          stderr: binary,
          json: term
        }

  # MAX_ARG_STRLEN of Linux, which ends with a NUL byte.
  @longest_argument 131_071

  @doc false
  @spec run(Path.t(), [argument], keyword) :: {:ok, result} | {:error, Error.t()}
  def run(path, argv, options) do
    argv = argv!(argv, options)
    options = Options.check!(options, :script, @who)
    script = path |> text!("path") |> Path.expand()
    cd = options.cd && options.cd |> text!("cd: option") |> Path.expand()

    with :ok <- script?(script),
         :ok <- folder?(cd),
         {:ok, python} <- available(Python.find(options.python)),
         :ok <- available(Build.ensure(nil)) do
      job = %{
        command: [python.executable, script | argv],
        stdin: options.stdin,
        env: options.env,
        cd: cd,
        memory_limit: options.memory_limit,
        max_output: options.max_output,
        deadline: deadline(options.timeout)
      }

      conclude(Runner.run(job, Build.launcher_file()), job, options)
    end
  end

  defp argv!(argv, options) do
    if not proper?(argv),
      do: raise(ArgumentError, "the arguments of #{@who} must be a list, got: #{inspect(argv)}")

    if options == [] and Options.misplaced?(argv, :script) do
      raise ArgumentError,
            "#{inspect(argv)} stands in the place of the arguments of #{@who}, and these are its options: " <>
              "give the arguments first, #{@who}(path, [], options)"
    end

    Enum.map(argv, &argument!/1)
  end

  defp proper?(argv) when length(argv) >= 0, do: true
  defp proper?(_argv), do: false

  defp argument!(value) when is_binary(value) and byte_size(value) > @longest_argument do
    raise ArgumentError,
          "an argument of #{@who} has #{byte_size(value)} bytes, and Linux takes #{@longest_argument}: " <>
            "give the script a file, or stdin"
  end

  defp argument!(value) when is_binary(value), do: text!(value, "argument")

  defp argument!(value) when is_number(value) or (is_atom(value) and not is_nil(value)),
    do: value |> to_string() |> text!("argument")

  defp argument!(value) do
    raise ArgumentError,
          "an argument of #{@who} must be a string, a number or an atom, got: #{inspect(value)}"
  end

  defp text!(value, what) when is_binary(value) do
    if String.contains?(value, <<0>>),
      do: raise(ArgumentError, "the #{what} of #{@who} holds a NUL byte: #{inspect(value)}"),
      else: value
  end

  defp text!(value, what),
    do: raise(ArgumentError, "the #{what} of #{@who} must be a string, got: #{inspect(value)}")

  # What Python runs: a file, or a folder that holds a program.
  defp script?(path) do
    cond do
      File.regular?(Path.join(path, "__main__.py")) -> :ok
      File.dir?(path) -> unavailable("#{path} is a directory and has no __main__.py")
      File.exists?(path) -> :ok
      true -> unavailable("there is no script #{path}")
    end
  end

  defp folder?(nil), do: :ok

  defp folder?(path) do
    if File.dir?(path),
      do: :ok,
      else: unavailable("the cd: option is #{path}, which is no directory")
  end

  defp available({:error, message}), do: unavailable(message)
  defp available(found), do: found

  defp unavailable(message), do: {:error, Error.new(:not_available, message)}

  defp deadline(:infinity), do: :infinity
  defp deadline(timeout), do: System.monotonic_time(:millisecond) + timeout

  defp conclude({outcome, stdout, stderr}, job, options) do
    result = %{status: nil, stdout: stdout, stderr: stderr, json: nil}

    case outcome do
      {:exited, 0} ->
        succeeded(%{result | status: 0}, job, options)

      {:exited, code} ->
        failed({:code, code}, with_json(%{result | status: code}, job, options), job)

      {:signaled, signal} ->
        failed({:signal, signal}, with_json(result, job, options), job)

      other ->
        {:error, stopped(other, result, job, options)}
    end
  end

  defp succeeded(result, _job, %{json: false}), do: {:ok, result}

  defp succeeded(result, job, %{json: true} = options) do
    case decode(result.stdout, job) do
      {:ok, value} -> {:ok, %{result | json: value}}
      {:error, reason} -> {:error, no_json(reason, result, job)}
      :timeout -> {:error, stopped(:timeout, result, job, options)}
    end
  end

  # What a program that failed says is its error; whether it said it in JSON is not.
  defp with_json(result, job, %{json: true}) do
    case decode(result.stdout, job) do
      {:ok, value} -> %{result | json: value}
      _none -> result
    end
  end

  defp with_json(result, _job, _options), do: result

  # The Python of the script decodes: JSON means what it means to Python's json. It starts without the user's packages
  # and variables.
  defp decode(stdout, job) do
    [executable | _script] = job.command
    decoder = Application.app_dir(:py, @decoder)

    decoding = %{
      job
      | command: [executable, "-I", "-S", decoder],
        stdin: stdout,
        env: %{},
        cd: nil,
        max_output: nil
    }

    case Runner.run(decoding, Build.launcher_file()) do
      # No `:safe`: our own program wrote it, and knows three atoms for numbers that nobody here may have used yet.
      {{:exited, 0}, term, _stderr} ->
        :erlang.binary_to_term(term)

      {:timeout, _stdout, _stderr} ->
        :timeout

      {outcome, _stdout, stderr} ->
        {:error, "its decoder failed (#{inspect(outcome)})#{last_words(stderr)}"}
    end
  end

  defp no_json(reason, result, job) do
    start = binary_part(result.stdout, 0, min(byte_size(result.stdout), 60))

    error(
      :decode,
      "stdout of #{name(job)} is no JSON: #{reason}; it begins with #{inspect(start)}",
      result
    )
  end

  defp failed(exit, result, job) do
    what = "#{name(job)} #{ended(exit)}#{last_words(result.stderr)}"
    {:error, %{error(:crashed, what, result) | exit: exit}}
  end

  defp ended({:code, code}), do: "ended with status #{code}"
  defp ended({:signal, signal}), do: "was ended by signal #{signal}"

  defp stopped(:timeout, result, job, options) do
    error(:timeout, "#{name(job)} ran for more than #{options.timeout} ms and was killed", result)
  end

  defp stopped({:too_much, stream}, result, job, options) do
    limit = "#{options.max_output} bytes on #{stream} (max_output:)"
    error = error(:crashed, "#{name(job)} printed more than #{limit} and was killed", result)
    %{error | exit: {:signal, 9}}
  end

  defp stopped({:failed, reason}, result, job, _options),
    do: error(:crashed, "#{name(job)} was lost: #{reason}", result)

  defp error(kind, message, result), do: %Error{kind: kind, message: message, object: result}

  defp name(job), do: Enum.at(job.command, 1)

  defp last_words(stderr) do
    size = min(byte_size(stderr), @last_words)
    words = stderr |> binary_part(byte_size(stderr), -size) |> printable("") |> String.trim()
    if words == "", do: "", else: ":\n" <> words
  end

  defp printable(<<char::utf8, rest::binary>>, done),
    do: printable(rest, <<done::binary, char::utf8>>)

  defp printable(<<_byte, rest::binary>>, done), do: printable(rest, done <> "\uFFFD")
  defp printable("", done), do: done
end
