"""The plain page in a real browser: hostile text, renewal in place, structure, schemes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from support.page_rows import EVIL, FAILED, HOSTILE, STORY, STUCK, Rows, attempt, run_of, serving, step

from failpath_otel.server import display


@pytest.fixture(scope="module")
def browser(chromium_path: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium_path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def rows() -> Rows:
    return Rows(FAILED, STORY, STUCK, EVIL)


@pytest.fixture
def served(rows: Rows) -> Iterator[str]:
    with serving(rows) as address:
        yield address


class Visit:
    """A tab that keeps whatever went wrong in it: script errors, refused content, dialogs, failed requests."""

    def __init__(self, browser: Browser, width: int = 1280, scheme: Any = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.tab: Page = self.context.new_page()
        self.wrong: list[str] = []
        self.tab.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.tab.on("console", lambda message: self.wrong.append(message.text))
        self.tab.on("dialog", lambda dialog: (self.wrong.append(dialog.message), dialog.dismiss())[0])
        self.tab.on("requestfailed", lambda request: self.wrong.append(request.url))


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    visit = Visit(browser)
    yield visit
    visit.context.close()


@pytest.mark.parametrize("width", [1280, 320])
def test_hostile_text_is_inert_in_a_browser(browser: Browser, served: str, width: int) -> None:
    visit = Visit(browser, width)
    for path in (
        "/",
        display.link("/run", flow=HOSTILE, run_id=HOSTILE),
        display.link("/", flow=HOSTILE, q=HOSTILE),
    ):
        visit.tab.goto(served + path, wait_until="networkidle")
        assert visit.tab.title() != "owned"
        assert visit.tab.locator("main script, main img").count() == 0
        assert visit.tab.evaluate("document.documentElement.scrollWidth") <= width
    assert visit.wrong == []
    visit.context.close()


def test_link_of_a_hostile_run_leads_to_that_run(visit: Visit, served: str) -> None:
    visit.tab.goto(served)
    visit.tab.locator(".cell-run a", has_text="<script>").click()
    assert visit.tab.locator("h1").inner_text() == display.plain(HOSTILE)


def test_scheme_of_the_reader_is_followed(browser: Browser, served: str) -> None:
    grounds = set()
    for scheme in ("light", "dark"):
        visit = Visit(browser, scheme=scheme)
        visit.tab.goto(served)
        grounds.add(visit.tab.evaluate("getComputedStyle(document.body).backgroundColor"))
        visit.context.close()
    assert grounds == {"rgb(245, 246, 248)", "rgb(16, 19, 23)"}


def test_structure_is_one_heading_with_landmarks_and_scoped_headers(visit: Visit, served: str) -> None:
    for path in ("/", display.link("/run", flow="checkout", run_id="req_story")):
        visit.tab.goto(served + path)
        assert visit.tab.locator("h1").count() == 1
        assert visit.tab.locator("main").count() == visit.tab.locator("body > header").count() == 1
        assert visit.tab.locator("th:not([scope])").count() == 0
        repeated = "[...document.querySelectorAll('[id]')].map(e => e.id).filter((id, at, all) => all.indexOf(id) !== at)"
        assert visit.tab.evaluate(repeated) == []


def test_new_run_appears_without_a_jump_and_without_losing_what_was_typed(visit: Visit, served: str, rows: Rows) -> None:
    visit.tab.goto(served)
    visit.tab.locator("input[name=q]").fill("half typed")
    rows.listed.insert(0, run_of(step("validate-cart", attempt()), run_id="req_new"))
    visit.tab.locator(".cell-run a", has_text="req_new").wait_for(timeout=10_000)
    assert visit.tab.locator("input[name=q]").input_value() == "half typed"
    assert visit.tab.evaluate("document.activeElement.name") == "q"
    assert visit.wrong == []


def test_renewed_run_keeps_opened_details_and_focus(visit: Visit, served: str, rows: Rows) -> None:
    visit.tab.goto(served + display.link("/run", flow="checkout", run_id="req_failed"))
    summary = visit.tab.locator("#step-2-stack > summary")
    summary.click()
    rows.listed[0] = run_of(*FAILED.steps[:2], step("create-order", attempt()), run_id="req_failed", status="error")
    visit.tab.locator("#step-3.is-success").wait_for(timeout=10_000)
    assert visit.tab.locator("#step-2-stack").get_attribute("open") is not None
    assert visit.tab.evaluate("document.activeElement.parentElement.id") == "step-2-stack"


def test_first_run_replaces_the_empty_state(visit: Visit, served: str, rows: Rows) -> None:
    rows.listed.clear()
    visit.tab.goto(served)
    visit.tab.get_by_text("Nothing has arrived yet").wait_for()
    rows.listed.append(STORY)
    visit.tab.locator(".cell-run a", has_text="req_story").wait_for(timeout=10_000)
