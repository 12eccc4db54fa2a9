"""What a worker process runs: its main thread serves the pool that started it."""

from __future__ import annotations

import faulthandler
import os
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType


def main(library: str) -> None:
    """Load the native half from the file `library`, and serve. Does not return."""
    faulthandler.enable()
    sys.argv = [""]
    _load("_erlang", library)
    native = _load("_erlang_worker", library)
    os.register_at_fork(after_in_child=_restore_streams)
    native.serve()


def _load(name: str, library: str) -> ModuleType:
    spec = spec_from_loader(name, ExtensionFileLoader(name, library))
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _restore_streams() -> None:
    # A child has no way to the BEAM; what it prints arrives as the output of a process does.
    sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__
