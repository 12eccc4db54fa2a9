from __future__ import annotations

import copy
import pickle

import beam
from erlang import Atom, Pid, Port, Ref
from erlang._terms import Struct

# term_to_binary/1 of OTP 25, and what inspect/1 shows.
_PID = bytes.fromhex("835864000D6E6F6E6F6465406E6F686F7374000000090000000000000000")
_FAR_PID = bytes.fromhex("835864000D666F6F406C6F63616C686F737400000066000000006B012C1A")
_REF = bytes.fromhex("835A000364000D6E6F6E6F6465406E6F686F73740000000000032EE038D40001A757D731")
_PORT = bytes.fromhex("835964000D6E6F6E6F6465406E6F686F73740000000000000000")
# The same by other tags: a short node name, the old pid, a port of 64 bits.
_SHORT_PID = b"\x83\x58\x77\x0dnonode@nohost" + bytes.fromhex("00000009 00000001 00000000")
_OLD_PID = b"\x83\x67\x73\x01n" + bytes.fromhex("00000009 00000000 00")
_LONG_PORT = b"\x83\x78\x77\x0dnonode@nohost" + bytes.fromhex("0000000100000002 00000000")


class AtomTest(beam.Case):
    def test_is_a_str_that_shows_what_it_is(self) -> None:
        atom = Atom("ok")
        self.assertEqual((atom, hash(atom), repr(atom)), ("ok", hash("ok"), "Atom('ok')"))
        self.assertIs(type(atom.upper()), str)

    def test_survives_pickle(self) -> None:
        self.assertIs(type(pickle.loads(pickle.dumps(Atom("ok")))), Atom)


class StructTest(beam.Case):
    def test_equal_by_name_and_fields(self) -> None:
        self.assertEqual(Struct("A", {"x": 1}), Struct("A", {"x": 1}))
        self.assertNotEqual(Struct("A", {"x": 1}), Struct("B", {"x": 1}))
        self.assertNotEqual(Struct("A", {"x": 1}), Struct("A", {"x": 2}))
        self.assertNotEqual(Struct("A", {}), "A")

    def test_shows_its_fields(self) -> None:
        self.assertEqual(repr(Struct("A", {"x": 1})), "Struct('A', {'x': 1})")


class OpaqueTest(beam.Case):
    def test_shown_as_erlang_does(self) -> None:
        self.assertEqual(repr(Pid(_PID)), "Pid(<0.9.0>)")
        self.assertEqual(repr(Pid(_FAR_PID)), "Pid(<foo@localhost.102.0>)")
        self.assertEqual(repr(Pid(_SHORT_PID)), "Pid(<0.9.1>)")
        self.assertEqual(repr(Pid(_OLD_PID)), "Pid(<n.9.0>)")
        self.assertEqual(repr(Ref(_REF)), "Ref(<0.2807551793.953417729.208608>)")
        self.assertEqual(repr(Port(_PORT)), "Port(<0.0>)")
        self.assertEqual(repr(Port(_LONG_PORT)), "Port(<0.4294967298>)")

    def test_bytes_of_something_else_are_shown_as_they_are(self) -> None:
        for etf in (b"", b"\x83", b"\x83a\x01", _PID[:-9], _PID[:5], _REF):
            self.assertEqual(repr(Pid(etf)), f"Pid({etf!r})")
        self.assertEqual(repr(Ref(_PID)), f"Ref({_PID!r})")
        self.assertEqual(repr(Port(_PORT[:-8])), f"Port({_PORT[:-8]!r})")

    def test_equal_bytes_are_equal_terms(self) -> None:
        self.assertEqual(Pid(_PID), Pid(_PID))
        self.assertEqual({Pid(_PID): 1}[Pid(_PID)], 1)
        self.assertNotEqual(Pid(_PID), Pid(_FAR_PID))
        self.assertNotEqual(Pid(_PID), Ref(_PID))
        self.assertNotEqual(Pid(_PID), _PID)

    def test_immutable(self) -> None:
        pid = Pid(_PID)
        with self.assertRaisesRegex(AttributeError, "Pid is immutable"):
            pid.etf = b""
        with self.assertRaisesRegex(AttributeError, "Pid is immutable"):
            del pid.etf
        with self.assertRaises(AttributeError):
            pid.other = 1

    def test_made_of_bytes_alone(self) -> None:
        for wrong in ("text", bytearray(_PID), None):
            with self.assertRaisesRegex(TypeError, type(wrong).__name__):
                Pid(wrong)  # type: ignore[arg-type]

    def test_survives_copy_and_pickle(self) -> None:
        for term in (Pid(_PID), Ref(_REF), Port(_PORT)):
            self.assertEqual(pickle.loads(pickle.dumps(term)), term)
            self.assertEqual(copy.deepcopy(term), term)
