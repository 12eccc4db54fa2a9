from __future__ import annotations

import asyncio
import copy
import pickle
from typing import Any
from unittest import mock

import beam
import erlang
from erlang import _channel, _decode, _encode, _output
from erlang._terms import Struct

PID = beam.pid(1)


class Case(beam.Case):
    def setUp(self) -> None:
        super().setUp()
        leader = mock.patch.object(_output, "_default_leader", beam.pid(9), create=True)
        leader.start()
        self.addCleanup(leader.stop)
        self.channel = erlang.Channel.at(PID)

    def asked(self) -> list[Any]:
        return [(operation, rest) for _channel, operation, rest in beam.native.asked]


class ChannelTest(Case):
    def test_what_is_asked(self) -> None:
        self.channel.put(None)
        self.channel.put([1], 0.5)
        self.channel.get(timeout=2)
        self.channel.close()
        self.assertEqual(
            self.asked(),
            [
                ("put", [PID, None, None]),
                ("put", [PID, [1], 500]),
                ("get", [PID, 2000]),
                ("close", [PID]),
            ],
        )
        self.assertEqual({what[0] for what in beam.native.asked}, {"channel"})

    def test_what_is_told(self) -> None:
        beam.native.answer = ("ok", {"size": 3, "closed": True})
        self.assertEqual((self.channel.size, self.channel.closed), (3, True))
        beam.native.answer = ("ok", None)
        self.assertIsNone(self.channel.get())

    def test_errors(self) -> None:
        beam.native.answer = ("error", ("closed", "the channel is closed"))
        with self.assertRaisesRegex(erlang.Closed, "^the channel is closed$"):
            self.channel.put(1)
        beam.native.answer = ("error", ("timeout", "no item came"))
        with self.assertRaisesRegex(TimeoutError, "^no item came$"):
            self.channel.get(0)

    def test_loops_end_with_the_channel(self) -> None:
        answers = [("ok", None), ("ok", 2), ("error", ("closed", "over"))]
        with mock.patch.object(beam.native, "ask", side_effect=answers):
            self.assertEqual(list(self.channel), [None, 2])

    def test_async_loops_end_with_the_channel(self) -> None:
        async def items() -> list[object]:
            return [item async for item in self.channel]

        answers = [("ok", None), ("ok", 2), ("error", ("closed", "over"))]
        with mock.patch.object(beam.native, "ask", side_effect=answers):
            self.assertEqual(asyncio.run(items()), [None, 2])

    def test_what_can_be_done_at_once_is_one_question(self) -> None:
        beam.native.answer = ("ok", 7)
        self.assertEqual(asyncio.run(self.channel.aget()), 7)
        asyncio.run(self.channel.aput(1, timeout=60))
        self.assertEqual(self.asked(), [("get", [PID, 0]), ("put", [PID, 1, 0])])

    def test_a_coroutine_without_patience_awaits_nothing(self) -> None:
        beam.native.answer = ("error", ("timeout", "no item came"))
        with self.assertRaises(TimeoutError):
            asyncio.run(self.channel.aget(timeout=0))
        self.assertEqual(self.asked(), [("get", [PID, 0])])

    def test_loops_leave_room_for_others(self) -> None:
        async def greedy() -> None:
            async for _item in self.channel:
                pass

        async def main() -> None:
            await asyncio.wait_for(greedy(), 0.01)

        beam.native.answer = ("ok", 1)
        with self.assertRaises(asyncio.TimeoutError):
            asyncio.run(main())


class TimeoutTest(Case):
    def test_seconds_become_milliseconds(self) -> None:
        for seconds, milliseconds in (
            (None, None),
            (0, 0),
            (0.0001, 1),
            (1.5, 1500),
            (1.0001, 1001),
            (10**400, _channel._LONGEST),
            (float("inf"), _channel._LONGEST),
        ):
            self.assertEqual(_channel._milliseconds(seconds), milliseconds)

    def test_what_is_none(self) -> None:
        for wrong in ("1", True, [1]):
            with self.assertRaisesRegex(TypeError, "seconds .* or None for no limit, got "):
                self.channel.get(wrong)  # type: ignore[arg-type]
        for negative in (-1, -0.5, float("nan")):
            with self.assertRaisesRegex(ValueError, "seconds, 0 or more, got "):
                self.channel.put(1, negative)
            with self.assertRaises(ValueError):
                asyncio.run(self.channel.aget(negative))
        self.assertEqual(beam.native.asked, [])


class ValueTest(Case):
    def test_found_by_name_or_pid(self) -> None:
        beam.native.answer = ("ok", PID)
        self.assertEqual(erlang.Channel("jobs"), self.channel)
        self.assertEqual(erlang.Channel(PID).pid, PID)
        self.assertEqual(self.asked(), [("find", ["jobs"]), ("find", [PID])])
        beam.native.answer = ("error", ("value", "there is no channel"))
        with self.assertRaisesRegex(ValueError, "there is no channel"):
            erlang.Channel("nobody")
        with self.assertRaisesRegex(TypeError, r"name \(str\) or an erlang.Pid, got int"):
            erlang.Channel(3)  # type: ignore[arg-type]

    def test_equal_where_the_process_is_the_same(self) -> None:
        same, other = erlang.Channel.at(PID), erlang.Channel.at(beam.pid(2))
        self.assertEqual(self.channel, same)
        self.assertNotEqual(self.channel, other)
        self.assertNotEqual(self.channel, PID)
        self.assertEqual(len({self.channel, same, other}), 2)
        self.assertEqual(repr(self.channel), "<erlang.Channel Pid(<0.1.0>)>")
        self.assertEqual(pickle.loads(pickle.dumps(copy.copy(self.channel))), self.channel)

    def test_it_crosses(self) -> None:
        struct = _decode.describe(self.channel)
        self.assertEqual(struct, Struct("Elixir.Py.Channel", {"pid": PID}))
        self.assertEqual(_encode.from_struct("Elixir.Py.Channel", {"pid": PID}), self.channel)
        with self.assertRaisesRegex(erlang.EncodeError, "%Py.Channel{} does not fit"):
            _encode.from_struct("Elixir.Py.Channel", {"pid": None})
