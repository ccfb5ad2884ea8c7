"""The base of probes that watch several libraries of one kind, each by an adapter."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import ClassVar, Protocol

from pyscope.probes import Probe, installed, on_import
from pyscope.probes.patches import Patches
from pyscope.warning import warn

__all__ = ["Adapter", "ClientProbe", "fault"]


class Adapter(Protocol):
    """A module or object that knows one library."""

    def patch(self, patches: Patches, library: ModuleType) -> None:
        """Replaces what has to be watched in `library`, which is imported by now."""


class ClientProbe(Probe):
    """A probe that patches each library of `adapters` once that is imported.

    `adapters`: the name of a library's module, and the dotted name of the adapter module (or an attribute of one).
    """

    adapters: ClassVar[Mapping[str, str]]

    def __init__(self) -> None:
        super().__init__()
        self._patches: dict[str, Patches] = {}
        self._watching = False

    def install(self) -> None:
        """Patches what is imported already; the rest as soon as it is."""
        self._watching = True
        for library in self.adapters:
            on_import.call(library, functools.partial(self._patch, library), self)

    def uninstall(self) -> None:
        """Puts everything back."""
        self._watching = False
        while self._patches:
            self._patches.popitem()[1].undo()

    def _patch(self, library: str) -> None:
        if not self._watching or library in self._patches:
            return
        patches = self._patches[library] = Patches()
        module, _, attribute = self.adapters[library].partition(":")
        try:
            adapter: Adapter = importlib.import_module(module)
            if attribute:
                adapter = getattr(adapter, attribute)
            adapter.patch(patches, sys.modules[library])
        except Exception as error:
            patches.undo()
            warn(
                f"the probe {self.name!r} does not know this version of {library}: {error!r}; "
                "its calls are not recorded"
            )


def fault(name: str) -> None:
    """Counts an error of the probe of that name."""
    probe = installed(name)
    if probe is not None:
        probe.fault()
