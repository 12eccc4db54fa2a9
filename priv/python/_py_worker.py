"""What a worker process runs: its main thread serves the pool that started it."""

from __future__ import annotations

import faulthandler
import os
import sys

# As in importlib.machinery, but without what importlib takes along: a tenth of a start.
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import ExtensionFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType


def main(library: str) -> None:
    """Load the native half from the file `library`, and serve. Does not return."""
    native = _start(library)
    os.register_at_fork(after_in_child=_restore_streams)
    native.serve()


def template(library: str, socket: str) -> None:
    """Load, run `init`, and fork the workers that are asked for at `socket`. Does not return."""
    _start(library).fork_workers(socket, _prepare, _become_worker)


def _start(library: str) -> ModuleType:
    faulthandler.enable()
    sys.argv = [""]
    _load("_erlang", library)
    return _load("_erlang_worker", library)


def _load(name: str, library: str) -> ModuleType:
    loader = ExtensionFileLoader(name, library)
    spec = ModuleSpec(name, loader, origin=library)
    module = sys.modules[name] = loader.create_module(spec)
    module.__spec__, module.__loader__ = spec, loader
    loader.exec_module(module)
    return module


def _restore_streams() -> None:
    # A child has no way to the BEAM; what it prints arrives as the output of a process does.
    sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__


def _prepare(tasks: list[tuple[int, str]]) -> str:
    """Get ready to be forked; if there are threads beside this one, tell their names."""
    import gc

    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()  # what it holds would be written by each child
    gc.collect()
    gc.freeze()  # a collection writes to what it looks at, which is shared no more then
    return ", ".join(_names(tasks))


def _names(tasks: list[tuple[int, str]]) -> list[str]:
    """The names of threads as Python has them, else as the system does."""
    import threading

    known = {thread.native_id: thread.name for thread in threading.enumerate()}
    return [known.get(number, name) for number, name in tasks]


def _become_worker() -> None:
    # `random` has itself seeded anew in each child.
    _seed(sys.modules.get("numpy.random"))
    os.register_at_fork(after_in_child=_restore_streams)


def _seed(numpy_random: ModuleType | None) -> None:
    if numpy_random is not None:
        kind = type(numpy_random.get_bit_generator())
        numpy_random.set_bit_generator(kind())
