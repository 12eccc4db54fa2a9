"""Source text -> code, cached within bounds.

Source without a file gets a name of its own. It is put into linecache for as long as its code is
cached, and so is source whose file is not here (a release, a notebook), so that tracebacks (ours
and those of the `traceback` module) show its lines.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import OrderedDict

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast
    from types import CodeType

    Key = tuple[str, str | None, int, bool]

_MAX_PROGRAMS = 512
_MAX_TOTAL_SIZE = 4 * 1024 * 1024
_MAX_CACHED_SIZE = 256 * 1024
_MAX_LINE = 1_000_000

_CO_COROUTINE = 0x80  # inspect.CO_COROUTINE; inspect is slow to import


class Program:
    """Compiled source: statements, and the expression at the end whose value is wanted."""

    __slots__ = ("awaits", "body", "name", "size", "tail")

    def __init__(self, body: CodeType, tail: CodeType | None, name: str, size: int) -> None:
        self.body = body
        self.tail = tail
        self.awaits = awaits(body) or (tail is not None and awaits(tail))
        self.name = name
        self.size = size


def awaits(code: CodeType) -> bool:
    """Whether evaluating the code gives a coroutine, because there is an `await` at its top."""
    return bool(code.co_flags & _CO_COROUTINE)


def program(source: str, file: str | None, line: int, wants_value: bool) -> Program:
    """The compiled source, whose first line is the line `line` of `file`."""
    key = (source, file, line, wants_value)
    return _cache.get(key) or _compile_cached(key)


def _compile_cached(key: Key) -> Program:
    source, file, line, wants_value = key
    if not 1 <= line <= _MAX_LINE:
        raise ValueError(f"line: expected 1 to {_MAX_LINE}, got {line}")
    name = file or f"<eval-{next(_numbers)}>"
    compiled = _compile(source, name, line, wants_value)
    if compiled.size <= _MAX_CACHED_SIZE:
        if file is None or not os.path.exists(file):
            _show_source(name, source, line)
        _cache.add(key, compiled)
    return compiled


_numbers = itertools.count(1)


def _compile(source: str, name: str, line: int, wants_value: bool) -> Program:
    import ast

    tree = _parse(source, name, line)
    tail = None
    if wants_value and tree.body and isinstance(tree.body[-1], ast.Expr):
        value = tree.body.pop().value  # type: ignore[attr-defined]
        tail = _code(ast.Expression(value), name, "eval")
    return Program(_code(tree, name, "exec"), tail, name, len(source))


def _parse(source: str, name: str, line: int) -> ast.Module:
    import ast

    try:
        return ast.parse(_at_line(source, line), name)
    except IndentationError:
        import textwrap

        dedented = textwrap.dedent(source)
        if dedented == source:
            raise
        return ast.parse(_at_line(dedented, line), name)


def _at_line(source: str, line: int) -> str:
    """Blank lines ahead number syntax errors and code alike; ast.increment_lineno does not."""
    return "\n" * (line - 1) + source


def _code(tree: ast.Module | ast.Expression, name: str, mode: str) -> CodeType:
    import ast

    # dont_inherit, or the __future__ imports of this file would apply to the user's code.
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code: CodeType = compile(tree, name, mode, flags, dont_inherit=True)
    return code


def _show_source(name: str, source: str, line: int) -> None:
    import linecache

    lines = _at_line(source, line).splitlines(keepends=True)
    linecache.cache[name] = (len(source), None, lines, name)


def _hide_source(name: str) -> None:
    import linecache

    linecache.cache.pop(name, None)


class Cache:
    """The programs used last, as many as fit by number and by size of their sources."""

    def __init__(self, max_programs: int, max_size: int) -> None:
        self._max_programs = max_programs
        self._max_size = max_size
        self._programs: OrderedDict[Key, Program] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: Key) -> Program | None:
        try:
            self._programs.move_to_end(key)
            return self._programs[key]
        except KeyError:  # not there, or evicted by another thread just now
            return None

    def add(self, key: Key, compiled: Program) -> None:
        with self._lock:
            self._drop(key)  # another thread may have compiled the same at the same time
            self._programs[key] = compiled
            self._size += compiled.size
            while len(self._programs) > self._max_programs or self._size > self._max_size:
                self._drop(next(iter(self._programs)))

    def _drop(self, key: Key) -> None:
        dropped = self._programs.pop(key, None)
        if dropped is not None:
            self._size -= dropped.size
            _hide_source(dropped.name)


_cache = Cache(_MAX_PROGRAMS, _MAX_TOTAL_SIZE)
