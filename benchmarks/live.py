"""The live dashboard: how soon an event is to be seen in a real browser, and what it costs the service to be watched.

    python -m benchmarks.live [--rounds N] [--seconds N]

TaskFlow under 100 requests a second, its own modules and all probes recorded. Latency is measured in Chromium, from
the event's own timestamp to the animation frame after its row stands in the page; how much of it is the server's, by a
client that only listens. Cost is CPU time of the service a request, in blocks that alternate between watched and not,
paired by round. Memory is the service's own (PSS), per viewer. All of it needs a machine that does little else.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
from playwright.sync_api import Page
from websockets.sync.client import connect

from benchmarks.controlled import LAUNCHER, Control
from benchmarks.estimator import Interval, interval, run_rounds
from benchmarks.paced import Paced
from benchmarks.workload import cpu_seconds
from taskflow.process import ServerProcess
from tests.integration.browser import chromium
from tests.integration.taskflow_database import seed_taskflow, taskflow_settings

RATE: Final = 100.0
VIEWERS: Final = 20
COST_SECONDS: Final = 2  # of a block
TOKEN: Final = "a token for the benchmark of the live dashboard"
MOUNT: Final = "/admin/pyscope"

# Told of each message before the page is; notes when a request's row has come to be drawn.
OBSERVER: Final = """
(() => {
  const told = new Map(), seen = new Set(), found = window.latencies = [];
  const Native = window.WebSocket;
  window.WebSocket = class extends Native {
    constructor(...given) {
      super(...given);
      this.addEventListener("message", (event) => {
        const message = JSON.parse(event.data);
        if (message.type !== "traces" || message.requests.length > 100) return;
        for (const one of message.requests)
          if (!told.has(one.id) && one.kind === "request")
            told.set(one.id, one.outcome === "open" ? one.start_ms : one.start_ms + one.duration_ms);
      });
    }
  };
  const look = () => {
    const fresh = [];
    for (const link of document.querySelectorAll("a[data-open]")) {
      const id = decodeURIComponent(link.getAttribute("href").split("/").pop());
      if (told.has(id) && !seen.has(id)) { seen.add(id); fresh.push(id); }
    }
    if (fresh.length) requestAnimationFrame(() => {
      const now = performance.timeOrigin + performance.now();
      for (const id of fresh) found.push(now - told.get(id));
    });
  };
  document.addEventListener("DOMContentLoaded", () =>
    new MutationObserver(look).observe(document.body, { childList: true, subtree: true, attributes: true }));
})();
"""


def main() -> None:
    """Measures, and prints a line a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="rounds of the cost")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each latency")
    parser.add_argument("--rate", type=float, default=RATE, help="requests a second")
    options = parser.parse_args()
    say(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}")
    with (
        tempfile.TemporaryDirectory() as folder,
        running_taskflow(Path(folder)) as (server, control),
        standing_alone(server.pid) as alone,
        Paced(server.url, options.rate) as load,
    ):
        load.send(200)  # warm
        mounted = f"{server.url}{MOUNT}/"
        for name, address in (("stand-alone", alone), ("mounted", mounted)):
            to_message(name, address, load, options.seconds)
            latency(name, address, load, options.seconds)
        cost(server.pid, control, alone, mounted, load, options.rounds)
        memory(server.pid, mounted, load)
        with_viewers(mounted, load, options.seconds)


@contextlib.contextmanager
def running_taskflow(folder: Path) -> Iterator[tuple[ServerProcess, Control]]:
    """A recorded TaskFlow with its dashboard, and how to tell it that a block begins."""
    control = Control(folder)
    settings = taskflow_settings(folder)
    seed_taskflow(settings)
    environment = {
        "DATABASE_URL": settings.database_url,
        "TASKFLOW_PYSCOPE": str(folder / "run.pyscope"),
        "PYSCOPE_TOKEN": TOKEN,
        "TASKFLOW_FAULTS": "none",
    }
    server = ServerProcess(folder, environment | control.environment, LAUNCHER)
    with contextlib.ExitStack() as stack:
        with control.meeting(server):
            stack.enter_context(server)
        stack.callback(control.close)
        yield server, control


@contextlib.contextmanager
def standing_alone(pid: int) -> Iterator[str]:
    """The stand-alone dashboard of a process; gives its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pyscope", "live", str(pid)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYSCOPE_TOKEN": TOKEN},
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.wait()


# --- figures -------------------------------------------------------------------------------------


def to_message(name: str, address: str, load: Paced, seconds: float) -> None:
    """From a request's end to the message that tells of it, without a browser: what of the latency is the server's."""
    found: list[float] = []

    def heard(text: Any) -> None:
        message = json.loads(text)
        if message["type"] == "traces" and len(message["requests"]) <= 100:
            now = time.time() * 1e3
            found.extend(
                now - row["start_ms"] - row["duration_ms"]
                for row in message["requests"]
                if row["kind"] == "request" and row["outcome"] != "open"
            )

    with viewers(address, 1, heard):
        load.send(int(2 * load.rate))
        found.clear()
        load.send(int(seconds * load.rate))
    if found:
        p50, p99 = np.percentile(found, (50, 99))
        say(f"event to message, {name}: p50 {p50:.0f} ms, p99 {p99:.0f} ms; load {os.getloadavg()[0]:.1f}")


def latency(name: str, address: str, load: Paced, seconds: float) -> None:
    """From a request's own timestamp to its row on the screen."""
    say(f"… {name}")
    with chromium() as browser:
        page = browser.new_page()
        page.add_init_script(OBSERVER)
        page.goto(f"{address}?token={TOKEN}#/requests".replace(" ", "%20"))
        load.send(int(2 * load.rate))
        page.evaluate("window.latencies.length = 0")
        reached = load.send(int(seconds * load.rate))
        tell_latency(f"event to screen, {name}", page, reached)


def tell_latency(name: str, page: Page, reached: float) -> None:
    """Prints the percentiles of what the page noted."""
    found = np.array(page.evaluate("window.latencies"))
    if not len(found):
        say(f"{name}: nothing was seen")
        return
    p50, p90, p99 = np.percentile(found, (50, 90, 99))
    say(
        f"{name}: p50 {p50:.0f} ms, p90 {p90:.0f} ms, p99 {p99:.0f} ms (asked 50 and 100); {len(found)} rows, "
        f"{reached:.0f} requests/s, load {os.getloadavg()[0]:.1f}"
    )


def cost(pid: int, control: Control, alone: str, mounted: str, load: Paced, rounds: int) -> None:
    """CPU time of the service a request, watched over not watched. A block begins after a full garbage collection: the
    program's own, at some time or other, takes a sixth of a block's CPU time."""

    def block(address: str | None) -> Callable[[], float]:
        def run() -> float:
            with viewers(address, 1 if address else 0):
                time.sleep(0.3)
                control.mark()
                before = cpu_seconds(pid)
                load.send(int(COST_SECONDS * load.rate))
                after = cpu_seconds(pid)
            return (after - before) / (COST_SECONDS * load.rate)

        return run

    blocks = {"untraced": block(None), "stand-alone": block(alone), "mounted": block(mounted)}
    rows = run_rounds(blocks, rounds, seed=1)
    for name, asked in (("stand-alone", 2), ("mounted", 5), ("control", 0)):
        found = interval([np.array([row[name] / row["untraced"] for row in rows])])
        say(
            f"cost of being watched, {name}: {as_percent(found)}" + (f" (asked ≤ {asked} %)" if asked else "")
        )
    base = np.median([row["untraced"] for row in rows]) * 1e3
    say(f"  a request takes {base:.2f} ms of CPU time when nobody watches")


def memory(pid: int, mounted: str, load: Paced) -> None:
    """What 20 viewers take in the service, above one."""
    service = psutil.Process(pid)
    with viewers(mounted, 1):
        load.send(int(3 * load.rate))
        before = service.memory_full_info().pss
        with viewers(mounted, VIEWERS):
            load.send(int(5 * load.rate))
            after = service.memory_full_info().pss
    say(f"memory of a viewer, mounted: {(after - before) / VIEWERS / 1024:.0f} KiB (asked ≤ 1024)")


def with_viewers(mounted: str, load: Paced, seconds: float) -> None:
    """Latency in one browser while 20 others look."""
    with viewers(mounted, VIEWERS):
        latency(f"mounted, beside {VIEWERS} viewers", mounted, load, seconds)


@contextlib.contextmanager
def viewers(address: str | None, count: int, heard: Callable[[Any], None] = len) -> Iterator[None]:
    """So many that read all messages, in threads of this process; compressed, where a browser would have them so."""
    stop = threading.Event()

    def read(connection: Any) -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                heard(connection.recv(timeout=0.2))

    with contextlib.ExitStack() as stack:
        threads = []
        for _ in range(count):
            assert address is not None
            connection = stack.enter_context(
                connect(
                    f"ws{address.removeprefix('http')}ws",
                    additional_headers={"Authorization": f"Bearer {TOKEN}"},
                    max_size=None,
                )
            )
            threads.append(threading.Thread(target=read, args=(connection,), daemon=True))
            threads[-1].start()
        yield
        stop.set()
        for thread in threads:
            thread.join()


def as_percent(found: Interval) -> str:
    """A ratio as what it adds."""
    low, middle, high = ((value - 1) * 100 for value in (found.low, found.median, found.high))
    return f"{middle:+.1f} % [{low:+.1f}, {high:+.1f}]"


def say(line: str) -> None:
    """Prints a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
