from __future__ import annotations

import importlib
import importlib.util
import pathlib
import sys
import tempfile
import threading
from types import ModuleType
from unittest import mock

import beam
from erlang import _imports

_NAME = "py_test_imported"


class Case(beam.Case):
    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = pathlib.Path(folder.name, f"{_NAME}.py")
        for patch in (
            mock.patch.object(sys, "path", [folder.name]),
            mock.patch.object(sys, "meta_path", list(sys.meta_path)),
        ):
            patch.start()
            self.addCleanup(patch.stop)
        self.addCleanup(sys.modules.pop, _NAME, None)
        self.addCleanup(_imports._finder.actions.clear)
        importlib.invalidate_caches()
        self.seen: list[ModuleType] = []


class AfterTest(Case):
    def test_a_module_that_is_there(self) -> None:
        _imports.after("sys", self.seen.append)
        self.assertEqual(self.seen, [sys])

    def test_once_it_is_imported_and_whole(self) -> None:
        self.file.write_text("value = 1")
        _imports.after(_NAME, lambda module: self.seen.append(module.value))
        self.assertEqual(self.seen, [])
        module = importlib.import_module(_NAME)
        self.assertEqual(self.seen, [1])
        importlib.reload(module)
        self.assertEqual(self.seen, [1])

    def test_the_module_has_its_own_loader(self) -> None:
        self.file.write_text("")
        _imports.after(_NAME, self.seen.append)
        module = importlib.import_module(_NAME)
        assert module.__spec__ is not None
        name = "SourceFileLoader"
        self.assertEqual(type(module.__loader__).__name__, name)
        self.assertEqual(type(module.__spec__.loader).__name__, name)

    def test_who_only_looks_does_not_count(self) -> None:
        self.file.write_text("")
        _imports.after(_NAME, self.seen.append)
        self.assertIsNotNone(importlib.util.find_spec(_NAME))
        self.assertEqual(self.seen, [])
        importlib.import_module(_NAME)
        self.assertEqual(len(self.seen), 1)

    def test_an_import_that_fails_does_not_count(self) -> None:
        self.file.write_text("1/0")
        _imports.after(_NAME, self.seen.append)
        with self.assertRaises(ZeroDivisionError):
            importlib.import_module(_NAME)
        self.assertEqual(self.seen, [])
        self.file.write_text("value = 'mended'")
        importlib.invalidate_caches()
        importlib.import_module(_NAME)
        self.assertEqual(len(self.seen), 1)

    def test_a_module_that_is_nowhere(self) -> None:
        _imports.after(_NAME, self.seen.append)
        with self.assertRaises(ModuleNotFoundError):
            importlib.import_module(_NAME)
        self.assertEqual(self.seen, [])


class UnderWayTest(Case):
    def test_while_a_module_is_imported(self) -> None:
        self.file.write_text(
            "import sys, threading\n"
            "from erlang import _imports\n"
            "def deep(n): return deep(n - 1) if n else _imports.is_under_way(sys._getframe())\n"
            "inside = deep(20), _imports.is_under_way_in(threading.get_ident())\n"
        )
        module = importlib.import_module(_NAME)
        self.assertEqual(module.inside, (True, True))
        self.assertFalse(module.deep(20))

    def test_not_otherwise(self) -> None:
        self.assertFalse(_imports.is_under_way(None))
        self.assertFalse(_imports.is_under_way(sys._getframe()))
        self.assertFalse(_imports.is_under_way_in(threading.get_ident()))
        self.assertFalse(_imports.is_under_way_in(-1))
