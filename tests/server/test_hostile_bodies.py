"""Bodies that are small on the wire and would be dear to read: each is refused or read within bounds."""

from __future__ import annotations

import gzip
import json
import time

import pytest
from support.otlp_bodies import json_span, json_traces, step
from support.served import event

from failpath_otel.server.http.body import inflate
from failpath_otel.server.http.problem import Problem
from failpath_otel.server.http.tolerant_json import MAX_REPAIR_BYTES, repaired
from failpath_otel.server.intake.http import read_events
from failpath_otel.server.otlp.decode import decode_traces

MIB = 1024 * 1024


@pytest.mark.parametrize(
    "unit",
    [b"[", b"{", b'{"a":', b'"', b'\\"', b'["', b"]", b'"\\', b"[[[[]", b'\xff"', b"\\"],
    ids=lambda unit: unit.decode("latin-1"),
)
@pytest.mark.parametrize("head", [b"", b'"', b"[" * 100])
def test_a_repair_takes_time_in_proportion_to_the_body(unit, head):
    body = head + unit * ((MAX_REPAIR_BYTES - len(head)) // len(unit))
    begin = time.thread_time()
    with pytest.raises(ValueError):
        repaired(body)
    assert time.thread_time() - begin < 10  # minutes where it is quadratic


def test_a_larger_body_is_not_repaired():
    with pytest.raises(ValueError, match="too large to be repaired"):
        repaired(b"[" * (MAX_REPAIR_BYTES + 1))


def test_a_repair_keeps_what_was_sound():
    text = json.dumps({"a": ['{"[', "\\", 'q"', {"b": [1.5, -2, None, True]}], "c]": "ü😀"})
    assert json.loads(repaired(text.encode())) == json.loads(text)


def test_a_repair_cuts_what_is_too_deep_and_keeps_what_follows():
    deep = b'{"deep":' + b"[" * 5000 + b'"]"' + b"]" * 5000 + b',"after":{"x":[1]}}'
    found = json.loads(repaired(deep))
    assert found["after"] == {"x": [1]}
    assert "cut: deeper than 64" in json.dumps(found["deep"])


def test_many_gzip_members_are_refused():
    with pytest.raises(Problem, match="members"):
        inflate(gzip.compress(b"") * 100_000)
    assert inflate(gzip.compress(b"a") * 64 + b"\0\0") == b"a" * 64


@pytest.mark.parametrize("body", [b'{"events":[' + b"5," * 60_000 + b"5]}", b'{"events":[' + b"," * (3 * MIB) + b"]}"])
def test_more_items_than_a_body_of_events_can_hold_are_refused(body):
    with pytest.raises(Problem) as caught:
        read_events(body)
    assert caught.value.status == 413


@pytest.mark.parametrize(
    "body", [b'{"resourceSpans":[' + b"5," * 260_000 + b"5]}", b'{"resourceSpans":[' + b"5," * (3 * MIB) + b"5]}"]
)
def test_more_items_than_a_body_of_spans_can_hold_are_refused(body):
    with pytest.raises(Problem) as caught:
        decode_traces(body, "application/json")
    assert caught.value.status == 413


def test_a_full_body_of_real_items_is_read():
    events, rejected = read_events(json.dumps({"events": [event(f"r{n}") for n in range(20_000)]}).encode())
    assert (len(events), rejected) == (20_000, [])
    spans = [json_span(step(f"r{n}")) for n in range(5_000)]
    assert len(decode_traces(json.dumps(json_traces(*spans)).encode(), "application/json").events) == 5_000
