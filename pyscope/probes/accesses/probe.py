"""The access probe: which objects are watched, and how an access becomes an event."""

from __future__ import annotations

import sys
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

from pyscope import emitter, probes
from pyscope.events.sync import ACCESS, Operation
from pyscope.probes import Probe, actors
from pyscope.probes.accesses.hooks import AccessHooks
from pyscope.probes.accesses.keys import key_of
from pyscope.probes.accesses.plans import Places, ReadPlan, WritePlan
from pyscope.probes.state.values import mro, type_name
from pyscope.probes.sync import SyncProbe, strands
from pyscope.probes.sync.locks import RAW_LOCK, RAW_RLOCK

__all__ = ["AccessProbe"]

MOST_PLANS = 50_000

_CONTAINERS = frozenset(map(id, (dict, list, set, deque, defaultdict, OrderedDict, Counter)))
_BY_POSITION = frozenset(map(id, (list, deque)))
_ACCESS = ACCESS.kind
_READ, _WRITE, _DELETE, _UNDONE = (
    int(each) for each in (Operation.READ, Operation.WRITE, Operation.DELETE, Operation.UNDONE)
)
_running_loop = strands.running_loop


class AccessProbe(Probe):
    """Tells of reads and writes of the attributes of whatever `watch` names."""

    name = "accesses"

    def __init__(self) -> None:
        super().__init__()
        self.numbers: dict[int, int] = {}
        self._references: dict[int, Any] = {}
        self._classes: dict[int, type] = {}  # every instance counts
        self._members: dict[int, tuple[type, bool]] = {}
        self._hooks = AccessHooks(self)
        self._places = Places()
        self._reads: dict[int, ReadPlan] = {}  # by stack
        self._writes: dict[int, WritePlan] = {}

    def install(self) -> None:
        """Nothing is watched yet."""

    def uninstall(self) -> None:
        self._hooks.unhook_all()
        for table in (
            self._classes,
            self.numbers,
            self._references,
            self._members,
            self._reads,
            self._writes,
        ):
            table.clear()
        self._places = Places()

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
        elif id(target) not in self.numbers:
            self._register(target)
        if isinstance(sync, SyncProbe):
            sync.reach(target, type_name(kind))
            self._reads.clear()
            self._writes.clear()
        return True

    # the hooks ask

    def number_of(self, instance: object) -> int:
        """The number of an object that was not met yet; 0 for one that is not watched."""
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
        numbers, references = self.numbers, self._references

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

    def read(self, number: int, label: str, value: object) -> None:
        """An attribute was read."""
        try:
            stack = emitter.stack(32)
            plan = self._reads.get(stack)
            if plan is None or plan.label is not label or plan.generation != emitter.generation:
                plan = self._plan_read(stack, label)
                if plan is None:
                    return
            _, _, label_number, flags, level, lines, contents, tells_reference = plan
            if _running_loop() is None:
                task = step = 0
            else:
                task, step = strands.task_in_hand(), strands.loop_step()
            inside = contents and id(type(value)) in _CONTAINERS
            if tells_reference or not inside:
                emitter.emit(_ACCESS, number, _READ, flags, 0, level, task, step, label_number, lines, stack)
            if inside:
                self._inside(number, plan, value, task, step, stack)
        except Exception:
            self.fault()

    def _plan_read(self, stack: int, label: str) -> ReadPlan | None:
        if not emitter.active():
            return None
        plan = self._places.read(label, sys._getframe(3))
        if stack and plan is not None:
            if len(self._reads) >= MOST_PLANS:
                self._reads.clear()
            self._reads[stack] = plan
        return plan

    def _inside(self, number: int, plan: ReadPlan, value: object, task: int, step: int, stack: int) -> None:
        """What is done to the container that was read."""
        by_position = id(type(value)) in _BY_POSITION
        for operation, source, keyed, flags, level, lines in plan.contents:
            key = 0
            if type(source) is int:
                key = source
            elif keyed and (source is not None or not by_position):
                key = key_of(source, self._places.frame(sys._getframe(3)))
            emitter.emit(
                _ACCESS, number, operation, flags, key, level, task, step, plan.label_number, lines, stack
            )

    def before_write(self, number: int, label: str, instance: object, value: object, deletes: bool) -> object:
        """An attribute is about to be written. A lock that does not tell gives way to one that does."""
        try:
            kind = type(value)
            if (kind is RAW_LOCK or kind is RAW_RLOCK) and not deletes:
                sync = probes.installed("sync")
                if isinstance(sync, SyncProbe):
                    value = sync.in_place_of(value, instance, label.rpartition(".")[2])
            stack = emitter.stack(32)
            plan = self._writes.get(stack)
            if plan is None or plan.label is not label or plan.generation != emitter.generation:
                if not emitter.active():
                    return value
                plan = self._places.write(label, sys._getframe(2), deletes)
                if stack:
                    if len(self._writes) >= MOST_PLANS:
                        self._writes.clear()
                    self._writes[stack] = plan
            if _running_loop() is None:
                task = step = 0
            else:
                task, step = strands.task_in_hand(), strands.loop_step()
            operation = _DELETE if deletes else _WRITE
            emitter.emit(
                _ACCESS, number, operation, plan.flags, 0, 0, task, step, plan.label_number, 0, stack
            )
        except Exception:
            self.fault()
        return value

    def undone(self, number: int, label: str) -> None:
        """A write was refused."""
        try:
            task, step = strands.task_in_hand(), strands.loop_step()
            emitter.emit(_ACCESS, number, _UNDONE, 0, 0, 0, task, step, emitter.intern(label), 0, 0)
        except Exception:
            self.fault()
