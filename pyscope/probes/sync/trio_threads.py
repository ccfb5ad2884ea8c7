"""Work that trio hands to threads and back. Its tasks need nothing: those of one loop are one strand, its thread's."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any

from pyscope import emitter
from pyscope.events.sync import Channel
from pyscope.probes.patches import Patches
from pyscope.probes.sync.signals import give, take

__all__ = ["patch"]


def patch(patches: Patches, threads: ModuleType) -> None:
    """Replaces what `trio._threads` calls and is called by."""
    patches.replace(threads, "start_thread_soon", functools.partial(_start_thread_soon, patches))
    token, message, later = (getattr(threads, name, None) for name in ("TrioToken", "RunSync", "Run"))
    patches.replace(token, "run_sync_soon", functools.partial(_run_sync_soon, patches))
    patches.replace(threads, "_send_message_to_trio", functools.partial(_send_message, patches))
    patches.replace(message, "unprotected_fn", functools.partial(_answer, patches))
    patches.replace(later, "unprotected_afn", functools.partial(_answer_later, patches))


def _handed_over(function: Callable[..., Any]) -> Callable[..., Any]:
    """Does the same; what was done until now happens before it."""
    number = emitter.next_id()
    give(number, Channel.SUBMIT)

    def run(*args: Any) -> Any:
        take(number, Channel.SUBMIT)
        return function(*args)

    return run


def _start_thread_soon(patches: Patches, original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def start_thread_soon(fn: Any, *args: Any, **kwargs: Any) -> None:
        original(_handed_over(fn) if patches.on else fn, *args, **kwargs)

    return start_thread_soon


def _run_sync_soon(patches: Patches, original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def run_sync_soon(self: Any, sync_fn: Any, *args: Any, idempotent: bool = False) -> None:
        handed = patches.on and not idempotent  # trio tells those apart by the function itself
        original(self, _handed_over(sync_fn) if handed else sync_fn, *args, idempotent=idempotent)

    return run_sync_soon


def _send_message(patches: Patches, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def _send_message_to_trio(trio_token: Any, message: Any) -> Any:
        try:
            return original(trio_token, message)
        finally:
            if patches.on:
                take(id(message), Channel.FUTURE)

    return _send_message_to_trio


def _answer(patches: Patches, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def unprotected_fn(self: Any) -> Any:
        try:
            return original(self)
        finally:
            if patches.on:
                give(id(self), Channel.FUTURE)

    return unprotected_fn


def _answer_later(
    patches: Patches, original: Callable[..., Coroutine[Any, Any, Any]]
) -> Callable[..., Coroutine[Any, Any, Any]]:
    @functools.wraps(original)
    async def unprotected_afn(self: Any) -> Any:
        try:
            return await original(self)
        finally:
            if patches.on:
                give(id(self), Channel.FUTURE)

    return unprotected_afn
