"""FailpathClient and Run: what can be asked of them, and that hostile arguments never raise."""

from __future__ import annotations

import datetime
import enum
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.tracing import Tracing, ids_are_consistent, told

from failpath_otel import FailpathClient, FlushResult, MemoryExporter, Run, StepError, StepEvent
from failpath_otel.testing import RecordingClient

AWARE = datetime.datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=datetime.timezone.utc)
AWARE_NS = 1_777_863_721_123_456_000


class Raising:
    """Whatever is asked of it, it raises."""

    __hash__ = None  # type: ignore[assignment]

    def _raise(self, *_: object) -> Any:
        raise RuntimeError("hostile")

    __eq__ = __ne__ = __str__ = __repr__ = __bool__ = __len__ = __iter__ = __getitem__ = __lt__ = _raise  # type: ignore[assignment]


# Runs


def test_a_run_sends_nothing_by_itself(client: RecordingClient) -> None:
    run = client.run("checkout", "1", metadata={"a": 1})
    assert (run.flow_key, run.run_id, dict(run.metadata)) == ("checkout", "1", {"a": 1})
    assert client.events == []


@pytest.mark.parametrize("run_id", [None, "", type("Empty", (), {"__str__": lambda _: ""})()])
def test_a_missing_or_empty_run_id_is_generated(client: RecordingClient, run_id: object) -> None:
    made = client.run("checkout", run_id).run_id
    assert uuid.UUID(made).version == 7


def test_generated_run_ids_sort_by_time_and_differ(client: RecordingClient) -> None:
    made = [client.run("checkout").run_id for _ in range(100)]
    assert made == sorted(made)
    assert len(set(made)) == 100


class Key(str, enum.Enum):
    CHARGE = "charge-card"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (7, "7"),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (b"raw", "b'raw'"),
        (Key.CHARGE, "charge-card"),
        ("bestellung/größe 7", "bestellung/größe 7"),
        ("half \ud800", "half �"),
        (Raising(), "<Raising: str() failed>"),
    ],
    ids=["int", "uuid", "bytes", "enum", "unicode", "surrogate", "raising"],
)
def test_ids_and_keys_of_other_types_are_taken_as_text(client: RecordingClient, given: Any, taken: str) -> None:
    client.run(given, given).step(given, lambda: None)
    assert [(event.flow_key, event.run_id, event.step_key) for event in client.events] == [(taken, taken, taken)] * 2


def test_a_run_id_over_512_characters_is_cut_with_one_warning(
    client: RecordingClient, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = client.run("checkout", "x" * 600 + "1"), client.run("checkout", "x" * 600 + "2")
    assert len(first.run_id) == 512
    assert first.run_id != second.run_id
    (record,) = caplog.records
    assert "512" in record.getMessage()


def test_ids_of_exactly_512_characters_are_kept_without_a_warning(
    client: RecordingClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert client.run("checkout", "é" * 512).run_id == "é" * 512
    assert caplog.records == []


@pytest.mark.parametrize("empty", ["", None])
def test_an_empty_step_key_is_recorded_under_a_name_with_a_warning(
    client: RecordingClient, caplog: pytest.LogCaptureFixture, empty: Any
) -> None:
    client.run("checkout", "1").step(empty, lambda: None)
    assert told(client.events) == ["unnamed:running", "unnamed:success"]
    assert "empty step key" in caplog.text


def test_runs_show_what_they_are(client: RecordingClient) -> None:
    assert repr(client.run("checkout", "1")) == "Run(flow_key='checkout', run_id='1')"
    assert repr(client.run("checkout", "1").step("charge")) == "Step('charge')"


def test_the_metadata_of_a_run_cannot_be_changed_through_it(client: RecordingClient) -> None:
    with pytest.raises(TypeError):
        client.run("checkout", "1", metadata={"a": 1}).metadata["a"] = 2  # type: ignore[index]


# Skipping


def test_a_skip_is_one_event_with_its_reason_and_a_span_without_length(client: RecordingClient, tracing: Tracing) -> None:
    client.run("checkout", "1").skip("receipt", reason="opted out", metadata={"by": "user"})
    (event,) = client.events
    assert (event.status, event.skip_reason, event.metadata) == ("skipped", "opted out", {"by": "user"})
    assert event.duration_ms == 0
    assert ids_are_consistent(client.events)
    attributes = tracing.span.attributes or {}
    assert attributes["failpath.step.status"] == "skipped"
    assert attributes["failpath.step.skip_reason"] == "opted out"
    assert tracing.span.start_time == tracing.span.end_time == event.timestamp


def test_a_skip_without_a_reason_has_none(client: RecordingClient, tracing: Tracing) -> None:
    client.run("checkout", "1").skip("receipt")
    assert client.events[0].skip_reason is None
    assert "failpath.step.skip_reason" not in (tracing.span.attributes or {})


@pytest.mark.parametrize("reason", [5, Raising(), "\ud800", "x" * 10**6])
def test_any_reason_is_taken(client: RecordingClient, reason: Any) -> None:
    client.run("checkout", "1").skip("receipt", reason=reason)
    text = client.events[0].skip_reason
    assert text
    assert len(text.encode()) <= 16 * 1024


# Recording by hand


@pytest.mark.parametrize("status", ["running", "success", "error", "skipped"])
def test_record_step_gives_exactly_one_event_and_one_span(client: RecordingClient, tracing: Tracing, status: Any) -> None:
    client.record_step(flow_key="checkout", run_id="1", step_key="reserve", status=status, metadata={"a": 1})
    (event,) = client.events
    assert (event.flow_key, event.run_id, event.step_key, event.status) == ("checkout", "1", "reserve", status)
    assert event.metadata == {"a": 1}
    assert event.event_id.endswith("-start" if status == "running" else "-end")
    assert ids_are_consistent(client.events)
    assert (tracing.span.attributes or {})["failpath.step.status"] == status
    assert tracing.span.name == "checkout/reserve"


@pytest.mark.parametrize("timestamp", [AWARE, AWARE_NS, AWARE.astimezone(datetime.timezone(datetime.timedelta(hours=5)))])
def test_record_step_takes_a_timestamp(client: RecordingClient, tracing: Tracing, timestamp: Any) -> None:
    client.record_step(flow_key="checkout", run_id="1", step_key="reserve", status="success", timestamp=timestamp)
    assert client.events[0].timestamp == AWARE_NS
    assert tracing.span.start_time == tracing.span.end_time == AWARE_NS


@pytest.mark.parametrize(
    "timestamp",
    [
        0,
        -1,
        2**63,
        True,
        1.5,
        "now",
        Raising(),
        AWARE.replace(tzinfo=None),
        AWARE.replace(year=1969),
        AWARE.replace(year=9999),
        datetime.datetime.max,
    ],
)
def test_a_timestamp_that_cannot_be_one_is_now_with_a_warning(
    client: RecordingClient, caplog: pytest.LogCaptureFixture, timestamp: Any
) -> None:
    """Beyond 64 bits a time would cost an OTLP exporter its whole batch; before 1970 the server refuses it."""
    client.record_step(flow_key="checkout", run_id="1", step_key="reserve", status="success", timestamp=timestamp)
    assert AWARE_NS < client.events[0].timestamp < 2**63
    assert "timestamp" in caplog.text or "nanoseconds" in caplog.text


@pytest.mark.parametrize(
    ("error", "recorded"),
    [
        (ValueError("declined"), StepError("ValueError", "declined")),
        (StepError("Declined", "no funds", "at line 5"), StepError("Declined", "no funds", "at line 5")),
        ("just text", StepError("Error", "just text")),
        (None, StepError("Error", "")),
        (StepError("", ""), StepError("Error", "")),
        (StepError(5, None), StepError("5", "None")),  # type: ignore[arg-type]
        (Raising(), StepError("Error", "<Raising: str() failed>")),
    ],
    ids=["exception", "step-error", "text", "none", "empty", "wrong-types", "raising"],
)
def test_record_step_takes_an_error(client: RecordingClient, error: Any, recorded: StepError) -> None:
    client.record_step(flow_key="checkout", run_id="1", step_key="reserve", status="error", error=error)
    assert client.events[0].error == recorded


def test_an_error_counts_only_with_the_status_error(client: RecordingClient) -> None:
    client.record_step(flow_key="checkout", run_id="1", step_key="reserve", status="success", error=ValueError())
    assert client.events[0].error is None


@pytest.mark.parametrize("status", ["done", "", None, [], {}, 5, Raising()])
def test_record_step_with_an_unknown_status_warns_and_records_nothing(
    client: RecordingClient, caplog: pytest.LogCaptureFixture, status: Any
) -> None:
    client.record_step(flow_key="checkout", run_id="1", step_key="reserve", status=status)
    assert client.events == []
    assert "must be one of ['error', 'running', 'skipped', 'success']" in caplog.text


def test_record_step_without_a_run_id_generates_one(client: RecordingClient) -> None:
    client.record_step(flow_key="checkout", run_id=None, step_key="reserve", status="success")
    assert uuid.UUID(client.events[0].run_id).version == 7


# Delivery, as the client shows it


def test_flush_and_stats_count_what_was_recorded() -> None:
    exporter = MemoryExporter()
    with FailpathClient(exporter=exporter, flows=False) as client:
        client.run("checkout", "1").step("charge", lambda: None)
        result = client.flush()
    assert result == FlushResult(sent=2, pending=0, dropped={})
    assert result
    assert told(exporter.events) == ["charge:running", "charge:success"]
    assert client.stats().recorded == 2


def test_steps_still_run_after_shutdown_and_their_events_are_counted() -> None:
    exporter = MemoryExporter()
    client = FailpathClient(exporter=exporter, flows=False)
    client.shutdown()
    client.shutdown()
    assert client.run("checkout", "1").step("charge", lambda: 5) == 5
    assert exporter.events == []
    assert client.stats().dropped == {"shutdown": 2}


def test_aflush_and_the_async_block_do_the_same() -> None:
    import asyncio

    exporter = MemoryExporter()

    async def main() -> None:
        async with FailpathClient(exporter=exporter, flows=False) as client:
            client.run("checkout", "1").step("charge", lambda: None)
            assert (await client.aflush()).sent == 2
            client.run("checkout", "1").skip("receipt")

    asyncio.run(main())
    assert told(exporter.events) == ["charge:running", "charge:success", "receipt:skipped"]


def test_an_exporter_named_none_opens_spans_and_counts_nothing(tracing: Tracing) -> None:
    with FailpathClient(exporter="none", flows=False, tracer_provider=tracing.provider) as client:
        assert client.run("checkout", "1").step("charge", lambda: 5) == 5
        assert client.flush() == FlushResult()
        assert client.stats().recorded == 0
    assert tracing.span.name == "checkout/charge"


def test_each_event_has_metadata_of_its_own(client: RecordingClient) -> None:
    """A mask or hook that writes into one event's metadata writes into no other."""

    def scribble(event: StepEvent) -> None:
        event.metadata["seen"] = True

    run = client.run("checkout", "1", metadata={"a": 1})
    empty = client.run("checkout", "2")
    client.on_event = scribble
    run.step("charge", lambda: None)
    empty.step("charge", lambda: None)
    client.on_event = None
    assert dict(run.metadata) == {"a": 1}
    assert dict(empty.metadata) == {}
    run.step("later", lambda: None)
    empty.step("later", lambda: None)
    assert [event.metadata for event in client.events if event.step_key == "later"] == [{"a": 1}] * 2 + [{}] * 2


# Never raising


@pytest.mark.parametrize("hostile", [Raising(), 5, "text", ["a"], object(), lambda: None])
@pytest.mark.parametrize(
    "act",
    [
        lambda client, value: client.run("f", "1", metadata=value).step("s", lambda: None),
        lambda client, value: client.run("f", "1").step("s", lambda: None, metadata=value),
        lambda client, value: client.run("f", "1").step("s", metadata=value).__enter__().__exit__(None, None, None),
        lambda client, value: client.run("f", "1").skip("s", metadata=value),
        lambda client, value: client.run("f", "1").step("s")(lambda: None)(),
        lambda client, value: client.step("s", metadata=value),
        lambda client, value: client.record_step(flow_key="f", run_id="1", step_key="s", status="success", metadata=value),
        lambda client, value: client.record_step(flow_key=value, run_id=value, step_key=value, status="success"),
    ],
)
def test_hostile_arguments_never_raise(
    client: RecordingClient, act: Callable[[RecordingClient, object], object], hostile: object
) -> None:
    act(client, hostile)


def test_the_client_never_raises_where_the_tracer_provider_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch, no_global_provider: None
) -> None:
    """OTEL_PYTHON_TRACER_PROVIDER may name what is not installed; the API then raises at each look-up."""
    monkeypatch.setenv("OTEL_PYTHON_TRACER_PROVIDER", "no-such-provider")
    with RecordingClient(flows=False) as client:
        client.run("checkout", "1").step("charge", lambda: None)
    assert told(client.events) == ["charge:running", "charge:success"]


def test_a_run_is_generic_at_runtime(client: RecordingClient) -> None:
    run: Run[str] = client.run("checkout", "1")
    assert isinstance(run, Run)


def test_paths_of_flows_may_be_of_any_path_type(tmp_path: Path) -> None:
    (tmp_path / "flows.json").write_text('{"flows": []}')
    RecordingClient(flows=tmp_path / "flows.json")
    RecordingClient(flows=str(tmp_path / "flows.json"))
