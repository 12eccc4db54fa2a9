from __future__ import annotations

import beam
from erlang import _text


class Utf8Test(beam.Case):
    def test_text_stays(self) -> None:
        for text in ("", "plain", "a\0b", "Größe", "\U0001f40d"):
            self.assertEqual(_text.utf8(text), text)

    def test_lone_surrogates_are_escaped(self) -> None:
        self.assertEqual(_text.utf8("a\udc80b\ud800"), "a\\udc80b\\ud800")

    def test_a_subclass_becomes_plain_and_is_not_asked(self) -> None:
        for content in ("plain", "Größe", "\ud800"):
            self.assertIs(type(_text.utf8(beam.Hostile(content))), str)


class TypeNameTest(beam.Case):
    def test_module_and_qualified_name(self) -> None:
        self.assertEqual(_text.type_name(int), ("builtins", "int"))
        self.assertEqual(_text.type_name(beam.Native), ("beam", "Native"))

    def test_the_metaclass_is_not_asked(self) -> None:
        cls = beam.HostileMeta("C", (), {})
        self.assertEqual(_text.type_name(cls), (__name__, "C"))

    def test_a_module_that_is_no_text(self) -> None:
        self.assertEqual(_text.type_name(type("C", (), {"__module__": 3})), ("?", "C"))

    def test_no_module(self) -> None:
        cls = eval("type('C', (), {})", {"type": type, "__builtins__": {}})
        self.assertEqual(_text.type_name(cls), ("?", "C"))

    def test_a_hostile_name_becomes_plain(self) -> None:
        cls = type("C", (), {})
        cls.__qualname__ = beam.Hostile("D")
        name = _text.type_name(cls)[1]
        self.assertIs(type(name), str)
        self.assertEqual(name, "D")


class MessageOfTest(beam.Case):
    def test_the_text_of_an_exception(self) -> None:
        self.assertEqual(_text.message_of(ValueError("a\udc80")), "a\\udc80")

    def test_str_that_raises_or_ends_the_process(self) -> None:
        for failure in (ValueError, SystemExit, KeyboardInterrupt, RecursionError):

            class Mute(Exception):
                failure: type[BaseException]

                def __str__(self) -> str:
                    raise self.failure

            Mute.failure = failure
            expected = rf"^<str\(\) of this .*Mute raised {failure.__name__}>$"
            self.assertRegex(_text.message_of(Mute()), expected)
