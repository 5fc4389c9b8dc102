"""The page of a flow: its graph, the grid of steps and runs, where runs fail first, which errors, and how long they take."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from support.browser import HOSTILE, Visit, events_of, send
from support.served import Client

GOOD = dict.fromkeys(("validate-cart", "charge-card", "create-order", "send-receipt"), "success")
SKIPS = GOOD | {"send-receipt": "skipped"}
BAD = {"validate-cart": "success", "charge-card": "error"}
Open = Callable[..., Visit]


def cells(tab: Page, row: str) -> list[str]:
    """What a row of the grid says, the newest run first."""
    labels = tab.locator(f"[role=row][aria-label='{row}'] [role=gridcell]").all()
    return [(cell.get_attribute("aria-label") or "").rpartition(": ")[2] for cell in labels]


def made(api: Client) -> None:
    """Five runs: good, skipping, failed, failed, and one that runs; the newest last."""
    for n, steps in enumerate((GOOD, SKIPS, BAD, BAD, {"validate-cart": "success", "charge-card": "running"})):
        send(api, *events_of("checkout", f"r{n}", steps, ago=5 - n))


def test_the_grid_shows_each_step_of_each_run_the_newest_first(visit: Open, api: Client) -> None:
    made(api)
    tab = visit().open("/flow", flow="checkout")
    assert cells(tab, "run") == ["running", "error", "error", "success", "success"]
    assert cells(tab, "Charge Card") == ["running", "error", "error", "success", "success"]
    assert cells(tab, "Send Receipt") == ["missing", "missing", "missing", "skipped", "success"]
    shapes = {use.get_attribute("href") for use in tab.locator("[role=gridcell] use").all()}
    assert shapes == {f"#grid-mark-{look}" for look in ("running", "error", "success", "skipped", "missing")}


def test_the_grid_is_read_and_opened_by_the_keyboard(visit: Open, api: Client) -> None:
    made(api)
    here = visit()
    tab = here.open("/flow", flow="checkout")
    tab.get_by_role("grid").focus()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowDown")
    told = tab.locator(".grid-detail").first
    expect(told).to_contain_text("r3 Charge Card error CardDeclined: insufficient funds")
    active = tab.get_by_role("grid").get_attribute("aria-activedescendant")
    assert tab.locator(f"#{active}").get_attribute("aria-label") == "r3: error"
    tab.keyboard.press("Enter")
    expect(tab.locator("h1")).to_contain_text("r3")
    assert here.address() == "/run?flow=checkout&run_id=r3&step=charge-card"


def test_a_pointed_mark_is_told_in_words_and_a_click_opens_its_run(visit: Open, api: Client) -> None:
    made(api)
    tab = visit().open("/flow", flow="checkout")
    cell = tab.locator("[role=gridcell][aria-label='r2: error'] use").first
    cell.hover()
    expect(tab.locator(".grid-detail").first).to_contain_text("r2")
    cell.click()
    expect(tab.locator("h1")).to_contain_text("r2")


def test_the_steps_that_fail_first_are_ranked_and_errors_of_one_kind_are_one_line(visit: Open, api: Client) -> None:
    made(api)
    for n in (1, 2, 3):
        error = {"name": "TimeoutError", "message": f"no answer from 10.0.0.{n} within 1500 ms", "stack": None}
        send(api, *events_of("checkout", f"t{n}", {"validate-cart": "error"}, error=error))
    tab = visit().open("/flow", flow="checkout")
    ranking = [" ".join(row.inner_text().split()) for row in tab.locator(".ranking li").all()]
    assert ranking == ["Validate Cart 3 38 %", "Charge Card 2 25 %"]
    errors = tab.locator(".errors tbody tr")
    expect(errors).to_have_count(2)
    timeouts = errors.filter(has_text="TimeoutError")
    assert timeouts.locator("td").first.inner_text() == "3"
    timeouts.locator("a").click()
    expect(tab.locator("h1")).to_contain_text("t")


def test_a_chosen_step_stands_in_the_address_and_narrows_the_errors(visit: Open, api: Client) -> None:
    made(api)
    here = visit()
    tab = here.open("/flow", flow="checkout")
    tab.locator(".ranking a", has_text="Charge Card").click()
    expect(tab.locator(".chosen-step")).to_contain_text("first to fail in 2")
    assert here.address() == "/flow?flow=checkout&step=charge-card"
    tab.keyboard.press("Escape")
    expect(tab.locator(".chosen-step")).to_have_count(0)


def test_a_node_that_no_run_reported_is_told_apart_in_the_graph(visit: Open, api: Client) -> None:
    send(api, *events_of("checkout", "r", {"validate-cart": "success", "charge-card": "success"}))
    tab = visit().open("/flow", flow="checkout", step="send-receipt")
    expect(tab.locator(".chosen-step")).to_contain_text("No run has ever reported this step")
    expect(tab.get_by_label("Graph of the flow")).to_contain_text("never reported")


def test_the_window_can_be_moved_and_says_what_it_shows(visit: Open, api: Client) -> None:
    for n in range(40):
        send(api, *events_of("checkout", f"r{n:02}", GOOD, ago=100 - n))
    here = visit()
    tab = here.open("/flow", flow="checkout", last="30")
    assert len(cells(tab, "run")) == 30
    tab.get_by_role("link", name="Older").click()
    expect(tab.locator("[role=row][aria-label=run] [role=gridcell]")).to_have_count(10)
    assert "cursor=" in here.address()
    tab.get_by_role("link", name="Newest").click()
    expect(tab.locator("[role=row][aria-label=run] [role=gridcell]")).to_have_count(30)


def test_new_runs_come_into_the_grid_and_what_was_scrolled_to_stays(visit: Open, api: Client) -> None:
    for n in range(120):
        send(api, *events_of("checkout", f"r{n:03}", {"validate-cart": "success"}, ago=300 - n))
    tab = visit(width=800).open("/flow", flow="checkout", last="300")
    tab.locator(".live-mark.is-live").wait_for()
    box = tab.locator(".grid-box")
    box.evaluate("box => { box.scrollLeft = 700; }")
    mark = tab.locator("[role=gridcell][aria-label^='r080']").first
    mark.wait_for(state="attached")
    before = mark.bounding_box()
    send(api, *events_of("checkout", "newest", GOOD, ago=0.1))
    expect(tab.get_by_role("grid")).to_have_attribute("aria-colcount", "121")
    assert mark.bounding_box() == before


def test_a_thousand_runs_draw_only_the_columns_in_view(visit: Open, api: Client) -> None:
    for n in range(1000):
        send(api, *events_of("checkout", f"r{n:04}", {"validate-cart": "success"}, ago=2000 - n))
    tab = visit().open("/flow", flow="checkout", last="1000")
    expect(tab.get_by_role("grid")).to_have_attribute("aria-colcount", "1000")
    assert tab.locator("[role=gridcell]").count() < 5 * 120
    tab.get_by_role("grid").focus()
    tab.keyboard.press("End")
    expect(tab.locator(".grid-detail").first).to_contain_text("r0000")


def test_a_flow_that_nobody_knows_says_what_to_do(visit: Open) -> None:
    here = visit()
    tab = here.open("/flow", flow="nope")
    expect(tab.locator("h1")).to_have_text("nope is not known")
    here.wrong.clear()  # the browser's own line on the answer 404
    tab = here.open("/flow")
    expect(tab.locator("h1")).to_have_text("This address names no flow")


@pytest.mark.usefixtures("axe")
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (360, "light")])
def test_the_page_meets_wcag_aa_and_fits_its_window(visit: Open, api: Client, width: int, scheme: str) -> None:
    made(api)
    send(
        api, *events_of("checkout", HOSTILE, {HOSTILE: "error"}, error={"name": HOSTILE, "message": HOSTILE, "stack": HOSTILE})
    )
    here = visit(width=width, scheme=scheme)
    here.open("/flow", flow="checkout", step="charge-card").locator(".live-mark.is-live").wait_for()
    assert here.violations() == []
    assert not here.overflows()
    assert here.tab.locator("main script, main img").count() == 0


def test_of_many_kinds_of_errors_the_newest_are_shown_and_all_at_a_click(visit: Open, api: Client) -> None:
    for n in range(15):
        error = {"name": f"Kind{chr(65 + n)}Error", "message": "", "stack": None}
        send(api, *events_of("checkout", f"r{n}", {"validate-cart": "error"}, ago=60 - n, error=error))
    here = visit()
    tab = here.open("/flow", flow="checkout")
    rows = tab.locator(".errors tbody tr")
    expect(rows).to_have_count(8)
    expect(rows.first).to_contain_text("KindOError")
    tab.get_by_role("link", name="All 15 kinds").click()
    expect(rows).to_have_count(15)
    assert here.address() == "/flow?flow=checkout&errors=all"


def test_a_step_that_seldom_fails_is_not_marked_as_one_that_fails(visit: Open, api: Client) -> None:
    for n in range(30):
        send(api, *events_of("checkout", f"r{n}", BAD if n == 3 else GOOD, ago=60 - n))
    node = visit().open("/flow", flow="checkout").locator(".graph .node", has_text="97 % success")
    expect(node).to_contain_text("Charge Card")
    assert "is-success" in (node.get_attribute("class") or "")
