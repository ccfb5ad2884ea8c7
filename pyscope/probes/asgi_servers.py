"""Servers that run ASGI applications: whatever runs in uvicorn has its requests watched, of any framework or none."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from pyscope.probes.asgi import App, Middleware
from pyscope.probes.clients import fault
from pyscope.probes.patches import Patches

__all__ = ["patch"]


def patch(patches: Patches, library: ModuleType) -> None:
    """Wraps what uvicorn's Config.load has loaded. A server that runs already keeps its application as it is."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def load(config: Any, *arguments: Any, **options: Any) -> Any:
            result = original(config, *arguments, **options)
            try:
                if patches.on and config.interface != "wsgi":  # those are requests to the probe `wsgi`
                    config.loaded_app = _Outermost(config.loaded_app, patches)
            except Exception:
                fault("asgi")
            return result

        return load

    patches.replace(library.Config, "load", make)


class _Outermost(Middleware):
    """A middleware that does nothing any more once the probe is removed."""

    def __init__(self, app: App, patches: Patches) -> None:
        super().__init__(app)
        self._patches = patches

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._patches.on:
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)
