"""A TaskFlow in this process, spoken to through its ASGI interface by any number of coroutines."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from fastapi import FastAPI

from taskflow.settings import Settings
from taskflow.web.app import create_app


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[tuple[FastAPI, httpx2.AsyncClient]]:
    """A started application and a client of it."""
    app = create_app(settings)
    transport = httpx2.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://taskflow", timeout=120) as client,
    ):
        yield app, client
