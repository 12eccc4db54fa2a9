"""`print` and the like, sent to the BEAM by the Erlang I/O protocol.

https://www.erlang.org/doc/apps/stdlib/io_protocol.html
"""

from __future__ import annotations

import io
import sys
import threading
from contextvars import ContextVar, copy_context

import _erlang
from erlang._request import asker
from erlang._terms import Atom, Pid
from erlang._text import utf8

TYPE_CHECKING = False
if TYPE_CHECKING:
    from codecs import IncrementalDecoder
    from collections.abc import Callable
    from typing import NoReturn

    from _typeshed import ReadableBuffer

_MAX_PARTIAL = 8 * 1024

_IO_REQUEST, _PY_OUTPUT = Atom("io_request"), Atom("py_output")
_PUT_CHARS, _UNICODE = Atom("put_chars"), Atom("unicode")

leader: ContextVar[Pid] = ContextVar("erlang.leader")
"""The group leader of the call that runs: where its output goes."""

_sink: Pid
_default_leader: Pid


def install(sink: Pid, default_leader: Pid) -> None:
    """Take over the standard streams. `sink` swallows what the group leaders answer."""
    global _sink, _default_leader
    _sink, _default_leader = sink, default_leader
    sys.stdout = Stream("<stdout>", current_leader)
    sys.stderr = Stream("<stderr>", _standard_error)
    sys.stdin = _NoInput()
    threading.Thread.start = _start  # type: ignore[method-assign]


def current_leader() -> Pid:
    """The group leader of this context; outside of any call, that of the pool."""
    return leader.get(_default_leader)


def _standard_error() -> str:
    return "standard_error"


def flush(request: object = None) -> bool:
    """Send what this thread holds, and other threads of the request, which is over, or of the one
    that this thread runs; True if there still are partial lines."""
    thread = threading.get_ident()
    for key, partial in tuple(_partials.items()):
        if key[0] == thread or partial.is_of(request):
            _send_partial(key)
    return bool(_partials)


class _Partial:
    """What one thread has written to one stream since its last line ended."""

    __slots__ = ("asker", "dest", "parts", "size")

    def __init__(self, dest: Pid | str) -> None:
        self.asker = asker.get()
        self.dest = dest
        self.parts: list[str] = []
        self.size = 0

    def add(self, text: str) -> None:
        self.parts.append(text)
        self.size += len(text)

    def text(self) -> str:
        return "".join(self.parts)

    def is_of(self, request: object) -> bool:
        if self.asker is None or request is not None:
            return self.asker is not None and self.asker is request
        return _erlang.runs(self.asker)


# Only partial lines are in here, by thread and name of the stream. Who adds to one takes it out
# meanwhile, so nobody else sends it; there is no lock that an interrupt could leave held.
_partials: dict[tuple[int, str], _Partial] = {}


def _send_partial(key: tuple[int, str]) -> None:
    partial = _partials.pop(key, None)
    if partial is not None:
        _put_chars(partial.dest, partial.text())


def _put_chars(dest: Pid | str, text: str) -> None:
    request = (_PUT_CHARS, _UNICODE, utf8(text))
    try:
        _erlang.send(dest, (_IO_REQUEST, _sink, _PY_OUTPUT, request))
    except Exception:
        # There is no other place to say it, and print() does not fail for want of a reader.
        return


class Stream(io.TextIOBase):
    """A text stream whose lines go to a process. Threads do not tear each other's lines."""

    encoding = "utf-8"
    errors = "backslashreplace"
    mode = "w"

    def __init__(self, name: str, dest: Callable[[], Pid | str]) -> None:
        super().__init__()
        self.name = name
        self.buffer = _Binary(self)
        self._dest = dest

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if text:
            self._write(text)
        return len(text)

    def _write(self, text: str) -> None:
        key, dest = (threading.get_ident(), self.name), self._dest()
        held = _partials.pop(key, None)
        if held is not None and held.dest != dest:
            _put_chars(held.dest, held.text())
            held = None
        end = _complete(text)
        if end:
            before = held.text() if held is not None else ""
            held = None
            _put_chars(dest, before + text[:end])
        if end < len(text):
            _hold(key, held or _Partial(dest), text[end:])

    def flush(self) -> None:
        _send_partial((threading.get_ident(), self.name))

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Does nothing: the stream is everyone's in the node."""

    def reconfigure(self, **_options: object) -> None:
        """Does nothing: the encoding is Erlang's. Scripts call it to ask for UTF-8."""


def _complete(text: str) -> int:
    """How much of it is to be seen at once: whole lines, and one that is written anew."""
    end = text.rfind("\n") + 1
    return end if text.find("\r", end) < 0 else len(text)


def _hold(key: tuple[int, str], partial: _Partial, text: str) -> None:
    partial.add(text)
    _partials[key] = partial
    if partial.size >= _MAX_PARTIAL:
        _send_partial(key)
    else:
        _erlang.pending_output()


class _Binary(io.BufferedIOBase):
    """`sys.stdout.buffer`: bytes that are UTF-8 text; what is not becomes U+FFFD."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._stream = stream
        self._local = threading.local()  # a character's bytes may come in several writes

    def write(self, data: ReadableBuffer) -> int:
        content = memoryview(data).tobytes()
        self._stream.write(self._decoder().decode(content))
        return len(content)

    def _decoder(self) -> IncrementalDecoder:
        decoder: IncrementalDecoder | None = getattr(self._local, "decoder", None)
        if decoder is None:
            import codecs

            decoder = self._local.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return decoder

    def flush(self) -> None:
        self._stream.flush()

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Does nothing, like that of the stream above it."""


class _NoInput(io.TextIOBase):
    """`sys.stdin`."""

    encoding = "utf-8"
    errors = "strict"
    name = "<stdin>"
    mode = "r"

    def read(self, _size: int | None = -1, /) -> NoReturn:
        raise io.UnsupportedOperation("input() is not available: stdin belongs to the BEAM")

    def readline(self, _size: int = -1, /) -> NoReturn:  # type: ignore[override]
        self.read()

    @property
    def buffer(self) -> _NoInput:
        return self

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """Does nothing: there is nothing to close."""


_start_thread = threading.Thread.start


def _start(self: threading.Thread) -> None:
    """`Thread.start`, and the thread asks and prints as the request does that starts it."""
    run, context = self.run, copy_context()
    given = vars(self).copy()
    request = _erlang.asker()
    if request is not None:
        context.run(asker.set, request)

    def run_in_context() -> None:
        _restore_run(self, given)
        try:
            if len(copy_context()):  # chosen by 3.14's Thread(context=...) or its -X flag
                run()
            else:
                context.run(run)
        finally:
            flush()

    self.run = run_in_context  # type: ignore[method-assign]
    try:
        _start_thread(self)
    except BaseException:
        _restore_run(self, given)
        raise


def _restore_run(thread: threading.Thread, given: dict[str, object]) -> None:
    """Also undoes the cycle of references that `run_in_context` makes."""
    if "run" in given:
        vars(thread)["run"] = given["run"]
    else:
        vars(thread).pop("run", None)
