"""Attributes of other people's classes and modules, replaced for a while and put back exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Patches"]

_ABSENT = object()


class Patches:
    """Replaced attributes. `on` is true until `undo`: a replacement that somebody kept does nothing afterwards."""

    def __init__(self) -> None:
        self.on = True
        self._replaced: list[tuple[Any, str, Any, Any]] = []

    def replace(self, owner: Any, name: str, make: Callable[[Any], Any]) -> bool:
        """Puts `make(original)` in the place of `owner.name`. False where the owner has no such attribute."""
        original = getattr(owner, name, _ABSENT)
        if original is _ABSENT:
            return False
        own = vars(owner).get(name, _ABSENT)
        replacement = make(original)
        setattr(owner, name, replacement)
        self._replaced.append((owner, name, own, replacement))
        return True

    def undo(self) -> None:
        """Puts back what was there, last first. What somebody else has replaced since stays theirs."""
        self.on = False
        while self._replaced:
            owner, name, own, replacement = self._replaced.pop()
            if vars(owner).get(name) is not replacement:
                continue
            if own is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, own)
