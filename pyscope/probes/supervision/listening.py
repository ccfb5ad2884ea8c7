"""Supervisors of any kind that take listeners, known by their methods and not by their class.

The listener that is handed over can be called with an event and has `on_event(event)` too, whichever the
supervisor wants. An event is an object (or a dict) with `kind` and `child`, and where there are such
`supervisor`, `reason` and `restart_count`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyscope.events.supervision import KINDS
from pyscope.probes.classes import type_name
from pyscope.probes.exceptions import described

__all__ = ["Listening"]

_PAIRS = (
    ("add_listener", "remove_listener"),
    ("subscribe", "unsubscribe"),
    ("add_observer", "remove_observer"),
)


class Listening:
    """The adapter for those."""

    def knows(self, supervisor: object) -> bool:
        """Whether it has a method to take a listener and one to give it up."""
        return _methods(supervisor) is not None

    def subscribe(
        self, supervisor: object, tell: Callable[[str, str, str, str, int], None]
    ) -> Callable[[], None]:
        """Adds a listener."""
        methods = _methods(supervisor)
        assert methods is not None
        add, remove = methods
        listener = _Listener(_name_of(supervisor), tell)
        add(listener)
        return lambda: remove(listener)


class _Listener:
    def __init__(self, supervisor: str, tell: Callable[[str, str, str, str, int], None]) -> None:
        self._supervisor = supervisor
        self._tell = tell

    def on_event(self, event: Any) -> None:
        """Hands an event on. One that is not understood is left out."""
        try:
            kind = _word(_part(event, "kind"))
            if kind in KINDS:
                count = _part(event, "restart_count")
                self._tell(
                    kind,
                    _word(_part(event, "supervisor")) or self._supervisor,
                    _word(_part(event, "child")),
                    _word(_part(event, "reason")),
                    count if type(count) is int else -1,
                )
        except Exception:  # events are the program's own objects
            return

    __call__ = on_event


def _methods(supervisor: object) -> tuple[Callable[[Any], Any], Callable[[Any], Any]] | None:
    for add, remove in _PAIRS:
        pair = getattr(supervisor, add, None), getattr(supervisor, remove, None)
        if callable(pair[0]) and callable(pair[1]):
            return pair[0], pair[1]
    return None


def _name_of(supervisor: object) -> str:
    name = getattr(supervisor, "name", None)
    return name if type(name) is str else type_name(type(supervisor))


def _part(event: Any, name: str) -> Any:
    return event.get(name) if type(event) is dict else getattr(event, name, None)


def _word(value: Any) -> str:
    kind = type(value)
    if issubclass(kind, str):
        return str.__str__(value)
    if issubclass(kind, BaseException):
        return described(value)
    if value is None:
        return ""
    name = getattr(value, "name", None)
    return name if type(name) is str else type_name(kind)
