"""File storage through fsspec: whole-file operations of every file system, local ones too. No paths, no contents.

fsspec has no hook. Its file systems override the same public methods, so these are replaced on each class
that has them, also on classes that come later; asynchronous file systems are reached through
`fsspec.asyn.sync`. Of a file that is opened, only the opening is seen.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from types import ModuleType
from typing import Any, ClassVar

from pyscope.probes.attempts import SILENT, Attempt, begin, fingerprint
from pyscope.probes.clients import ClientProbe, fault
from pyscope.probes.patches import Patches

__all__ = ["StorageProbe", "patch"]

OPERATIONS = {
    "cat_file": "READ",
    "read_block": "READ",
    "pipe_file": "WRITE",
    "put_file": "UPLOAD",
    "get_file": "DOWNLOAD",
    "cp_file": "COPY",
    "mv": "MOVE",
    "rm": "DELETE",
    "rm_file": "DELETE",
    "ls": "LIST",
    "find": "LIST",
    "info": "INFO",
    "exists": "INFO",  # these three ask `info`, and its FileNotFoundError is an answer
    "isfile": "INFO",
    "isdir": "INFO",
    "mkdir": "",  # not told, nor what it asks about the folders above
    "makedirs": "",
    "open": "OPEN",
}

_inside: ContextVar[bool] = ContextVar("pyscope_storage", default=False)  # one operation is made of others


class StorageProbe(ClientProbe):
    """Watches fsspec's file systems."""

    name = "storage"
    extra = "taskflow"
    adapters: ClassVar = {"fsspec": "pyscope.probes.storage"}


def patch(patches: Patches, library: ModuleType) -> None:
    """Watches the classes there are, those that come, and `fsspec.asyn.sync`."""
    import fsspec.asyn
    from fsspec.spec import AbstractFileSystem

    done: set[type] = set()

    def watch(system: type) -> None:
        if system in done:
            return
        done.add(system)
        for method, operation in OPERATIONS.items():
            if method in vars(system):
                patches.replace(system, method, functools.partial(_operation, patches, operation))

    def make_init(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            if patches.on:
                try:
                    for system in type(self).__mro__:
                        if issubclass(system, AbstractFileSystem):
                            watch(system)
                except Exception:
                    fault("storage")
                    return

        return __init__

    waiting: list[type] = [AbstractFileSystem]
    while waiting:
        system = waiting.pop()
        watch(system)
        waiting += system.__subclasses__()
    patches.replace(AbstractFileSystem, "__init__", make_init)
    patches.replace(fsspec.asyn, "sync", functools.partial(_sync, patches))


def _operation(patches: Patches, operation: str, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not patches.on or _inside.get():
            return original(self, *args, **kwargs)
        attempt = _begin(self, operation, args) if operation else SILENT
        token = _inside.set(True)
        try:
            result = original(self, *args, **kwargs)
        except BaseException as error:
            attempt.failed(error)
            raise
        finally:
            _inside.reset(token)
        attempt.succeeded()
        return result

    return method


def _sync(patches: Patches, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def sync(loop: Any, func: Any, *args: Any, **kwargs: Any) -> Any:
        operation = OPERATIONS.get(getattr(func, "__name__", "").lstrip("_"), "")
        if not patches.on or not operation or _inside.get():
            return original(loop, func, *args, **kwargs)
        attempt = _begin(getattr(func, "__self__", None), operation, args)
        token = _inside.set(True)
        try:
            result = original(loop, func, *args, **kwargs)
        except BaseException as error:
            attempt.failed(error)
            raise
        finally:
            _inside.reset(token)
        attempt.succeeded()
        return result

    return sync


def _begin(system: Any, operation: str, args: tuple[Any, ...]) -> Attempt:
    try:
        protocol = type(system).__dict__.get("protocol", "") or getattr(type(system), "protocol", "")
        if type(protocol) in (tuple, list):
            protocol = protocol[0]
        return begin(
            "storage",
            operation,
            protocol if type(protocol) is str else "",
            "fsspec",
            same=fingerprint(operation, *args[:1]),
        )
    except Exception:
        fault("storage")
        return SILENT
