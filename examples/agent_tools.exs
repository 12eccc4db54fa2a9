# Python code that has Elixir functions for tools: passed as arguments, registered by name, called one after another and at
# once. The functions run in the node, in the name of whoever asked.

defmodule AgentTools do
  @customers %{"Ada" => %{id: 1, name: "Ada"}, "Grace" => %{id: 2, name: "Grace"}}
  @orders %{
    1 => [
      %{item: "an engine", price: 1200},
      %{item: "cards", price: 15},
      %{item: "a pen", price: 2}
    ],
    2 => [%{item: "a compiler", price: 500}, %{item: "nanoseconds", price: 1}]
  }

  def find_customer(question),
    do: Enum.find_value(@customers, fn {name, customer} -> if question =~ name, do: customer end)

  def orders(id, options), do: @orders[id] |> Enum.take(options[:limit])

  def temperature(city) do
    Process.sleep(300)
    Map.fetch!(%{"Oslo" => 4, "Rome" => 19, "Cairo" => 28}, city)
  end

  def search(_question), do: raise("the index is being rebuilt")

  def run(pool) do
    tools = %{find_customer: &find_customer/1, orders: &orders/2}

    for question <- ["What did Ada order?", "And Grace?", "And Bob?"],
        do: IO.puts(Py.call!(:agent, :answer, [question, tools], on: pool))

    Py.register("temperature", &temperature/1, owner: self())
    Py.register("search", {__MODULE__, :search}, owner: self())
    IO.puts(Py.call!(:agent, :compare, ["Where is it warmest: Oslo, Rome or Cairo?"], on: pool))
    IO.puts(Py.call!(:agent, :careful, ["Who was Ada?"], on: pool))
  end
end

{:ok, _} =
  Supervisor.start_link(
    for {name, kind} <- [{AgentTools.Here, :thread}, {AgentTools.There, :process}] do
      {Py.Pool, name: name, in: kind, size: 2, paths: [Path.join(__DIR__, "python")]}
    end,
    strategy: :one_for_one
  )

for pool <- [AgentTools.Here, AgentTools.There] do
  IO.puts("-- #{inspect(pool)}")
  AgentTools.run(pool)
end

IO.puts("agent_tools: done")
