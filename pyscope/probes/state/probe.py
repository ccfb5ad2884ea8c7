"""The state probe: what is watched, and how a change becomes an event."""

from __future__ import annotations

from typing import Any

from pyscope import emitter
from pyscope.events.state import STATE_CHANGE, Seen
from pyscope.probes import Probe, actors, on_import
from pyscope.probes.classes import forget_layouts, mro, namespace, type_name
from pyscope.probes.state import values
from pyscope.probes.state.attributes import AttributeHooks
from pyscope.probes.state.boundaries import Boundaries
from pyscope.probes.state.mapped import UpdateStatements
from pyscope.probes.state.snapshots import Snapshots
from pyscope.probes.state.values import ABSENT, UNKNOWN, Frozen
from pyscope.probes.state.watched import Watched

__all__ = ["StateProbe"]


class StateProbe(Probe):
    """Tells of changes of whatever `watch` names."""

    name = "state"

    def __init__(self) -> None:
        super().__init__()
        self._watched = Watched()
        self._attributes = AttributeHooks(self)
        self._boundaries = Boundaries(self.look)
        self._snapshots = Snapshots()
        self._updates = UpdateStatements(self._updated, self.fault)
        self._aliases: dict[tuple[int, str], tuple[type, str]] = {}

    def install(self) -> None:
        actors.at_message_boundaries(self.look)
        on_import.call("sqlalchemy", self._listen, self)

    def _listen(self) -> None:
        try:
            if self._updates is not None:
                self._updates.install()
        except Exception:
            self.fault()

    def look_now(self) -> None:
        """Compares the declared objects and classes: what no call has followed yet would not be known."""
        for instance in [*self._watched.classes(), *self._watched.objects()]:
            try:
                self._compare(instance, "", Seen.BETWEEN)
            except Exception:
                self.faults += 1

    def uninstall(self) -> None:
        self.look_now()
        actors.forget_message_boundaries(self.look)
        self._updates.uninstall()
        self._boundaries.remove_all()
        self._attributes.unhook_all()
        self._snapshots.clear()
        forget_layouts()
        self._watched = Watched()

    def watch(self, target: object) -> bool:
        """Watches an object, or a class with all its instances, or an actor through its reference or proxy.

        Once is enough. A built-in container, or an object of an extension type, is only compared at boundaries. False
        for what has no state to be seen: a class that cannot be changed, an object without attributes of such a class.
        """
        actor = actors.actor_of(target)
        target = target if actor is None else actor
        if not self._has_state(target):
            return False
        if issubclass(type(target), type):
            kind: type = target  # type: ignore[assignment]
            self._watched.add_class(kind)
            self._updates.add_class(kind)
        else:
            kind = type(target)
            self._watched.add_object(target)
            self._snapshots.keep(target)
        if self._attributes.hook(kind):
            self._boundaries.place(kind)
        if kind is target:
            self._snapshots.keep(kind)
        return True

    def _has_state(self, target: object) -> bool:
        is_class = issubclass(type(target), type)
        kind: type = target if is_class else type(target)  # type: ignore[assignment]
        if self._attributes.hook(kind):
            return True
        return not is_class and (values.is_bare_container(target) or bool(values.attributes(target)))

    # Called while the program runs

    def before_write(self, instance: object, name: str) -> Frozen | None:
        """How an attribute is, if its object is watched."""
        try:
            if instance not in self._watched or not emitter.active() or values.is_bookkeeping(name):
                return None
            return values.freeze(self._read(instance, name))
        except RuntimeError:  # another thread is at the container
            return UNKNOWN
        except Exception:
            self.fault()
            return None

    def after_first_write(self, instance: object, name: str) -> None:
        """Takes a constructor's write for granted."""
        try:
            if self._snapshots.has(instance):
                self._snapshots.note(instance, name, values.freeze(self._read(instance, name)))
        except RuntimeError:
            return
        except Exception:
            self.fault()

    def after_write(
        self, instance: object, name: str, value: Any, before: Frozen, constructing: bool
    ) -> None:
        """Tells of the write, unless the value is what it was."""
        try:
            stored = self._read(instance, name)
            if stored is UNKNOWN:
                if self._has_backing(instance, name):
                    return  # a property: the write of what lies below it has been told
                stored = value
            after = values.freeze(stored)
            if after != before:
                self._tell(instance, Seen.WRITE, name, before, after, constructing)
                self._snapshots.note(instance, name, after)
        except RuntimeError:
            return
        except Exception:
            self.fault()

    def look(self, instance: object, call: str, seen: Seen) -> None:
        """Compares an object, if it is watched, and the built-in containers that are."""
        try:
            if instance in self._watched and emitter.active():
                self._compare(instance, call, seen)
        except Exception:
            self.fault()

    def _compare(self, instance: object, call: str, seen: Seen) -> None:
        try:
            for name, old, new in self._snapshots.changes(instance):
                self._tell(instance, seen, name, old, new, False, call)
        except RuntimeError:
            return

    def _read(self, instance: object, name: str) -> Any:
        found = values.read(instance, name)
        if found is ABSENT or found is UNKNOWN:
            state = (values.own_dict(instance) or {}).get("_sa_instance_state")
            if state is not None and found is UNKNOWN and getattr(state, "key", self) is None:
                return ABSENT  # of a mapped object that was never stored
        return found

    def _has_backing(self, instance: object, name: str) -> bool:
        own = values.own_dict(instance) or {}
        return f"_{name}" in own or any(
            f"_{type_name(kind).lstrip('_')}__{name}" in own or f"_{name}" in namespace(kind)
            for kind in mro(type(instance))
        )

    def _tell(
        self,
        instance: object,
        seen: Seen,
        name: str,
        old: Frozen,
        new: Frozen,
        initial: bool,
        call: str = "",
    ) -> None:
        is_class = issubclass(type(instance), type)
        kind: type = instance if is_class else type(instance)  # type: ignore[assignment]
        attribute = self._public_name(kind, name)
        self._emit(id(instance), seen, kind, attribute, old, new, initial, call, _key(instance))

    def _emit(
        self,
        number: int,
        seen: Seen,
        kind: type,
        attribute: str,
        old: Frozen,
        new: Frozen,
        initial: bool,
        call: str,
        key: str,
    ) -> None:
        old_kind, old_text = values.tell(old)
        new_kind, new_text = values.tell(new)
        if values.hides(attribute):
            old_text = new_text = "(hidden)"
        emitter.emit(
            STATE_CHANGE.kind,
            number,
            int(seen),
            initial,
            int(old_kind),
            int(new_kind),
            emitter.intern(type_name(kind)),
            emitter.intern(attribute),
            emitter.intern(call),
            emitter.stack(),
            key,
            old_text,
            new_text,
        )

    def _updated(self, kind: type, attribute: str, old: Any, new: Any, key: str) -> None:
        before = UNKNOWN if old is UNKNOWN else values.freeze(old)
        self._emit(0, Seen.STATEMENT, kind, attribute, before, values.freeze(new), False, "", key)

    def _public_name(self, kind: type, name: str) -> str:
        """The property that an attribute lies below (`_status`, `__status`), or the attribute itself."""
        if not name.startswith("_"):
            return name
        known = self._aliases.get((id(kind), name))
        if known is None:
            known = self._aliases[id(kind), name] = kind, _property_above(kind, name)
        return known[1]


def _property_above(kind: type, name: str) -> str:
    for base in mro(kind):
        for prefix in (f"_{type_name(base).lstrip('_')}__", "_"):
            above = name.removeprefix(prefix)
            if above != name and any(
                issubclass(type(namespace(other).get(above)), property) for other in mro(kind)
            ):
                return above
    return name


def _key(instance: object) -> str:
    """The primary key of a mapped object that has one already."""
    state = (values.own_dict(instance) or {}).get("_sa_instance_state")
    key = getattr(state, "key", None)
    return shown_key(key[1]) if type(key) is tuple and len(key) > 1 and type(key[1]) is tuple else ""


def shown_key(parts: tuple[Any, ...]) -> str:
    """A primary key as text, of exact str and int only."""
    shown = [str(part) for part in parts if type(part) is int or type(part) is str]
    return ", ".join(shown)[: values.MOST_TEXT] if len(shown) == len(parts) else ""
