"""Makes a dashboard, and puts it into a service or by itself."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Iterable
from typing import Any

from pyscope import config
from pyscope.errors import ConfigError
from pyscope.live.app import build, hello
from pyscope.live.controls import Controls
from pyscope.live.feed import Feed
from pyscope.live.guard import ASGIApp, Closed, Guard
from pyscope.live.remote import RemoteFeed
from pyscope.live.security import Access
from pyscope.live.source import OwnSource, Source, source_of

__all__ = ["Dashboard", "create_app", "mount"]

logger = logging.getLogger("pyscope.live")

MOUNTED_SHARE = 0.04
ALONE_SHARE = 0.25
"""Of one core: how much looking at the recording may take, in a service and by itself."""

RESTING_SECONDS = 300.0


class Dashboard:
    """One dashboard: `app`, the ASGI application behind its guard, and the `feed` that fills it."""

    def __init__(
        self,
        source: Source,
        token: str,
        *,
        allowed_hosts: Iterable[str] = (),
        read_only: bool = False,
        share: float = ALONE_SHARE,
        resting: float | None = None,
        apart: bool = False,
        settings: dict[str, Any] | None = None,
    ) -> None:
        access = Access(token, allowed_hosts, read_only=read_only)
        controls = Controls(source, read_only=read_only, settings=settings)
        first = functools.partial(hello, controls=controls, csrf=access.csrf)
        self.feed: Feed | RemoteFeed
        if apart:
            self.feed = RemoteFeed(first, resting=RESTING_SECONDS if resting is None else resting)
        else:
            self.feed = Feed(source, first, share=share, resting=resting)
        self.app: ASGIApp = Guard(build(self.feed, controls), access)

    def close(self) -> None:
        """Ends its threads."""
        self.feed.stop()


def create_app(
    source: str | Source, *, token: str, allowed_hosts: Iterable[str] = (), read_only: bool = False
) -> ASGIApp:
    """The dashboard as an ASGI application, to be served by itself.

    `source`: the path of a recording, a folder, or a process id as text. `token`: the secret that opens it.
    `allowed_hosts`: names under which it is reached, beside those of loopback. `read_only`: without controls.
    """
    found = source_of(source) if isinstance(source, str) else source
    return Dashboard(found, token, allowed_hosts=allowed_hosts, read_only=read_only).app


def mount(
    app: Any,
    path: str = "/admin/pyscope",
    *,
    token: str | None = None,
    allowed_hosts: Iterable[str] = (),
    read_only: bool = False,
    apart: bool = True,
    settings: dict[str, Any] | None = None,
) -> Any:
    """Puts a dashboard of this process under `path` of an ASGI application, and returns the application to serve.

    An application with a `mount` method (FastAPI, Starlette) is returned itself; any other comes back wrapped.
    `token`: the secret that opens it; `PYSCOPE_TOKEN` where it is left out. Without either, everything under `path` is
    answered with 404. `allowed_hosts`: the names under which the service is reached, beside those of loopback.
    `read_only`: nobody starts, stops or dumps anything from the page. `apart`: while someone looks, a process of its
    own does the reading, and the service only passes messages on; False: a thread of the service does it. `settings`:
    of the flight recorder that the page starts, as for `pyscope.start`. Raises ConfigError for a bad path.
    """
    if not path.startswith("/") or path.rstrip("/") == "" or "{" in path:
        raise ConfigError(f"mount path {path!r}: must begin with / and name a place below the root")
    path = path.rstrip("/")
    inner = _dashboard(path, token, tuple(allowed_hosts), read_only, apart, settings)
    _leave_out(path)
    if hasattr(app, "mount"):
        app.mount(path, inner)
        return app
    return _Mounted(app, path, inner)


def _dashboard(
    path: str,
    token: str | None,
    allowed_hosts: tuple[str, ...],
    read_only: bool,
    apart: bool,
    settings: dict[str, Any] | None,
) -> ASGIApp:
    try:
        token = token or config.resolve().token
    except ConfigError as error:
        logger.warning("the live dashboard at %s is off: %s", path, error)
        return Closed()
    if not token:
        logger.warning(
            "the live dashboard at %s is off: set PYSCOPE_TOKEN to a long secret to turn it on", path
        )
        return Closed()
    dashboard = Dashboard(
        OwnSource(), token, allowed_hosts=allowed_hosts, read_only=read_only, share=MOUNTED_SHARE,
        resting=RESTING_SECONDS, apart=apart and hasattr(os, "posix_spawn") and bool(sys.executable), settings=settings,
    )  # fmt: skip
    return dashboard.app


def _leave_out(path: str) -> None:
    """The dashboard's own requests are none of the service's."""
    from pyscope.probes import asgi

    asgi.leave_out(path)


class _Mounted:
    """An ASGI application with a dashboard under a path."""

    def __init__(self, app: ASGIApp, path: str, inner: ASGIApp) -> None:
        self._app = app
        self._path = path
        self._inner = inner

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Passes a request on to one of the two."""
        path = scope.get("path", "")
        root = scope.get("root_path", "")
        if scope["type"] in ("http", "websocket") and (path + "/").startswith(f"{root}{self._path}/"):
            await self._inner({**scope, "root_path": root + self._path}, receive, send)
        else:
            await self._app(scope, receive, send)
