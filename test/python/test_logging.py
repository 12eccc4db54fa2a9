from __future__ import annotations

import io
import logging
import sys
from typing import Any
from unittest import mock

import beam
from erlang import Atom, _logging, _output


class Case(beam.Case):
    def setUp(self) -> None:
        super().setUp()
        self.leader = beam.pid(7)
        patch = mock.patch.object(_output, "_default_leader", self.leader, create=True)
        patch.start()
        self.addCleanup(patch.stop)
        self.logger = logging.Logger("my.logger")
        self.logger.addHandler(_logging.Handler("sink"))

    def record(self) -> tuple[object, str, dict[str, Any]]:
        ((dest, message),) = beam.native.sent
        tag, level, text, metadata = message
        self.assertEqual((dest, tag), ("sink", "py_log"))
        for atom in (tag, level, *metadata):
            self.assertIs(type(atom), Atom)
        beam.native.sent.clear()
        return level, text, metadata


class HandlerTest(Case):
    def test_levels(self) -> None:
        for number, level in (
            (0, "debug"),
            (logging.DEBUG, "debug"),
            (logging.INFO, "info"),
            (25, "info"),
            (logging.WARNING, "warning"),
            (logging.ERROR, "error"),
            (logging.CRITICAL, "critical"),
            (99, "critical"),
        ):
            self.logger.handle(self.logger.makeRecord("n", number, "f", 1, "m", (), None))
            self.assertEqual(self.record()[0], level)

    def test_text_and_metadata(self) -> None:
        self.logger.warning("%s of %d\ud800", "one", 2)
        _level, text, metadata = self.record()
        self.assertEqual(text, "one of 2\\ud800")
        self.assertEqual(metadata["file"], __file__)
        self.assertEqual(metadata["function"], "test_text_and_metadata")
        self.assertEqual(metadata["module"], "test_logging")
        self.assertEqual(metadata["logger"], "my.logger")
        self.assertEqual(metadata["thread"], "MainThread")
        self.assertIs(type(metadata["line"]), int)
        self.assertEqual(metadata["leader"], self.leader)

    def test_what_a_record_lacks_is_left_out(self) -> None:
        self.logger.handle(self.logger.makeRecord("n", 10, "f", 1, "m", (), None, func=None))
        self.assertNotIn("function", self.record()[2])

    def test_exceptions_come_with_their_traceback(self) -> None:
        try:
            raise ValueError("why")
        except ValueError:
            self.logger.exception("failed")
        self.assertRegex(self.record()[1], r"(?s)^failed\nTraceback .*ValueError: why$")

    def test_a_message_that_cannot_be_made_is_reported(self) -> None:
        class Mute:
            def __str__(self) -> str:
                raise ValueError("mute")

        errors = io.StringIO()
        with mock.patch.object(sys, "stderr", errors):
            self.logger.warning("%s", Mute())
            self.logger.warning("%d", "no number")
        self.assertEqual(beam.native.sent, [])
        self.assertIn("ValueError: mute", errors.getvalue())
        self.assertIn("no number", errors.getvalue())

    def test_the_recursion_of_the_caller_is_his(self) -> None:
        class Deep:
            def __str__(self) -> str:
                raise RecursionError

        with self.assertRaises(RecursionError):
            self.logger.warning("%s", Deep())


class InstallTest(Case):
    def test_once(self) -> None:
        root = logging.RootLogger(logging.WARNING)
        with mock.patch.object(logging, "getLogger", return_value=root):
            _logging.install("one")
            _logging.install("two")
        (handler,) = root.handlers
        self.assertIsInstance(handler, _logging.Handler)
