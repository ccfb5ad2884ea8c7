"""The memory that a container, or a unit of systemd, may still take: beyond it the kernel kills its processes."""

from __future__ import annotations

import os
from collections.abc import Iterator

__all__ = ["left_bytes"]

# Under cgroup v2 and v1: where it lies, limit, usage, and what of that is cache which makes room for others.
_V2 = "/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
_V1 = "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"


def left_bytes() -> int | None:
    """Bytes that the control groups of this process have left; None if there is no limit, or it is not known."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            groups = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return None
    left: list[int] = []
    for _, controllers, path in (group for group in groups if len(group) == 3):
        if not controllers:
            left += _left(path, *_V2)
        elif "memory" in controllers.split(","):
            left += _left(path, *_V1)
    return min(left, default=None)


def _left(path: str, root: str, limit: str, usage: str, cache: str) -> Iterator[int]:
    """Of the group and of those that it lies in. In a container the path may be the host's, and the root the group."""
    folder = os.path.normpath(root + path)
    while folder.startswith(root):
        try:
            with open(os.path.join(folder, "memory.stat"), encoding="ascii") as file:
                reclaimable = next((int(line.split()[1]) for line in file if line.startswith(f"{cache} ")), 0)
            yield max(0, _number(folder, limit) - _number(folder, usage) + reclaimable)
        except (OSError, ValueError):  # "max" is no number: no limit
            pass
        folder = os.path.dirname(folder)


def _number(folder: str, name: str) -> int:
    with open(os.path.join(folder, name), encoding="ascii") as file:
        return int(file.read())
