"""The access probe: which objects are watched, and how an access becomes an event."""

from __future__ import annotations

import os
import sys
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from types import CodeType, FrameType
from typing import Any

from pyscope import emitter, probes
from pyscope.events.sync import ACCESS, AccessFlag, Operation
from pyscope.probes import Probe, actors
from pyscope.probes.accesses.hooks import AccessHooks
from pyscope.probes.accesses.keys import key_of
from pyscope.probes.accesses.sites import ReadSite, Sites, Use
from pyscope.probes.state.values import mro, type_name
from pyscope.probes.sync import SyncProbe
from pyscope.probes.sync.locks import RAW_LOCK, RAW_RLOCK
from pyscope.probes.sync.strands import loop_step, task_in_hand
from pyscope.selection import library_prefixes

__all__ = ["AccessProbe"]

MOST_LEVELS = 6  # frames that a value is followed outward through
UNKNOWN_LEVEL = 99  # it left the program's own frames
MOST_CODES = 20_000

_CONTAINERS = frozenset(map(id, (dict, list, set, deque, defaultdict, OrderedDict, Counter)))
_ACCESS = ACCESS.kind
_READ, _WRITE, _DELETE, _UNDONE = (
    int(each) for each in (Operation.READ, Operation.WRITE, Operation.DELETE, Operation.UNDONE)
)
_CHECK, _CONSTANT, _DISCARDED, _UNSEEN, _BRANCHES = (int(flag) for flag in AccessFlag)
_OWN = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(__file__))), "")


class AccessProbe(Probe):
    """Tells of reads and writes of the attributes of whatever `watch` names."""

    name = "accesses"

    def __init__(self) -> None:
        super().__init__()
        self._hooks = AccessHooks(self)
        self._classes: dict[int, type] = {}  # every instance counts
        self._numbers: dict[int, int] = {}  # address of a watched object: its number
        self._references: dict[int, Any] = {}
        self._members: dict[int, tuple[type, bool]] = {}
        self._code: dict[int, tuple[CodeType, Sites | None]] = {}  # None: not the program's own
        self._names: dict[tuple[int, str], str] = {}
        self._libraries = tuple(library_prefixes())

    def install(self) -> None:
        self._hooks.on = True

    def uninstall(self) -> None:
        self._hooks.unhook_all()
        self._hooks = AccessHooks(self)
        for table in (self._classes, self._numbers, self._references, self._members, self._code, self._names):
            table.clear()

    def watch(self, target: object) -> bool:
        """Watches an object, every instance of a class, or the actor behind a reference.

        False for one whose class cannot be changed (built-ins, extension types): its accesses are not seen.
        """
        target = actors.actor_of(target) or target
        sync = probes.installed("sync")
        is_class = issubclass(type(target), type)
        kind: type = target if is_class else type(target)  # type: ignore[assignment]
        if not self._hooks.hook(kind):
            return False
        if is_class:
            self._classes[id(kind)] = kind
            self._members = {}
        elif id(target) not in self._numbers:
            self._register(target)
        if isinstance(sync, SyncProbe):
            sync.reach(target, type_name(kind))
        return True

    # the hooks ask

    def number_of(self, instance: object) -> int:
        """The number of a watched object, 0 for one that is not."""
        number = self._numbers.get(id(instance))
        if number is not None:
            return number
        if not self._classes:
            return 0
        kind = type(instance)
        member = self._members.get(id(kind))
        if member is None:
            member = kind, any(id(base) in self._classes for base in mro(kind))
            self._members[id(kind)] = member
        return self._register(instance) if member[1] else 0

    def _register(self, instance: object) -> int:
        key = id(instance)
        numbers, references = self._numbers, self._references

        def forget(reference: object) -> None:
            if references.get(key) is reference:
                del references[key]
                numbers.pop(key, None)

        try:
            references[key] = weakref.ref(instance, forget)
        except TypeError:  # it is kept alive while it is watched, or its address would be another's
            references[key] = instance
        number = numbers[key] = emitter.next_id()
        return number

    def read(self, number: int, instance: object, name: str, value: object) -> None:
        """An attribute was read."""
        if not emitter.active():
            return
        try:
            self._read(number, instance, name, value, sys._getframe(2))
        except Exception:
            self.fault()

    def before_write(self, number: int, instance: object, name: str, value: object, deletes: bool) -> object:
        """An attribute is about to be written. A lock that does not tell gives way to one that does."""
        try:
            kind = type(value)
            if (kind is RAW_LOCK or kind is RAW_RLOCK) and not deletes:
                sync = probes.installed("sync")
                if isinstance(sync, SyncProbe):
                    value = sync.in_place_of(value, self._name(type(instance), name))
            if emitter.active():
                self._write(number, instance, name, deletes, sys._getframe(2))
        except Exception:
            self.fault()
        return value

    def undone(self, number: int, instance: object, name: str) -> None:
        """A write was refused."""
        name_id = emitter.intern(self._name(type(instance), name))
        emitter.emit(_ACCESS, number, _UNDONE, 0, 0, 0, task_in_hand(), loop_step(), name_id, 0, 0)

    # telling

    def _name(self, kind: type, name: str) -> str:
        known = self._names.get((id(kind), name))
        if known is None:
            known = self._names[id(kind), name] = f"{type_name(kind)}.{name}"
        return known

    def _write(self, number: int, instance: object, name: str, deletes: bool, top: FrameType) -> None:
        frame, sites = self._own_frame(top)
        flags = self._unseen(frame)
        if frame is top and sites is not None and (deletes or sites.writes_constant(frame.f_lasti)):
            flags |= _CONSTANT
        emitter.emit(
            _ACCESS,
            number,
            _DELETE if deletes else _WRITE,
            flags,
            0,
            0,
            task_in_hand(),
            loop_step(),
            emitter.intern(self._name(type(instance), name)),
            0,
            emitter.stack(32, frame),
        )

    def _read(self, number: int, instance: object, name: str, value: object, top: FrameType) -> None:
        frame, sites = self._own_frame(top)
        if sites is None:
            return  # the program is not in it
        if frame.f_code.co_filename.startswith(_OWN):
            return
        site = sites.read(frame.f_lasti) if frame is top else sites.resumed(frame.f_lasti)
        intern = emitter.intern
        label = intern(self._name(type(instance), name))
        stack = emitter.stack(32, frame)
        task, step = task_in_hand(), loop_step()
        unseen = self._unseen(frame)
        inside = bool(site.contents) and id(type(value)) in _CONTAINERS
        flags, level, lines = self._use(site.uses[0], sites, frame)
        if not inside or not flags & _DISCARDED:  # else the reference served only to reach what is inside
            where = intern(lines) if lines else 0
            emitter.emit(_ACCESS, number, _READ, flags | unseen, 0, level, task, step, label, where, stack)
        if inside:
            self._contents(number, site, sites, frame, value, (label, stack, task, step, unseen))

    def _contents(
        self,
        number: int,
        site: ReadSite,
        sites: Sites,
        frame: FrameType,
        value: Any,
        common: tuple[int, int, int, int, int],
    ) -> None:
        label, stack, task, step, unseen = common
        by_key = type(value) is not list and type(value) is not deque
        for content, use in zip(site.contents, site.uses[1:], strict=True):
            flags, level, lines = self._use(use, sites, frame)
            key = 0
            if content.keyed and (by_key or content.key is not None):
                key = key_of(content.key, frame)
                if not by_key and content.operation is not Operation.CONTENT_READ and content.key is None:
                    key = 0
            emitter.emit(
                _ACCESS,
                number,
                int(content.operation),
                flags | unseen,
                key,
                level,
                task,
                step,
                label,
                emitter.intern(lines) if lines else 0,
                stack,
            )

    def _use(self, use: Use, sites: Sites, frame: FrameType) -> tuple[int, int, str]:
        """Flags, level and decided lines of a value, followed outward as it is returned."""
        level = 0
        check, kept = use.check, use.kept
        lines = sites.decided_lines(use)
        found_level = 0
        while use.returned:
            outer = frame.f_back
            while outer is not None and outer.f_code.co_filename.startswith(_OWN):
                outer = outer.f_back
            own = self._sites(outer.f_code) if outer is not None else None
            level += 1
            if outer is None or own is None or level > MOST_LEVELS:
                if not check:
                    return 0, UNKNOWN_LEVEL, ""
                break
            frame, sites = outer, own
            use = sites.resumed(frame.f_lasti).uses[0]
            check, kept = check or use.check, kept or use.kept
            found_level = level
            lines = sites.decided_lines(use) or lines
        flags = _CHECK if check else 0 if kept else _DISCARDED
        if lines is not None:
            flags |= _BRANCHES
        return flags, found_level, lines or ""

    # frames

    def _own_frame(self, frame: FrameType) -> tuple[FrameType, Sites | None]:
        """The innermost frame of the program's own, and its sites; the frame itself and None if there is none."""
        own: FrameType | None = frame
        while own is not None:
            sites = self._sites(own.f_code)
            if sites is not None:
                return own, sites
            own = own.f_back
        return frame, None

    def _sites(self, code: CodeType) -> Sites | None:
        known = self._code.get(id(code))
        if known is None:
            file = code.co_filename
            library = file.startswith((*self._libraries, _OWN, "<frozen")) or file == "<string>"
            known = code, None if library else Sites(code)
            if len(self._code) < MOST_CODES:
                self._code[id(code)] = known
        return known[1]

    def _unseen(self, frame: FrameType | None) -> int:
        sync = probes.installed("sync")
        files = sync.unseen_files if isinstance(sync, SyncProbe) else ()
        if files:
            steps = 0
            while frame is not None and steps < 32:
                if frame.f_code.co_filename in files:
                    return _UNSEEN
                frame = frame.f_back
                steps += 1
        return 0
