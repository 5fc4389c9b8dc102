"""A browser, a server with a flow, and tabs that open on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright
from support.browser import AXE, Visit
from support.collector import missing
from support.served import Client, in_thread

from failpath_otel.flows import parse_flows
from failpath_otel.server.settings import Settings

FLOWS = {
    "flows": [
        {
            "slug": "checkout",
            "name": "Checkout",
            "nodes": [
                {"sdkStepKey": "validate-cart", "label": "Validate Cart"},
                {"sdkStepKey": "charge-card", "label": "Charge Card"},
                {"sdkStepKey": "create-order", "label": "Create Order"},
                {"sdkStepKey": "send-receipt", "label": "Send Receipt"},
            ],
            "edges": [
                {"source": "validate-cart", "target": "charge-card"},
                {"source": "charge-card", "target": "create-order"},
                {"source": "create-order", "target": "send-receipt"},
            ],
        },
        {"slug": "refund", "nodes": [{"sdkStepKey": "find-charge"}, {"sdkStepKey": "pay-back"}]},
    ]
}


@pytest.fixture(scope="module")
def browser(chromium_path: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium_path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(db=str(tmp_path / "runs.db"), flows=parse_flows(FLOWS), port=0)


@pytest.fixture
def api(settings: Settings) -> Iterator[Client]:
    """Our server, in a thread, empty."""
    with in_thread(settings) as client:
        yield client


@pytest.fixture
def visit(browser: Browser, api: Client) -> Iterator[Callable[..., Visit]]:
    """Gives a tab; its options are those of `Visit`. Nothing may have gone wrong in it by the test's end."""
    visits: list[Visit] = []

    def begin(**options: object) -> Visit:
        visits.append(Visit(browser, api.url, **options))  # type: ignore[arg-type]
        return visits[-1]

    yield begin
    for each in visits:
        each.close()
    assert [line for each in visits for line in each.wrong] == []


@pytest.fixture
def axe() -> None:
    """What the tests of accessibility need beside a browser."""
    if not AXE.exists():
        missing("no axe-core: `tools/ui.sh --install` puts it there and needs Node")
