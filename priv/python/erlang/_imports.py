"""Imports: doing something after one without causing it, and letting them end."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import FrameType, ModuleType

    Action = Callable[[ModuleType], object]


def after(name: str, action: Action) -> None:
    """Call `action` with the module once it is imported; now, if it is already."""
    module = sys.modules.get(name)
    if module is not None:
        action(module)
        return
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    _finder.actions[name] = action


def is_under_way(frame: FrameType | None) -> bool:
    """Whether the frame is part of an import. One that is torn leaves a package in pieces for
    good: numpy refuses to be loaded twice, and asyncio misses the names of its own modules."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def is_under_way_in(thread: int) -> bool:
    return is_under_way(sys._current_frames().get(thread))


class _Finder:
    """Finds the modules that are waited for where the other finders find them."""

    def __init__(self) -> None:
        self.actions: dict[str, Action] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self.actions:
            return None
        spec = self._find_elsewhere(name, path, target)
        if spec is not None and spec.loader is not None:
            # A Loader in all but its base class, whose module takes milliseconds to import.
            spec.loader = _Loader(spec.loader, self.actions)  # type: ignore[assignment]
        return spec

    def _find_elsewhere(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                return spec
        return None


class _Loader:
    """Loads by the module's own loader, which the module then has as its loader."""

    def __init__(self, loader: Loader, actions: dict[str, Action]) -> None:
        self._loader = loader
        self._actions = actions

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        # Not when it was found: who only looks for a module does not load it.
        action = self._actions.pop(module.__name__, None)
        if action is not None:
            action(module)


_finder = _Finder()
