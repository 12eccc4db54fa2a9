from __future__ import annotations

import asyncio
import queue
import threading
from typing import Any
from unittest import mock

import beam
from erlang import _awaiting, _output

Answer = tuple[str, Any]


class Node:
    """What answers: questions are answered when the test says so."""

    def __init__(self) -> None:
        self.announced: queue.Queue[Answer] = queue.Queue()
        self.asked: list[Any] = []
        self.withdrawn: list[int] = []
        self.opened = 0
        self.closed = threading.Semaphore(0)
        self.refusal: Answer | None = None

    def ask(self, kind: object, what: Any, _asker: object) -> Answer:
        _leader, (subject, operation, arguments), _span = what
        assert (kind, subject) == ("py_ask", "await")
        return getattr(self, f"on_{operation}")(*arguments)  # type: ignore[no-any-return]

    def on_open(self) -> Answer:
        self.opened += 1
        return "ok", beam.pid(5)

    def on_ask(self, _pid: object, number: int, what: object) -> Answer:
        self.asked.append((number, what))
        return self.refusal or ("ok", None)

    def on_hear(self, _pid: object, _heard: list[int]) -> Answer:
        return self.announced.get()

    def on_fetch(self, _pid: object, number: int) -> Answer:
        return "ok", f"answer {number}"

    def on_close(self, _pid: object) -> Answer:
        self.closed.release()
        return "ok", None

    def on_withdraw(self, _pid: object, number: int) -> Answer:
        self.withdrawn.append(number)
        return "ok", None


class AwaitingTest(beam.Case):
    def setUp(self) -> None:
        super().setUp()
        self.node = Node()
        for patch in (
            mock.patch.object(_output, "_default_leader", beam.pid(9), create=True),
            mock.patch.object(beam.native, "ask", self.node.ask),
            mock.patch.object(_awaiting, "_board", None),
        ):
            patch.start()
            self.addCleanup(patch.stop)
        self.addCleanup(self.end)

    def end(self) -> None:
        self.node.announced.put(("error", ("runtime", "the test is over")))
        for thread in threading.enumerate():
            if thread.name == "erlang.awaiting":
                thread.join(5)

    async def start(self, *questions: object) -> list[asyncio.Task[object]]:
        tasks = [asyncio.create_task(_awaiting.ask_and_await((what,))) for what in questions]
        await asyncio.sleep(0)
        return tasks

    def test_each_gets_its_own_answer(self) -> None:
        async def main() -> list[object]:
            tasks = await self.start("a", "b", "c")
            self.node.announced.put(("ok", [3, 1]))
            self.assertEqual(await tasks[2], "answer 3")
            self.node.announced.put(("ok", [2]))
            return await asyncio.gather(*tasks)

        self.assertEqual(asyncio.run(main()), ["answer 1", "answer 2", "answer 3"])
        self.assertEqual(self.node.asked, [(1, ("a",)), (2, ("b",)), (3, ("c",))])
        self.assertEqual((self.node.opened, self.node.withdrawn), (1, []))

    def test_one_that_is_cancelled_takes_its_question_back(self) -> None:
        async def main() -> object:
            cancelled, other = await self.start("a", "b")
            cancelled.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await cancelled
            self.assertEqual(self.node.withdrawn, [1])
            self.node.announced.put(("ok", [1, 2]))
            return await other

        self.assertEqual(asyncio.run(main()), "answer 2")

    def test_one_that_is_cancelled_as_its_answer_is_announced_does_not_fetch_it(self) -> None:
        async def main() -> None:
            (task,) = await self.start("a")
            board = _awaiting._board
            assert board is not None
            board._announce(1, None)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        self.assertEqual(self.node.withdrawn, [1])

    def test_what_cannot_be_asked(self) -> None:
        async def main() -> None:
            self.node.refusal = ("error", ("type", "no such value"))
            (task,) = await self.start("a")
            with self.assertRaisesRegex(TypeError, "no such value"):
                await task

        asyncio.run(main())

    def test_where_nobody_hears_any_more_all_fail_and_the_next_starts_anew(self) -> None:
        async def main() -> object:
            lost = await self.start("a", "b")
            self.node.announced.put(("error", ("runtime", "ask again")))
            for task in lost:
                with self.assertRaisesRegex(RuntimeError, "ask again"):
                    await task
            (task,) = await self.start("c")
            self.node.announced.put(("ok", [1]))
            return await task

        self.assertEqual(asyncio.run(main()), "answer 1")
        self.assertEqual(self.node.opened, 2)
        self.assertTrue(self.node.closed.acquire(timeout=5))

    def test_where_nothing_is_expected_the_thread_ends_and_the_next_starts_anew(self) -> None:
        async def main() -> object:
            (task,) = await self.start("a")
            self.node.announced.put(("ok", []))
            self.node.announced.put(("ok", [1]))
            await task
            self.node.announced.put(("ok", []))
            self.assertTrue(self.node.closed.acquire(timeout=5))
            (task,) = await self.start("b")
            self.node.announced.put(("ok", [1]))
            return await task

        self.assertEqual(asyncio.run(main()), "answer 1")
        self.assertEqual(self.node.opened, 2)

    def test_an_answer_for_a_loop_that_is_closed_is_left(self) -> None:
        async def main() -> None:
            await self.start("a")
            board = _awaiting._board
            assert board is not None
            board._expected[7] = closed.create_future()
            board._announce(7, None)

        closed = asyncio.new_event_loop()
        closed.close()
        asyncio.run(main())
        self.assertEqual(self.node.withdrawn[0], 7)
