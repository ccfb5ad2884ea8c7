"""Contexts of a trace, read in bulk: what each is, and which one it began in."""

from __future__ import annotations

import numpy as np

from pyscope.rows import Contexts

THREAD, TASK, GREENLET = range(3)


def contexts(*rows: tuple[int, int, int, int, str]) -> Contexts:
    """Rows are process, serial, serial of the parent, kind and name; in order, as codecs give them."""
    process, serial, parent, kind, names = zip(*rows, strict=True)
    found = {
        "process": np.array(process, np.int32),
        "serial": np.array(serial, np.uint64),
        "parent": np.array(parent, np.uint64),
        "kind": np.array(kind, np.uint8),
        "name_end": np.cumsum([len(name.encode()) for name in names]),
    }
    return Contexts(found, "".join(names).encode())


def test_each_has_its_own_name_kind_and_parent_in_its_own_process() -> None:
    found = contexts(
        (0, 3, 0, TASK, "serve"), (0, 7, 3, GREENLET, "é"), (2, 3, 9, TASK, "other"), (2, 7, 3, GREENLET, "")
    )
    assert [(one.name, one.kind, one.parent, one.process) for one in found] == [
        ("", "thread", 0, -1),
        ("serve", "task", 0, 0),
        ("é", "greenlet", 1, 0),
        ("other", "task", 0, 2),  # the parent was not recorded
        ("", "greenlet", 3, 2),
    ]
    assert [found.name(number) for number in range(5)] == ["", "serve", "é", "other", ""]
    assert found.of_kind("task", np.array([0, 1, 2, 3])).tolist() == [False, True, False, True]


def test_around_goes_outward_until_something_else_is_found() -> None:
    found = contexts(
        (0, 1, 0, TASK, "t"), (0, 2, 1, GREENLET, ""), (0, 3, 2, GREENLET, ""), (0, 4, 0, GREENLET, "")
    )
    assert found.around("greenlet", np.array([0, 1, 2, 3, 4])).tolist() == [0, 1, 1, 1, 0]


def test_a_circle_in_a_damaged_recording_ends() -> None:
    found = contexts((0, 1, 2, GREENLET, ""), (0, 2, 1, GREENLET, ""))
    assert found.around("greenlet", np.array([1, 2])).tolist() == [0, 0]


def test_a_trace_without_contexts() -> None:
    empty = {name: np.zeros(0, np.int64) for name in ("process", "serial", "parent", "kind", "name_end")}
    found = Contexts(empty, b"")
    assert len(found) == 1
    assert found.around("greenlet", np.zeros(2, np.int32)).tolist() == [0, 0]
    assert found[0].kind == "thread"
