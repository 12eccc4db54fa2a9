"""Python exceptions -> %Py.Error{}.

Nothing here trusts the exception: its `str()`, its notes and the properties of its class are
user code. The fields that the interpreter keeps are read past that code.
"""

from __future__ import annotations

import os
import sys

from erlang._callbacks import Function
from erlang._exceptions import ElixirError
from erlang._terms import Atom, Struct
from erlang._text import message_of, type_name, utf8

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Any

_MAX_LEVELS = 16
_MAX_MEMBERS = 100
_MAX_FRAMES = 100
_MAX_NOTES = 100

_PYTHON = Atom("python")
_FILE, _LINE, _FUNCTION, _SOURCE = map(Atom, ("file", "line", "function", "source"))
_OUR_FILES = os.path.dirname(__file__) + os.sep

_traceback_of = BaseException.__dict__["__traceback__"].__get__
_cause_of = BaseException.__dict__["__cause__"].__get__
_context_of = BaseException.__dict__["__context__"].__get__
_hides_context = BaseException.__dict__["__suppress_context__"].__get__
_text_of = SyntaxError.__dict__["text"].__get__
_offset_of = SyntaxError.__dict__["offset"].__get__
_members_of = BaseExceptionGroup.__dict__["exceptions"].__get__


def describe(error: BaseException) -> Struct:
    """The error with its causes, each exception once, however they refer to each other."""
    return _describe(error, _MAX_LEVELS, set())


def _describe(error: BaseException, levels: int, seen: set[int]) -> Struct:
    seen.add(id(error))
    module, name = type_name(type(error))
    cause = _cause_of(error)
    context = None if cause is not None or _hides_context(error) else _context_of(error)
    return Struct(
        "Elixir.Py.Error",
        {
            "__exception__": True,
            "kind": _PYTHON,
            "type": utf8(name),
            "module": utf8(module),
            "message": _message(error),
            "traceback": _traceback(_traceback_of(error)),
            "notes": _notes(error),
            "cause": _related(cause, levels, seen),
            "context": _related(context, levels, seen),
            "exceptions": _members(error, levels, seen),
            "exit": None,
            "object": _again(error),
        },
    )


def _again(error: BaseException) -> object:
    """Of an exception that came from Elixir, what raises it there."""
    if type(error) is not ElixirError:
        return None
    again = error.__dict__.get("_again")
    return again if type(again) is Function else None


def _related(error: BaseException | None, levels: int, seen: set[int]) -> Struct | None:
    if error is None or levels <= 1 or id(error) in seen:
        return None
    return _describe(error, levels - 1, seen)


def _members(error: BaseException, levels: int, seen: set[int]) -> list[Struct]:
    if not issubclass(type(error), BaseExceptionGroup):
        return []
    members = (_related(member, levels, seen) for member in _members_of(error)[:_MAX_MEMBERS])
    return [member for member in members if member is not None]


def _message(error: BaseException) -> str:
    text = message_of(error)
    return text + _syntax_excerpt(error) if issubclass(type(error), SyntaxError) else text


def _syntax_excerpt(error: BaseException) -> str:
    """The line that could not be parsed, with a caret under the place, as Python shows it."""
    line, column = _text_of(error), _offset_of(error)
    if type(line) is not str or not line.strip():
        return ""
    shown = utf8(line.strip())
    excerpt = f"\n    {shown}"
    if type(column) is int and column > 0:
        indent = len(line) - len(line.lstrip())
        excerpt += "\n    " + " " * max(0, min(column - 1 - indent, len(shown))) + "^"
    return excerpt


def _notes(error: BaseException) -> list[str]:
    try:
        given: Any = getattr(error, "__notes__", None)
        given = list.copy(given) if issubclass(type(given), list) else []
        notes = [utf8(note) for note in given[:_MAX_NOTES] if issubclass(type(note), str)]
    except BaseException:  # a property that raises
        notes = []
    if type(error) is ModuleNotFoundError:
        notes += _how_to_install(error.name)
    return notes


def _how_to_install(name: object) -> list[str]:
    if not (type(name) is str and name.isidentifier()) or name in sys.stdlib_module_names:
        return []
    import shlex

    python = sys.executable or "python3"
    version = ".".join(map(str, sys.version_info[:3]))
    note = (
        f"looked for in {sys.prefix} (Python {version}, {python}); if it is a package of that "
        f"name, install it with: {shlex.quote(python)} -m pip install {name}"
    )
    return [utf8(note)]


def _traceback(traceback: TracebackType | None) -> list[dict[Atom, object]]:
    lines = []
    while traceback is not None:
        lines.append((traceback.tb_frame, traceback.tb_lineno))
        traceback = traceback.tb_next
    return frames(lines)


def frames(lines: list[tuple[FrameType, int]]) -> list[dict[Atom, object]]:
    """Frames and their lines as they are told to Elixir, without ours in front of the user's."""
    theirs = 0
    while theirs < len(lines) and lines[theirs][0].f_code.co_filename.startswith(_OUR_FILES):
        theirs += 1
    return [_frame(frame, line) for frame, line in lines[theirs:][-_MAX_FRAMES:]]


def _frame(frame: FrameType, line: int) -> dict[Atom, object]:
    code = frame.f_code
    return {
        _FILE: utf8(code.co_filename),
        _LINE: line,
        _FUNCTION: utf8(code.co_qualname),
        _SOURCE: _source(frame, line),
    }


def _source(frame: FrameType, number: int) -> str | None:
    import linecache

    file = frame.f_code.co_filename
    try:
        linecache.checkcache(file)
        line = linecache.getline(file, number, frame.f_globals)
    except BaseException:  # a loader of the user's own is asked for the source
        return None
    return utf8(line.strip()) or None
