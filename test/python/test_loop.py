from __future__ import annotations

import asyncio
import contextvars
import logging
import queue
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any
from unittest import mock

import beam
from erlang import Cancelled, _loop, _output

_LONG = 5.0

# Loops are abandoned and closed here with tasks that wait; asyncio logs each of these tasks.
logging.getLogger("asyncio").setLevel(logging.CRITICAL)


class Case(beam.Case):
    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(self.stop)
        self.threads: list[threading.Thread] = []

    def serve(self) -> None:
        self.threads.append(threading.Thread(target=_loop.run))
        self.threads[-1].start()

    def stop(self) -> None:
        _loop.abandon()
        for thread in self.threads:
            thread.join(_LONG)
            self.assertFalse(thread.is_alive())

    def outcome(self) -> beam.Outcome:
        return beam.native.outcomes.get(timeout=_LONG)

    def failure(self) -> tuple[object, type[BaseException]]:
        handle, value, error = self.outcome()
        self.assertIsNone(value)
        assert error is not None
        return handle, type(error)

    def nothing_more(self) -> None:
        """No outcome came twice: those of a later coroutine come after all the others."""
        _loop.submit(999, value("last"), 999, None)
        self.assertEqual(self.outcome(), (999, "last", None))
        self.assertEqual(_loop._jobs, {})


async def value(result: object) -> object:
    return result


async def raising(error: BaseException) -> None:
    raise error


class Waiting:
    """A coroutine that says when it runs and waits until it is cancelled or let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.future: asyncio.Future[object]

    async def run(self) -> object:
        self.future = asyncio.get_running_loop().create_future()
        self.entered.set()
        return await self.future

    def start(self, key: int) -> None:
        _loop.submit(key, self.run(), key, None)
        assert self.entered.wait(_LONG)


class OutcomeTest(Case):
    def test_values_and_errors(self) -> None:
        self.serve()
        _loop.submit(1, value(5), "one", None)
        self.assertEqual(self.outcome(), ("one", 5, None))
        error = ValueError()
        _loop.submit(2, raising(error), "two", None)
        self.assertEqual(self.outcome(), ("two", None, error))
        self.nothing_more()

    def test_what_ends_a_process_ends_a_task(self) -> None:
        self.serve()
        for cls in (SystemExit, KeyboardInterrupt, Cancelled, GeneratorExit):
            _loop.submit(1, raising(cls()), cls, None)
            self.assertEqual(self.failure(), (cls, cls))
        self.nothing_more()

    def test_what_is_submitted_before_the_thread_runs(self) -> None:
        for key in range(3):
            _loop.submit(key, value(key), key, None)
        self.serve()
        self.assertEqual([self.outcome()[0] for _ in range(3)], [0, 1, 2])

    def test_a_thousand_from_several_threads(self) -> None:
        self.serve()

        def submit(first: int) -> None:
            for key in range(first, first + 250):
                _loop.submit(key, value(-key), key, None)

        threads = [threading.Thread(target=submit, args=(n * 250,)) for n in range(4)]
        for thread in threads:
            thread.start()
        outcomes = [self.outcome() for _ in range(1_000)]
        self.assertEqual({(h, v) for h, v, _ in outcomes}, {(n, -n) for n in range(1_000)})
        self.nothing_more()

    def test_each_has_the_context_of_its_caller(self) -> None:
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

        async def read() -> str:
            return variable.get("none")

        context = contextvars.copy_context()
        context.run(variable.set, "caller's")
        # Both before the loop runs: it is woken once, and that in the context of the first.
        context.run(_loop.submit, 1, read(), 1, None)
        _loop.submit(2, read(), 2, None)
        self.serve()
        self.assertEqual(self.outcome()[:2], (1, "caller's"))
        self.assertEqual(self.outcome()[:2], (2, "none"))

    def test_output_is_sent_before_the_outcome(self) -> None:
        flushed: list[object] = []
        with mock.patch.object(_output, "flush", flushed.append):
            self.serve()
            _loop.submit(1, value(1), 1, "asker")
            self.outcome()
            self.assertEqual(flushed, ["asker"])

    def test_an_outcome_that_cannot_be_given_does_not_end_the_loop(self) -> None:
        self.serve()
        reports: queue.Queue[int] = queue.Queue()
        refusing = mock.patch.object(beam.native, "finish", side_effect=ValueError("gone"))
        with refusing, mock.patch.object(_loop, "_report", lambda: reports.put(1)):
            _loop.submit(1, value(1), 1, None)
            reports.get(timeout=_LONG)
        self.nothing_more()

    def test_a_task_factory_that_raises(self) -> None:
        self.serve()

        async def install(factory: Any) -> None:
            asyncio.get_running_loop().set_task_factory(factory)

        _loop.submit(1, install(lambda *_args, **_options: 1 / 0), 1, None)
        self.outcome()
        refused = value(1)
        _loop.submit(2, refused, 2, None)
        self.assertEqual(self.failure(), (2, ZeroDivisionError))
        refused.close()


class CancelTest(Case):
    def test_one_that_waits(self) -> None:
        self.serve()
        waiting = Waiting()
        waiting.start(1)
        _loop.cancel(1)
        self.assertEqual(self.failure(), (1, asyncio.CancelledError))
        _loop.cancel(1)
        self.nothing_more()

    def test_one_that_has_not_begun(self) -> None:
        ran: list[int] = []

        async def note() -> None:
            ran.append(1)

        coroutine = note()
        _loop.submit(1, coroutine, 1, None)
        _loop.cancel(1)
        self.serve()
        self.assertEqual(self.failure(), (1, asyncio.CancelledError))
        self.assertEqual(ran, [])
        self.nothing_more()

    def test_one_that_does_not_give_in(self) -> None:
        self.serve()
        waiting = Waiting()

        async def stubborn() -> str:
            try:
                await waiting.run()
            except asyncio.CancelledError:
                return "stayed"
            raise AssertionError

        _loop.submit(1, stubborn(), 1, None)
        waiting.entered.wait(_LONG)
        _loop.cancel(1)
        self.assertEqual(self.outcome(), (1, "stayed", None))

    def test_nobody(self) -> None:
        _loop.cancel(12345)


class LoopTest(Case):
    def test_which_task_is_at_a_step(self) -> None:
        self.serve()
        waiting, go, entered = Waiting(), threading.Event(), threading.Event()

        async def busy() -> None:
            entered.set()
            go.wait(_LONG)

        waiting.start(1)
        _loop.submit(2, busy(), 2, None)
        entered.wait(_LONG)
        self.assertTrue(_loop.runs_one_of([1, 2]))
        self.assertFalse(_loop.runs_one_of([1, 3]))
        go.set()
        self.outcome()
        self.assertFalse(_loop.runs_one_of([2]))

    def abandon_while(self, block: Callable[[], object]) -> None:
        entered = threading.Event()

        async def stuck() -> None:
            entered.set()
            block()

        _loop.submit(1, stuck(), "stuck", None)
        self.assertTrue(entered.wait(_LONG))
        behind = value(2)
        self.addCleanup(behind.close)
        _loop.submit(2, behind, "behind", None)
        _loop.abandon()

    def test_an_abandoned_loop_says_nothing_more_and_another_serves(self) -> None:
        self.serve()
        go = threading.Event()
        self.abandon_while(lambda: go.wait(_LONG))
        self.serve()
        self.nothing_more()
        go.set()
        self.threads[0].join(_LONG)
        self.assertFalse(self.threads[0].is_alive())
        self.nothing_more()

    def test_a_loop_that_code_stops_goes_on(self) -> None:
        self.serve()

        async def stop() -> str:
            asyncio.get_running_loop().stop()
            return "stopped"

        _loop.submit(1, stop(), 1, None)
        self.assertEqual(self.outcome()[1], "stopped")
        self.nothing_more()

    def closing(self, also: Callable[[], object]) -> Coroutine[Any, Any, None]:
        async def close() -> None:
            loop: Any = asyncio.get_running_loop()
            also()
            loop.run_forever = loop.close  # what another thread may do as soon as it has stopped
            loop.stop()

        return close()

    def test_a_loop_that_code_closes_is_replaced(self) -> None:
        self.serve()
        waiting = Waiting()
        waiting.start(1)
        _loop.submit(2, self.closing(lambda: None), 2, None)
        failures = {self.failure() for _ in range(2)}
        self.assertEqual(failures, {(1, RuntimeError), (2, RuntimeError)})
        self.nothing_more()

    def test_what_was_submitted_to_a_loop_that_is_closed(self) -> None:
        self.serve()
        late = value(3)
        _loop.submit(2, self.closing(lambda: _loop.submit(3, late, 3, None)), 2, None)
        failures = {self.failure() for _ in range(2)}
        self.assertEqual(failures, {(2, RuntimeError), (3, RuntimeError)})
        self.nothing_more()
        late.close()

    def test_who_submits_before_the_thread_sees_that_its_loop_is_closed(self) -> None:
        self.serve()

        async def close() -> None:
            loop: Any = asyncio.get_running_loop()

            def close_and_submit() -> None:
                loop.close()
                _loop.submit(2, value(2), 2, None)

            loop.run_forever = close_and_submit
            loop.stop()

        _loop.submit(1, close(), 1, None)
        self.assertEqual(self.failure(), (1, RuntimeError))
        self.assertEqual(self.outcome(), (2, 2, None))

    def test_an_abandoned_loop_is_closed_once_its_thread_is_free(self) -> None:
        self.serve()
        _loop.submit(1, value(1), 1, None)
        self.outcome()
        loop = _loop._loop
        assert loop is not None
        self.stop()
        self.assertTrue(loop.is_closed())

    def test_a_loop_that_is_closed_just_before_it_is_woken(self) -> None:
        closed = asyncio.new_event_loop()
        closed.close()
        late = value(1)
        with mock.patch.object(_loop, "_current", lambda: closed):
            _loop.submit(1, late, 1, None)
        self.assertEqual(self.failure(), (1, RuntimeError))
        late.close()
        self.serve()
        self.nothing_more()

    def test_an_error_of_the_loop_itself_is_reported(self) -> None:
        reports: queue.Queue[BaseException | None] = queue.Queue()

        broken = [OSError("no more events")]

        def break_once() -> None:
            if broken:
                raise broken.pop()

        with (
            mock.patch.object(_loop, "_report", lambda: reports.put(sys.exception())),
            mock.patch.object(beam.native, "loop_waits", break_once),
        ):
            self.serve()
            self.assertEqual(str(reports.get(timeout=_LONG)), "no more events")
        self.nothing_more()

    def test_others_are_told_when_it_waits_for_events(self) -> None:
        told: queue.Queue[str] = queue.Queue()
        with (
            mock.patch.object(beam.native, "loop_waits", lambda: told.put("waits")),
            mock.patch.object(beam.native, "loop_returns", lambda: told.put("returns")),
        ):
            self.serve()
            self.assertEqual(told.get(timeout=_LONG), "waits")
            _loop.submit(1, asyncio.sleep(0.01), 1, None)
            self.outcome()
            self.assertEqual(told.get(timeout=_LONG), "returns")
            self.assertEqual(told.get(timeout=_LONG), "waits")
            self.stop()
