from __future__ import annotations

import linecache
import pathlib
import tempfile

import beam
from erlang._compile import Cache, Program, program


def line_of(source: str, line: int = 1) -> str:
    name = program(source, None, line, True).name
    return linecache.getline(name, line)


class ProgramTest(beam.Case):
    def test_the_value_is_that_of_the_last_expression(self) -> None:
        for source, has_value in (
            ("1", True),
            ("1; 2", True),
            ("x = 1", False),
            ("'docstring'", True),
            ("1  # comment\n\n# more", True),
            ("if True:\n  1", False),
            ("", False),
            ("# nothing", False),
        ):
            self.assertEqual(program(source, None, 1, True).tail is not None, has_value, source)
            self.assertIsNone(program(source, None, 1, False).tail)

    def test_awaits_only_where_it_does(self) -> None:
        for source, awaits in (
            ("await x", True),
            ("y = await x\n1", True),
            ("async with x: pass", True),
            ("[a async for a in x]", True),
            ("async def f(): await x", False),
            ("'await x'", False),
        ):
            self.assertEqual(program(source, None, 1, True).awaits, awaits, source)

    def test_indented_source(self) -> None:
        self.assertIsNotNone(program("    x = 1\n    x", None, 1, True).tail)
        with self.assertRaises(IndentationError):
            program("x = 1\n    y = 2", None, 1, True)

    def test_errors_name_file_and_line(self) -> None:
        with self.assertRaises(SyntaxError) as caught:
            program("x = 1\n  y = = 2", "lib/my.ex", 40, True)
        self.assertEqual((caught.exception.filename, caught.exception.lineno), ("lib/my.ex", 41))

    def test_what_is_no_source(self) -> None:
        for source in ("return 1", "yield 1", "a\0b", "'\ud800'"):
            with self.assertRaises((SyntaxError, ValueError)):
                program(source, None, 1, True)

    def test_lines_out_of_bounds(self) -> None:
        for line in (0, -1, 1_000_001):
            with self.assertRaisesRegex(ValueError, f"expected 1 to 1000000, got {line}"):
                program("1", None, line, True)

    def test_no_future_import_is_inherited(self) -> None:
        names: dict[str, object] = {}
        exec(program("def f(x: int): pass", None, 1, False).body, names)
        self.assertEqual(names["f"].__annotations__, {"x": int})


class CachedTest(beam.Case):
    def test_the_same_source_is_compiled_once(self) -> None:
        self.assertIs(program("1 + 1", None, 1, True), program("1 + 1", None, 1, True))
        for other in ((None, 2, True), (None, 1, False), ("f", 1, True)):
            self.assertIsNot(program("1 + 1", None, 1, True), program("1 + 1", *other))

    def test_the_lines_of_its_source_are_there(self) -> None:
        self.assertEqual(line_of("1 + 2\n"), "1 + 2\n")
        self.assertEqual(line_of("1 + 3\n", 30), "1 + 3\n")

    def test_large_source_is_not_kept(self) -> None:
        source = "'" + "x" * 300_000 + "'"
        compiled = program(source, None, 1, True)
        self.assertIsNot(program(source, None, 1, True), compiled)
        self.assertNotIn(compiled.name, linecache.cache)

    def test_a_file_that_is_here_shows_its_own_lines(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "my.ex")
            file.write_text("defmodule My do\n  ~P'1 + 4'\n")
            program("1 + 4", str(file), 2, True)
            self.assertEqual(linecache.getline(str(file), 2), "  ~P'1 + 4'\n")
            gone = str(pathlib.Path(folder, "gone.ex"))
            program("1 + 4", gone, 2, True)
            self.assertEqual(linecache.getline(gone, 2), "1 + 4")


class CacheTest(beam.Case):
    def keys(self, cache: Cache, sizes: list[int], touch: int | None = None) -> list[int]:
        """Adds a program of each size, reads one in between; the numbers of those that stay."""
        code = compile("1", "f", "eval")
        for number, size in enumerate(sizes):
            linecache.cache[f"<test-{number}>"] = (1, None, [], "")
            cache.add(("", None, number, True), Program(code, None, f"<test-{number}>", size))
            if touch is not None:
                cache.get(("", None, touch, True))
        numbers = range(len(sizes))
        kept = [number for number in numbers if cache.get(("", None, number, True))]
        shown = [number for number in numbers if f"<test-{number}>" in linecache.cache]
        self.assertEqual(shown, kept)
        return kept

    def test_bounded_by_number(self) -> None:
        self.assertEqual(self.keys(Cache(2, 100), [1, 1, 1, 1]), [2, 3])

    def test_bounded_by_size(self) -> None:
        self.assertEqual(self.keys(Cache(9, 100), [40, 40, 40, 10]), [1, 2, 3])
        self.assertEqual(self.keys(Cache(9, 100), [40, 101]), [])

    def test_what_was_used_last_stays(self) -> None:
        self.assertEqual(self.keys(Cache(2, 100), [1, 1, 1, 1], touch=0), [0, 3])

    def test_the_same_again_counts_once(self) -> None:
        cache = Cache(9, 100)
        code = compile("1", "f", "eval")
        for _ in range(5):
            cache.add(("", None, 99, True), Program(code, None, "<test-99>", 60))
        self.assertIsNotNone(cache.get(("", None, 99, True)))
        self.assertEqual(self.keys(cache, [40]), [0])
