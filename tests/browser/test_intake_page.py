"""Intake: what came in, what was refused and why, what was perhaps meant, and what to do when nothing comes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Page, expect
from support.bridges import bridge_to
from support.browser import HOSTILE, Visit, events_of, send
from support.http_sink import http_sink
from support.otlp_bodies import PROTOBUF, step, traces
from support.served import Client, event

Open = Callable[..., Visit]


def tiles(tab: Page) -> dict[str, str]:
    """The counts by their names."""
    return {tile.locator("dt").inner_text(): tile.locator("dd").first.inner_text() for tile in tab.locator(".tile").all()}


def test_it_says_what_to_do_while_nobody_has_called(visit: Open) -> None:
    tab = visit().open("/intake")
    expect(tab.get_by_text("No sender has called yet")).to_be_visible()
    assert tiles(tab) == dict.fromkeys(("accepted", "duplicates", "rejected", "unmapped", "incomplete"), "0")


def test_it_counts_what_came_and_names_the_last_request_as_it_comes(visit: Open, api: Client) -> None:
    tab = visit().open("/intake")
    tab.locator(".live-mark.is-live").wait_for()
    known = events_of("checkout", "r1", {"validate-cart": "success"})
    send(api, *known)
    send(api, *known)
    expect(tab.locator(".tile", has_text="duplicates").locator("dd").first).to_have_text("2")
    assert tiles(tab)["accepted"] == "2"
    expect(tab.locator("section", has_text="Last request")).to_contain_text("POST /v1/events with 2 items was answered 202")


def test_refused_events_are_listed_by_reason_with_what_their_sender_was_told(visit: Open, api: Client) -> None:
    api.send_events(event(status="finished"), event(run_id=""), event())
    tab = visit().open("/intake")
    refused = tab.locator("section", has_text="Refused")
    expect(refused.locator("tbody tr")).to_have_count(2)
    assert "finished" in refused.inner_text()
    assert tiles(tab)["rejected"] == "2"


def test_a_key_that_is_not_declared_comes_with_the_one_that_was_perhaps_meant(visit: Open, api: Client) -> None:
    send(
        api,
        *events_of("checkout", "r1", {"validate-cart": "success", "chargecard": "success"}),
        *events_of("chekout", "r2", {"a": "success"}),
    )
    tab = visit().open("/intake")
    rows = [
        " ".join(row.inner_text().split())
        for row in tab.locator("section", has_text="Not in flows.json").locator("tbody tr").all()
    ]
    assert sorted(rows) == ["checkout chargecard charge-card", "chekout the flow itself checkout"]


def test_spans_that_lack_an_attribute_are_told_with_what_they_lack(visit: Open, api: Client) -> None:
    span = step("r1")
    del span["failpath.run.id"]
    api.post("/v1/traces", traces(span).SerializeToString(), {"Content-Type": PROTOBUF})
    tab = visit().open("/intake")
    assert tiles(tab)["incomplete"] == "1"
    expect(tab.locator("section", has_text="Incomplete").locator("tbody tr")).to_contain_text("failpath.run.id")


def test_it_says_what_is_kept_and_that_nothing_is_deleted(visit: Open, api: Client) -> None:
    send(api, *events_of("checkout", "r1", {"validate-cart": "success"}))
    tab = visit().open("/intake")
    expect(tab.locator("section", has_text="Kept here")).to_contain_text("1 run")
    expect(tab.locator("section", has_text="Kept here")).to_contain_text("--retain 7d")


@pytest.mark.usefixtures("axe")
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_the_page_meets_wcag_aa_and_fits_its_window(visit: Open, api: Client, width: int, scheme: str) -> None:
    api.send_events(event(status=HOSTILE), event(run_id=""))
    send(api, *events_of("checkout", "r1", {HOSTILE: "success", "chargecard": "success"}))
    here = visit(width=width, scheme=scheme)
    here.open("/intake").locator(".live-mark.is-live").wait_for()
    assert here.violations() == []
    assert not here.overflows()
    assert here.tab.locator("main script, main img").count() == 0


def test_a_bridge_that_keeps_nothing_says_where_the_runs_are(browser: Browser) -> None:
    with http_sink() as sink, bridge_to(sink.url, None) as bridge:
        send(bridge, event("r1"))
        here = Visit(browser, bridge.url)
        try:
            for path in ("/", "/run"):
                tab = here.open(path)
                expect(tab.locator("h1")).to_have_text("No run is kept here")
                expect(tab.locator("main")).to_contain_text(f"goes on to {sink.url}")
            assert here.wrong == []
        finally:
            here.close()
