"""A run beside another one, and a run as a file that needs nothing but itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from support.browser import HOSTILE, Visit, events_of, send
from support.run_page import CHECKOUT, failed, good, row, settings_with_flows
from support.served import Client

from failpath_otel.server.settings import Settings

Open = Callable[..., Visit]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_with_flows(tmp_path)


def test_the_comparison_with_the_last_good_run_tells_what_differs_and_leaves_out_what_does_not(
    visit: Open, api: Client
) -> None:
    good(api, metadata={"region": "eu", "cart": 1, "coupon": "x"})
    failed(api, metadata={"region": "us", "cart": 1, "gift": True})
    here = visit()
    tab = here.open("/run", flow="checkout", run_id="bad")
    tab.get_by_role("button", name="Compare with the last good run").click()
    assert here.address() == "/run?flow=checkout&run_id=bad&compare=good"
    table = tab.locator(".compared")
    charge = table.locator("tbody", has_text="Charge Card").inner_text()
    assert "1 attempt" in charge
    assert "2 attempts" in charge
    assert "CardDeclined: insufficient funds" in charge
    metadata = [" ".join(each.split()) for each in table.locator("tbody").first.locator(".compared-metadata").all_inner_texts()]
    assert metadata == ["changed region eu us", "added gift – true", "gone coupon x –"]
    assert "missing: a step before it failed" in table.locator("tbody", has_text="Create Order").inner_text()
    tab.keyboard.press("c")
    expect(table).to_have_count(0)


@pytest.mark.parametrize(("before", "now"), [(200, 240), (2, 8)])
def test_durations_that_are_alike_or_short_are_no_difference(visit: Open, api: Client, before: float, now: float) -> None:
    good(api, "before", ago=500, millis=before)
    good(api, "now", ago=400, millis=now)
    tab = visit().open("/run", flow="checkout", run_id="now", compare="before")
    expect(tab.locator(".compare-whole")).to_contain_text("No step differs: 5 steps went alike.")


def test_a_duration_that_tells_something_is_a_difference(visit: Open, api: Client) -> None:
    good(api, "before", ago=500, millis=20)
    good(api, "now", ago=400, millis=200)
    tab = visit().open("/run", flow="checkout", run_id="now", compare="before")
    expect(tab.locator(".compared tbody", has_text="Charge Card")).to_contain_text("10× as long")


def test_another_run_to_compare_with_can_be_named(visit: Open, api: Client) -> None:
    good(api)
    failed(api)
    here = visit()
    tab = here.open("/run", flow="checkout", run_id="good", compare="bad")
    tab.get_by_label("Id of another run").fill("nothing")
    tab.get_by_label("Id of another run").press("Enter")
    expect(tab.locator(".compare")).to_contain_text("of this flow is kept")
    assert here.address() == "/run?flow=checkout&run_id=good&compare=nothing"
    here.wrong.clear()  # the browser tells of each 404


def exported(here: Visit, folder: Path) -> Page:
    """The page's file, opened from disk in a tab of its own without the server."""
    with here.tab.expect_download() as download:
        here.tab.keyboard.press("e")
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    tab = here.context.new_page()
    tab.on("console", lambda message: here.wrong.append(message.text))
    tab.on("pageerror", lambda error: here.wrong.append(str(error)))
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(path.as_uri(), wait_until="load")
    assert asked == [path.as_uri()]
    return tab


def test_the_exported_file_shows_all_of_the_run_by_itself(visit: Open, api: Client, tmp_path: Path) -> None:
    failed(api, metadata={"order": {"lines": [1, 2]}})
    here = visit()
    here.open("/run", flow="checkout", run_id="bad")
    tab = exported(here, tmp_path)
    assert tab.title() == "bad · checkout"
    assert tab.locator(".graph .node").count() == 5
    assert tab.locator(".waterfall-row").count() == 5
    assert tab.locator(".lapse").count() == 3
    text = tab.locator("body").inner_text()
    assert all(key in text for key in CHECKOUT)
    expect(tab.get_by_text("site-packages/web/part3.py").first).to_be_visible()
    expect(tab.get_by_text("Timeout")).to_be_visible()
    assert '"lines": [' in text
    assert tab.evaluate("getComputedStyle(document.querySelector('.node.is-error .node-ground')).strokeWidth") == "1.6px"
    assert tab.evaluate("document.querySelector('.lapse').getBoundingClientRect().width") > 0
    row(tab, "Charge Card").click()
    assert tab.evaluate("location.hash") == "#step-2"


def test_the_exported_file_runs_nothing_that_came_from_outside(visit: Open, api: Client, tmp_path: Path) -> None:
    send(
        api,
        *events_of(
            HOSTILE,
            HOSTILE,
            {HOSTILE: "error"},
            metadata={HOSTILE: HOSTILE},
            service=HOSTILE,
            error=dict.fromkeys(("name", "message", "stack"), HOSTILE),
        ),
    )
    here = visit()
    here.open("/run", flow=HOSTILE, run_id=HOSTILE)
    tab = exported(here, tmp_path)
    assert tab.locator("script, img, iframe, [onerror], form").count() == 0
    assert tab.title() != "owned"
    assert "<script>" in tab.locator("h1").inner_text()


def test_the_exported_json_holds_the_run_and_its_events_exactly(visit: Open, api: Client, tmp_path: Path) -> None:
    failed(api, metadata={"big": 2**60 + 1})
    tab = visit().open("/run", flow="checkout", run_id="bad")
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Export JSON").click()
    download.value.save_as(tmp_path / "run.json")
    held = json.loads((tmp_path / "run.json").read_text())
    query: dict[str, Any] = {"flow": "checkout", "run_id": "bad"}
    assert held["run"] == api.get("/api/run", **query).json
    assert held["events"] == api.get("/api/run/events", **query).json["events"]
    assert held["run"]["steps"][0]["metadata"] == {"big": 2**60 + 1}
