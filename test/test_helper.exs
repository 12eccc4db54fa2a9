# Run by themselves: mix test --only own_vm
ExUnit.start(exclude: [:own_vm])
