from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from typing import Any

import beam
from erlang import Atom, _code, _errors
from erlang._terms import Struct


def raised(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def run(source: str) -> BaseException:
    return raised(lambda: _code.run(textwrap.dedent(source), {}, _code.new_base(), None, 1, True))


def described(error: BaseException) -> dict[str, Any]:
    struct = _errors.describe(error)
    assert struct.name == "Elixir.Py.Error"
    return struct.fields


class FieldsTest(beam.Case):
    def test_all_fields_of_the_struct(self) -> None:
        expected = {
            "__exception__": True,
            "kind": Atom("python"),
            "type": "ValueError",
            "module": "builtins",
            "message": "no",
            "traceback": [],
            "notes": [],
            "cause": None,
            "context": None,
            "exceptions": [],
            "exit": None,
            "object": None,
        }
        fields = described(ValueError("no"))
        self.assertEqual(fields, expected)
        self.assertIs(type(fields["kind"]), Atom)

    def test_text_that_cannot_be_sent_as_it_is(self) -> None:
        cls = type("C", (Exception,), {"__qualname__": "\ud800", "__module__": "\ud801"})
        fields = described(cls("\ud802\0"))
        texts = (fields["type"], fields["module"], fields["message"])
        self.assertEqual(texts, ("\\ud800", "\\ud801", "\\ud802\0"))


class RelationsTest(beam.Case):
    def test_cause_and_context(self) -> None:
        cause = run("try: 1/0\nexcept ZeroDivisionError as e: raise KeyError('k') from e")
        fields = described(cause)
        self.assertEqual(fields["cause"].fields["type"], "ZeroDivisionError")
        self.assertIsNone(fields["context"])
        fields = described(run("try: 1/0\nexcept ZeroDivisionError: raise KeyError('k')"))
        self.assertEqual(fields["context"].fields["type"], "ZeroDivisionError")
        self.assertIsNone(fields["cause"])

    def test_hidden_context(self) -> None:
        error = run("try: 1/0\nexcept ZeroDivisionError: raise KeyError('k') from None")
        self.assertIsNone(described(error)["context"])

    def test_a_circle_ends(self) -> None:
        one, two = ValueError("one"), ValueError("two")
        one.__cause__, two.__cause__ = two, one
        fields = described(one)
        self.assertEqual(fields["cause"].fields["message"], "two")
        self.assertIsNone(fields["cause"].fields["cause"])

    def test_a_long_chain_is_cut(self) -> None:
        error = ValueError("0")
        for number in range(1, 10_000):
            following = ValueError(str(number))
            following.__cause__ = error
            error = following
        messages = []
        described_error: Struct | None = _errors.describe(error)
        while described_error is not None:
            messages.append(described_error.fields["message"])
            described_error = described_error.fields["cause"]  # type: ignore[assignment]
        self.assertEqual(messages, [str(number) for number in range(9_999, 9_983, -1)])

    def test_a_class_that_hides_its_cause(self) -> None:
        class Hiding(Exception):
            __cause__ = property(lambda _self: 1 / 0)
            __traceback__ = __context__ = __suppress_context__ = __cause__

        self.assertIsNone(described(Hiding())["cause"])


class GroupsTest(beam.Case):
    def test_members_with_members(self) -> None:
        inner = ExceptionGroup("inner", [KeyError("k")])
        fields = described(ExceptionGroup("outer", [ValueError("v"), inner]))
        self.assertEqual(fields["message"], "outer (2 sub-exceptions)")
        first, second = fields["exceptions"]
        self.assertEqual(first.fields["message"], "v")
        self.assertEqual(second.fields["exceptions"][0].fields["type"], "KeyError")

    def test_no_more_than_a_hundred_and_none_twice(self) -> None:
        many = [ValueError(str(n)) for n in range(150)]
        self.assertEqual(len(described(BaseExceptionGroup("many", many))["exceptions"]), 100)
        same = [many[0], many[0]]
        self.assertEqual(len(described(ExceptionGroup("same", same))["exceptions"]), 1)

    def test_a_group_that_hides_its_members(self) -> None:
        class Hiding(ExceptionGroup[Exception]):
            exceptions = property(lambda _self: 1 / 0)

        self.assertEqual(len(described(Hiding("h", [ValueError()]))["exceptions"]), 1)


class NotesTest(beam.Case):
    def test_texts_alone_and_no_more_than_a_hundred(self) -> None:
        error = ValueError()
        error.add_note("first\ud800")
        error.__notes__.append(3)  # type: ignore[arg-type]
        self.assertEqual(described(error)["notes"], ["first\\ud800"])
        error.__notes__ = ["note"] * 150
        self.assertEqual(len(described(error)["notes"]), 100)

    def test_notes_that_are_no_list(self) -> None:
        error = ValueError()
        for notes in ("text", None, 3, {"a": 1}):
            error.__notes__ = notes  # type: ignore[assignment]
            self.assertEqual(described(error)["notes"], [])

    def test_notes_that_raise(self) -> None:
        class Noted(Exception):
            @property
            def __notes__(self) -> list[str]:  # type: ignore[override]
                raise SystemExit

        self.assertEqual(described(Noted())["notes"], [])

    def test_how_to_install_what_is_missing(self) -> None:
        note = described(run("import no_such_package"))["notes"][0]
        self.assertIn(f"{sys.executable} -m pip install no_such_package", note)
        for name in ("a.b", "tkinter", "x; rm", None, 3):
            error = ModuleNotFoundError("m", name=name)  # type: ignore[arg-type]
            self.assertEqual(described(error)["notes"], [], name)


class MessageTest(beam.Case):
    def test_hostile_str(self) -> None:
        class Quitting(Exception):
            def __str__(self) -> str:
                sys.exit(3)

        self.assertRegex(described(Quitting())["message"], "Quitting raised SystemExit>$")

    def test_syntax_errors_show_the_place(self) -> None:
        message = described(run("x = 1\n  \nif True:\n    y = = 2"))["message"]
        self.assertIn("invalid syntax", message)
        self.assertTrue(message.endswith("\n    y = = 2\n        ^"), message)

    def test_syntax_errors_made_by_hand(self) -> None:
        for details, excerpt in (
            ((None, None, None, None), ""),
            (("f", 1, 1, "   "), ""),
            (("f", 1, None, "  x"), "\n    x"),
            (("f", 1, 99, "x"), "\n    x\n     ^"),
            (("f", 1, -5, "x"), "\n    x"),
        ):
            message = described(SyntaxError("bad", details))["message"]
            self.assertTrue(message.endswith(excerpt), message)
            self.assertEqual(message.count("\n"), excerpt.count("\n"))

    def test_a_syntax_error_whose_text_raises(self) -> None:
        class Hostile(SyntaxError):
            text = property(lambda _self: 1 / 0)

        self.assertEqual(described(Hostile("bad"))["message"], "bad")


class TracebackTest(beam.Case):
    def test_lines_of_source_that_is_in_no_file(self) -> None:
        error = run("""
            class C:
                def m(self):
                    return 1 / 0  # here
            C().m()
            """)
        shown = [
            (entry["line"], entry["function"], entry["source"])
            for entry in described(error)["traceback"][-2:]
        ]
        inside = (4, "C.m", "return 1 / 0  # here")
        self.assertEqual(shown, [(5, "<module>", "C().m()"), inside])

    def test_our_own_frames_are_left_out_at_the_top_alone(self) -> None:
        error = raised(lambda: _code.run("1/0", {}, _code.new_base(), "user.ex", 7, False))
        assert error.__traceback__ is not None
        error.__traceback__ = error.__traceback__.tb_next and error.__traceback__.tb_next.tb_next
        files = [(entry["file"], entry["line"]) for entry in described(error)["traceback"]]
        self.assertEqual(files, [("user.ex", 7)])

    def test_the_last_hundred_frames(self) -> None:
        error = run("def f(n):\n    return f(n - 1) if n else 1 / 0\nf(300)")
        traceback = described(error)["traceback"]
        self.assertEqual(len(traceback), 100)
        self.assertEqual({entry["function"] for entry in traceback}, {"f"})

    def test_a_loader_that_raises(self) -> None:
        class Loader:
            def get_source(self, _name: str) -> str:
                raise SystemExit

        names = {"__name__": "m", "__loader__": Loader()}
        error = raised(lambda: eval(compile("1/0", "no_such_file.py", "eval"), names))
        entry = described(error)["traceback"][-1]
        self.assertEqual((entry["file"], entry["source"]), ("no_such_file.py", None))
