from __future__ import annotations

import asyncio
import warnings
from contextvars import ContextVar
from typing import Any
from unittest import mock

import beam
from erlang import _context

entered: ContextVar[object] = ContextVar("entered", default=None)


class Case(beam.Case):
    def setUp(self) -> None:
        super().setUp()
        patch = mock.patch.dict(_context.ENTERS, {"key": entered.set})
        patch.start()
        self.addCleanup(patch.stop)


class WithinTest(Case):
    def test_a_function_runs_in_a_context_of_its_own(self) -> None:
        def function(a: int, *, b: int) -> tuple[object, int, int]:
            found = entered.get()
            entered.set("changed")
            return found, a, b

        run = _context.within({"key": "value"}, function)
        self.assertEqual(run(1, b=2), ("value", 1, 2))
        self.assertIsNone(entered.get())

    def test_with_what_is_there_already(self) -> None:
        token = entered.set("outer")
        self.assertEqual(_context.within({}, entered.get)(), "outer")
        entered.reset(token)


class AwaitWithinTest(Case):
    async def show(self, *errors: Exception) -> object:
        await asyncio.sleep(0)
        for error in errors:
            raise error
        return entered.get()

    def run_within(self, coroutine: Any) -> object:
        async def main() -> object:
            return await asyncio.create_task(_context.await_within({"key": 1}, coroutine))

        return asyncio.run(main())

    def test_what_it_gives(self) -> None:
        self.assertEqual(self.run_within(self.show()), 1)
        with self.assertRaisesRegex(ValueError, "why"):
            self.run_within(self.show(ValueError("why")))
        self.assertIsNone(entered.get())

    def test_its_name(self) -> None:
        awaiting = _context.await_within({}, self.show())
        self.assertEqual(getattr(awaiting, "__qualname__", None), "AwaitWithinTest.show")
        awaiting.close()

    def test_closed_or_cancelled_before_it_runs_it_leaves_no_warning(self) -> None:
        async def main() -> None:
            task = asyncio.create_task(_context.await_within({}, self.show()))
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _context.await_within({}, self.show()).close()
            asyncio.run(main())
