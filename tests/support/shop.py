"""A service for tests that makes runs by the SDK, sends them by the ways it is told, and keeps what was done."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from support.served import Client, until

from failpath_otel import FailpathClient
from failpath_otel.cli.story import RunStory, StepStory, differences, known_story, success

FLOWS = {
    "flows": [
        {
            "slug": "checkout",
            "name": "Checkout",
            "nodes": [
                {"sdkStepKey": "validate-cart"},
                {"sdkStepKey": "charge-card"},
                {"sdkStepKey": "create-order"},
                {"sdkStepKey": "send-receipt"},
            ],
        },
    ]
}
"""The flow of `Shop.checkout`, for the server's flows.json."""

_prefixes = itertools.count(1)


class CardDeclined(Exception):
    """The error of the runs that fail."""


@dataclass
class Shop:
    """Makes checkouts. ``done`` is what was done, by run id; every fourth one fails, every second retries or skips."""

    client: FailpathClient
    provider: TracerProvider
    prefix: str = field(default_factory=lambda: f"req-{next(_prefixes)}")
    done: dict[str, RunStory] = field(default_factory=dict)
    attempts: int = 0

    @property
    def events(self) -> int:
        """How many events the runs gave: a start and an end for each attempt, one for what was skipped."""
        statuses = [status for run in self.done.values() for step in run.steps.values() for status in step.attempts]
        return self.attempts + sum(status != "skipped" for status in statuses)

    def checkouts(self, n: int) -> None:
        """Makes ``n`` runs, one after the other."""
        for _ in range(n):
            self.checkout()

    def checkout(self) -> str:
        """Makes one run and gives its id."""
        number = len(self.done)
        run = self.client.run("checkout", run_id=f"{self.prefix}-{number}", metadata={"number": number})
        run.step("validate-cart", lambda: number)
        charged: StepStory
        if number % 4 == 1:
            charged = StepStory("error", ("error",), error="CardDeclined")
            self._declined(run)
        elif number % 4 == 2:
            charged = StepStory("success", ("error", "success"))
            self._declined(run)
            run.step("charge-card", lambda: number)
        else:
            charged = success()
            run.step("charge-card", lambda: number)
        self.attempts += 2 + len(charged.attempts)
        ordered = receipt = StepStory("skipped", ("skipped",), skip_reason="not charged")
        if charged.status == "error":
            run.skip("create-order", reason="not charged")
            run.skip("send-receipt", reason="not charged")
        else:
            ordered = success()
            with run.step("create-order", metadata={"items": [number, 2]}) as step:
                step.set_metadata(order=f"o{number}")
            if number % 2:
                receipt = success()
                run.step("send-receipt", lambda: number)
            else:
                receipt = StepStory("skipped", ("skipped",), skip_reason="opted out")
                run.skip("send-receipt", reason="opted out")
        self.attempts += 1
        steps = {"validate-cart": success(), "charge-card": charged, "create-order": ordered, "send-receipt": receipt}
        status = "error" if charged.status == "error" else "success"
        self.done[run.run_id] = RunStory("checkout", run.run_id, status, steps)
        return run.run_id

    def flush(self) -> None:
        """Sends what waits: events first, then spans."""
        self.client.flush()
        self.provider.force_flush()

    def _declined(self, run: Any) -> None:
        def charge() -> None:
            raise CardDeclined("no funds on 4111 1111 1111 1111")

        try:
            run.step("charge-card", charge)
        except CardDeclined:
            return


@contextmanager
def shop(*, exporter: Any = "none", spans_to: str | None = None, **options: Any) -> Iterator[Shop]:
    """A shop whose events go by ``exporter`` (an option of `FailpathClient`) and whose spans go to an OTLP/HTTP endpoint."""
    provider = TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)
    if spans_to is not None:
        exporting = OTLPSpanExporter(endpoint=f"{spans_to}/v1/traces")
        provider.add_span_processor(BatchSpanProcessor(exporting, schedule_delay_millis=100))
    client = FailpathClient(exporter=exporter, tracer_provider=provider, flows=False, **options)
    try:
        yield Shop(client, provider)
    finally:
        client.shutdown()
        provider.shutdown()


def known(api: Client, run_id: str) -> RunStory | None:
    """What the server knows of a run."""
    reply = api.get("/api/run", flow="checkout", run_id=run_id)
    return known_story(reply.json) if reply.status == 200 else None


def assert_exact(api: Client, *shops: Shop, events: int | None = None, seconds: float = 90.0) -> None:
    """The server comes to know every run as it was done and no other run, and then has ``events`` events of them.

    Waits at most ``seconds``; fails with the differences.
    """
    done = {run_id: story for each in shops for run_id, story in each.done.items()}
    open_runs = dict(done)

    def agreed() -> bool:
        for run_id, story in list(open_runs.items()):
            if not differences(story, known(api, run_id)):
                del open_runs[run_id]
            else:
                return False
        return True

    try:
        until(agreed, seconds)
    except AssertionError:
        lines = [line for run_id, story in list(open_runs.items())[:20] for line in differences(story, known(api, run_id))]
        raise AssertionError("\n".join([f"{len(open_runs)} of {len(done)} runs are not known as done:", *lines])) from None
    assert run_ids(api) >= set(done)
    if events is not None:
        # Runs may be known by their spans before the last of their events is there.
        with contextlib.suppress(AssertionError):
            until(lambda: stored_events(api, done) >= events, seconds)
        stored = stored_events(api, done)
        assert stored == events, (stored, events)


def stored_events(api: Client, ids: Iterable[str]) -> int:
    """How many events the server has of these runs."""
    return sum(len(api.get("/api/run/events", flow="checkout", run_id=run_id).json.get("events", ())) for run_id in ids)


def run_ids(api: Client) -> set[str]:
    """Every run that the server lists."""
    found: set[str] = set()
    cursor: dict[str, str] = {}
    for _ in range(1000):
        page = api.get("/api/runs", flow="checkout", limit=200, **cursor).json
        found |= {run["runId"] for run in page["runs"]}
        if page["nextCursor"] is None:
            return found
        cursor = {"cursor": page["nextCursor"]}
    raise AssertionError("the list of runs has no end")
