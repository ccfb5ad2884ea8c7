"""Each view of the dashboard's page, fed by a server that plays the live one's part."""

import re
import time

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenWindow
from tests.browser.messages import HOSTILE, Service, place
from tests.browser.page import VIEWS, card, open_page, rows, settle, visit
from tests.browser.stage import Stage

RESOLVED = """(colour) => {
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.color = colour;
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}"""
"""What a colour is called by a browser."""


@pytest.fixture
def page(open_window: OpenWindow, stage: Stage) -> Page:
    return open_page(open_window(viewport={"width": 1280, "height": 800}), stage.url)


def test_the_overview_shows_the_latest_figures_and_leads_to_what_was_found(page: Page, stage: Stage) -> None:
    sample = stage.service.metrics(1)
    sample["samples"][0] |= {
        "throughput": 321.0,
        "p99_ms": 1234.5,
        "overhead_percent": 1.25,
        "lost_events": 7,
    }
    stage.send(sample)
    tiles = page.locator(".tiles")
    expect(tiles).to_contain_text("321/s")
    expect(tiles).to_contain_text("1.23 s")
    expect(tiles).to_contain_text("1.25 %")
    expect(tiles).to_contain_text("7 events lost")
    expect(page.locator("[data-chart] canvas")).to_have_count(4)
    page.get_by_role("link", name=re.compile("Two threads overwrote")).click()
    expect(page.locator(".card .evidence .access")).to_have_count(3)


def test_the_figures_of_a_recording_that_has_ended_are_those_of_all_its_time(
    page: Page, stage: Stage
) -> None:
    sample = stage.service.metrics(1)
    stage.send(
        {**sample, "whole": sample["samples"][0] | {"throughput": 77.0, "p99_ms": 432.1, "start_ms": 0.0}}
    )
    expect(page.locator(".tiles")).to_contain_text("77/s")
    expect(page.locator(".tiles")).to_contain_text("432 ms")
    expect(page.locator('[data-chart="Latency"] .values')).to_contain_text("p99 432 ms")
    plot = page.locator('[data-chart="Latency"] .u-over')
    plot.hover()
    expect(page.locator('[data-chart="Latency"] .values')).not_to_contain_text("p99 432 ms")


def drag(page: Page) -> None:
    """Over some of the first chart's time."""
    plot = page.locator('[data-chart="Throughput"] .u-over')
    box = plot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 40, steps=4)
    page.mouse.up()
    page.wait_for_url(re.compile(r"#/flame\?from=\d+&to=\d+$"))


def test_dragging_over_a_chart_opens_the_flame_graph_of_that_time(page: Page) -> None:
    drag(page)
    expect(page.get_by_role("button", name="Chosen stretch")).to_have_attribute("aria-pressed", "true")


def test_a_finding_says_what_where_why_and_what_to_change(page: Page) -> None:
    visit(page, "findings")
    found = card(page, "n_plus_one_query")
    expect(found).to_contain_text("40 queries for Task.assignee, one for each task")
    expect(found).to_contain_text("dashboard.py:58")
    expect(found).to_contain_text("the statement ran once for each of 40 tasks")
    expect(found).to_contain_text("options(selectinload(Task.assignee))")
    found.get_by_role("link", name="Evidence").click()
    for text in (
        "SELECT users.id, users.name FROM users",
        "SELECT tasks.id, tasks.title",
        "Task.assignee",
        "lazy load",
    ):
        expect(found.locator(".evidence")).to_contain_text(text)
    page.get_by_role("group", name="Kind").get_by_role("button", name=re.compile("crash")).click()
    expect(card(page, "crash")).to_be_visible()
    expect(card(page, "timeout")).to_have_count(0)


def test_a_finding_that_happened_often_has_the_time_of_the_first(page: Page, stage: Stage) -> None:
    visit(page, "findings")
    found = stage.service.findings()
    for one, count in zip(found["findings"], (1, 3), strict=False):
        one |= {"count": count, "time_ms": 1_795_576_758_000.0}
    stage.send(found)
    clock = page.evaluate("PyScope.format.clock(1795576758000, false)")
    cards = page.locator(".card")
    expect(cards.filter(has_text=f"3× first at {clock}")).to_have_count(1)
    expect(cards.locator(".when", has_text=re.compile(f"^at {clock}$"))).to_have_count(1)


def test_the_facts_of_a_slow_call_have_labels_without_units(page: Page) -> None:
    page.evaluate("location.hash = '#/findings/blocking_call_in_event_loop-1'")
    evidence = page.locator(".evidence")
    expect(evidence.locator(".pair", has_text="In all")).to_contain_text("450 ms")
    expect(evidence.locator(".pair", has_text="Thread")).to_contain_text("MainThread")
    expect(evidence).not_to_contain_text("total ms")


def test_the_accesses_of_a_race_stand_side_by_side_with_their_stacks(page: Page) -> None:
    page.evaluate("location.hash = '#/findings/lost_update-1'")
    accesses = page.locator(".access")
    expect(accesses).to_have_count(3)
    places = [accesses.nth(index).bounding_box() for index in range(3)]
    assert len({box["y"] for box in places if box}) == 1
    expect(accesses.nth(1)).to_contain_text("AnyIO worker thread 2")
    expect(accesses.nth(1)).to_contain_text("task_manager.py:93")
    expect(accesses.nth(1).locator(".stack li")).to_have_count(2)
    expect(accesses.nth(2)).to_contain_text("+740 µs")
    expect(page.get_by_text("4 accesses in the middle are not shown.")).to_be_visible()


def test_the_supervision_tree_shows_states_restarts_and_what_happened(page: Page) -> None:
    visit(page, "supervision")
    failed = page.locator('[data-node="ProjectWorker-7"]')
    expect(failed).to_contain_text("failed")
    expect(failed).to_contain_text("3 restarts")
    expect(failed).to_contain_text("RuntimeError: simulated crash")
    expect(failed).to_have_attribute("aria-level", "3")
    expect(page.locator(".event")).to_have_count(4)
    page.get_by_role("button", name="Only failures").click()
    expect(page.locator(".event")).to_have_count(3)
    page.locator('[data-event="child_terminated"]').get_by_role("button", name="Stack").click()
    expect(page.locator(".event .stack li")).to_have_count(2)


def test_what_ended_in_order_is_not_shown_as_an_error(page: Page, stage: Stage) -> None:
    visit(page, "supervision")
    told = stage.service.supervision()
    tree = told["tree"][0] | {"children": []}
    ended = tree | {"name": "valkey", "state": "shutdown", "reason": "exit code 0"}
    event = told["events"][0] | {"kind": "child_shutdown", "reason": "exit code 0"}
    stopped = event | {"child": "actor", "reason": "shutdown", "time_ms": event["time_ms"] + 1}
    stage.send(told | {"tree": [tree | {"children": [ended]}], "events": [event, stopped]})
    expect(page.locator(".event")).to_have_count(2)
    expect(page.locator(".event .error-text")).to_have_count(0)
    expect(page.locator(".event").nth(1)).to_contain_text("exit code 0")
    red = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--bad').trim()")
    expect(page.locator(".node-reason")).to_have_text("exit code 0")
    expect(page.locator(".node-reason")).not_to_have_css("color", page.evaluate(RESOLVED, red))


def test_queries_are_ordered_and_the_findings_on_them_stand_above(page: Page) -> None:
    visit(page, "queries")
    expect(page.locator(".mini")).to_contain_text("Task.assignee")
    expect(rows(page).first).to_contain_text("FROM users")
    page.get_by_role("button", name="Mean").click()
    expect(rows(page).first).to_contain_text("FROM notifications")
    page.locator("[data-search]").fill("projects")
    expect(rows(page)).to_have_count(1)


def test_statements_that_are_left_out_are_counted(page: Page, stage: Stage) -> None:
    answer = stage.answers.queries() | {"total": 345}
    stage.answers.queries = lambda: answer  # type: ignore[method-assign]
    visit(page, "queries")
    expect(page.locator(".toolbar .tally")).to_have_text("5 statements, of 345")


@pytest.mark.parametrize("view", ["queries", "functions"])
def test_a_view_of_what_is_kept_says_since_when(page: Page, stage: Stage, view: str) -> None:
    answer = getattr(stage.answers, view)() | {"since_ms": time.time() * 1000 - 90_000}
    setattr(stage.answers, view, lambda: answer)
    visit(page, view)
    expect(page.locator(".toolbar .tally")).to_have_text(
        re.compile(r" since \d\d:\d\d:\d\d, earlier events are not kept$")
    )


def test_an_external_call_is_drawn_with_its_attempts_and_the_waits_between(page: Page) -> None:
    visit(page, "external")
    page.get_by_role("button", name="Timed out").click()
    expect(rows(page)).to_have_count(4)
    expect(rows(page).first.locator(".attempt.timed_out")).to_have_count(4)
    expect(rows(page).first.locator(".backoff")).to_have_count(3)
    rows(page).first.get_by_role("link").click()
    expect(page.locator(".picked tbody tr")).to_have_count(4)
    expect(page.locator(".picked tbody tr").nth(3)).to_contain_text("800 ms")
    expect(page.locator(".picked")).to_contain_text("TimeoutError: no answer")


def test_state_changes_are_diffs_on_a_time_line(page: Page, stage: Stage) -> None:
    visit(page, "states")
    change = stage.service.state(1)["changes"][0] | {"old": None, "new": {"a": 1}, "key": "99"}
    stage.send({"type": "state", "changes": [change]})
    expect(rows(page).first.locator("del")).to_have_text("None")
    expect(rows(page).first.locator("ins")).to_have_text('{"a":1}')
    expect(page.locator(".lane").filter(has_text="Task 99.status")).to_be_visible()
    assert page.locator(".lane").count() <= 8


def test_the_flame_graph_zooms_and_says_how_much_a_search_covers(page: Page) -> None:
    visit(page, "flame")
    bars = page.locator(".flame-bar")
    expect(bars.nth(1)).to_be_visible()
    count = bars.count()
    below = page.locator('[data-path="0.0"]')
    narrow = below.bounding_box()
    bars.nth(1).click()
    expect(page.locator("[data-reset]")).to_be_visible()
    box, whole = bars.nth(1).bounding_box(), bars.nth(0).bounding_box()
    assert box is not None
    assert whole is not None
    assert box["width"] == pytest.approx(whole["width"], rel=0.02)
    wide = below.bounding_box()
    assert narrow is not None
    assert wide is not None
    assert wide["width"] > narrow["width"] * 1.1
    page.keyboard.press("Escape")
    expect(page.locator("[data-reset]")).to_have_count(0)
    assert bars.count() == count
    page.locator("[data-search]").fill("repo")
    expect(page.locator("[data-found]")).to_contain_text("% of the time")
    assert page.locator(".flame-bar.match").count() > 0
    page.locator("[data-search]").press("Escape")
    page.locator(".flame-bar.focused").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("[data-reset]")).to_be_visible()


def test_a_zoom_stays_with_its_function_when_the_order_of_callees_changes(page: Page, stage: Stage) -> None:
    def node(name: str, value: float, *children: object) -> dict[str, object]:
        at = {"name": name, "value": value, "self_ms": 0.0, "calls": 1, "location": place("shop.py", 1, name)}
        return at | {"children": list(children)}

    def answer(*children: object) -> None:
        window = {"from_ms": 0.0, "to_ms": 1.0}
        stage.answers.flame = lambda: node("all", 10.0, *children) | {"window": window}  # type: ignore[method-assign]

    answer(node("shop.sell", 6.0, node("shop.pay", 3.0)), node("shop.buy", 4.0))
    visit(page, "flame")
    page.locator('[data-path="0.0"]').click()
    expect(page.locator(".flame .crumbs")).to_contain_text("all › shop.sell › shop.pay")
    page.locator("[data-search]").press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).not_to_be_visible()
    expect(page.locator(".flame .crumbs")).to_contain_text("all › shop.sell › shop.pay")
    answer(node("shop.buy", 7.0), node("shop.sell", 3.0, node("shop.pay", 2.0)))
    page.get_by_role("button", name="Refresh").click()
    expect(page.locator(".flame-facts")).to_contain_text("20.0 % of the time")
    expect(page.locator(".flame .crumbs")).to_contain_text("all › shop.sell › shop.pay")
    answer(node("shop.buy", 7.0))
    page.get_by_role("button", name="Refresh").click()
    expect(page.locator("[data-reset]")).to_have_count(0)
    expect(page.locator(".flame-facts")).to_contain_text("100 % of the time")


def test_resources_are_charts_and_a_table_of_processes(page: Page) -> None:
    visit(page, "resources")
    expect(page.locator("[data-chart] canvas")).to_have_count(4)
    expect(page.locator('[data-chart="Mailboxes"]')).to_contain_text("ProjectWorker-3")
    expect(page.get_by_role("row", name=re.compile("4250 report"))).to_be_visible()


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0.0, "0 ms"), (0.0004, "0.4 µs"), (0.00996, "10 µs"), (0.9994, "999 µs"), (0.9996, "1.00 ms"),
        (9.996, "10.0 ms"), (99.96, "100 ms"), (999.4, "999 ms"), (999.6, "1.00 s"), (59_940.0, "59.9 s"),
        (59_970.0, "1 min 0 s"), (119_700.0, "2 min 0 s"), (3_599_700.0, "1 h 0 min"), (7_199_000.0, "2 h 0 min"),
    ],
)  # fmt: skip
def test_a_duration_is_rounded_before_its_unit_is_chosen(page: Page, milliseconds: float, text: str) -> None:
    assert page.evaluate("(value) => PyScope.format.ms(value)", milliseconds) == text


def test_a_chart_of_one_sample_has_its_time(open_window: OpenWindow) -> None:
    service = Service()
    stage = Stage(service)
    stage.greeting = [service.hello(), service.metrics(1, at=1_795_576_758.5)]
    with stage.open():
        page = open_page(open_window(viewport={"width": 1280, "height": 800}), stage.url)
        drag(page)
        begin, end = re.findall(r"=(\d+)", page.url)
    assert 1_795_576_758_000 <= int(begin) < int(end) <= 1_795_576_759_000


def test_losses_of_which_the_number_is_not_known_are_not_nothing(page: Page, stage: Stage) -> None:
    losses = stage.service.losses()
    stage.send(losses | {"rows": [losses["rows"][0] | {"count": 0}]})
    expect(page.locator(".tile", has_text="Overhead")).to_contain_text("see Losses")
    visit(page, "losses")
    expect(page.get_by_role("row", name=re.compile("quieted not known"))).to_be_visible()
    stage.send({"type": "losses", "rows": []})
    visit(page, "overview")
    expect(page.locator(".tile", has_text="Overhead")).to_contain_text("nothing lost")


def test_the_errors_that_are_kept_are_of_what_the_rate_counts(page: Page, stage: Stage) -> None:
    of_request = {"status": 500, "outcome": "raised"}
    crashed = {"kind": "message", "status": 0, "outcome": "raised"}
    rows = [stage.service.request(**values) for values in (of_request, crashed, crashed)]
    tile = page.locator(".tile", has_text=re.compile("^Errors")).locator(".tile-detail")
    before = int(tile.inner_text().split()[0])
    stage.send({"type": "traces", "at_ms": 0.0, "requests": rows})
    expect(tile).to_have_text(f"{before + 1} kept")


def test_functions_and_losses_are_tables(page: Page) -> None:
    visit(page, "functions")
    expect(rows(page).first).to_contain_text("TaskService.step_0")
    expect(page.locator(".tally")).to_have_text("200 functions")
    visit(page, "losses")
    expect(page.get_by_role("row", name=re.compile("quieted 120.345"))).to_be_visible()


def test_names_of_the_traced_program_are_text_in_every_view(open_window: OpenWindow) -> None:
    text = " ".join(HOSTILE)
    with Stage(Service(text=text)).open() as stage:
        page = open_page(open_window(), stage.url)
        for view in VIEWS:
            visit(page, view)
            if view in ("queries", "flame", "functions"):
                expect(page.locator(".rows .body [data-row], .flame-bar").first).to_be_visible()
            settle(page)
        kinds = ("n_plus_one_query", "lost_update", "crash", "timeout")
        for shown in ("requests/1", *(f"findings/{kind}-1" for kind in kinds)):
            page.evaluate("(place) => { location.hash = `#/${place}` }", shown)
            for name in HOSTILE:
                expect(page.locator("main")).to_contain_text(name)
            assert page.locator("#app img, #app script, #app svg").count() == 0
        assert page.title().startswith(HOSTILE[0])


def test_places_without_a_file_and_empty_lists_are_no_trouble(open_window: OpenWindow) -> None:
    stage = Stage()
    stage.greeting = [
        stage.service.hello(name="empty", processes=[], mode=None, modules=None, state="waiting", recording=False),
        {"type": "findings", "at_ms": 0.0, "total": 1, "findings": [
            stage.service.findings()["findings"][4] | {"where": None, "details": {}, "count": 1, "time_ms": 0.0},
        ]},
        {"type": "metrics", "samples": [{
            "at_ms": 1.0, "throughput": 0.0, "p50_ms": None, "p90_ms": None, "p99_ms": None, "errors_per_s": 0.0,
            "cpu_percent": None, "memory_bytes": None, "peak_memory_bytes": None, "events_per_s": 0.0,
            "calls_per_s": 0.0, "overhead_percent": None, "lost_events": 0, "mailboxes": {}, "processes": [],
        }]},
        {"type": "external", "calls": [stage.service.external(1)["calls"][0] | {
            "attempts": [], "duration_ms": 0.0, "location": None, "scope": "", "outcome": "open"}]},
        {"type": "state", "changes": [stage.service.state(1)["changes"][0] | {
            "location": place("", 0, ""), "scope": ""}]},
        {"type": "of a later version", "anything": 1},
    ]  # fmt: skip
    with stage.open():
        page = open_page(open_window(), stage.url)
        for view in VIEWS:
            visit(page, view)
            settle(page)
            expect(page.get_by_text("This view failed")).to_have_count(0)
