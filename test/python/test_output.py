from __future__ import annotations

import contextvars
import io
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO
from unittest import mock

import beam
from erlang import Atom, _output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SINK, _POOL, _CALLER, _OTHER = (beam.pid(number) for number in range(4))


@contextmanager
def installed() -> Iterator[None]:
    """The streams of the package in the place of the real ones."""
    with (
        mock.patch.multiple(sys, stdin=None, stdout=None, stderr=None),
        mock.patch.object(threading.Thread, "start", _output._start_thread),
    ):
        _output.install(_SINK, _POOL)
        yield


class Case(beam.Case):
    def setUp(self) -> None:
        super().setUp()
        streams = installed()
        streams.__enter__()
        self.addCleanup(streams.__exit__, None, None, None)
        self.addCleanup(_output.flush)
        self.out: TextIO = sys.stdout

    def lines(self) -> list[tuple[object, object]]:
        """Who was sent what, in requests of the I/O protocol."""
        lines = []
        for dest, message in beam.native.sent:
            tag, sink, reply_as, (put_chars, encoding, text) = message
            self.assertEqual((tag, sink, reply_as), ("io_request", _SINK, "py_output"))
            self.assertEqual((put_chars, encoding), ("put_chars", "unicode"))
            self.assertTrue(all(type(name) is Atom for name in (tag, reply_as, put_chars)))
            lines.append((dest, text))
        beam.native.sent.clear()
        return lines

    def as_caller(self, function: Callable[[], object]) -> None:
        context = contextvars.copy_context()
        context.run(_output.leader.set, _CALLER)
        context.run(function)


class LinesTest(Case):
    def test_lines_go_at_once_and_what_is_partial_waits(self) -> None:
        self.assertEqual(self.out.write("a\nb\nc"), 5)
        self.assertEqual(self.lines(), [(_POOL, "a\nb\n")])
        self.out.write("d")
        self.assertEqual(self.lines(), [])
        self.out.write("\n")
        self.assertEqual(self.lines(), [(_POOL, "cd\n")])

    def test_a_bar_goes_at_once_each_time_that_it_is_drawn(self) -> None:
        for text, sent in (
            ("a\n50%", ["a\n"]),
            ("\r60%", ["50%\r60%"]),
            ("\r70%", ["\r70%"]),
            ("80%\r", ["80%\r"]),
            ("\r\n\rnew", ["\r\n\rnew"]),
            ("dos\r\npartial", ["dos\r\n"]),
        ):
            self.out.write(text)
            self.assertEqual([line for _dest, line in self.lines()], sent)

    def test_flush_sends_what_is_partial_once(self) -> None:
        print("a", end="", flush=True)
        self.assertEqual(self.lines(), [(_POOL, "a")])
        self.out.flush()
        self.assertEqual(self.lines(), [])

    def test_the_native_side_is_told_of_a_partial_line(self) -> None:
        self.out.write("a\n")
        self.assertEqual(beam.native.pending, 0)
        self.out.write("b")
        self.assertEqual(beam.native.pending, 1)
        self.assertFalse(_output.flush())
        self.out.write("c")
        self.assertEqual(beam.native.pending, 2)

    def test_a_long_partial_line_is_sent_in_parts(self) -> None:
        for _ in range(9):
            self.out.write("x" * 1000)
        self.assertEqual(self.lines(), [(_POOL, "x" * 9000)])

    def test_text_that_cannot_be_sent_as_it_is(self) -> None:
        self.out.write("\ud800\0é\n")
        self.assertEqual(self.lines(), [(_POOL, "\\ud800\0é\n")])

    def test_nothing_and_no_text(self) -> None:
        self.assertEqual(self.out.write(""), 0)
        self.assertEqual(beam.native.pending, 0)
        with self.assertRaisesRegex(TypeError, "must be str, not bytes"):
            self.out.write(b"a")  # type: ignore[arg-type]

    def test_a_beam_that_refuses_does_not_fail_print(self) -> None:
        beam.native.refusal = ValueError("no such pid")
        print("a")
        print("b", end="", flush=True)
        beam.native.refusal = None
        self.assertEqual(self.lines(), [])


class DestinationTest(Case):
    def test_the_leader_of_the_call(self) -> None:
        self.as_caller(lambda: print("a"))
        print("b")
        self.assertEqual(self.lines(), [(_CALLER, "a\n"), (_POOL, "b\n")])

    def test_a_partial_line_of_another_call_is_sent_to_where_it_belongs(self) -> None:
        self.as_caller(lambda: print("a", end=""))
        print("b")
        self.assertEqual(self.lines(), [(_CALLER, "a"), (_POOL, "b\n")])

    def test_standard_error(self) -> None:
        self.as_caller(lambda: print("a", file=sys.stderr))
        self.assertEqual(self.lines(), [("standard_error", "a\n")])

    def test_the_streams_do_not_mix(self) -> None:
        self.out.write("out")
        sys.stderr.write("err\n")
        self.assertEqual(self.lines(), [("standard_error", "err\n")])
        self.assertFalse(_output.flush())
        self.assertEqual(self.lines(), [(_POOL, "out")])


class ThreadsTest(Case):
    def run_thread(self, function: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=function)
        self.as_caller(thread.start)
        thread.join()
        return thread

    def test_a_thread_prints_where_its_starter_does_and_flushes_at_its_end(self) -> None:
        self.run_thread(lambda: print("a", end=""))
        self.assertEqual(self.lines(), [(_CALLER, "a")])

    def test_threads_do_not_tear_lines(self) -> None:
        turn = threading.Barrier(2)

        def halves(name: str) -> None:
            for _ in range(20):
                turn.wait(5)
                self.out.write(name)
                turn.wait(5)
                self.out.write(name + "\n")

        threads = [threading.Thread(target=halves, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        texts = [text for _dest, text in self.lines()]
        self.assertEqual(sorted(texts, key=str), ["aa\n"] * 20 + ["bb\n"] * 20)

    def test_flush_tells_of_other_threads(self) -> None:
        written, done = threading.Event(), threading.Event()

        def hold() -> None:
            self.out.write("held")
            written.set()
            done.wait(5)

        thread = threading.Thread(target=hold)
        thread.start()
        written.wait(5)
        self.assertTrue(_output.flush())
        done.set()
        thread.join()
        self.assertFalse(_output.flush())

    def test_the_end_of_a_request_sends_what_its_threads_hold(self) -> None:
        written, done = threading.Event(), threading.Event()

        def hold() -> None:
            self.out.write("held")
            written.set()
            done.wait(5)

        beam.native.request = object()
        thread = threading.Thread(target=hold)
        thread.start()
        mine, beam.native.request = beam.native.request, object()
        written.wait(5)
        self.assertTrue(_output.flush())
        self.assertTrue(_output.flush(object()))
        self.assertEqual(self.lines(), [])
        beam.native.request = mine
        self.assertFalse(_output.flush())
        self.assertEqual(self.lines(), [(_POOL, "held")])
        done.set()
        thread.join()

    def test_a_thread_whose_run_raises_flushes_too(self) -> None:
        def fail() -> None:
            self.out.write("last words")
            raise SystemExit

        self.run_thread(fail)
        self.assertEqual(self.lines(), [(_CALLER, "last words")])

    def test_the_thread_is_left_as_it_was(self) -> None:
        self.assertNotIn("run", vars(self.run_thread(lambda: None)))
        thread = threading.Thread()
        thread.run = own = lambda: None  # type: ignore[method-assign]
        thread.start()
        thread.join()
        self.assertIs(thread.run, own)

    def test_a_thread_that_cannot_start(self) -> None:
        thread = threading.Thread()
        failing = mock.Mock(side_effect=RuntimeError("can't start new thread"))
        with (
            mock.patch.object(_output, "_start_thread", failing),
            self.assertRaises(RuntimeError),
        ):
            thread.start()
        self.assertNotIn("run", vars(thread))


class StreamTest(Case):
    def test_what_libraries_ask_of_a_stream(self) -> None:
        self.assertEqual((self.out.encoding, self.out.errors), ("utf-8", "backslashreplace"))
        self.assertEqual(self.out.name, "<stdout>")
        self.assertTrue(self.out.writable())
        self.assertFalse(self.out.readable() or self.out.isatty() or self.out.closed)
        self.out.reconfigure(encoding="latin-1")  # type: ignore[attr-defined]
        with self.assertRaises(io.UnsupportedOperation):
            self.out.fileno()

    def test_nobody_closes_it(self) -> None:
        self.out.close()
        self.out.buffer.close()
        print("still here")
        self.assertEqual(self.lines(), [(_POOL, "still here\n")])

    def test_bytes(self) -> None:
        data = "é\n".encode()
        self.assertEqual(self.out.buffer.write(data[:1]), 1)
        self.assertEqual(self.lines(), [])
        self.assertEqual(self.out.buffer.write(memoryview(data)[1:]), 2)
        self.assertEqual(self.lines(), [(_POOL, "é\n")])
        self.out.buffer.write(b"\xff\0\n")
        self.assertEqual(self.lines(), [(_POOL, "\ufffd\0\n")])

    def test_no_input(self) -> None:
        for read in (sys.stdin.read, sys.stdin.readline, sys.stdin.buffer.read, input):
            with self.assertRaisesRegex(io.UnsupportedOperation, "stdin belongs to the BEAM"):
                read()
