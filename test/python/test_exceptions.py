from __future__ import annotations

import pickle

import beam
import erlang


class ExceptionsTest(beam.Case):
    def test_cancelled_passes_except_exception(self) -> None:
        self.assertFalse(issubclass(erlang.Cancelled, Exception))

    def test_errors_of_values_are_value_errors(self) -> None:
        self.assertTrue(issubclass(erlang.EncodeError, ValueError))
        self.assertTrue(issubclass(erlang.DecodeError, ValueError))

    def test_known_by_their_public_names(self) -> None:
        for cls in (erlang.Cancelled, erlang.EncodeError, erlang.DecodeError):
            self.assertEqual(cls.__module__, "erlang")
            self.assertIs(pickle.loads(pickle.dumps(cls)), cls)

    def test_the_public_names_are_there(self) -> None:
        for name in erlang.__all__:
            self.assertTrue(hasattr(erlang, name), name)
