from __future__ import annotations

from unittest import mock

import beam
import erlang
from erlang import _output, _request


class Case(beam.Case):
    def setUp(self) -> None:
        super().setUp()
        leader = mock.patch.object(_output, "_default_leader", beam.pid(9), create=True)
        leader.start()
        self.addCleanup(leader.stop)


class TelemetryTest(Case):
    def test_what_is_asked(self) -> None:
        erlang.telemetry(["app", "done"], {"count": 1}, {"of": "x"})
        erlang.telemetry(("app",))
        expected = [("telemetry", ["app", "done"], {"count": 1}, {"of": "x"})]
        self.assertEqual(beam.native.asked, [*expected, ("telemetry", ["app"], {}, {})])

    def test_a_name_that_is_no_atom(self) -> None:
        beam.native.answer = ("error", ("value", "no atom"))
        with self.assertRaisesRegex(ValueError, "no atom"):
            erlang.telemetry(["app"])

    def test_wrong_types(self) -> None:
        with self.assertRaisesRegex(TypeError, "got str"):
            erlang.telemetry("app")  # type: ignore[arg-type]
        with self.assertRaisesRegex(TypeError, "got list"):
            erlang.telemetry(["app"], [1])  # type: ignore[arg-type]
        with self.assertRaisesRegex(TypeError, "got int"):
            erlang.span(1)  # type: ignore[arg-type]

    def test_where_nobody_can_wait_it_is_sent(self) -> None:
        beam.native.answers = False
        erlang.telemetry(["app"])
        sent: object = ("py_tell", ("telemetry", ["app"], {}, {}), None)
        self.assertEqual(beam.native.sent, [("Elixir.Py.Output", sent)])
        self.assertEqual(beam.native.asked, [])


class SpanTest(Case):
    def test_events(self) -> None:
        beam.native.answer = ("ok", "parent")
        with erlang.span("load", rows=3) as outer:
            current = _request.span.get()
            with erlang.span("inner"):
                self.assertNotEqual(_request.span.get(), current)
            self.assertEqual(_request.span.get(), current)
            outer.metadata["more"] = 1
        self.assertIsNone(_request.span.get())
        stages = [(what[1], what[2][1], what[2][3]) for what in beam.native.asked]
        inner = [("start", "inner", None), ("stop", "inner", "parent")]
        self.assertEqual(stages, [("start", "load", None), *inner, ("stop", "load", "parent")])
        facts = beam.native.asked[-1][2]
        self.assertEqual((facts[0], facts[2]), (current, {"rows": 3, "more": 1}))
        self.assertGreaterEqual(facts[4], 0)

    def test_errors(self) -> None:
        with self.assertRaisesRegex(ValueError, "why"), erlang.span("fails"):
            raise ValueError("why")
        _span, stage, facts = beam.native.asked[-1]
        self.assertEqual(
            (stage, facts[1], facts[5].name), ("exception", "fails", "Elixir.Py.Error")
        )
        self.assertIsNone(_request.span.get())

    def test_the_end_of_a_call_that_is_over_is_sent(self) -> None:
        with self.assertRaises(erlang.Cancelled), erlang.span("stops"):
            raise erlang.Cancelled
        self.assertEqual([what[1] for what in beam.native.asked], ["start"])
        ((_dest, (_tell, what, _outer)),) = beam.native.sent
        self.assertEqual(what[1], "exception")
