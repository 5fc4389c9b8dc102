"""The first page: cards of flows, what to do while there is nothing, and what is live."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect
from support.browser import HOSTILE, Visit, events_of, send
from support.served import Client, environment, until

GOOD = dict.fromkeys(("validate-cart", "charge-card", "create-order", "send-receipt"), "success")
BAD = {"validate-cart": "success", "charge-card": "error"}
Open = Callable[..., Visit]


def test_the_three_lines_that_the_empty_page_shows_make_a_run_that_then_appears(
    visit: Open, api: Client, tmp_path: Path
) -> None:
    tab = visit().open()
    lines = tab.locator("pre.paste").inner_text()
    assert len(lines.splitlines()) == 3
    ran = subprocess.run(
        [sys.executable, "-c", lines], env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "hello\n", "")
    card = tab.locator(".card", has_text="hello")
    expect(card).to_be_visible()
    expect(tab.get_by_text("Nothing has arrived yet")).to_have_count(0)
    card.locator(".bar").click()
    expect(tab.locator("h1")).to_contain_text(api.get("/api/runs").json["runs"][0]["runId"])


def test_a_card_tells_how_its_flow_does_and_where_it_fails_most(visit: Open, api: Client) -> None:
    for n in range(6):
        send(api, *events_of("checkout", f"r{n}", BAD if n < 2 else GOOD, ago=600 - n))
    send(api, *events_of("found", "f1", {"one": "success"}))
    tab = visit().open()
    card = tab.locator(".card", has_text="Checkout")
    assert card.locator(".bar").count() == 6
    assert [bar.get_attribute("class") for bar in card.locator(".bar").all()] == ["bar is-error"] * 2 + ["bar is-success"] * 4
    figures = dict(zip(card.locator("dt").all_inner_texts(), card.locator("dd").all_inner_texts(), strict=True))
    assert figures["success"] == "67 %"
    assert figures["runs"] == "6"
    assert figures["failed"] == "2"
    assert "fails most at Charge Card: 2 of the last 6 runs" in " ".join(card.inner_text().split())
    assert "found" in tab.locator("section", has_text="Discovered").inner_text()


def test_nodes_that_no_run_ever_reported_are_named(visit: Open, api: Client) -> None:
    send(api, *events_of("checkout", "r1", {"validate-cart": "success", "charge-card": "success"}))
    card = visit().open().locator(".card", has_text="Checkout")
    assert "never reported: create-order, send-receipt" in " ".join(card.inner_text().split())


def test_a_start_is_on_the_page_by_its_news_alone(visit: Open, api: Client) -> None:
    send(api, *events_of("checkout", "r1", GOOD))
    tab = visit(reads_by_clock=False).open()
    tab.locator(".live-mark.is-live").wait_for()
    running = tab.locator(".card", has_text="Checkout").locator(".bar.is-running")
    assert running.count() == 0
    send(api, *events_of("checkout", "r2", {"validate-cart": "running"}, ago=0))
    running.wait_for()


def test_arrow_keys_go_along_the_strip_and_enter_opens_the_run(visit: Open, api: Client) -> None:
    for n in range(3):
        send(api, *events_of("checkout", f"r{n}", GOOD, ago=60 - n))
    here = visit()
    tab = here.open()
    tab.locator(".bar").last.focus()
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("Enter")
    expect(tab.locator("h1")).to_contain_text("r1")
    assert here.address() == "/run?flow=checkout&run_id=r1"


def test_a_read_that_is_under_way_is_told_from_nothing_being_there(visit: Open) -> None:
    here = visit()
    held: list[object] = []
    here.tab.route("**/api/flows", lambda route: held.append(route))  # noqa: PLW0108 - it looks at the function
    here.tab.goto(here.url)
    expect(here.tab.locator(".loading")).to_have_text("Loading …")
    expect(here.tab.get_by_text("Nothing has arrived yet")).to_have_count(0)
    # The driver hands a request over only while it is asked something.
    until(lambda: here.tab.evaluate("true") and held)
    for route in held:
        route.continue_()  # type: ignore[attr-defined]
    expect(here.tab.get_by_text("Nothing has arrived yet")).to_be_visible()


def test_hostile_names_are_inert_and_lead_to_their_flow(visit: Open, api: Client) -> None:
    send(api, *events_of(HOSTILE, HOSTILE, {HOSTILE: "error"}, error={"name": HOSTILE, "message": HOSTILE, "stack": HOSTILE}))
    here = visit()
    tab = here.open()
    assert tab.locator("main script, main img").count() == 0
    assert tab.title() == "Flows · failpath-otel"
    tab.locator(".card h3 a", has_text="<script>").click()
    expect(tab.locator("h1")).to_contain_text("gnp.exe")
    assert "\\u202e" in tab.locator("h1").inner_text()
    assert tab.locator("main script, main img").count() == 0


@pytest.mark.usefixtures("axe")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_the_page_meets_wcag_aa_and_fits_its_window(visit: Open, api: Client, scheme: str, width: int) -> None:
    send(api, *events_of("checkout", "r1", BAD), *events_of("checkout", "r2", {"validate-cart": "running"}, ago=200))
    send(api, *events_of(HOSTILE, HOSTILE, {HOSTILE: "success"}))
    here = visit(width=width, scheme=scheme)
    here.open().locator(".live-mark.is-live").wait_for()
    assert here.violations() == []
    assert not here.overflows()


@pytest.mark.usefixtures("axe")
def test_the_empty_page_meets_wcag_aa(visit: Open) -> None:
    here = visit()
    here.open()
    assert here.violations() == []
