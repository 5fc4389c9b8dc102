"""Metadata on events and spans: merged, taken at the call, bounded, and safe whatever it holds."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import decimal
import enum
import json
import threading
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from support.tracing import Tracing

from failpath_otel.events.wire import decode_event, encode_event
from failpath_otel.testing import RecordingClient


def _on_span(span: Any) -> dict[str, Any]:
    prefix = "failpath.metadata."
    return {key[len(prefix) :]: value for key, value in span.attributes.items() if key.startswith(prefix)}


# Merging


def test_the_steps_metadata_wins_over_the_runs_and_that_over_the_clients(tracing: Tracing) -> None:
    client = RecordingClient(
        tracer_provider=tracing.provider, flows=False, default_metadata={"a": "client", "b": "client", "c": "client"}
    )
    run = client.run("checkout", "1", metadata={"b": "run", "c": "run"})
    with run.step("charge", metadata={"c": "step", "d": "step"}) as step:
        step.set_metadata(d="set", e="set")
    start, end = client.events
    assert start.metadata == {"a": "client", "b": "run", "c": "step", "d": "step"}
    assert end.metadata == {"a": "client", "b": "run", "c": "step", "d": "set", "e": "set"}
    assert _on_span(tracing.span) == end.metadata
    assert dict(run.metadata) == {"a": "client", "b": "run", "c": "run"}


def test_a_steps_metadata_is_none_of_the_next_steps(client: RecordingClient) -> None:
    run = client.run("checkout", "1", metadata={"a": 1})
    with run.step("charge", metadata={"b": 2}) as step:
        step.set_metadata(c=3)
    run.step("ship", lambda: None)
    assert client.events[-1].metadata == {"a": 1}


def test_metadata_set_before_the_block_is_on_both_events(client: RecordingClient) -> None:
    step = client.run("checkout", "1").step("charge", metadata={"a": 1})
    step.set_metadata(a=2, b=3)
    with step:
        pass
    assert [event.metadata for event in client.events] == [{"a": 2, "b": 3}] * 2


def test_metadata_set_after_the_end_is_warned_of(client: RecordingClient, caplog: pytest.LogCaptureFixture) -> None:
    with client.run("checkout", "1").step("charge") as step:
        pass
    step.set_metadata(late=True)
    assert client.events[-1].metadata == {}
    assert "after its end" in caplog.text


def test_skips_and_recorded_steps_have_metadata_too(client: RecordingClient, tracing: Tracing) -> None:
    client.run("checkout", "1", metadata={"a": 1}).skip("receipt", metadata={"b": 2})
    client.record_step(flow_key="checkout", run_id="1", step_key="ship", status="success", metadata={"c": 3})
    assert [event.metadata for event in client.events] == [{"a": 1, "b": 2}, {"c": 3}]
    assert [_on_span(span) for span in tracing.spans] == [{"a": 1, "b": 2}, {"c": 3}]


# Taken at the call


def test_metadata_is_taken_at_the_call_of_run(client: RecordingClient) -> None:
    metadata: dict[str, Any] = {"items": [1]}
    run = client.run("checkout", "1", metadata=metadata)
    metadata["items"].append(2)
    metadata["late"] = True
    run.step("charge", lambda: None)
    assert client.events[0].metadata == {"items": [1]}


def test_metadata_is_taken_at_the_call_of_step(client: RecordingClient) -> None:
    metadata: dict[str, Any] = {"items": [1]}

    def charge() -> None:
        metadata["items"].append(2)

    client.run("checkout", "1").step("charge", charge, metadata=metadata)
    assert [event.metadata for event in client.events] == [{"items": [1]}] * 2


@pytest.mark.parametrize("source", ["run", "client"])
def test_metadata_is_taken_when_the_block_is_made(client: RecordingClient, source: str) -> None:
    metadata: dict[str, Any] = {"items": [1]}
    run = client.run("checkout", "1")
    step = (run if source == "run" else client).step("charge", metadata=metadata)
    metadata["items"].append(2)
    more = [1]
    step.set_metadata(more=more)
    more.append(2)
    with run, step:
        pass
    assert client.events[0].metadata == {"items": [1], "more": [1]}


def test_metadata_is_taken_at_the_call_of_set_metadata(client: RecordingClient) -> None:
    items = [1]
    with client.run("checkout", "1").step("charge") as step:
        step.set_metadata(items=items)
        items.append(2)
    assert client.events[-1].metadata == {"items": [1]}


# On spans


def test_metadata_can_be_kept_off_spans(tracing: Tracing) -> None:
    client = RecordingClient(tracer_provider=tracing.provider, flows=False, metadata_on_spans=False, default_metadata={"a": 1})
    run = client.run("checkout", "1", metadata={"b": 2})
    with run.step("charge", metadata={"c": 3}) as step:
        step.set_metadata(d=4)
    run.skip("receipt", metadata={"e": 5})
    assert client.events[1].metadata == {"a": 1, "b": 2, "c": 3, "d": 4}
    for span in tracing.spans:
        assert _on_span(span) == {}
        assert (span.attributes or {})["failpath.flow.slug"] == "checkout"


def test_spans_hold_primitives_and_lists_of_one_kind_as_they_are_and_the_rest_as_json(
    client: RecordingClient, tracing: Tracing
) -> None:
    metadata = {
        "text": "ü",
        "number": 1,
        "float": 1.5,
        "flag": True,
        "none": None,
        "list": ["a", "b"],
        "mixed": [1, "a"],
        "dict": {"a": [1, {"b": None}]},
        "empty": [],
    }
    client.run("checkout", "1").step("charge", lambda: None, metadata=metadata)
    assert client.events[0].metadata == metadata
    assert _on_span(tracing.span) == {
        "text": "ü",
        "number": 1,
        "float": 1.5,
        "flag": True,
        "list": ("a", "b"),
        "mixed": '[1,"a"]',
        "dict": '{"a":[1,{"b":null}]}',
        "empty": "[]",
    }


def test_who_a_span_is_outlives_a_limit_on_attributes(client: RecordingClient, tracing: Tracing) -> None:
    """The SDK drops the first attributes: metadata gives way, the identity and the outcome stay."""
    with client.run("checkout", "1").step("charge", metadata={f"a{n}": n for n in range(120)}) as step:
        step.set_metadata(**{f"b{n}": n for n in range(100)})
    attributes = tracing.span.attributes or {}
    assert tracing.span.dropped_attributes > 0
    assert attributes["failpath.flow.slug"] == "checkout"
    assert attributes["failpath.run.id"] == "1"
    assert attributes["failpath.step.key"] == "charge"
    assert attributes["failpath.step.status"] == "success"
    assert len(client.events[-1].metadata) == 220


# Hostile values


class Loud:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class NotText:
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]  # noqa: PLE0307 - that is the case


class Colour(enum.Enum):
    RED = "red"


class Broken(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("no")

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


class Liar:
    """Says of itself that it is a dict."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("no")


@dataclasses.dataclass
class Cart:
    id: int
    items: list[str]


def _cycle() -> dict[str, Any]:
    cycle: dict[str, Any] = {"a": 1}
    cycle["self"] = cycle
    return cycle


def _deep() -> Any:
    deep: Any = "bottom"
    for _ in range(5000):
        deep = [deep]
    return deep


def _wide() -> Any:
    wide: Any = "x"
    for _ in range(8):
        wide = [wide] * 50
    return wide


HOSTILE: dict[str, Any] = {
    "nan": float("nan"),
    "inf": float("-inf"),
    "cycle": _cycle(),
    "str-raises": Loud(),
    "str-is-no-text": NotText(),
    "huge": "x" * 5_000_000,
    "huge-unicode": "ü" * 5_000_000,
    "control": "\x00" * 20_000,
    "quotes": '"\\' * 20_000,
    "deep": _deep(),
    "wide": _wide(),
    "surrogate": "\ud800 half",
    "surrogate-key": {"\udfff": "\ud83d"},
    "bytes": b"\xff\x00raw",
    "bytearray": bytearray(b"abc"),
    "memoryview": memoryview(b"abc"),
    "object": object(),
    "type": int,
    "function": len,
    "set": {1, 2},
    "big-int": 2**200,
    "negative-int": -(2**63) - 1,
    "decimal": decimal.Decimal("1.10"),
    "uuid": uuid.UUID(int=1),
    "date": datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
    "naive": datetime.datetime(2026, 1, 1),
    "delta": datetime.timedelta(days=1),
    "enum": Colour.RED,
    "dataclass": Cart(1, ["a"]),
    "exception": ValueError(Loud()),
    "broken-mapping": Broken(),
    "liar": [Liar()],
    "odd-keys": {1: "a", None: "b", (1, 2): "c", Loud(): "d"},
    "generator": (value for value in range(3)),
    "lock": threading.Lock(),
    "complex": 1j,
    "nan-in-list": [float("nan"), 1.0],
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("where", ["run", "step", "set", "skip", "record"])
def test_any_value_is_carried_by_events_and_spans(client: RecordingClient, tracing: Tracing, name: str, where: str) -> None:
    value = HOSTILE[name]
    metadata = {"value": value, "beside": 1}
    run = client.run("checkout", "1", metadata=metadata if where == "run" else None)
    if where == "skip":
        run.skip("charge", metadata=metadata)
    elif where == "record":
        client.record_step(flow_key="checkout", run_id="1", step_key="charge", status="success", metadata=metadata)
    else:
        with run.step("charge", metadata=metadata if where == "step" else None) as step:
            if where == "set":
                step.set_metadata(**metadata)
    event = client.events[-1]
    assert "value" in event.metadata
    assert event.metadata.get("beside") == 1 or "[cut 1 of 2 entries]" in event.metadata["…"]  # what is full is full
    raw = encode_event(event)
    assert len(raw) <= 66 * 1024
    json.loads(raw)
    decoded = decode_event(raw)
    assert decoded.metadata == event.metadata
    assert encode_spans(tracing.spans).SerializeToString()


def test_rendered_values_are_what_one_would_expect(client: RecordingClient) -> None:
    names = ("nan", "inf", "date", "naive", "enum", "dataclass", "decimal", "uuid", "bytes", "big-int", "cycle")
    client.run("checkout", "1", metadata={name: HOSTILE[name] for name in names}).skip("charge")
    assert client.events[0].metadata == {
        "nan": "nan",
        "inf": "-inf",
        "date": "2026-01-01T00:00:00+00:00",
        "naive": "2026-01-01T00:00:00",
        "enum": "red",
        "dataclass": {"id": 1, "items": ["a"]},
        "decimal": "1.10",
        "uuid": "00000000-0000-0000-0000-000000000001",
        "bytes": "\\xff\x00raw",
        "big-int": hex(2**200),
        "cycle": {"a": 1, "self": "[cycle]"},
    }


def test_metadata_of_all_three_levels_together_stays_within_an_event(tracing: Tracing) -> None:
    """Each level fits; their sum must fit as well, beside a long error."""
    big = {f"key{n}": "ü" * 4000 for n in range(7)}
    client = RecordingClient(
        tracer_provider=tracing.provider, flows=False, default_metadata={f"c{k}": v for k, v in big.items()}, capture_stack=True
    )
    run = client.run("checkout", "1", metadata={f"r{k}": v for k, v in big.items()})
    with pytest.raises(ValueError, match="x"):
        run.step("charge", _raises, metadata={f"s{k}": v for k, v in big.items()})
    for event in client.events:
        assert len(encode_event(event)) <= 66 * 1024
    error = client.events[-1].error
    assert error is not None
    assert "[cut " in error.message


def test_a_mapping_with_a_million_entries_is_cut_without_holding_up_the_service(client: RecordingClient) -> None:
    huge = dict.fromkeys(range(1_000_000), "x")
    client.run("checkout", "1").skip("charge", metadata={"huge": huge})
    cut = client.events[0].metadata["huge"]
    assert len(cut) < 20_000
    assert cut["…"].startswith("[cut ")


def test_a_mapping_that_changes_while_it_is_read_costs_no_event(client: RecordingClient) -> None:
    class Growing(dict[str, Any]):
        def items(self) -> Any:
            for item in list(super().items()):
                self[f"more{len(self)}"] = 1
                yield item
            raise RuntimeError("dictionary changed size during iteration")

    client.run("checkout", "1").step("charge", lambda: None, metadata=Growing(a=object()))
    assert len(client.events) == 2
    assert "cannot be rendered" in str(client.events[0].metadata)


def test_what_an_exit_raises_while_metadata_is_read_is_not_swallowed(client: RecordingClient) -> None:
    class Exits:
        def __str__(self) -> str:
            raise SystemExit(3)

    with pytest.raises(SystemExit):
        client.run("checkout", "1", metadata={"a": Exits()})


def test_tasks_may_set_metadata_of_one_step_at_once(client: RecordingClient) -> None:
    async def main() -> None:
        async with client.run("checkout", "1").step("charge") as step:

            async def work(number: int) -> None:
                await asyncio.sleep(0)
                step.set_metadata(**{f"task{number}": number})

            await asyncio.gather(*(work(number) for number in range(10)))

    asyncio.run(main())
    assert client.events[-1].metadata == {f"task{n}": n for n in range(10)}


def _raises() -> None:
    raise ValueError("x" * 100_000)
