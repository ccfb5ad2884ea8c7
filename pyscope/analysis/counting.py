"""Numbers with their nouns, as sentences have them."""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, noun: str, plural: str = "", form: str = "d") -> str:
    """1 call, 2 calls; 1 retry, 2 retries where the plural is given. `form`: of the number, as for `format`."""
    return f"{number:{form}} {noun if number == 1 else plural or noun + 's'}"
