"""Calls something once a module has been imported, by whoever imports it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["call", "cancel"]

Action = Callable[[], None]


def call(module: str, action: Action, owner: object) -> None:
    """Calls `action` now if `module` is imported, else right after its import, unless `owner` cancels it before. It
    must not raise."""
    with _finder.lock:
        spec = getattr(sys.modules.get(module), "__spec__", None)
        if module in sys.modules and not getattr(spec, "_initializing", False):
            now = True
        else:
            now = False
            _finder.waiting.setdefault(module, []).append((action, owner))
            if _finder not in sys.meta_path:
                sys.meta_path.insert(0, _finder)
    if now:
        action()


def cancel(owner: object) -> None:
    """Nothing that `owner` waits for is called any more."""
    with _finder.lock:
        for module, waiting in list(_finder.waiting.items()):
            kept = [each for each in waiting if each[1] is not owner]
            if kept:
                _finder.waiting[module] = kept
            else:
                del _finder.waiting[module]
        _finder.leave_if_idle()


class _Finder(MetaPathFinder):
    """First in sys.meta_path while something is waited for: finds like the others, and lets the loader tell."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.waiting: dict[str, list[tuple[Action, object]]] = {}
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
            self.leave_if_idle()
        for action, _ in actions:
            action()

    def leave_if_idle(self) -> None:
        """Goes out of sys.meta_path where nothing is waited for."""
        if not self.waiting and self in sys.meta_path:
            sys.meta_path.remove(self)


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
