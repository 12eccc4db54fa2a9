"""`logging` -> Elixir's Logger. Imported once the user's code has imported logging."""

from __future__ import annotations

import logging
import sys

import _erlang
from erlang._output import current_leader
from erlang._terms import Atom, Pid
from erlang._text import utf8

_PY_LOG = Atom("py_log")
_LEADER, _LINE = Atom("leader"), Atom("line")
_METADATA = {
    Atom("file"): "pathname",
    Atom("function"): "funcName",
    Atom("module"): "module",
    Atom("logger"): "name",
    Atom("thread"): "threadName",
}
_LEVELS = [
    (logging.CRITICAL, Atom("critical")),
    (logging.ERROR, Atom("error")),
    (logging.WARNING, Atom("warning")),
    (logging.INFO, Atom("info")),
]
_DEBUG = Atom("debug")


def install(sink: Pid | str) -> None:
    """Add the handler to the root logger, once."""
    root = logging.getLogger()
    if not any(isinstance(handler, Handler) for handler in root.handlers):
        root.addHandler(Handler(sink))


class Handler(logging.Handler):
    """Sends each record to the process that feeds Logger."""

    def __init__(self, sink: Pid | str) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = utf8(self.format(record))
            sent = _erlang.send(self._sink, (_PY_LOG, _level(record), message, _metadata(record)))
            if not sent and sys.stderr:  # from a child process only that comes to Logger
                sys.stderr.write(message + "\n")
        except RecursionError:  # of the caller; to report it would recurse further
            raise
        except Exception:
            self.handleError(record)


def _level(record: logging.LogRecord) -> Atom:
    """A level between two of Logger's is the lower one."""
    return next((atom for number, atom in _LEVELS if record.levelno >= number), _DEBUG)


def _metadata(record: logging.LogRecord) -> dict[Atom, object]:
    fields = {atom: getattr(record, name) for atom, name in _METADATA.items()}
    metadata: dict[Atom, object] = {
        atom: utf8(str(value)) for atom, value in fields.items() if value is not None
    }
    return metadata | {_LINE: record.lineno, _LEADER: current_leader()}
