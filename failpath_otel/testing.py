"""Testing a service's flows: a client that keeps events in memory, and a run's story in one line.

::

    def test_a_declined_card_skips_the_receipt(failpath_client):  # a fixture of the pytest plugin
        checkout(failpath_client, card="declined")
        failpath_client.assert_story("checkout", "validate-cart:success charge-card:error(CardDeclined) ship:skipped")
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry.trace import TracerProvider

from failpath_otel.client import FailpathClient
from failpath_otel.config import Options
from failpath_otel.delivery import DirectSink, Sink, takeover
from failpath_otel.events.step import StepEvent

OnEvent = Callable[[StepEvent], object]


class RecordingClient(FailpathClient):
    """A client with the same methods that keeps its events in ``events`` and sends nothing.

    An event is there as soon as the step goes on; nothing has to be flushed. Spans are opened as ever. The environment is
    read as ever, save for what concerns delivery.

    Args:
        on_event: Called with each event; may also be set later. What it raises reaches the log, not the step.
        default_metadata, capture_stack, mask, tracer_provider, flows, metadata_on_spans, propagate, rules, record_unsampled:
            As for `FailpathClient`.
    """

    def __init__(
        self,
        *,
        on_event: OnEvent | None = None,
        default_metadata: Mapping[str, Any] | None = None,
        capture_stack: bool | None = None,
        mask: Callable[[StepEvent], StepEvent] | None = None,
        tracer_provider: TracerProvider | None = None,
        flows: Any = None,
        metadata_on_spans: bool | None = None,
        propagate: bool | None = None,
        rules: Any = None,
        record_unsampled: bool | None = None,
    ) -> None:
        self.events: list[StepEvent] = []
        self.on_event = on_event
        super().__init__(
            enabled=True,
            exporter="memory",
            delivery="background",
            default_metadata=default_metadata,
            capture_stack=capture_stack,
            mask=mask,
            tracer_provider=tracer_provider,
            flows=flows,
            metadata_on_spans=metadata_on_spans,
            propagate=propagate,
            rules=rules,
            record_unsampled=record_unsampled,
        )

    def __enter__(self) -> RecordingClient:
        return self

    def _open_sink(self, options: Options) -> Sink:
        return DirectSink(self._receive, options.mask)

    def _receive(self, event: StepEvent) -> None:
        self.events.append(event)
        if self.on_event is not None:
            self.on_event(event)

    @contextmanager
    def take_over(self) -> Generator[RecordingClient, None, None]:
        """Within ``with``, every client of this process records into ``events`` and sends nothing.

        Whenever it was made: at import, or within the block; with its runs, steps, decorated functions and span processor,
        and also where it is switched off. Its ``mask`` holds. After the block each client is as it was; a ``shutdown`` within
        counts for the block alone. The fixture ``failpath_client`` does this for each test.
        """
        with takeover.taking_over(self._receive):
            yield self

    def reset(self) -> None:
        """Forgets the events recorded so far."""
        self.events.clear()

    def story(self, flow_key: str, run_id: str | None = None) -> str:
        """What became of a run, in one line: each step in the order of its first event, with its outcomes.

        ``charge-card:error(CardDeclined)`` failed, ``charge-card:error(Timeout),success`` was tried twice, ``ship:running`` did
        not end, ``send-receipt-email:skipped`` was skipped.

        Raises:
            AssertionError: ``run_id`` is left out and the flow has more than one run.
        """
        events = [event for event in self.events if event.flow_key == flow_key]
        runs = sorted({event.run_id for event in events})
        if run_id is None and len(runs) > 1:
            raise AssertionError(f"flow {flow_key!r} has {len(runs)} runs, say which: {', '.join(runs)}")
        steps: dict[str, dict[tuple[str, int | None], str]] = {}
        for event in events:
            if run_id is None or event.run_id == run_id:
                steps.setdefault(event.step_key, {})[_attempt_of(event)] = _outcome(event)
        return " ".join(f"{key}:{','.join(attempts.values())}" for key, attempts in steps.items())

    def assert_story(self, flow_key: str, expected: str, run_id: str | None = None) -> None:
        """Holds `story` against ``expected``.

        Raises:
            AssertionError: They differ; the message shows both.
        """
        story = self.story(flow_key, run_id)
        if story != expected:
            recorded = story or "(nothing)"
            raise AssertionError(f"the run of {flow_key!r} went differently\n  expected: {expected}\n  recorded: {recorded}")


def _attempt_of(event: StepEvent) -> tuple[str, int | None]:
    """Not the span alone: its id comes again where the application seeds ``random``."""
    return event.span_id or event.event_id, event.timestamp if event.status == "running" else event.started_at


def _outcome(event: StepEvent) -> str:
    return f"error({event.error.name})" if event.error is not None else event.status
