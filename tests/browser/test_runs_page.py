"""The list of runs: filters that stand in the address, paging, search, and live rows that move nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from support.browser import HOSTILE, Visit, events_of, send
from support.served import Client, until

GOOD = dict.fromkeys(("validate-cart", "charge-card", "create-order", "send-receipt"), "success")
BAD = {"validate-cart": "success", "charge-card": "error"}
Open = Callable[..., Visit]


def ids(tab: Page) -> list[str]:
    """The runs that are listed, in their order."""
    return tab.locator(".runs tbody th .id").all_inner_texts()


def test_a_failed_run_says_where_and_why_in_the_list(visit: Open, api: Client) -> None:
    send(api, *events_of("checkout", "bad", BAD, ago=20), *events_of("checkout", "good", GOOD, ago=10))
    tab = visit().open("/runs")
    assert ids(tab) == ["good", "bad"]
    row = tab.locator(".runs tbody tr", has_text="bad")
    assert "charge-card CardDeclined: insufficient funds" in " ".join(row.inner_text().split())
    assert row.locator(".badge").inner_text() == "error"


def test_each_filter_stands_in_the_address_and_holds_after_a_reload_and_going_back(visit: Open, api: Client) -> None:
    send(
        api,
        *events_of("checkout", "bad", BAD),
        *events_of("checkout", "good", GOOD),
        *events_of("refund", "r", {"find-charge": "error"}),
    )
    here = visit()
    tab = here.open("/runs")
    tab.get_by_label("Flow").select_option("checkout")
    expect(tab.locator(".runs tbody tr")).to_have_count(2)
    tab.get_by_role("button", name="error").click()
    expect(tab.locator(".runs tbody tr")).to_have_count(1)
    assert here.address() == "/runs?flow=checkout&status=error"
    tab.reload()
    expect(tab.locator(".runs tbody tr")).to_have_count(1)
    assert ids(tab) == ["bad"]
    assert tab.get_by_role("button", name="error").get_attribute("aria-pressed") == "true"
    tab.go_back()
    expect(tab.locator(".runs tbody tr")).to_have_count(2)
    assert here.address() == "/runs?flow=checkout"


def test_stuck_runs_are_listed_alone_and_a_run_that_failed_is_not_called_stuck(visit: Open, api: Client) -> None:
    send(
        api,
        *events_of("checkout", "slow", {"validate-cart": "success", "charge-card": "running"}, ago=100),
        *events_of("checkout", "both", {"charge-card": "error", "reserve-stock": "running"}, ago=100),
        *events_of("checkout", "quick", {"validate-cart": "running"}, ago=1),
    )
    tab = visit().open("/runs")
    badges = dict(zip(ids(tab), tab.locator(".runs .badge").all_inner_texts(), strict=True))
    assert badges == {"slow": "stuck", "both": "error", "quick": "running"}
    tab.get_by_role("button", name="stuck").click()
    expect(tab.locator(".runs tbody tr")).to_have_count(1)
    assert ids(tab) == ["slow"]
    expect(tab.locator(".cell-error")).to_contain_text("charge-card running since 2")
    send(api, *events_of("checkout", "slow", {"charge-card": "success"}))
    expect(tab.locator(".box")).to_contain_text("No run matches this filter")


@pytest.mark.parametrize(
    ("text", "found"),
    [("req_0", ["req_0"]), ("EQ_", ["req_0", "req_1"]), ("gold", ["req_1"]), ("no such card", ["req_0"]), ("nothing", [])],
    ids=["run id", "part of a run id", "metadata", "error text", "no match"],
)
def test_search_finds_runs_by_id_metadata_and_error(visit: Open, api: Client, text: str, found: list[str]) -> None:
    error = {"name": "CardDeclined", "message": "no such card", "stack": None}
    send(
        api,
        *events_of("checkout", "req_0", BAD, ago=30, error=error),
        *events_of("checkout", "req_1", GOOD, metadata={"tier": "gold"}),
    )
    here = visit()
    tab = here.open("/runs")
    tab.keyboard.press("/")
    tab.keyboard.type(text)
    until(lambda: "q=" in here.address())
    if found:
        expect(tab.locator(".runs tbody tr")).to_have_count(len(found))
    else:
        expect(tab.get_by_text("No run matches this filter")).to_be_visible()
    assert ids(tab) == found


def test_runs_of_a_time_are_found_by_it(visit: Open, api: Client) -> None:
    send(api, *events_of("checkout", "old", GOOD, ago=7200), *events_of("checkout", "new", GOOD, ago=10))
    here = visit()
    tab = here.open("/runs")
    tab.get_by_label("Started").select_option("1h")
    expect(tab.locator(".runs tbody tr")).to_have_count(1)
    assert ids(tab) == ["new"]
    assert here.address() == "/runs?within=1h"


def test_pages_lead_through_every_run_once(visit: Open, api: Client) -> None:
    for n in range(120):
        send(api, *events_of("checkout", f"r{n:03}", {"validate-cart": "success"}, ago=1000 - n))
    tab = visit().open("/runs")
    seen: list[str] = []
    for _ in range(3):
        expect(tab.locator(".pending")).to_have_count(0)
        seen += ids(tab)
        older = tab.get_by_role("link", name="Older runs")
        if older.count():
            first = ids(tab)[0]
            older.click()
            expect(tab.locator(".runs tbody th .id").first).not_to_have_text(first)
    assert seen == [f"r{n:03}" for n in reversed(range(120))]
    tab.get_by_role("link", name="Newest runs").click()
    expect(tab.locator(".runs tbody th .id").first).to_have_text("r119")


def test_new_runs_come_in_at_the_top_and_move_nothing_that_is_read_further_down(visit: Open, api: Client) -> None:
    for n in range(50):
        send(api, *events_of("checkout", f"r{n:03}", GOOD, ago=1000 - n))
    tab = visit().open("/runs")
    tab.locator(".live-mark.is-live").wait_for()
    send(api, *events_of("checkout", "at-the-top", GOOD, ago=1))
    expect(tab.locator(".runs tbody th .id").first).to_have_text("at-the-top")
    read = tab.locator(".runs tbody tr", has_text="r025")
    tab.mouse.wheel(0, 900)
    until(lambda: tab.evaluate("scrollY") > 500)
    before = read.bounding_box()
    send(api, *events_of("checkout", "new-1", GOOD, ago=0.5), *events_of("checkout", "new-2", BAD, ago=0.2))
    button = tab.get_by_role("button", name="2 new runs")
    expect(button).to_be_visible()
    assert read.bounding_box() == before
    button.click()
    expect(tab.locator(".runs tbody th .id").first).to_have_text("new-2")


def test_a_run_that_is_shown_tells_by_its_news_alone_what_became_of_it(visit: Open, api: Client) -> None:
    started, ended = events_of("refund", "r", {"find-charge": "error"}, ago=1)
    send(api, started)
    tab = visit(reads_by_clock=False).open("/runs")
    tab.locator(".live-mark.is-live").wait_for()
    badge = tab.locator(".runs tbody .badge")
    expect(badge).to_have_text("running")
    send(api, ended)
    expect(badge).to_have_text("error")


def test_keys_go_through_the_rows_and_the_list_of_keys_names_them(visit: Open, api: Client) -> None:
    send(api, *events_of("checkout", "a", BAD, ago=20), *events_of("checkout", "b", GOOD, ago=10))
    here = visit()
    tab = here.open("/runs")
    tab.keyboard.press("?")
    dialog = tab.get_by_role("dialog")
    expect(dialog).to_contain_text("Search the runs")
    tab.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    tab.keyboard.press("f")
    expect(tab.locator(".runs tbody tr")).to_have_count(1)
    tab.keyboard.press("f")
    expect(tab.locator(".runs tbody tr")).to_have_count(2)
    tab.keyboard.press("j")
    tab.keyboard.press("j")
    tab.keyboard.press("Enter")
    expect(tab.locator("h1")).to_contain_text("a")
    assert here.address() == "/run?flow=checkout&run_id=a"


def test_a_filter_that_cannot_be_used_says_so_in_words(visit: Open) -> None:
    here = visit()
    tab = here.open("/runs", status="nope")
    expect(tab.get_by_role("alert")).to_contain_text("got 'nope'")
    here.wrong.clear()  # the browser's own line on the answer 400


def test_hostile_runs_are_inert_and_lead_to_themselves(visit: Open, api: Client) -> None:
    send(api, *events_of(HOSTILE, HOSTILE, {HOSTILE: "error"}, error={"name": HOSTILE, "message": HOSTILE, "stack": HOSTILE}))
    tab = visit().open("/runs", q="gnp.exe", flow=HOSTILE)
    expect(tab.locator(".runs tbody tr")).to_have_count(1)
    assert tab.locator("main script, main img").count() == 0
    tab.locator(".runs tbody th a").click()
    expect(tab.locator("h1")).to_contain_text("gnp.exe")
    assert tab.locator("main script, main img").count() == 0
    assert "owned" not in tab.title().split(" · ")[-1]


@pytest.mark.usefixtures("axe")
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (360, "light")])
def test_the_page_meets_wcag_aa_and_fits_its_window(visit: Open, api: Client, width: int, scheme: str) -> None:
    send(api, *events_of("checkout", "r1", BAD), *events_of("checkout", "r2", {"validate-cart": "running"}, ago=200))
    send(
        api,
        *events_of(HOSTILE, HOSTILE, {HOSTILE: "success"}),
        *events_of("checkout", "r3", {"charge-card": "success"}, ago=100),
    )
    here = visit(width=width, scheme=scheme)
    here.open("/runs").locator(".live-mark.is-live").wait_for()
    assert here.violations() == []
    assert not here.overflows()


def test_among_ten_thousand_runs_lists_searches_and_windows_stay_whole(visit: Open, api: Client) -> None:
    events = [
        event
        for n in range(10_000)
        for event in events_of("checkout", f"r{n:05}", {"validate-cart": "success"}, ago=12_000 - n)
    ]
    send(api, *(event for event in events if event["status"] != "running"))
    tab = visit().open("/runs")
    assert ids(tab) == [f"r{n:05}" for n in range(9_999, 9_949, -1)]
    tab.keyboard.press("/")
    tab.keyboard.type("r00007")
    expect(tab.locator(".runs tbody tr")).to_have_count(1)
    assert ids(tab) == ["r00007"]
    tab = visit().open("/flow", flow="checkout", last="1000")
    expect(tab.get_by_role("grid")).to_have_attribute("aria-colcount", "1000")
    expect(tab.locator(".figures dd").last).to_contain_text("10,000")
