from __future__ import annotations

import asyncio
import inspect
import os
import pathlib
import sys
import tempfile
from types import ModuleType
from unittest import mock

import beam
from erlang import _code


def run(source: str, base: ModuleType | None = None, **variables: object) -> object:
    value = _code.run(source, variables, base or _code.new_base(), None, 1, True)
    return asyncio.run(value) if inspect.iscoroutine(value) else value


def base_with(source: str) -> ModuleType:
    base = _code.new_base()
    _code.init(base, source, None, 1, [], {})
    return base


class RunTest(beam.Case):
    def test_value(self) -> None:
        self.assertEqual(run("y = x + 1\ny * 2", x=1), 4)
        self.assertIsNone(run("y = x", x=1))

    def test_no_value_wanted(self) -> None:
        self.assertIsNone(_code.run("1", {}, _code.new_base(), None, 1, wants_value=False))

    def test_one_namespace(self) -> None:
        source = "y = 2\ndef f(): return x + y\nclass C:\n    z = x\n[f() for _ in [0]][0] + C.z"
        self.assertEqual(run(source, x=1), 4)
        self.assertEqual(run("(lambda: [x for _ in 'ab'])()", x=1), [1, 1])

    def test_the_name_of_the_module_may_be_a_variable(self) -> None:
        self.assertEqual(run("__name__"), "__main__")
        self.assertEqual(run("__name__", __name__="mine"), "mine")

    def test_builtins_may_not(self) -> None:
        with self.assertRaisesRegex(ValueError, "__builtins__"):
            run("1", __builtins__={})

    def test_nothing_stays(self) -> None:
        variables: dict[str, object] = {"x": 1}
        base = _code.new_base()
        _code.run("leaked = x; x = 2", variables, base, None, 1, wants_value=False)
        self.assertEqual(variables, {"x": 1})
        with self.assertRaises(NameError):
            run("leaked", base)

    def test_await_at_the_top(self) -> None:
        prefix = "import asyncio\nasync def f(x):\n    await asyncio.sleep(0)\n    return x\n"
        self.assertEqual(run(prefix + "await f(1)"), 1)
        self.assertEqual(run(prefix + "y = await f(1)\ny + 1"), 2)
        self.assertEqual(run(prefix + "await f(1) + await f(2)"), 3)
        self.assertIsNone(run(prefix + "y = await f(1)"))

    def test_a_coroutine_as_the_value_is_handed_over(self) -> None:
        self.assertEqual(run("async def f(): return 5\nf()"), 5)


class BaseTest(beam.Case):
    def test_names_of_the_base_are_seen_and_not_changed(self) -> None:
        base = base_with("limit = 1\ndef double(x): return 2 * x * limit")
        self.assertEqual(run("double(21)", base), 42)
        self.assertEqual(run("limit = 5\ndouble(21)", base), 42)
        self.assertEqual(run("global limit\nlimit = 9\nlimit", base), 9)
        self.assertEqual(base.limit, 1)

    def test_as_they_are_at_that_time(self) -> None:
        base = base_with("calls = []\ndef count(): global n; n = len(calls)")
        run("calls.append(1); count()", base)
        self.assertEqual(run("n", base), 1)

    def test_builtins_are_there_and_bases_apart(self) -> None:
        one, two = base_with("name = 1\nlen = None"), base_with("")
        self.assertIsNone(run("len", one))
        self.assertEqual(run("len('ab')", two), 2)
        self.assertFalse(hasattr(two, "name"))

    def test_imports_work(self) -> None:
        self.assertEqual(run("import os.path as p\np.basename('/a/b')"), "b")


class InitTest(beam.Case):
    def test_paths_and_environment(self) -> None:
        path = list(sys.path)
        with mock.patch.object(sys, "path", path), mock.patch.dict(os.environ):
            env = {"PY_TEST_VARIABLE": "1"}
            paths = ["/one", "/two", "/one", path[-1]]
            self.assertIsNone(_code.init(_code.new_base(), None, None, 1, paths, env))
            self.assertEqual(path[:2], ["/one", "/two"])
            self.assertEqual((path.count("/one"), path.count(path[-1])), (1, 1))
            self.assertEqual(os.environ["PY_TEST_VARIABLE"], "1")

    def test_source_that_awaits_gives_a_coroutine(self) -> None:
        base = _code.new_base()
        source = "import asyncio\nawait asyncio.sleep(0)\ndone = True"
        coroutine = _code.init(base, source, None, 1, [], {})
        assert inspect.iscoroutine(coroutine)
        self.assertFalse(hasattr(base, "done"))
        asyncio.run(coroutine)
        self.assertTrue(base.done)

    def test_source_that_fails(self) -> None:
        with self.assertRaises(ZeroDivisionError):
            base_with("1/0")


class ReloadTest(beam.Case):
    def test_first_and_again(self) -> None:
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(sys, "path", [folder]):
            file = pathlib.Path(folder, "py_test_reloaded.py")
            file.write_text("value = 1")
            _code.reload("py_test_reloaded")
            module = sys.modules["py_test_reloaded"]
            self.addCleanup(sys.modules.pop, "py_test_reloaded")
            self.assertEqual(module.value, 1)
            file.write_text("value = 1 + 1")  # another size: the same second may keep its .pyc
            _code.reload("py_test_reloaded")
            self.assertIs(sys.modules["py_test_reloaded"], module)
            self.assertEqual(module.value, 2)

    def test_a_module_that_is_not_there(self) -> None:
        with self.assertRaises(ModuleNotFoundError):
            _code.reload("py_test_no_such_module")
