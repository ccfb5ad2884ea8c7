"""Numbers with their nouns, as the sentences of findings have them."""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, noun: str, plural: str = "") -> str:
    """1 call, 2 calls; 1 retry, 2 retries where the plural is given."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
