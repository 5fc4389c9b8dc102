"""Rows as the queries would answer them, and the page served from them on a real socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from failpath_otel.events.step import StepError
from failpath_otel.server import display, page
from failpath_otel.server.queries import BadQuery
from failpath_otel.server.rows import (
    AttemptRow,
    ErrorSummary,
    FlowList,
    FlowRow,
    FlowStats,
    RunDetail,
    RunPage,
    RunRow,
    StepCounts,
    StepRow,
)

AT = "2026-01-31T09:30:00.125000Z"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HOSTILE = "<script>document.title='owned'</script>/../\u202egnp.exe\n\"'&<img src=x onerror=alert(1)>"
DECLINED = StepError("CardDeclined", "insufficient funds", 'Traceback\n  File "shop.py", line 1')


def attempt(number: int = 1, status: Any = "success", **fields: Any) -> AttemptRow:
    running = status == "running"
    defaults: dict[str, Any] = {
        "started_at": AT,
        "ended_at": None if running else AT,
        "duration_ms": None if running else 12.5,
        "error": None,
        "metadata": {},
        "service": "shop",
        "trace_id": TRACE,
        "span_id": f"00f067aa0ba902b{number}",
        "skip_reason": None,
    }
    return AttemptRow(attempt=number, status=status, **{**defaults, **fields})


def step(key: str, *attempts: AttemptRow, label: str | None = None, **fields: Any) -> StepRow:
    last = attempts[-1] if attempts else None
    return StepRow(
        step_key=key,
        label=label or key,
        discovered=fields.get("discovered", False),
        status=last.status if last else "missing",
        missing_reason=fields.get("missing_reason"),
        skip_reason=last and last.skip_reason,
        stuck=fields.get("stuck", False),
        started_at=attempts[0].started_at if attempts else None,
        ended_at=last and last.ended_at,
        duration_ms=last and last.duration_ms,
        error=last and last.error,
        metadata=last.metadata if last else {},
        service=last and last.service,
        trace_id=last and last.trace_id,
        span_id=last and last.span_id,
        attempts=list(attempts),
    )


def run_of(
    *steps: StepRow, flow: str = "checkout", run_id: str = "req_1", status: Any = "success", stuck: bool = False
) -> RunDetail:
    failed = next((found for found in steps if found.error), None)
    statuses = [found.status for found in steps]
    return RunDetail(
        flow_key=flow,
        flow_name=flow,
        run_id=run_id,
        status=status,
        stuck=stuck,
        started_at=AT,
        ended_at=None if status == "running" else AT,
        duration_ms=None if status == "running" else 1234.5,
        last_arrival_at=AT,
        counts=StepCounts(**{name: statuses.count(name) for name in ("success", "error", "running", "skipped", "missing")}),
        first_error=ErrorSummary(step_key=failed.step_key, name=failed.error.name, message=failed.error.message)
        if failed and failed.error
        else None,
        steps=list(steps),
    )


FAILED = run_of(
    step("validate-cart", attempt(metadata={"cart": "c_17", "nested": {"items": [1, None]}}), label="Validate Cart"),
    step("charge-card", attempt(status="error", error=DECLINED), label="Charge Card"),
    step("create-order", missing_reason="upstream_error"),
    run_id="req_failed",
    status="error",
)
STORY = run_of(
    step("validate-cart", attempt(1, "error", error=DECLINED), attempt(2)),
    step("send-receipt-email", attempt(status="skipped", skip_reason="opted out")),
    step("fraud/check", attempt(), discovered=True),
    run_id="req_story",
)
STUCK = run_of(
    step("validate-cart", attempt(status="running"), stuck=True),
    step("charge-card", missing_reason="never_instrumented"),
    run_id="req_stuck",
    status="running",
    stuck=True,
)
EVIL = run_of(
    step(
        HOSTILE,
        attempt(
            status="error",
            error=StepError(HOSTILE, HOSTILE, HOSTILE),
            metadata={HOSTILE: {HOSTILE: [HOSTILE]}},
            service=HOSTILE,
        ),
    ),
    step("s" * 512, attempt(status="skipped", skip_reason=HOSTILE)),
    flow=HOSTILE,
    run_id=HOSTILE,
    status="error",
)


class Rows:
    """Stands in for the queries: the runs it is given, and what it was asked."""

    def __init__(self, *runs: RunDetail, next_cursor: str | None = None) -> None:
        self.listed = list(runs)
        self.next_cursor = next_cursor
        self.asked: dict[str, Any] = {}

    def flows(self) -> FlowList:
        slugs = dict.fromkeys(run.flow_key for run in self.listed)
        stats = FlowStats(runs=3, success=1, error=1, running=1, p50_ms=812.0, p95_ms=4321.0)
        return FlowList(
            flows=[FlowRow(slug=slug, name=slug, discovered=slug == HOSTILE, nodes=[], edges=[], stats=stats) for slug in slugs]
        )

    def runs(
        self,
        flow: str | None = None,
        status: str | None = None,
        q: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> RunPage:
        self.asked = {"flow": flow, "status": status, "q": q, "cursor": cursor}
        if status not in (None, "success", "error", "running", "incomplete"):
            raise BadQuery(f"status must be one of four, got {status!r}")
        chosen = [run for run in self.listed if status in (None, run.status)]
        return RunPage(runs=[row(run) for run in chosen], next_cursor=self.next_cursor)

    def run(self, flow: str, run_id: str) -> RunDetail | None:
        return next((run for run in self.listed if (run.flow_key, run.run_id) == (flow, run_id)), None)


def row(run: RunDetail) -> RunRow:
    return RunRow(
        flow_key=run.flow_key,
        run_id=run.run_id,
        status=run.status,
        stuck=run.stuck,
        started_at=run.started_at,
        ended_at=run.ended_at,
        duration_ms=run.duration_ms,
        steps=run.counts,
        first_error=run.first_error,
    )


class Policy:
    """The strictest content security policy that the server would send."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", b"default-src 'self'; base-uri 'none'")]
            await send(message)

        await self.app(scope, receive, guarded)


@contextmanager
def serving(rows: Rows) -> Iterator[str]:
    """The page on a real socket; gives its address."""
    app = Starlette(routes=page.routes(rows), middleware=[Middleware(Policy)])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(timeout=10)


def get(rows: Rows, path: str, **parameters: str) -> tuple[int, str]:
    with serving(rows) as address:
        answer = requests.get(address + display.link(path, **parameters), timeout=10)
    return answer.status_code, answer.text.replace(address, "http://127.0.0.1:4600")
