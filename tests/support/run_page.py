"""Runs of a checkout for the tests of a run's page, and where that page shows a step."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page
from support.browser import events_of, send
from support.served import Client

from failpath_otel.flows import parse_flows
from failpath_otel.server.settings import Settings

CHECKOUT: tuple[str, ...] = ("validate-cart", "charge-card", "reserve-stock", "create-order", "send-receipt")
GOOD: dict[str, str] = dict.fromkeys(CHECKOUT, "success")
STACK = (
    "Traceback (most recent call last):\n"
    + "".join(
        f'  File "/srv/.venv/lib/python3.12/site-packages/web/part{n}.py", line {n}, in call\n    go()\n' for n in range(6)
    )
    + '  File "/srv/shop/payments.py", line 41, in charge\n    raise CardDeclined(code)\nshop.CardDeclined: no funds\n'
)
DECLINED = {"name": "CardDeclined", "message": "insufficient funds", "stack": STACK}
MANY = [f"task-{n:02d}" for n in range(60)]


def flow(slug: str, keys: tuple[str, ...] | list[str], edges: list[tuple[str, str]]) -> dict[str, Any]:
    """A flow as flows.json declares it."""
    nodes = [{"sdkStepKey": key, "label": key.replace("-", " ").title()} for key in keys]
    return {"slug": slug, "nodes": nodes, "edges": [{"source": source, "target": target} for source, target in edges]}


def settings_with_flows(folder: Path) -> Settings:
    """A checkout that branches, a chain of 12 steps, and 60 steps of which each leads to three."""
    ways = [
        ("validate-cart", "charge-card"),
        ("validate-cart", "reserve-stock"),
        ("charge-card", "create-order"),
        ("reserve-stock", "create-order"),
        ("create-order", "send-receipt"),
    ]
    flows = [
        flow("checkout", CHECKOUT, ways),
        flow("chain", MANY[:12], list(pairwise(MANY[:12]))),
        flow("wide", MANY, [(MANY[n // 3], MANY[n]) for n in range(1, 60)]),
    ]
    return Settings(
        db=str(folder / "runs.db"),
        flows=parse_flows({"flows": flows}),
        port=0,
        stuck_after_seconds=30,
        trace_url="https://traces.example/trace/{trace_id}?span={span_id}",
    )


def good(api: Client, run_id: str = "good", ago: float = 600, **more: Any) -> None:
    """All five steps succeed."""
    send(api, *events_of("checkout", run_id, GOOD, ago=ago, **more))


def failed(api: Client, run_id: str = "bad", **more: Any) -> None:
    """Two attempts of charge-card fail; what comes after it is not reached."""
    send(
        api,
        *events_of("checkout", run_id, {"validate-cart": "success"}, ago=60, **more),
        *events_of("checkout", run_id, {"charge-card": "error"}, ago=58, error={"name": "Timeout", "message": "no answer"}),
        *events_of("checkout", run_id, {"charge-card": "error"}, ago=56, error=DECLINED, **more),
    )


def row(tab: Page, label: str) -> Locator:
    """A step's row of the waterfall."""
    return tab.locator(".waterfall-row", has=tab.locator(".waterfall-label", has_text=re.compile(f"^{re.escape(label)}$")))


def node(tab: Page, label: str) -> Locator:
    """A step of the graph."""
    return tab.locator(f".graph [aria-label^='{label} ']")


def panel(tab: Page) -> Locator:
    """What is told of the chosen step."""
    return tab.locator(".run-columns .panel")
