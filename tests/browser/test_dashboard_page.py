"""The dashboard's page as a whole: by keyboard, on a phone, for screen readers; connections, controls, load."""

import re
import time
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from benchmarks.page import heap_and_nodes
from tests.browser.conftest import OpenWindow
from tests.browser.messages import Service
from tests.browser.page import VIEWS, card, open_page, rows, settle, visit
from tests.browser.stage import Stage

PHONE = {"width": 360, "height": 740}
PLACES = [*VIEWS, "requests/1", "findings/n_plus_one_query-1", "findings/lost_update-1", "findings/timeout-1"]


@pytest.fixture
def page(open_window: OpenWindow, stage: Stage) -> Page:
    return open_page(open_window(viewport={"width": 1280, "height": 800}), stage.url)


def show(page: Page, place: str) -> None:
    """Go to a place and wait until what it asks the server for is there."""
    page.evaluate("(place) => { location.hash = `#/${place}` }", place)
    expect(page.locator("main")).to_have_attribute("data-view", place.split("/")[0])
    if place in ("queries", "functions", "requests/1"):
        expect(rows(page).first).to_be_visible()
    if place == "flame":
        expect(page.locator(".flame-bar").first).to_be_visible()
    settle(page)


def objections(page: Page) -> list[tuple[str, str, str]]:
    """What axe finds: the rule, an element that breaks it, and why."""
    if page.evaluate("typeof axe") == "undefined":
        page.evaluate(Axe().axe_script)
    found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    return [(one["id"], one["nodes"][0]["html"][:200], one["nodes"][0]["failureSummary"]) for one in found]


@pytest.mark.parametrize(
    ("scheme", "places"),
    [("light", PLACES), ("dark", ["overview", "states", "external", "requests/1", "findings/lost_update-1"])],
)
def test_axe_finds_nothing_to_object_to(
    open_window: OpenWindow, stage: Stage, scheme: Any, places: list[str]
) -> None:
    # Few rows in sight: axe looks at every one of them.
    window = open_window(
        color_scheme=scheme, reduced_motion="reduce", viewport={"width": 1280, "height": 420}
    )
    page = open_page(window, stage.url)
    for place in places:
        show(page, place)
        assert objections(page) == [], place
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert objections(page) == []


def test_no_view_is_wider_than_a_phone(open_window: OpenWindow, stage: Stage) -> None:
    page = open_page(open_window(viewport=PHONE), stage.url)
    for place in PLACES:
        show(page, place)
        widths = page.evaluate(
            "[document.documentElement.scrollWidth, document.querySelector('main').scrollWidth]"
        )
        assert max(widths) <= PHONE["width"], place
    bar = page.get_by_role("navigation").bounding_box()
    assert bar is not None
    assert bar["y"] + bar["height"] == pytest.approx(PHONE["height"], abs=1)


@pytest.mark.parametrize("size", [PHONE, {"width": 1280, "height": 800}])
def test_names_of_any_length_leave_the_page_its_width_and_its_state(
    open_window: OpenWindow, size: dict[str, int]
) -> None:
    with Stage(Service(name="n" * 3000, text="n" * 300)).open() as stage:
        page = open_page(open_window(viewport=size), stage.url)
        for place in PLACES:
            show(page, place)
            wide, main = page.evaluate(
                "[document.documentElement.scrollWidth, document.querySelector('main').scrollWidth]"
            )
            assert wide <= size["width"], place
            assert main <= size["width"], place
        badge = page.locator(".source .badge")
        assert badge.evaluate("(badge) => badge.scrollWidth <= badge.clientWidth")


def test_keys_choose_views_search_and_walk_through_lists(page: Page) -> None:
    page.keyboard.press("2")
    expect(page.locator("main")).to_have_attribute("data-view", "requests")
    page.keyboard.press("g")
    page.keyboard.press("l")
    expect(page.locator("main")).to_have_attribute("data-view", "losses")
    page.keyboard.press("g")
    page.keyboard.press("r")
    expect(page.locator("main")).to_have_attribute("data-view", "requests")
    page.keyboard.press("/")
    expect(page.locator("[data-search]")).to_be_focused()
    page.keyboard.type("3 g l ?")  # no keys of the page while one types
    expect(page.locator("[data-search]")).to_have_value("3 g l ?")
    page.keyboard.press("Escape")
    expect(page.locator("[data-search]")).to_have_value("")
    rows(page).first.get_by_role("link").focus()
    for _ in range(40):  # beyond what is in sight
        page.keyboard.press("ArrowDown")
        settle(page)
    expect(page.locator('[data-row="40"] [data-open]')).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".request-head")).to_be_visible()
    expect(page.locator("main")).to_be_focused()  # the list that had the focus is gone
    page.go_back()
    expect(page.locator("[data-tally]")).to_have_text("120")
    expect(page.locator("main")).to_be_focused()


def test_the_first_tab_skips_to_the_view(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the view")
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


def test_while_paused_the_page_stands_still_and_afterwards_has_missed_nothing(
    page: Page, stage: Stage
) -> None:
    visit(page, "requests")
    page.locator("body").press(" ")
    expect(page.locator("[data-pause]")).to_have_text("Resume")
    stage.send(stage.service.traces(30))
    stage.send({"type": "status", "state": "waiting", "message": "told while paused", "at_ms": 0.0})
    expect(page.locator("main")).to_contain_text("told while paused")
    expect(page.locator("[data-tally]")).to_have_text("120")
    page.locator("[data-pause]").click()
    expect(page.locator("[data-tally]")).to_have_text("150")


def test_the_colours_follow_the_system_until_one_is_chosen_which_is_remembered(
    open_window: OpenWindow, stage: Stage
) -> None:
    page = open_page(open_window(color_scheme="dark"), stage.url)
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.locator("[data-theme-toggle]").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    light = page.evaluate(background)
    assert light != dark
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    assert page.evaluate(background) == light


def test_a_page_that_loses_its_server_says_so_and_catches_up_with_the_next_one(
    open_window: OpenWindow,
) -> None:
    window = open_window()
    with Stage().open() as first:
        page = open_page(window, first.url)
        visit(page, "requests")
        expect(page.locator("[data-tally]")).to_have_text("120")
    expect(page.locator("#connection")).to_contain_text("Reconnecting")
    expect(page.locator('[data-banner="connection"]')).to_contain_text("may be out of date")
    second = Stage()
    second.greeting = [second.service.hello(kind="recording", name="restarted"), second.service.traces(3)]
    with second.open(first.port):
        expect(page.locator("#connection")).to_have_text("Live")
        expect(page.locator('[data-banner="connection"]')).to_have_count(0)
        expect(page.locator(".source")).to_contain_text("restarted")
        expect(page.locator("[data-tally]")).to_have_text("3")  # what the first one told is gone


def test_a_dropped_connection_is_taken_up_again_where_one_was(page: Page, stage: Stage) -> None:
    show(page, "findings/lost_update-1")
    stage.busy = True
    stage.drop()
    expect(page.locator("#connection")).to_contain_text("Reconnecting")
    page.get_by_role("button", name="Try now").click()
    stage.busy = False
    expect(page.locator("#connection")).to_have_text("Live")
    expect(card(page, "lost_update").locator(".access")).to_have_count(3)


def test_a_page_whose_token_is_no_longer_right_says_that_instead_of_waiting(page: Page, stage: Stage) -> None:
    stage.refusing = True
    stage.drop()
    expect(page.locator('[data-banner="connection"]')).to_contain_text("current token")
    expect(page.locator("#connection")).to_have_text("Refused")
    stage.refusing = False
    expect(page.locator("#connection")).to_have_text("Live")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("lost", "Process 4242 ended without closing its recording."),
        ("ended", "The recording has ended."),
        ("error", "The recording was written by format 9; this PyScope reads up to 4."),
        ("waiting", "There is no process 99999."),
    ],
)
def test_what_became_of_the_source_is_said_on_every_view(
    page: Page, stage: Stage, state: str, message: str
) -> None:
    stage.send({"type": "status", "state": state, "message": message, "at_ms": time.time() * 1000})
    for view in ("overview", "flame"):
        visit(page, view)
        expect(page.locator(f'[data-banner="{state}"]')).to_have_text(message)
        expect(page.locator("#connection")).to_have_text("Connected")
    stage.send({"type": "status", "state": "live", "message": "", "at_ms": time.time() * 1000})
    expect(page.locator(f'[data-banner="{state}"]')).to_have_count(0)


def test_controls_are_sent_with_the_secret_and_their_answers_shown(page: Page, stage: Stage) -> None:
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("stop: done")).to_be_visible()
    page.get_by_role("button", name="Dump").click()
    expect(page.get_by_text("The disk is full.")).to_be_visible()
    assert stage.posted == [("stop", "a-token"), ("dump", "a-token")]
    stage.send(stage.service.hello(recording=False, state="stopped"))
    expect(page.get_by_role("button", name="Start")).to_be_visible()
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    expect(page.get_by_role("link", name="Download")).to_have_attribute(
        "href", re.compile("/scope/api/download$")
    )
    told = stage.service.hello()
    told["controls"] = {"read_only": True, "start": True, "stop": True, "dump": True, "download": False}
    stage.send(told)
    expect(page.get_by_text("read-only")).to_be_visible()
    expect(page.locator("[data-control]")).to_have_count(0)


def held(page: Page) -> tuple[float, float]:
    """Bytes of the page's heap and nodes of its documents, of which many may be in no document any more."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    found = heap_and_nodes(session)
    session.detach()
    return found


@pytest.mark.parametrize("view", ["requests", "external", "states"])
def test_what_has_been_drawn_is_not_kept(page: Page, stage: Stage, view: str) -> None:
    visit(page, view)

    def flood(messages: int) -> None:
        for _ in range(messages):
            stage.send(stage.service.traces(40))
            stage.send(stage.service.state(40))
            stage.send(stage.service.external(40))
            time.sleep(0.05)
        settle(page)

    flood(80)  # as many rows as it keeps
    later = held(page)
    for _ in range(4):  # on a busy machine the first may not have been drawn in full
        (heap, nodes), _ = later, flood(80)
        later = held(page)
        if later[0] <= heap * 1.2 and later[1] <= nodes * 1.05:
            return
    pytest.fail(f"bytes and nodes still grow: {(heap, nodes)}, then {later}")


def test_under_a_thousand_events_a_second_the_page_stays_small_and_answers(page: Page, stage: Stage) -> None:
    visit(page, "requests")
    elements = "document.querySelectorAll('*').length"

    def flood(messages: int) -> None:
        for _ in range(messages):
            stage.send(stage.service.traces(30))
            stage.send(stage.service.state(30))
            stage.send(stage.service.external(15))
            stage.send(stage.service.metrics(1))
            time.sleep(0.05)

    flood(40)
    page.locator("[data-search]").fill("dashboard")
    expect(page.locator("[data-tally]")).to_contain_text(" of ")
    page.locator("[data-search]").fill("")
    settle(page)
    before = page.evaluate(elements)
    flood(40)
    last = stage.service.request(name="GET /last")
    stage.send({"type": "traces", "at_ms": 0.0, "requests": [last]})
    expect(rows(page).first).to_contain_text("GET /last")
    expect(page.locator("[data-tally]")).to_have_text("2\u202f000, older ones are not kept")
    assert page.evaluate(elements) <= before * 1.2
    for view in ("states", "external", "overview"):
        visit(page, view)
        settle(page)
    assert page.evaluate("PyScope.store.read('metrics').length") <= 600
    assert page.evaluate("PyScope.store.read('state').length") == 2000
    assert page.evaluate("PyScope.store.read('external').length") == 500
