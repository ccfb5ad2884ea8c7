"""The report as one HTML file: whole by itself, harmless whatever the program's names, quick to open."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

import pyscope
from pyscope import cli, export
from pyscope.export import html
from pyscope.fallback.writer import Page as WrittenPage
from pyscope.fallback.writer import RecordingWriter
from pyscope.format import Kind
from pyscope.trace import Trace
from tests.integration.browser import chromium
from tests.unit.test_views_odd_traces import hostile

TYPES = ["traces", "metrics", "losses", "findings", "supervision", "state", "external"]


@pytest.fixture
def trace(shop_trace: Trace) -> Trace:
    return shop_trace


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


class Elements(HTMLParser):
    """The elements of a page with their attributes, and what stands in scripts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.title = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] == "script" and self.scripts:
            self.scripts[-1] += data
        elif self.found and self.found[-1][0] == "title":
            self.title += data


def embedded(page: Elements) -> dict[str, Any]:
    scripts = [attributes for tag, attributes in page.found if tag == "script"]
    [at] = [number for number, attributes in enumerate(scripts) if attributes.get("id") == "pyscope-data"]
    assert scripts[at]["type"] == "application/json"
    found = json.loads(page.scripts[at])
    assert isinstance(found, dict)
    return found


def test_the_page_holds_a_message_of_each_type_and_what_else_its_views_ask_for(trace: Trace) -> None:
    told = embedded(Elements(html.render(trace)))
    assert told == html.data(trace)
    assert [message["type"] for message in told["messages"]] == TYPES
    assert told["hello"]["type"] == "hello"
    requests = told["messages"][0]["requests"]
    assert set(told["waterfalls"]) == {row["id"] for row in requests}
    assert all(told["waterfalls"][row["id"]]["request"] == row for row in requests)
    assert told["flame"]["children"]
    assert told["functions"]["functions"]
    assert told["queries"]["queries"]


def test_the_page_refers_to_nothing_outside_itself(trace: Trace) -> None:
    page = Elements(html.render(trace))
    referring = {"src", "href", "action", "data", "poster", "srcset"}
    for tag, attributes in page.found:
        assert not referring & attributes.keys(), (tag, attributes)
    [policy] = [a["content"] for tag, a in page.found if tag == "meta" and "http-equiv" in a]
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in policy.split("style-src")[0]


def test_names_of_the_program_are_data_and_never_markup(tmp_path: Path) -> None:
    hostile(tmp_path / "run.pyscope")
    text = html.render(pyscope.load(tmp_path / "run.pyscope"))
    page = Elements(text)
    told = embedded(page)
    assert told["messages"][0]["requests"][0]["name"].startswith("</script><script>alert(1)</script>")
    assert "alert(1)</script>" not in text
    data = text[text.index('id="pyscope-data">') :]
    data = data[len('id="pyscope-data">') : data.index("</script>")]
    assert not re.search("[<>&\u2028\u2029]", data)


def test_data_that_would_be_too_large_leaves_waterfalls_out(trace: Trace) -> None:
    whole = html.data(trace)
    rest = len(html._encoded(whole | {"waterfalls": {}}))
    room = (rest + len(html._encoded(whole))) // 2
    some = html.data(trace, room)
    assert 0 < len(some["waterfalls"]) < len(whole["waterfalls"])
    assert len(html._encoded(some)) <= room
    assert html.data(trace, 0)["waterfalls"] == {}


def moments(writer: RecordingWriter, count: int) -> Iterator[tuple[int, int, WrittenPage]]:
    """Numbers from 1 on, each with its ticks and a page with room for its events; in the end the file is whole."""
    base = writer.clock()[0]
    page = WrittenPage(base)

    def write() -> None:
        writer.chunk(0, page.words, base_ticks=page.base_ticks, name="MainThread", os_tid=1)

    for number in range(1, count + 1):
        at = base + 100 * number
        if not page.room(100):
            write()
            page = WrittenPage(at)
        yield number, at, page
    write()
    writer.close()


def many_requests(path: Path) -> None:
    """More requests, functions and statements than a page can hold."""
    from pyscope.events.scope import SCOPE_BEGIN, SCOPE_END

    writer = RecordingWriter(path)
    kind, name, ended = (writer.string(text) for text in ("request", "GET /" + "x" * 290, "returned"))
    codes = [writer.code("shop" * 70, f"f{at}" + "y" * 290, "shop.py" * 40, at) for at in range(2000)]
    for number, at, page in moments(writer, 6000):
        page.probe(at, SCOPE_BEGIN.kind, number, [number, 0, kind, name], [])
        page.event(at + 1, Kind.CALL, codes[number % 2000])
        page.event(at + 50 + number % 40, Kind.RETURN, codes[number % 2000])
        page.probe(at + 95, SCOPE_END.kind, number, [number, 90, 50, 200, name, ended, 0], [])


def test_the_requests_that_findings_lead_to_are_told_before_others(trace: Trace) -> None:
    findings = {message["type"]: message for message in html.data(trace)["messages"]}["findings"]["findings"]
    linked = list(dict.fromkeys(one["scope"] for one in findings if one["scope"]))
    assert len(linked) > 1
    assert list(html.data(trace)["waterfalls"])[: len(linked)] == linked


def test_the_page_stays_small_however_much_was_recorded(tmp_path: Path) -> None:
    many_requests(tmp_path / "run.pyscope")
    text = html.render(pyscope.load(tmp_path / "run.pyscope"))
    told = embedded(Elements(text))
    assert len(html._encoded(told)) < html.MOST_BYTES + 1000
    assert len(told["messages"][0]["requests"]) == 1000
    assert 10 < len(told["waterfalls"]) < 1000
    assert len(told["functions"]["functions"]) < told["functions"]["total"] == 2000


# --- in a browser ----------------------------------------------------------------------------------


class Watched:
    """A page with what went wrong on it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.wrong: list[str] = []
        page.on("console", lambda message: self._said(message.type, message.text))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("request", lambda request: self._asked(request.url))
        page.on("dialog", lambda dialog: self.wrong.append(dialog.message))

    def _said(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.wrong.append(text)

    def _asked(self, url: str) -> None:
        if not url.startswith("file:"):
            self.wrong.append(url)

    def open(self, path: Path) -> None:
        self.page.goto(path.as_uri())
        self.page.get_by_text("Saved report").first.wait_for(timeout=60_000)


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    yield Watched(page)
    page.close()


def test_a_browser_shows_the_report_without_a_server(trace: Trace, tmp_path: Path, watched: Watched) -> None:
    watched.open(export.write(trace, "html", tmp_path / "report.html"))
    page = watched.page
    latency = page.locator(".tile", has_text="Latency p50").locator(".tile-value")
    assert latency.inner_text().endswith("ms")  # of the whole recording: at its end there was no request
    for view, text in (
        ("overview", "seller crashed"),
        ("requests", "/orders"),
        ("findings", "Item.shop"),
        ("supervision", "threading"),
        ("queries", "SELECT shops.id"),
        ("external", "/charge"),
        ("states", "order paid"),
        ("functions", "Order.pay"),
    ):
        page.evaluate(f"location.hash = '#/{view}'")
        page.locator("main").get_by_text(text).first.wait_for(timeout=60_000)
    assert watched.wrong == []


def test_a_report_says_when_it_was_made_of_which_processes_and_offers_only_what_it_holds(
    trace: Trace, tmp_path: Path, watched: Watched
) -> None:
    watched.open(export.write(trace, "html", tmp_path / "report.html"))
    page = watched.page
    zone = page.evaluate("Intl.DateTimeFormat().resolvedOptions().timeZone")
    day = page.evaluate("(at) => PyScope.format.day(at, false)", trace.start_ns / 1e6)
    assert page.locator("[data-span]").inner_text().endswith(f" from {day} ({zone})")
    box = page.locator('[data-chart="Throughput"] .u-over').bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 50, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 150, box["y"] + 40, steps=4)
    page.mouse.up()
    page.evaluate(
        "location.hash = '#/resources'"
    )  # had the drag gone to the flame graph, it would have been before
    page.locator("main").get_by_role("cell", name=str(trace.processes[0].pid)).first.wait_for(timeout=60_000)
    page.go_back()
    page.locator("[data-span]").wait_for(timeout=60_000)
    assert watched.wrong == []


def test_a_report_of_very_many_requests_says_how_many_there_were(tmp_path: Path, watched: Watched) -> None:
    many_requests(tmp_path / "run.pyscope")
    trace = pyscope.load(tmp_path / "run.pyscope")
    watched.open(export.write(trace, "html"))
    watched.page.evaluate("location.hash = '#/requests'")
    tally = watched.page.locator("[data-tally]")
    tally.wait_for(timeout=60_000)
    total = f"{len(trace.scopes):,}".replace(",", "\u202f")
    assert tally.inner_text() == f"1\u202f000, of {total} in the recording"
    watched.page.evaluate("location.hash = '#/functions?q=f19'")
    found = watched.page.get_by_text("searched in the 500 of 2\u202f000 with the most self time")
    found.wait_for(timeout=60_000)


def many_changes(path: Path) -> None:
    """More changes of state, and ends of children, than a page can hold."""
    from pyscope.events.state import STATE_CHANGE, ValueKind
    from pyscope.events.supervision import CHILD

    writer = RecordingWriter(path)
    owner, attribute = (writer.string(text) for text in ("Task", "title"))
    kind, above, child = (writer.string(text) for text in ("child_started", "shop", "seller"))
    for number, at, page in moments(writer, 1500):
        change = [number, 0, 0, ValueKind.LITERAL, ValueKind.TEXT, owner, attribute, 0, 0]
        page.probe(at, STATE_CHANGE.kind, 0, change, ["", "None", "tea"])
        page.probe(at + 10, CHILD.kind, 0, [0, number, kind, above, child, 0], [""])


def test_a_report_says_how_many_changes_and_events_of_supervision_it_leaves_out(
    tmp_path: Path, watched: Watched
) -> None:
    many_changes(tmp_path / "run.pyscope")
    watched.open(export.write(pyscope.load(tmp_path / "run.pyscope"), "html"))
    watched.page.evaluate("location.hash = '#/states'")
    watched.page.get_by_text("1\u202f000 changes, of 1\u202f500 in the recording").wait_for(timeout=60_000)
    watched.page.evaluate("location.hash = '#/supervision'")
    watched.page.get_by_text("the last 300 of 1\u202f500").wait_for(timeout=60_000)


def test_a_hostile_report_runs_nothing_of_the_program(tmp_path: Path, watched: Watched) -> None:
    hostile(tmp_path / "run.pyscope")
    watched.open(export.write(pyscope.load(tmp_path / "run.pyscope"), "html"))
    for view in ("requests", "findings", "functions", "states", "external"):
        watched.page.evaluate(f"location.hash = '#/{view}'")
        watched.page.locator("main").get_by_text("alert(1)").first.wait_for(timeout=60_000)
    assert watched.wrong == []


def test_the_views_of_a_report_that_has_nothing_promise_nothing(tmp_path: Path, watched: Watched) -> None:
    with pyscope.record(tmp_path / "run.pyscope", modules=[__name__]):
        pass
    watched.open(export.write(pyscope.load(tmp_path / "run.pyscope"), "html"))
    for view, text in (
        ("overview", "Nothing found"),
        ("requests", "No requests"),
        ("findings", "Nothing found"),
        ("supervision", "No events"),
        ("queries", "No statements"),
        ("external", "No external calls"),
        ("states", "No state changes"),
    ):
        watched.page.evaluate(f"location.hash = '#/{view}'")
        watched.page.locator("main").get_by_text(text, exact=True).first.wait_for(timeout=60_000)
        assert "appear" not in watched.page.locator("main").inner_text()
    assert watched.wrong == []


def test_the_command_writes_the_page(
    trace: Trace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "report.html"
    done = subprocess.run(
        [sys.executable, "-m", "pyscope", "report", trace.path, "--html", target],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{target} (")
    page = Elements(target.read_text("utf-8"))
    assert page.title.strip() == "run.pyscope – PyScope"
    assert embedded(page)["hello"]["source"]["name"] == "run.pyscope"
    for other in (["--json"], ["--limit", "10"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(["report", trace.path, "--html", str(target), *other])
        assert ended.value.code == 2
        assert "leave out --json, --sort, --function and --limit" in capsys.readouterr().err
