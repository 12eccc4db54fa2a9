from __future__ import annotations

import sys
from contextvars import copy_context
from unittest import mock

import beam
import erlang
from erlang import _trace

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class TraceTest(beam.Case):
    def setUp(self) -> None:
        super().setUp()
        _trace._attach.cache_clear()
        self.addCleanup(_trace._attach.cache_clear)

    def test_it_is_that_of_the_context(self) -> None:
        def inside() -> str | None:
            _trace.enter(TRACEPARENT)
            return erlang.traceparent()

        self.assertEqual(copy_context().run(inside), TRACEPARENT)
        self.assertIsNone(erlang.traceparent())

    def test_without_opentelemetry_or_with_a_broken_one(self) -> None:
        with mock.patch.dict(sys.modules, {"opentelemetry": None}):
            copy_context().run(_trace.enter, TRACEPARENT)
            self.assertIsNone(_trace._attach())

    def test_opentelemetry_is_looked_for_once(self) -> None:
        self.assertIs(_trace._attach(), _trace._attach())
