"""The dashboard's page in Chromium: its first paint, its long tasks, how soon it answers, what it holds after minutes.

    python -m benchmarks.page [--minutes N] [--rate N]

TaskFlow under load, its own modules and all probes recorded, the dashboard mounted in it. The list of requests is
shown, and somebody searches in it. Tasks of the page's main thread are those of Chromium's own trace; an interaction
is a key that is pressed, until the frame after it is drawn (Event Timing). Heap and nodes are counted after a
collection, by the DevTools protocol. All of it shares its cores with the service and the load.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from playwright.sync_api import Browser, CDPSession, Page

from benchmarks.live import MOUNT, RATE, TOKEN, running_taskflow, say
from benchmarks.paced import Paced
from tests.integration.browser import chromium

LOADS: Final = 10
WATCHED_SECONDS: Final = 20.0
KEYS: Final = 60
SAMPLE_SECONDS: Final = 15.0
MAIN_THREAD: Final = "CrRendererMain"
TASKS: Final = ("RunTask", "ThreadControllerImpl::RunTask")
INTERACTIONS: Final = """
(() => {
  const found = window.interactions = [];
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (entry.name === "keydown") found.push(entry.duration);
  }).observe({ type: "event", durationThreshold: 16, buffered: true });
})();
"""


def main() -> None:
    """Measures, and prints a line a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of updates, for heap and nodes")
    parser.add_argument("--rate", type=float, default=RATE, help="requests a second")
    options = parser.parse_args()
    say(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}")
    with (
        tempfile.TemporaryDirectory() as folder,
        running_taskflow(Path(folder)) as server,
        Paced(server.url, options.rate) as load,
        chromium() as browser,
    ):
        load.send(200)  # warm
        address = f"{server.url}{MOUNT}/?token={TOKEN}#/requests".replace(" ", "%20")
        first_paint(browser, address, load)
        tasks(browser, address, load, options.rate)
        size(browser, address, load, options.minutes)


def first_paint(browser: Browser, address: str, load: Paced) -> None:
    """From navigation to the first content, each time in a new profile, while requests come in."""
    found = []
    load.begin(int(load.rate * LOADS * 2))
    for _ in range(LOADS):
        with browser.new_context() as window:
            page = window.new_page()
            page.goto(address)
            found.append(
                page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
                or page.evaluate(
                    "new Promise((done) => new PerformanceObserver((list) => done(list.getEntries().at(-1).startTime))"
                    ".observe({ type: 'paint', buffered: true }))"
                )
            )
    load.end()
    say(f"first paint of {LOADS}: median {np.median(found):.0f} ms, most {max(found):.0f} ms (asked ≤ 1000)")


def tasks(browser: Browser, address: str, load: Paced, rate: float) -> None:
    """The main thread's tasks, and keys that are pressed, while the list grows."""
    with browser.new_context(viewport={"width": 1280, "height": 800}) as window:
        page = window.new_page()
        page.add_init_script(INTERACTIONS)
        page.goto(address)
        load.send(int(2 * rate))
        before = events_shown(page)
        browser.start_tracing(page=page, categories=["toplevel", "disabled-by-default-devtools.timeline"])
        began = time.monotonic()
        load.begin(int(WATCHED_SECONDS * rate))
        page.locator("[data-search]").focus()
        for number in range(KEYS):
            page.keyboard.press("Backspace" if number % 2 else "t")
            page.wait_for_timeout(1000 * WATCHED_SECONDS / KEYS)
        reached = load.end()
        seconds = time.monotonic() - began
        durations = main_thread_tasks(browser.stop_tracing())
        shown = (events_shown(page) - before) / seconds
        pressed = np.array(page.evaluate("window.interactions") or [0.0])
    long = durations[durations > 50]
    p95, p99 = np.percentile(durations[durations > 1], (95, 99))
    say(
        f"tasks of the page at {reached:.0f} requests/s ({shown:.0f} events/s by its own count): of those over 1 ms "
        f"p95 {p95:.0f} ms, p99 {p99:.0f} ms, most {durations.max():.0f} ms; {len(long)} of {len(durations)} over "
        f"50 ms; busy {durations.sum() / 1e3 / seconds:.0%} (asked: none over 50 ms at p95)"
    )
    p50, p95 = np.percentile(pressed, (50, 95))
    say(
        f"a key until it is drawn: {KEYS} keys, slower than 16 ms {len(pressed)}: p50 {p50:.0f} ms, p95 {p95:.0f} ms"
    )


def events_shown(page: Page) -> float:
    """The events that the service has recorded, as the page was told."""
    return float(
        page.evaluate("PyScope.store.read('metrics').reduce((sum, one) => sum + (one.events_per_s ?? 0), 0)")
    )


def main_thread_tasks(trace: bytes) -> Any:
    """Milliseconds of each task of the page's main thread."""
    events = json.loads(trace)["traceEvents"]
    names = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in events
        if event.get("name") == "thread_name"
    }
    by_thread: dict[Any, list[float]] = {}
    for event in events:
        thread = event["pid"], event["tid"]
        if event.get("ph") == "X" and event["name"] in TASKS and names.get(thread) == MAIN_THREAD:
            by_thread.setdefault(thread, []).append(event["dur"] / 1e3)
    # The page's own renderer is the one that works.
    return np.array(max(by_thread.values(), key=sum))


def size(browser: Browser, address: str, load: Paced, minutes: float) -> None:
    """Heap and nodes over minutes of updates."""
    with browser.new_context(viewport={"width": 1280, "height": 800}) as window:
        page = window.new_page()
        page.goto(address)
        session = window.new_cdp_session(page)
        session.send("Performance.enable")
        series = []
        ends = time.monotonic() + minutes * 60
        while time.monotonic() < ends:
            load.send(int(SAMPLE_SECONDS * load.rate))
            series.append(heap_and_nodes(session))
    per_minute = max(1, int(60 / SAMPLE_SECONDS))
    told = [
        f"{heap / 2**20:.1f} MiB, {nodes:.0f} nodes" for heap, nodes in series[per_minute - 1 :: per_minute]
    ]
    say(f"page after each minute: {'; '.join(told)}")
    heaps, nodes = np.array(series[per_minute - 1 :]).T
    minute = np.arange(len(heaps)) * SAMPLE_SECONDS / 60
    slope = np.polyfit(minute, heaps / 2**20, 1)[0] if len(heaps) > 2 else 0.0
    say(
        f"after the first minute: heap {heaps[0] / 2**20:.1f} → {heaps[-1] / 2**20:.1f} MiB (slope {slope:+.2f} MiB a "
        f"minute), nodes {nodes[0]:.0f} → {nodes[-1]:.0f} (asked: flat)"
    )


def heap_and_nodes(session: CDPSession) -> tuple[float, float]:
    """Bytes of JavaScript's heap, and DOM nodes, after a collection."""
    session.send("HeapProfiler.collectGarbage")
    found = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    return found["JSHeapUsedSize"], found["Nodes"]


if __name__ == "__main__":
    main()
