"""An agent that plans in Python and has Elixir do the work: its tools are Elixir functions."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import erlang

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def answer(question: str, tools: dict[str, Callable[..., Any]]) -> str:
    """Answer with the tools that were passed along, one step after another."""
    customer = tools["find_customer"](question)
    if customer is None:
        return "I know no such customer."
    orders = tools["orders"](customer["id"], limit=2)
    total = sum(order["price"] for order in orders)
    lines = [f"{order['item']} for {order['price']}" for order in orders]
    return f"{customer['name']} ordered {' and '.join(lines)}, {total} in all."


async def compare(question: str) -> str:
    """Ask a registered tool about all cities at once."""
    import asyncio

    cities = re.findall(r"\b[A-Z][a-z]+\b", question.partition(":")[2])
    begin = time.monotonic()
    degrees = await asyncio.gather(*(erlang.acall("temperature", city) for city in cities))
    took = time.monotonic() - begin
    warmest = max(zip(degrees, cities, strict=True))
    return (
        f"{warmest[1]} is the warmest of {len(cities)}, with {warmest[0]} degrees ({took:.1f} s)."
    )


def careful(question: str) -> str:
    """Go on when a tool fails."""
    try:
        return str(erlang.call("search", question))
    except erlang.ElixirError as error:
        return f"The search failed ({error.type}: {error.reason}), so this is from memory."
