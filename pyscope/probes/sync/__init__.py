"""Synchronisation: locks, signals, queues, threads and tasks, as events that say what happens before what.

`locks` (threading.Lock and RLock, by what stands for them), `signals` (events, conditions, barriers,
semaphores), `queues`, `threads` (and executors), `tasks` and `asyncio_locks` (asyncio), `anyio_locks`,
`trio_threads`. `reach` replaces the locks that exist already. What the standard library does with locks, events and
queues of its own is not told: its outcome is.

Not seen: locks taken from `_thread` directly, threads started by `_thread.start_new_thread`, and what C extensions
do among themselves.

As one of all probes it tells only of waits for locks, which is cheap. Named, as the search for races names it, it
tells every step that orders what threads and tasks do.
"""

from __future__ import annotations

import sys
from typing import Any

from pyscope.probes import Probe, on_import
from pyscope.probes.patches import Patches
from pyscope.probes.sync import (
    anyio_locks,
    asyncio_locks,
    locks,
    queues,
    signals,
    strands,
    tasks,
    threads,
    trio_threads,
)
from pyscope.probes.sync.reach import Reach, is_own_module

__all__ = ["SyncProbe"]


class SyncProbe(Probe):
    """Watches threading, queue, concurrent.futures and asyncio."""

    name = "sync"

    def __init__(self) -> None:
        super().__init__()
        self._patches: Patches | None = None
        self._reach: Reach | None = None
        self._stands_for: dict[int, Any] = {}
        self.unseen_files: frozenset[str] = frozenset()
        """Files of functions that may hold a lock that is not seen."""

    def install(self) -> None:
        self._patches = Patches()
        try:
            self._stands_for = locks.patch(self._patches)
        except BaseException:
            self.uninstall()
            raise

    def deepen(self) -> None:
        """From now on every step is told that orders what threads and tasks do, not only the waits for locks."""
        patches = self._patches
        if patches is None or self._reach is not None:
            return
        try:
            stands_for = self._stands_for | queues.patch(patches)
            for part in (signals, threads, tasks, asyncio_locks):
                part.patch(patches)
            self._reach = Reach(stands_for)
            self._reach.modules([module for module in list(sys.modules.values()) if is_own_module(module)])
            self.unseen_files = frozenset(self._reach.unseen)
        except BaseException:
            self.uninstall()
            raise
        locks.tell_every_use(True)
        on_import.call("uvloop", self._patch_uvloop, self)
        on_import.call("multiprocessing.pool", self._patch_pools, self)
        on_import.call("anyio._backends._asyncio", self._patch_anyio, self)
        on_import.call("anyio.streams.memory", self._patch_streams, self)
        on_import.call("trio._threads", self._patch_trio, self)

    def uninstall(self) -> None:
        locks.tell_every_use(False)
        if self._reach is not None:
            self._reach.undo()
            self._reach = None
        if self._patches is not None:
            self._patches.undo()
            self._patches = None
        strands.reset()

    def reach(self, watched: object, name: str) -> None:
        """Replaces the locks that a watched object's attributes lead to."""
        if self._reach is not None:
            self._reach.object(watched, name)
            self.unseen_files = frozenset(self._reach.unseen)

    def in_place_of(self, raw: Any, instance: object, name: str) -> Any:
        """What is to be stored in a watched object's attribute in place of a lock of the interpreter's own."""
        return self._reach.attribute(instance, name, raw) if self._reach is not None else raw

    def _patch_uvloop(self) -> None:
        if self._patches is not None:
            tasks.patch_uvloop(self._patches, sys.modules["uvloop"])

    def _patch_pools(self) -> None:
        if self._patches is not None:
            queues.patch_pools(self._patches, sys.modules["multiprocessing.pool"])

    def _patch_anyio(self) -> None:
        if self._patches is not None:
            anyio_locks.patch(self._patches, sys.modules["anyio._backends._asyncio"])

    def _patch_streams(self) -> None:
        if self._patches is not None:
            anyio_locks.patch_streams(self._patches, sys.modules["anyio.streams.memory"])

    def _patch_trio(self) -> None:
        if self._patches is not None:
            trio_threads.patch(self._patches, sys.modules["trio._threads"])
