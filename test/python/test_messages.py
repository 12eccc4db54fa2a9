from __future__ import annotations

import beam
import erlang


class SendTest(beam.Case):
    def test_to_a_pid_and_to_a_name(self) -> None:
        self.assertTrue(erlang.send(beam.pid(1), {"n": 1}))
        self.assertTrue(erlang.send("logger", [2]))
        self.assertEqual(beam.native.sent, [(beam.pid(1), {"n": 1}), ("logger", [2])])

    def test_nobody_there(self) -> None:
        beam.native.reachable = False
        self.assertFalse(erlang.send("nobody", 1))

    def test_to_something_else(self) -> None:
        with self.assertRaisesRegex(TypeError, r"expects an erlang.Pid or .* got int"):
            erlang.send(3, 1)  # type: ignore[arg-type]
        self.assertEqual(beam.native.sent, [])
