defmodule Py.Application do
  @moduledoc false

  use Application

  @impl true
  def start(_type, _arguments) do
    children = [
      # Python prints and logs from its first moment on.
      Py.Output,
      # Worker processes connect to one socket, whichever pool started them.
      Py.Reception,
      # Python code calls Elixir functions.
      Py.Callbacks,
      Py.State,
      # What sessions and streams have in Python ends with them.
      Py.Tenants,
      {Registry, keys: :unique, name: Py.Session.Registry},
      {DynamicSupervisor, name: Py.Session.Supervisor, strategy: :one_for_one},
      # What Elixir refers to in worker processes is let go of there when it is collected here.
      Py.Object.Keeper,
      # Pools of worker processes may be killed: somebody must tell those who wait.
      Py.Survivor,
      # One Python a node, booted by one process.
      Py.Runtime,
      # Casts have no caller that waits: somebody must hear of their failures.
      Py.Cast,
      # The pool `Py` is started by the first call, and started again after a crash.
      {DynamicSupervisor, name: Py.DefaultPool, strategy: :one_for_one}
    ]

    # A script that ends right after a call must not halt the VM before the group leader has written what was printed.
    System.at_exit(fn _status -> IO.write("") end)
    Supervisor.start_link(children, strategy: :one_for_one, name: Py.Supervisor)
  end
end
