"""The page of a run: the failure first, its steps as a graph and over time, all that is known of each, live."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from support.browser import HOSTILE, Visit, events_of, send
from support.run_page import DECLINED, GOOD, MANY, failed, good, node, panel, row, settings_with_flows
from support.served import Client, until

from failpath_otel.server.settings import Settings

Open = Callable[..., Visit]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_with_flows(tmp_path)


def test_a_failed_run_opens_on_what_failed_and_why(visit: Open, api: Client) -> None:
    good(api)
    failed(api)
    tab = visit().open("/run", flow="checkout", run_id="bad")
    summary = " ".join(tab.locator(".run-summary").inner_text().split())
    assert "Charge Card failed, at attempt 2 of 2" in summary
    assert "CardDeclined: insufficient funds" in summary
    assert 'File "/srv/shop/payments.py", line 41, in charge' in summary
    assert "Not reached: Create Order, Send Receipt" in summary
    expect(panel(tab).locator("h2")).to_contain_text("Charge Card")
    expect(node(tab, "Charge Card")).to_have_attribute("aria-pressed", "true")
    expect(row(tab, "Charge Card")).to_have_attribute("aria-current", "true")
    assert tab.title() == "bad · checkout · failpath-otel"


def test_lines_of_libraries_in_a_stack_are_folded_and_its_own_ones_are_not(visit: Open, api: Client) -> None:
    failed(api)
    stack = visit().open("/run", flow="checkout", run_id="bad").locator(".stack").first
    fold = stack.locator("details")
    assert fold.locator("summary").inner_text() == "12 lines of libraries"
    assert fold.get_attribute("open") is None
    assert "payments.py" in stack.locator("> pre").last.inner_text()
    fold.locator("summary").click()
    expect(fold.get_by_text("site-packages/web/part5.py")).to_be_visible()


def test_why_a_step_is_missing_is_told_and_skipped_is_told_apart(visit: Open, api: Client) -> None:
    here = visit()
    send(api, *events_of("checkout", "never", {"validate-cart": "success", "create-order": "success"}, ago=50))
    tab = here.open("/run", flow="checkout", run_id="never")
    assert "never reported" in row(tab, "Charge Card").inner_text()
    good(api)
    failed(api)
    send(api, *events_of("checkout", "skips", GOOD | {"send-receipt": "skipped"}, skipReason="no address"))
    tab = here.open("/run", flow="checkout", run_id="never")
    assert "passed over" in row(tab, "Charge Card").inner_text()
    assert "not yet" in row(tab, "Send Receipt").inner_text()
    expect(node(tab, "Send Receipt")).to_have_attribute("aria-label", re.compile(r"missing, not yet, after Create Order$"))
    expect(node(tab, "Send Receipt")).to_have_class(re.compile("is-missing"))
    tab = here.open("/run", flow="checkout", run_id="bad")
    assert "a step before failed" in row(tab, "Create Order").inner_text()
    tab = here.open("/run", flow="checkout", run_id="skips", step="send-receipt")
    expect(node(tab, "Send Receipt")).to_have_class(re.compile("is-skipped"))
    expect(panel(tab)).to_contain_text("Skipped: no address")


def test_a_stuck_step_says_for_how_long_it_runs_and_what_the_limit_is(visit: Open, api: Client) -> None:
    here = visit()
    send(api, *events_of("checkout", "slow", {"validate-cart": "success", "charge-card": "running"}, ago=100))
    tab = here.open("/run", flow="checkout", run_id="slow")
    assert tab.locator(".run-heading .badge").inner_text() == "stuck"
    expect(tab.locator(".run-summary")).to_contain_text(
        "It counts as stuck after 30 s (the default, until enough attempts are known)"
    )
    for n in range(20):
        good(api, f"good-{n}", millis=400)
    tab = here.open("/run", flow="checkout", run_id="slow")
    told = tab.locator(".run-summary").inner_text()
    assert re.search(
        r"Charge Card is stuck: it has been running for 1 min \d+ s; 95 of 100 attempts take [34]\d\d ms or less", told
    )
    assert "stuck after 10 s (learned from its history)" in told
    expect(panel(tab).locator("h2")).to_contain_text("Charge Card")


def test_a_late_end_heals_a_stuck_step_on_the_open_page(visit: Open, api: Client) -> None:
    events = events_of("checkout", "slow", {"validate-cart": "success", "charge-card": "running"}, ago=100)
    send(api, *events)
    tab = visit(reads_by_clock=False).open("/run", flow="checkout", run_id="slow")
    expect(node(tab, "Charge Card")).to_have_class(re.compile("is-stuck"))
    tab.locator(".live-mark.is-live").wait_for()
    late = events[-1] | {"eventId": "late", "status": "success", "startedAt": events[-1]["timestamp"]}
    send(api, late)
    node(tab, "Charge Card").and_(tab.locator(".is-success")).wait_for()


def test_the_start_of_a_step_is_on_the_page_by_its_news_alone_and_nothing_that_was_opened_moves(
    visit: Open, api: Client
) -> None:
    send(api, *events_of("checkout", "live", {"validate-cart": "success", "charge-card": "error"}, ago=3, error=DECLINED))
    tab = visit(reads_by_clock=False).open("/run", flow="checkout", run_id="live", step="charge-card")
    tab.locator(".live-mark.is-live").wait_for()
    tab.locator(".stack summary").click()
    tab.evaluate("scrollTo(0, 200)")
    scrolled = tab.evaluate("scrollY")
    send(api, *events_of("checkout", "live", {"reserve-stock": "running"}, ago=0))
    node(tab, "Reserve Stock").and_(tab.locator(".is-running")).wait_for()
    assert tab.locator(".stack details").get_attribute("open") is not None
    assert tab.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert tab.evaluate("scrollY") == scrolled
    expect(row(tab, "Charge Card")).to_have_attribute("aria-current", "true")


def test_the_bar_of_a_running_step_grows_while_the_others_stay(visit: Open, api: Client) -> None:
    send(api, *events_of("checkout", "live", {"validate-cart": "success", "charge-card": "running"}, ago=5.2, millis=300))
    tab = visit().open("/run", flow="checkout", run_id="live")
    tab.locator(".live-mark.is-live").wait_for()

    def width(label: str) -> float:
        found: float = row(tab, label).locator(".lapse").evaluate("bar => parseFloat(bar.style.width)")
        return found

    before, still = width("Charge Card"), width("Validate Cart")
    until(lambda: width("Charge Card") > before)
    assert width("Validate Cart") == still


def test_each_attempt_is_a_bar_and_a_row_with_what_it_said(visit: Open, api: Client) -> None:
    failed(api, metadata={"provider": "visa"})
    tab = visit().open("/run", flow="checkout", run_id="bad")
    bars = row(tab, "Charge Card").locator(".lapse")
    assert bars.count() == 2
    assert (bars.first.get_attribute("title") or "").startswith("attempt 1, error, ")
    rows = panel(tab).locator(".attempts > table > tbody")
    assert rows.count() == 2
    assert "Timeout: no answer" in rows.first.inner_text()
    rows.first.locator("summary").click()
    expect(rows.first.locator("dt", has_text="Span")).to_be_visible()


def test_long_idle_times_are_cut_short_and_said_to_be(visit: Open, api: Client) -> None:
    send(
        api,
        *events_of("checkout", "waits", {"validate-cart": "success", "charge-card": "success"}, ago=7300, millis=200),
        *events_of(
            "checkout", "waits", {"reserve-stock": "success", "create-order": "success", "send-receipt": "success"}, ago=100
        ),
    )
    tab = visit().open("/run", flow="checkout", run_id="waits")
    assert tab.locator(".waterfall-gap").all_inner_texts() == ["idle 2 h"]
    assert tab.locator(".waterfall .unseen").first.inner_text() == "Times in which nothing ran are drawn shorter: 1 h 59 min."
    assert row(tab, "Validate Cart").locator(".lapse").evaluate("bar => parseFloat(bar.style.width)") > 30


def test_hostile_text_is_inert_everywhere_on_the_page(visit: Open, api: Client) -> None:
    error = dict.fromkeys(("name", "message", "stack"), HOSTILE)
    send(api, *events_of(HOSTILE, "fine", {HOSTILE: "success"}, ago=90))
    send(
        api,
        *events_of(
            HOSTILE, HOSTILE, {HOSTILE: "error"}, metadata={HOSTILE: {HOSTILE: [HOSTILE]}}, service=HOSTILE, error=error
        ),
    )
    here = visit(width=360)
    tab = here.open("/run", flow=HOSTILE, run_id=HOSTILE, compare="fine")
    expect(tab.locator(".compared")).to_be_visible()
    assert tab.locator("main script, main img").count() == 0
    assert "\\u202e" in tab.locator("h1").inner_text()
    assert "owned" not in (tab.title().split(" · ")[-1])
    assert not here.overflows()
    tab.locator(".waterfall-row").click()
    tab.get_by_role("link", name="Runs", exact=True).last.click()
    expect(tab.locator("h1")).to_have_text("Runs")


def test_steps_are_gone_through_by_the_keyboard(visit: Open, api: Client) -> None:
    good(api)
    failed(api)
    here = visit()
    tab = here.open("/run", flow="checkout", run_id="bad")
    tab.keyboard.press("k")
    expect(panel(tab).locator("h2")).to_contain_text("Validate Cart")
    assert here.address() == "/run?flow=checkout&run_id=bad&step=validate-cart"
    for _ in range(4):
        tab.keyboard.press("j")
    expect(panel(tab).locator("h2")).to_contain_text("Send Receipt")
    row(tab, "Send Receipt").focus()
    tab.keyboard.press("ArrowUp")
    expect(row(tab, "Create Order")).to_be_focused()
    expect(panel(tab).locator("h2")).to_contain_text("Create Order")
    node(tab, "Create Order").focus()
    tab.keyboard.press("ArrowRight")
    expect(node(tab, "Send Receipt")).to_be_focused()
    tab.keyboard.press("Enter")
    expect(panel(tab).locator("h2")).to_contain_text("Send Receipt")
    tab.keyboard.press("r")
    expect(tab.locator("h1")).to_have_text("Runs")
    assert here.address() == "/runs?flow=checkout"


def test_only_one_step_of_the_graph_is_a_stop_of_the_tab_key(visit: Open, api: Client) -> None:
    good(api)
    tab = visit().open("/run", flow="checkout", run_id="good", step="create-order")
    stops = tab.locator(".graph [tabindex='0']")
    assert stops.count() == 1
    assert (stops.get_attribute("aria-label") or "").startswith("Create Order ")


def test_the_trace_of_a_step_opens_where_the_server_is_told_that_traces_are(visit: Open, api: Client) -> None:
    trace, span = "ab" * 16, "cd" * 8
    send(api, *events_of("checkout", "traced", {"charge-card": "error"}, traceId=trace, spanId=span))
    here = visit()
    tab = here.open("/run", flow="checkout", run_id="traced")
    link = tab.get_by_role("link", name="Open trace")
    assert link.get_attribute("href") == f"https://traces.example/trace/{trace}?span={span}"
    assert link.get_attribute("rel") == "noopener noreferrer"
    here.context.route("https://traces.example/**", lambda route: route.fulfill(body="the trace"))
    with here.context.expect_page() as opened:
        tab.keyboard.press("o")
    expect(opened.value.locator("body")).to_have_text("the trace")


def test_the_copied_link_leads_to_the_same_view(visit: Open, api: Client) -> None:
    good(api)
    failed(api)
    here = visit()
    here.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab = here.open("/run", flow="checkout", run_id="bad", compare="good")
    row(tab, "Validate Cart").click()
    tab.get_by_role("button", name="Copy link").click()
    expect(tab.get_by_text("The link to this view is copied.")).to_have_count(1)
    copied = tab.evaluate("navigator.clipboard.readText()")
    other = here.context.new_page()
    other.goto(copied)
    expect(panel(other).locator("h2")).to_contain_text("Validate Cart")
    expect(other.locator(".compared")).to_be_visible()
    tab.get_by_role("button", name="Copy the run id").click()
    until(lambda: tab.evaluate("navigator.clipboard.readText()") == "bad")


def test_steps_that_succeeded_can_be_hidden_where_there_are_many(visit: Open, api: Client) -> None:
    send(api, *events_of("chain", "long", dict.fromkeys(MANY[:11], "success") | {MANY[11]: "error"}))
    here = visit()
    tab = here.open("/run", flow="chain", run_id="long")
    assert tab.locator(".waterfall-row").count() == 12
    tab.get_by_role("button", name="Hide 11 that succeeded").click()
    assert tab.locator(".waterfall-label").all_inner_texts() == ["Task 11"]
    assert here.address() == "/run?flow=chain&run_id=long&hide=success"
    tab.reload()
    expect(tab.locator(".waterfall-row")).to_have_count(1)
    tab.locator(".live-mark.is-live").wait_for()  # by then the page listens to keys
    tab.keyboard.press("h")
    expect(tab.locator(".waterfall-row")).to_have_count(12)


def test_a_run_that_is_not_known_says_what_to_do_and_is_shown_as_soon_as_it_comes(visit: Open, api: Client) -> None:
    here = visit()
    tab = here.open("/run", flow="checkout", run_id="soon")
    expect(tab.locator("h1")).to_have_text("soon is not known")
    expect(tab.get_by_role("link", name="look for it in all flows")).to_have_attribute("href", "/runs?q=soon")
    tab.locator(".live-mark.is-live").wait_for()
    good(api, "soon", ago=1)
    expect(tab.locator(".run-heading h1")).to_have_text(re.compile("^soon"))
    here.wrong.clear()  # the browser tells of each 404


def boxes(tab: Page) -> list[dict[str, float]]:
    found: list[dict[str, float]] = tab.evaluate(
        "[...document.querySelectorAll('.node-ground')].map(each => each.getBoundingClientRect().toJSON())"
    )
    return found


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize(("slug", "count"), [("checkout", 5), ("chain", 12), ("wide", 60), ("found", 9)])
def test_the_nodes_of_a_graph_lie_apart_and_are_large_enough_to_read(
    visit: Open, api: Client, slug: str, count: int, width: int
) -> None:
    keys = MANY[:9] if slug == "found" else ["validate-cart"] if slug == "checkout" else MANY[:1]
    send(api, *events_of(slug, "r", dict.fromkeys(keys, "success")))
    here = visit(width=width)
    tab = here.open("/run", flow=slug, run_id="r")
    found = boxes(tab)
    assert len(found) == count
    assert all(box["width"] > 100 for box in found)
    for n, box in enumerate(found):
        for other in found[n + 1 :]:
            beside = box["right"] < other["left"] or other["right"] < box["left"]
            assert beside or box["bottom"] < other["top"] or other["bottom"] < box["top"]
    assert not here.overflows()


@pytest.mark.usefixtures("axe")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_the_page_meets_wcag_aa_and_fits_its_window(visit: Open, api: Client, scheme: str, width: int) -> None:
    good(api, metadata={"region": "eu"})
    failed(api, metadata={"region": "us", "order": {"lines": [1]}})
    send(api, *events_of("checkout", "slow", {"validate-cart": "success", "charge-card": "running"}, ago=100))
    here = visit(width=width, scheme=scheme)
    for run_id, more in (("bad", {"compare": "good"}), ("slow", {}), ("good", {"step": "create-order"})):
        tab = here.open("/run", flow="checkout", run_id=run_id, **more)
        tab.locator(".live-mark.is-live").wait_for()
        assert here.violations() == []
        assert not here.overflows()
