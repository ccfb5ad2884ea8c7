"""The list of requests and their waterfalls, fed by a server that plays the live dashboard's part."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenWindow
from tests.browser.messages import place
from tests.browser.page import open_page, rows, settle, visit
from tests.browser.stage import Stage


@pytest.fixture
def page(open_window: OpenWindow, stage: Stage) -> Page:
    return open_page(open_window(viewport={"width": 1280, "height": 800}), stage.url)


def test_a_new_request_stands_on_top_and_one_that_ends_keeps_its_place(page: Page, stage: Stage) -> None:
    visit(page, "requests")
    opened = stage.service.request(name="GET /slow", outcome="open", status=0)
    stage.send({"type": "traces", "at_ms": 0.0, "requests": [opened]})
    expect(rows(page).first).to_contain_text("GET /slow")
    expect(rows(page).first).to_contain_text("open")
    stage.send({"type": "traces", "at_ms": 0.0, "requests": [stage.service.request(name="GET /next")]})
    stage.send(
        {"type": "traces", "at_ms": 0.0, "requests": [opened | {"outcome": "returned", "status": 204}]}
    )
    expect(rows(page).nth(0)).to_contain_text("GET /next")
    expect(rows(page).nth(1)).to_contain_text("204")
    expect(page.locator("[data-tally]")).to_have_text("122")


def test_a_request_that_is_open_lasts_and_is_not_pushed_out_by_those_that_come_after_it(
    page: Page, stage: Stage
) -> None:
    visit(page, "requests")
    hangs = stage.service.request(name="GET /hangs", route="", outcome="open", status=0, duration_ms=1.0)
    stage.send({"type": "traces", "at_ms": 0.0, "requests": [hangs]})
    stage.send(stage.service.metrics(1, at=hangs["start_ms"] / 1000 + 90))
    expect(rows(page).first).to_contain_text("1 min 30 s")
    for _ in range(3):
        stage.send(stage.service.traces(1000))
    page.get_by_role("button", name="Open", exact=True).click()
    expect(rows(page)).to_have_count(1)
    expect(rows(page).first).to_contain_text("GET /hangs")
    page.get_by_role("button", name="All", exact=True).click()
    stage.send({"type": "traces", "at_ms": 0.0, "requests": [hangs | {"outcome": "returned", "status": 204}]})
    stage.send(stage.service.traces(1))
    expect(rows(page).nth(1)).to_contain_text("GET /hangs")
    expect(page.locator("[data-tally]")).to_have_text("2\u202f000, older ones are not kept")


def test_the_list_shows_the_route_where_it_is_not_the_path(page: Page, stage: Stage) -> None:
    visit(page, "requests")
    named = [
        ("GET /orders/{}/tea", "/orders/{order_id}/{what}"),
        ("GET /orders/{}", "/orders/{order_id}"),
        ("GET /users/{}", "/users/<int:user>"),
        ("GET /orders", "/orders"),
        ("POST /hook", ""),
    ]
    requests = [stage.service.request(name=name, route=route) for name, route in named]
    stage.send({"type": "traces", "at_ms": 0.0, "requests": requests})
    links = rows(page).locator("a[data-open]")
    texts = ["POST /hook", "GET /orders", "GET /users/<int:user>", "GET /orders/{order_id}"]
    texts.append("GET /orders/{}/tea /orders/{order_id}/{what}")
    for number, text in enumerate(texts):
        expect(links.nth(number)).to_have_text(text)


def test_requests_are_searched_and_filtered_and_the_address_keeps_both(page: Page, stage: Stage) -> None:
    visit(page, "requests")
    odd = [
        stage.service.request(name="GET /odd", status=503, outcome="raised", error="OddError: no"),
        stage.service.request(name="GET /odd", status=200, outcome="returned", duration_ms=4000.0),
        stage.service.request(name="Odd.message", kind="message", status=0, outcome="returned", error=""),
    ]
    stage.send({"type": "traces", "at_ms": 0.0, "requests": odd})
    page.locator("[data-search]").fill("odd")
    expect(page.locator("[data-tally]")).to_have_text("3 of 123")
    page.get_by_role("button", name="Errors").click()
    expect(page.locator("[data-tally]")).to_have_text("1 of 123")
    expect(rows(page)).to_contain_text(["503"])
    page.get_by_role("button", name="All", exact=True).click()
    page.get_by_label("Kind").select_option("message")
    expect(rows(page)).to_contain_text(["Odd.message"])
    page.get_by_label("Kind").select_option("")
    page.get_by_label("At least").select_option("1000")
    expect(rows(page)).to_contain_text(["4.00 s"])
    page.reload()
    expect(page.locator("[data-search]")).to_have_value("odd")
    expect(page.get_by_label("At least")).to_have_value("1000")


def test_a_search_is_still_there_after_a_look_at_one_of_what_it_found(page: Page) -> None:
    visit(page, "requests")
    page.get_by_role("button", name="Slowest").click()
    page.locator("[data-search]").fill("tasks")
    page.wait_for_url(re.compile("q=tasks"))
    rows(page).first.get_by_role("link").click()
    page.get_by_role("link", name="older").click()
    page.get_by_role("link", name="← Requests").click()
    expect(page.locator("[data-search]")).to_have_value("tasks")
    expect(page.get_by_role("button", name="Slowest")).to_have_attribute("aria-pressed", "true")
    visit(page, "findings")
    page.get_by_role("button", name="crash").click()
    expect(page.locator(".card")).to_have_count(1)
    page.get_by_role("link", name="Evidence").click()
    expect(page.locator(".card .evidence")).to_be_visible()
    expect(page.locator(".card")).to_have_count(1)
    page.get_by_role("link", name="Hide the evidence").click()
    expect(page.locator(".card .evidence")).to_have_count(0)
    expect(page.locator(".card")).to_have_count(1)


def test_a_list_holds_two_thousand_requests_but_the_document_only_those_in_sight(
    page: Page, stage: Stage
) -> None:
    visit(page, "requests")
    for _ in range(6):
        stage.send(stage.service.traces(500))
    expect(page.locator("[data-tally]")).to_have_text("2\u202f000, older ones are not kept")
    assert rows(page).count() < 60
    newest = stage.service.traces(1)["requests"][0]["id"]
    page.locator(".rows").evaluate("(list) => list.scrollTo(0, list.scrollHeight)")
    expect(page.locator(f'[data-row="1999"][data-id="{int(newest) - 2000}"]')).to_be_visible()
    assert rows(page).count() < 60


def test_what_is_being_read_stays_where_it_is_when_new_requests_come_in(page: Page, stage: Stage) -> None:
    visit(page, "requests")
    page.locator(".rows").evaluate("(list) => list.scrollTo(0, 900)")
    settle(page)
    read = rows(page).nth(12)
    identity, before = read.get_attribute("data-id"), read.bounding_box()
    stage.send(stage.service.traces(40))
    expect(page.locator("[data-tally]")).to_have_text("160")
    settle(page)
    after = page.locator(f'[data-id="{identity}"]').bounding_box()
    assert before is not None
    assert after is not None
    assert after["y"] == before["y"]


def test_another_order_or_search_begins_at_the_top(page: Page, stage: Stage) -> None:
    visit(page, "requests")
    stage.send(stage.service.traces(500))
    stage.send({"type": "traces", "at_ms": 0.0, "requests": [stage.service.request(duration_ms=98_000.0)]})
    expect(page.locator("[data-tally]")).to_have_text("621")
    page.locator(".rows").evaluate("(list) => { list.scrollTop = 5000 }")
    expect(page.locator('[data-row="170"]')).to_be_visible()
    page.get_by_role("button", name="Slowest").click()
    expect(page.locator('[data-row="0"]')).to_contain_text("1 min 38 s")
    expect(page.locator('[data-row="0"]')).to_be_in_viewport()
    page.locator(".rows").evaluate("(list) => { list.scrollTop = 5000 }")
    expect(page.locator('[data-row="170"]')).to_be_visible()
    page.locator("[data-search]").fill("GET")
    expect(page.locator('[data-row="0"]')).to_be_in_viewport()


def test_a_waterfall_draws_spans_on_one_time_axis_and_shows_the_chosen_one(page: Page) -> None:
    visit(page, "requests")
    rows(page).first.get_by_role("link").click()
    expect(page.locator(".request-head h2")).to_have_text("GET /projects/3/dashboard")
    expect(page.get_by_text("14 spans")).to_be_visible()
    spans = page.locator(".rows.spans [data-row]")
    expect(spans.nth(0)).to_contain_text("GET /projects/3/dashboard")
    expect(spans.nth(3)).to_contain_text("36.0 ms")
    whole, part = (spans.nth(row).locator(".span-bar").bounding_box() for row in (0, 3))
    assert whole is not None
    assert part is not None
    assert part["width"] / whole["width"] == pytest.approx(36 / 48, abs=0.02)
    assert (part["x"] - whole["x"]) / whole["width"] == pytest.approx(3 / 48, abs=0.02)
    spans.nth(5).locator("[data-open]").click()
    details = page.get_by_role("complementary", name="Chosen span")
    expect(details).to_contain_text("SELECT users.id, users.name FROM users WHERE users.id = ?")
    expect(details).to_contain_text("dashboard.py:21")
    details.get_by_role("button", name="Zoom to it").click()
    expect(page.locator("[data-reset]")).to_be_visible()
    page.locator("[data-reset]").click()
    page.get_by_role("button", name="Fold taskflow.services.dashboard.project_dashboard").click()
    expect(page.locator(".toolbar .tally")).to_have_text("8 spans")
    page.get_by_role("group", name="Kinds shown").get_by_role("button", name="attempts").click()
    expect(page.locator(".toolbar .tally")).to_have_text("5 spans")


def test_the_span_of_a_call_shows_its_function_before_its_module(page: Page, stage: Stage) -> None:
    answer = stage.answers.waterfall("1")
    name, function = "taskflow.data.repo.SyncRepo.tasks", "SyncRepo.tasks"
    answer["spans"][1] |= {"name": name, "location": place("repo.py", 7, function), "detail": "Task-3"}
    stage.answers.waterfall = lambda _: answer  # type: ignore[method-assign]
    page.evaluate("location.hash = '#/requests/1'")
    span = page.locator(".rows.spans [data-row]").nth(1).locator("[data-open]")
    expect(span).to_have_text("SyncRepo.tasks taskflow.data.repo Task-3")
    expect(span).to_have_attribute("title", f"{name}\nTask-3")


def test_a_request_whose_answer_is_older_than_its_end_is_asked_for_again(page: Page, stage: Stage) -> None:
    whole = stage.answers.waterfall
    answer = whole("1")
    stage.answers.waterfall = lambda _: answer  # type: ignore[method-assign]
    answer["request"] |= {"outcome": "open", "status": 0}
    stage.send({"type": "traces", "at_ms": 0.0, "requests": [stage.service.request(id="1")]})  # it has ended
    page.evaluate("location.hash = '#/requests/1'")
    expect(page.locator(".request-head")).to_contain_text("open")
    answer["request"] |= {"outcome": "returned", "status": 204}
    expect(page.locator(".request-head")).to_contain_text("204")


def test_a_request_that_the_recording_no_longer_holds_is_said_to_be_gone(page: Page) -> None:
    page.evaluate("location.hash = '#/requests/gone'")
    expect(page.locator("main")).to_contain_text("This request is not there")
    expect(page.locator("main")).to_contain_text("No request has this id.")


def test_of_a_request_whose_spans_are_not_kept_it_is_not_said_that_there_were_none(
    page: Page, stage: Stage
) -> None:
    stage.send({"type": "traces", "at_ms": 0.0, "requests": [stage.service.request(id="gone")]})
    page.evaluate("location.hash = '#/requests/gone'")
    expect(page.locator(".rows.spans")).to_contain_text("No request has this id.")
    expect(page.locator("main")).not_to_contain_text("Nothing was recorded")
