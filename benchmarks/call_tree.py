"""A program of many small calls: a tree with ten callees a call, each level a function of its own."""

from __future__ import annotations


def leaf() -> None:
    """The lowest level."""


def twig() -> None:
    """Ten leaves."""
    for _ in range(10):
        leaf()


def branch() -> None:
    """A hundred leaves."""
    for _ in range(10):
        twig()


def bough() -> None:
    """A thousand leaves."""
    for _ in range(10):
        branch()


CALLS_A_BOUGH = 1 + 10 + 100 + 1000


def grow(calls: int) -> int:
    """Make at least `calls` calls; returns how many."""
    boughs = -(-calls // CALLS_A_BOUGH)
    for _ in range(boughs):
        bough()
    return boughs * CALLS_A_BOUGH
