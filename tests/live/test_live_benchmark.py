"""What the dashboard's benchmark measures with: a steady load that keeps its rate and tells of failures."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from fastapi import FastAPI, HTTPException
from viewing import served

from benchmarks.paced import Paced


def counting(seen: Counter[str], *, fails: bool = False) -> FastAPI:
    app = FastAPI()

    @app.get("/tasks/{number}")
    async def read(number: int) -> int:
        seen["GET"] += 1
        if fails:
            raise HTTPException(500)
        return number

    @app.post("/tasks", status_code=201)
    async def make() -> None:
        seen["POST"] += 1

    return app


def test_so_many_requests_are_sent_no_faster_than_the_rate() -> None:
    seen: Counter[str] = Counter()
    with served(counting(seen)) as port, Paced(f"http://127.0.0.1:{port}", 50) as load:
        began = time.monotonic()
        assert 0 < load.send(50) <= 55
        assert time.monotonic() - began >= 0.9
        assert seen == {"GET": 40, "POST": 10}
        time.sleep(6)  # the server closes what is idle for five seconds
        load.send(10)
        assert seen.total() == 60


def test_failed_requests_are_no_measurement() -> None:
    with (
        served(counting(Counter(), fails=True)) as port,
        Paced(f"http://127.0.0.1:{port}", 100) as load,
        pytest.raises(RuntimeError, match="8 requests failed"),
    ):
        load.send(10)
