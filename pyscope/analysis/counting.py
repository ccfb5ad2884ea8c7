"""Numbers with their nouns and times with their units, as sentences have them."""

from __future__ import annotations

__all__ = ["counted", "duration"]


def counted(number: int, noun: str, plural: str = "", form: str = "d") -> str:
    """1 call, 2 calls; 1 retry, 2 retries where the plural is given. `form`: of the number, as for `format`."""
    return f"{number:{form}} {noun if number == 1 else plural or noun + 's'}"


def duration(ns: float) -> str:
    """A time in the unit that suits it, at most 7 characters up to hours: 1.23 ms, 45.6 s, 1:02:03."""
    if ns < 1000:
        return f"{ns:.0f} ns"
    for unit, length in (("µs", 1e3), ("ms", 1e6), ("s", 1e9)):
        value = ns / length
        if value < 999.5 and not (unit == "s" and value >= 599.5):
            return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"
    seconds = round(ns / 1e9)
    minutes = f"{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{seconds // 3600}:{minutes}" if seconds >= 3600 else f"{minutes} min"
