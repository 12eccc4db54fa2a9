from __future__ import annotations

import asyncio
from unittest import mock

import beam
import erlang
from erlang import _awaiting, _callbacks, _output


class Case(beam.Case):
    def setUp(self) -> None:
        super().setUp()
        leader = mock.patch.object(_output, "_default_leader", beam.pid(9), create=True)
        leader.start()
        self.addCleanup(leader.stop)


class CallTest(Case):
    def test_what_is_asked_and_answered(self) -> None:
        beam.native.answer = ("ok", 3)
        self.assertEqual(erlang.call("add", 1, 2, scale=3), 3)
        self.assertEqual(beam.native.asked, [("call", "add", [1, 2], {"scale": 3})])

    def test_a_coroutine_asks_the_same_and_awaits(self) -> None:
        with mock.patch.object(_awaiting, "ask_and_await", mock.AsyncMock(return_value=3)) as ask:
            self.assertEqual(asyncio.run(erlang.acall("add", 1, scale=3)), 3)
        ask.assert_awaited_once_with(("call", "add", [1], {"scale": 3}))

    def test_a_name_that_is_none(self) -> None:
        with self.assertRaisesRegex(TypeError, r"name of a function \(str\), got int"):
            erlang.call(3)  # type: ignore[arg-type]
        with self.assertRaisesRegex(TypeError, r"acall\(\) expects .* got int"):
            asyncio.run(erlang.acall(3))  # type: ignore[arg-type]
        self.assertEqual(beam.native.asked, [])

    def test_errors(self) -> None:
        raised = {"kind": "error", "reason": "no", "stacktrace": "here", "type": "KeyError"}
        beam.native.answer = ("error", ("raised", {**raised, "again": None}))
        with self.assertRaises(erlang.ElixirError) as caught:
            erlang.call("f")
        error = caught.exception
        self.assertEqual((error.kind, error.type, error.reason), ("error", "KeyError", "no"))
        self.assertEqual(str(error), "(KeyError) no")
        for kind, expected in (
            ("type", TypeError),
            ("attribute", AttributeError),
            ("runtime", RuntimeError),
        ):
            beam.native.answer = ("error", (kind, "why"))
            with self.assertRaisesRegex(expected, "^why$"):
                erlang.call("f")

    def test_attributes_are_registered_functions(self) -> None:
        beam.native.answer = ("ok", True)
        function = erlang.shout
        self.assertEqual((function.__name__, function.__module__), ("shout", "erlang"))
        function("a")
        self.assertEqual(beam.native.asked, [("has", "shout"), ("call", "shout", ["a"], {})])
        beam.native.answer = ("ok", False)
        self.assertFalse(hasattr(erlang, "nothing"))
        with self.assertRaisesRegex(ImportError, "nothing"):
            from erlang import nothing  # noqa: F401

    def test_private_names_are_not_asked_for(self) -> None:
        self.assertFalse(hasattr(erlang, "_private"))
        self.assertFalse(hasattr(erlang, "__path_of_something__"))
        self.assertEqual(beam.native.asked, [])

    def test_functions_come_from_elixir_alone(self) -> None:
        with self.assertRaisesRegex(TypeError, "come from Elixir"):
            _callbacks.Function(b"bytes")

    def test_whereis(self) -> None:
        beam.native.answer = ("ok", beam.pid(1))
        self.assertEqual(erlang.whereis("logger"), beam.pid(1))
        self.assertEqual(beam.native.asked, [("whereis", "logger")])
        with self.assertRaisesRegex(TypeError, "got int"):
            erlang.whereis(1)  # type: ignore[arg-type]


class StateTest(Case):
    def test_operations(self) -> None:
        beam.native.answer = ("ok", (True, None))
        self.assertIsNone(erlang.state_get("a", "default"))
        beam.native.answer = ("ok", (False, None))
        self.assertEqual(erlang.state_get("a", "default"), "default")
        beam.native.answer = ("ok", 1)
        erlang.state_set("a", [1])
        self.assertEqual(erlang.state_decr("a", 2), 1)
        asked = [what[1:] for what in beam.native.asked]
        self.assertEqual(
            asked, [("get", ["a"]), ("get", ["a"]), ("set", ["a", [1]]), ("incr", ["a", -2])]
        )

    def test_what_is_no_key_or_number(self) -> None:
        with self.assertRaisesRegex(TypeError, "keys of the state are str, got int"):
            erlang.state_get(1)  # type: ignore[arg-type]
        with self.assertRaisesRegex(TypeError, "adds integers, got float"):
            erlang.state_incr("a", 1.5)  # type: ignore[arg-type]
        self.assertEqual(beam.native.asked, [])


class SendElsewhereTest(Case):
    def test_to_a_name_on_a_node(self) -> None:
        beam.native.answer = ("ok", True)
        self.assertTrue(erlang.send(("name", "a@b"), 1))
        self.assertEqual(beam.native.asked, [("send", "name", "a@b", 1)])
