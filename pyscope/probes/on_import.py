"""Calls something once a module has been imported, by whoever imports it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["call"]

Action = Callable[[], None]


def call(module: str, action: Action) -> None:
    """Calls `action` now if `module` is imported, else right after its import. It must not raise."""
    with _finder.lock:
        spec = getattr(sys.modules.get(module), "__spec__", None)
        if module in sys.modules and not getattr(spec, "_initializing", False):
            now = True
        else:
            now = False
            _finder.waiting.setdefault(module, []).append(action)
            if _finder not in sys.meta_path:
                sys.meta_path.insert(0, _finder)
    if now:
        action()


class _Finder(MetaPathFinder):
    """First in sys.meta_path while something is waited for: finds like the others, and lets the loader tell."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.waiting: dict[str, list[Action]] = {}
        self.finding = threading.local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.waiting or getattr(self.finding, "name", None) == fullname:
            return None
        self.finding.name = fullname
        try:
            for finder in sys.meta_path:
                find = getattr(finder, "find_spec", None)
                spec: ModuleSpec | None = (
                    find(fullname, path, target) if find and finder is not self else None
                )
                if spec is not None:
                    if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                        spec.loader = _TellingLoader(spec.loader, self)
                    return spec
        finally:
            self.finding.name = None
        return None

    def imported(self, name: str) -> None:
        with self.lock:
            actions = self.waiting.pop(name, [])
            if not self.waiting and self in sys.meta_path:
                sys.meta_path.remove(self)
        for action in actions:
            action()


class _TellingLoader(Loader):
    """A loader in whose place this one stands until the module has been executed."""

    def __init__(self, loader: Any, finder: _Finder) -> None:
        self._loader = loader
        self._finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        create = getattr(self._loader, "create_module", None)
        return create(spec) if create is not None else None

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        if spec is not None:
            spec.loader = self._loader
        if getattr(module, "__loader__", None) is self:
            module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._finder.imported(module.__name__)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


_finder = _Finder()
