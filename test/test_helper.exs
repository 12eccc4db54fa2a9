# Run by themselves: mix test --only own_vm
# The machine may be busy with other things: a test that hangs is found a little later.
ExUnit.start(exclude: [:own_vm], timeout: 180_000)
