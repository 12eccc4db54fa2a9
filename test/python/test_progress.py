from __future__ import annotations

import asyncio
from contextvars import copy_context
from unittest import mock

import beam
import erlang
from erlang import _awaiting, _output, _progress


class ProgressTest(beam.Case):
    def setUp(self) -> None:
        super().setUp()
        leader = mock.patch.object(_output, "_default_leader", beam.pid(9), create=True)
        leader.start()
        self.addCleanup(leader.stop)

    def test_nothing_without_a_function(self) -> None:
        erlang.progress(1)
        asyncio.run(erlang.aprogress(1))
        self.assertEqual(beam.native.asked, [])

    def test_what_is_asked(self) -> None:
        def report() -> None:
            _progress.enter("function")  # type: ignore[arg-type]
            erlang.progress(1)
            erlang.progress(2, total=3, note="n")
            with mock.patch.object(_awaiting, "ask_and_await", mock.AsyncMock()) as ask:
                asyncio.run(erlang.aprogress(3, 3))
            ask.assert_awaited_once_with(("progress", "function", [3, 3, None]))

        copy_context().run(report)
        asked = [("progress", "function", [1, None, None]), ("progress", "function", [2, 3, "n"])]
        self.assertEqual(beam.native.asked, asked)
