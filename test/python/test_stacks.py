"""Tests of erlang._stacks."""

from __future__ import annotations

import asyncio
import threading
import unittest
from typing import Any

import beam
from erlang import Atom, _loop, _stacks


def names_of(call: Any) -> list[str]:
    return [frame[Atom("function")].rpartition(".")[2] for frame in call[Atom("frames")]]


class Stacks(beam.Case):
    def test_a_thread_is_told_from_the_outside_in(self) -> None:
        inside, leave = threading.Event(), threading.Event()

        def outer() -> None:
            inner()

        def inner() -> None:
            inside.set()
            leave.wait(10)

        thread = threading.Thread(target=outer)
        thread.start()
        inside.wait(10)
        told: Any = _stacks.stacks([("f", 7, thread.ident or 0, 0)])
        leave.set()
        thread.join()
        names = names_of(told[0])
        self.assertEqual(names[names.index("outer") :][:2], ["outer", "inner"])
        self.assertEqual((told[0][Atom("function")], told[0][Atom("age_ms")]), ("f", 7))
        self.assertIs(told[0][Atom("awaiting")], False)

    def test_what_is_gone_has_no_frames(self) -> None:
        told: Any = _stacks.stacks([("f", 0, 1, 0), ("g", 0, 0, 12345)])
        self.assertEqual([call[Atom("frames")] for call in told], [[], []])

    def test_a_task_is_told_by_the_coroutines_that_wait(self) -> None:
        async def outer() -> None:
            await inner()

        async def inner() -> None:
            await asyncio.sleep(60)

        async def main() -> list[str]:
            job = _loop._Job(99, asyncio.get_running_loop(), outer(), object(), None)
            _loop._jobs[99] = job
            job.start()
            await asyncio.sleep(0)
            told: Any = _stacks.stacks([("f", 0, 0, 99)])
            job.cancel()
            await asyncio.sleep(0)
            return names_of(told[0])

        self.assertEqual(asyncio.run(main()), ["outer", "inner", "sleep"])


if __name__ == "__main__":
    unittest.main()
