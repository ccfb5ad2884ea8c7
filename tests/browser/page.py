"""The dashboard's page as tests see it."""

from __future__ import annotations

from playwright.sync_api import BrowserContext, Locator, Page, expect

VIEWS = [
    "overview", "requests", "findings", "supervision", "queries", "external", "states", "flame", "resources",
    "functions", "losses",
]  # fmt: skip


def open_page(window: BrowserContext, url: str, place: str = "") -> Page:
    """A page that shows `place` (as in the address after #/) and is connected."""
    page = window.new_page()
    page.goto(f"{url}#/{place}" if place else url)
    expect(page.locator("#connection")).to_have_text("Live")
    return page


def visit(page: Page, view: str) -> None:
    """Go to a view as its link in the navigation does, and wait until it is there."""
    page.locator(f'.navigation a[href="#/{view}"]').click()
    expect(page.locator("main")).to_have_attribute("data-view", view)


def rows(page: Page) -> Locator:
    """The rows in sight of the view's list."""
    return page.locator(".rows .body [data-row]")


def card(page: Page, kind: str) -> Locator:
    """The cards of findings of a kind."""
    return page.locator(f'.card[data-kind="{kind}"]')


def settle(page: Page) -> None:
    """Wait until what arrived has been drawn."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
