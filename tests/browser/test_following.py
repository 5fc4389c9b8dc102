"""What is live: bursts, a tab that is hidden, a server that goes away and comes back."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from support.browser import Visit, events_of, send
from support.ports import free_port
from support.served import Client, Served, in_thread, start, until

from failpath_otel.server.settings import Settings

GOOD = dict.fromkeys(("validate-cart", "charge-card", "create-order", "send-receipt"), "success")
Open = Callable[..., Visit]


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Callable[[], Served]]:
    """Starts the server as a process, each time on the same port with the same database."""
    port = str(free_port())
    started: list[Served] = []

    def begin() -> Served:
        started.append(start(tmp_path / "server", "--port", port))
        return started[-1]

    yield begin
    for served in started:
        served.end()


def reads(tab: Page) -> list[str]:
    """Keeps the reads of the API that the tab makes from now on."""
    made: list[str] = []
    tab.on("request", lambda request: made.append(request.url) if "/api/" in request.url else None)
    return made


@pytest.mark.parametrize("path", ["/", "/runs", "/flow?flow=checkout"])
def test_a_burst_of_changes_is_read_a_few_times_and_ends_in_what_is(visit: Open, api: Client, path: str) -> None:
    send(api, *events_of("checkout", "first", GOOD))
    tab = visit().open(path)
    tab.locator(".live-mark.is-live").wait_for()
    made = reads(tab)
    began = time.monotonic()
    for n in range(100):
        send(api, *events_of("checkout", f"r{n:03}", GOOD, ago=50 - n / 4))
    shown = {"/": ".card dd a", "/runs": ".runs tbody th .id", "/flow?flow=checkout": ".figures dd"}[path]
    wanted = "r099" if path == "/runs" else "101"
    expect(tab.locator(shown, has_text=wanted).first).to_be_visible()
    # The same is read at most every 400 ms, however long a busy machine takes for the 400 changes of 100 runs.
    most = (time.monotonic() - began) / 0.4 + 2
    assert max(Counter(made).values()) <= min(most, 99)


def test_a_hidden_tab_asks_nothing_and_shows_what_is_when_it_is_seen_again(visit: Open, api: Client) -> None:
    send(api, *events_of("checkout", "r1", {"validate-cart": "running"}, ago=1))
    tab = visit().open("/runs")
    tab.locator(".live-mark.is-live").wait_for()
    hide = """hidden => {
        Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    tab.evaluate(hide, True)
    made = reads(tab)
    send(api, *events_of("checkout", "r2", GOOD, ago=0.1))
    # Another tab gets the same news. When it has read two of them, one after the other, the hidden one would have read too.
    other = visit().open("/runs")
    other.locator(".live-mark.is-live").wait_for()
    for run_id in ("r3", "r4"):
        send(api, *events_of("checkout", run_id, GOOD, ago=0.1))
        expect(other.locator(".runs tbody th .id").first).to_have_text(run_id)
    assert made == []
    tab.evaluate(hide, False)
    expect(tab.locator(".runs tbody th .id").first).to_have_text("r4")


def test_while_the_server_is_away_the_page_says_so_and_goes_on_by_itself_when_it_is_back(
    browser: Browser, servers: Callable[[], Served]
) -> None:
    server = servers()
    send(server, *events_of("checkout", "before", GOOD))
    here = Visit(browser, server.url)
    try:
        tab = here.open("/runs")
        tab.locator(".live-mark.is-live").wait_for()
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
        expect(tab.locator(".live-mark")).to_have_text("live paused")
        expect(tab.locator(".runs tbody th .id")).to_have_text(["before"])
        again = servers()
        send(again, *events_of("checkout", "after", GOOD, ago=1))
        expect(tab.locator(".live-mark")).to_have_text("live")
        expect(tab.locator(".runs tbody th .id")).to_have_text(["after", "before"])
    finally:
        here.close()


def test_what_was_read_before_the_server_went_away_stays_with_its_time(browser: Browser, servers: Callable[[], Served]) -> None:
    server = servers()
    send(server, *events_of("checkout", "before", {"validate-cart": "running"}, ago=1))
    here = Visit(browser, server.url)
    try:
        tab = here.open("/runs")
        until(lambda: tab.locator(".runs tbody tr").count())
        server.stop()
        # A run that runs is read again by the clock, and cannot be.
        expect(tab.get_by_text("Data as of")).to_be_visible()
        expect(tab.locator(".runs tbody th .id")).to_have_text(["before"])
    finally:
        here.close()


def test_a_reader_with_the_token_gets_the_page_and_its_news_and_one_without_gets_neither(
    browser: Browser, tmp_path: Path
) -> None:
    settings = Settings(db=str(tmp_path / "runs.db"), port=0, token="s3cret")
    with in_thread(settings) as api:
        stranger, here = Visit(browser, api.url), Visit(browser, api.url)
        try:
            stranger.tab.goto(f"{api.url}/runs")
            assert "token" in stranger.tab.inner_text("body")
            tab = here.open("/", token="s3cret")
            tab.locator(".live-mark.is-live").wait_for()
            assert here.address() == "/", "the token leaves the address at once"
            send(api, *events_of("checkout", "r1", GOOD, ago=1))
            expect(tab.locator(".card", has_text="checkout")).to_be_visible()
            assert here.wrong == []
        finally:
            here.close()
            stranger.close()
