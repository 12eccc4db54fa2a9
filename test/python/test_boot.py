"""The interpreter as a whole is changed here, so each test has one of its own."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import textwrap
import unittest

_HERE = pathlib.Path(__file__).parent
_PACKAGE = _HERE.parent.parent / "priv" / "python"
_OUT = """
import sys
def out(*values): sys.__stdout__.write(" ".join(map(str, values)))
"""
_START = """
    sys.path[:0] = {paths!r}
    from beam import native, pid
    from erlang import _boot
    import _signal as signal
    config = dict(sink=pid(1), leader=pid(2), signal=signal.SIGUSR1)
    _boot.start({{**config, "decimal": True, "set_version": True, "in_node": True}})
"""


def booted(source: str, before: str = "") -> str:
    """What a new interpreter that has booted writes with out()."""
    start = _START.format(paths=[str(_HERE), str(_PACKAGE)])
    return output(textwrap.dedent(before) + textwrap.dedent(start) + textwrap.dedent(source))


def output(source: str, *options: str) -> str:
    program = _OUT + textwrap.dedent(source)
    command = [sys.executable, *options, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return done.stdout


class BootTest(unittest.TestCase):
    def test_imports_nothing_slow(self) -> None:
        slow = {"asyncio", "logging", "inspect", "signal", "enum", "typing", "decimal", "re"}
        source = f"""
            import sys, types
            sys.path.insert(0, {str(_PACKAGE)!r})
            native = sys.modules["_erlang"] = types.ModuleType("_erlang")
            from erlang import _boot, _code, _errors, _loop, _messages, _output, _types, Pid
            config = dict(sink=Pid(b""), leader=Pid(b""), signal=10, decimal=True)
            _boot.start(dict(config, set_version=True, in_node=True))
            out(*sorted({slow!r} & set(sys.modules)))
            """
        # What `site` and its .pth files import is not ours to say.
        self.assertEqual(output(source, "-S"), "")

    def test_output_and_types_are_configured(self) -> None:
        source = """
            import decimal
            from erlang import _types
            print("hello")
            (dest, message), = native.sent
            out(dest == pid(2), message[1] == pid(1), message[3][2].strip())
            out("", type(_types.describe(decimal.Decimal(1))).__name__)
            """
        self.assertEqual(booted(source), "True True hello Struct")

    def test_fork_is_refused(self) -> None:
        source = """
            import os
            for fork in (os.fork, os.forkpty):
                try:
                    fork()
                except RuntimeError as error:
                    out(str(error)[:9], "")
            import subprocess
            out(subprocess.run([sys.executable, "-c", "exit(3)"]).returncode)
            """
        self.assertEqual(booted(source), "os.fork() os.fork() 3")

    def test_the_signal_interrupts_what_must_stop(self) -> None:
        source = """
            import os, time, erlang
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.01)
            native.must_stop = 1
            try:
                os.kill(os.getpid(), signal.SIGUSR1)
                time.sleep(10)
            except erlang.Cancelled:
                out("cancelled")
            """
        self.assertEqual(booted(source), "cancelled")

    def test_a_call_is_left_alone_while_it_cleans_up(self) -> None:
        source = """
            import os, time, erlang
            from erlang import _boot

            def cancelled(call):
                native.must_stop = call
                try:
                    os.kill(os.getpid(), signal.SIGUSR1)
                    time.sleep(0)
                except erlang.Cancelled:
                    return True
                return False

            first = [cancelled(1), cancelled(1), cancelled(2), cancelled(2)]
            _boot._CLEAN_UP = 0
            out(first + [cancelled(2)])
            """
        self.assertEqual(booted(source), "[True, False, True, False, True]")

    def test_the_signal_lets_an_import_end(self) -> None:
        source = """
            import os, pathlib, tempfile
            folder = tempfile.mkdtemp()
            pathlib.Path(folder, "py_test_slow.py").write_text(
                "import os, time\\n"
                "os.kill(os.getpid(), 10)\\n"
                "for _ in range(1000): pass\\n"
            )
            sys.path.insert(0, folder)
            native.must_stop = 1
            import py_test_slow
            native.must_stop = None
            out("imported")
            """
        self.assertEqual(booted(source), "imported")

    def test_logging_is_wired_once_it_is_imported(self) -> None:
        source = """
            import logging
            logging.getLogger("x").warning("careful")
            dest, message = native.sent[-1]
            out(dest, message[1], message[2], len(logging.getLogger().handlers))
            """
        expected = "Elixir.Py.Output warning careful 1"
        self.assertEqual(booted(source), expected)
        self.assertEqual(booted(source, before="import logging\n"), expected)

    def test_multiprocessing_spawns(self) -> None:
        source = "import multiprocessing\nout(multiprocessing.get_start_method())"
        self.assertEqual(booted(source), "spawn")
        self.assertEqual(booted(source, before="import multiprocessing\n"), "spawn")

    def test_the_user_may_choose_how_multiprocessing_starts(self) -> None:
        source = """
            import multiprocessing
            multiprocessing.set_start_method("forkserver")
            out(multiprocessing.get_start_method())
            """
        self.assertEqual(booted(source), "forkserver")
