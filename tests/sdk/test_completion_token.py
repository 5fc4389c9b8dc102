"""A step that begins in one process and ends in another: `Step.detach` and `FailpathClient.complete`."""

from __future__ import annotations

import base64
import json
import logging
import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tracing import Tracing

from failpath_otel import StepError
from failpath_otel.events import translate
from failpath_otel.events.translate import SpanFacts
from failpath_otel.propagation.completion_token import decode_token
from failpath_otel.testing import RecordingClient


def begun(client: RecordingClient) -> str:
    with client.run("checkout", "req_1").step("approve", metadata={"by": "anna"}) as step:
        return step.detach()


def test_a_detached_step_goes_on_after_its_block_and_ends_with_its_completion(client: RecordingClient) -> None:
    token = begun(client)
    assert client.story("checkout") == "approve:running"
    assert client.complete(token, metadata={"answer": "yes"}) is True
    assert client.story("checkout") == "approve:success"
    start, end = client.events
    assert end.event_id == start.event_id.replace("-start", "-end")
    assert (end.trace_id, end.span_id, end.started_at) == (start.trace_id, start.span_id, start.timestamp)
    assert end.metadata == {"answer": "yes"}


@pytest.mark.parametrize(("error", "name"), [(ValueError("no"), "ValueError"), (StepError("Declined", "no"), "Declined")])
def test_a_completion_with_an_error_is_an_error(client: RecordingClient, error: Any, name: str) -> None:
    client.complete(begun(client), error)
    assert client.events[-1].error == StepError(name, "no")


def test_completing_twice_is_the_same_event(client: RecordingClient) -> None:
    token = begun(client)
    client.complete(token)
    client.complete(token)
    assert len({event.event_id for event in client.events}) == 2


def test_another_process_completes_it(client: RecordingClient) -> None:
    token = begun(client)
    program = (
        "import sys; from failpath_otel.testing import RecordingClient\n"
        "client = RecordingClient(flows=False); print(client.complete(sys.argv[1]), client.events[0].event_id)"
    )
    done = subprocess.run([sys.executable, "-c", program, token], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["True", client.events[0].event_id.replace("-start", "-end")]


def test_an_exception_that_leaves_the_block_ends_a_detached_step(client: RecordingClient) -> None:
    step = client.run("checkout", "1").step("approve")
    with pytest.raises(KeyboardInterrupt), step:
        step.detach()
        raise KeyboardInterrupt
    assert client.story("checkout") == "approve:error(KeyboardInterrupt)"


def test_the_spans_alone_tell_the_same_events(client: RecordingClient, tracing: Tracing) -> None:
    client.complete(begun(client), ValueError("no"), metadata={"answer": 1})
    told = []
    for span in tracing.spans:
        attributes = dict(span.attributes or {})
        identity = translate.identity(attributes)
        assert identity is not None
        exception = next((translate.exception_of(event.attributes or {}) for event in span.events), None)
        facts = SpanFacts(
            trace_id=f"{span.context.trace_id:032x}",
            span_id=f"{span.context.span_id:016x}",
            attributes=attributes,
            started_at=span.start_time or 0,
            ended_at=span.end_time or 0,
            failed=span.status.status_code.name == "ERROR",
            exception=None if exception is None else StepError(exception.name, exception.message),
            service=client.events[0].service,
        )
        told.append(translate.span_ended(identity, facts))
    assert told == client.events


def test_a_detach_outside_of_the_block_gives_no_token_and_a_warning(
    client: RecordingClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert client.run("checkout", "1").step("approve").detach() == ""
    assert "not running" in caplog.text


def test_the_empty_token_of_a_step_that_is_not_recorded_is_completed_without_a_word(
    client: RecordingClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert client.complete("") is False
    assert not caplog.records


def forged(*fields: Any) -> str:
    return "fp1." + base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "token",
    [
        None,
        7,
        "x",
        "fp1.",
        "fp1.%%%",
        "fp2.abc",
        "fp1." + "A" * 20_000,
        forged("f", "r", "s", "1" * 32, "2" * 16),
        forged("", "r", "s", "1" * 32, "2" * 16, 1),
        forged("f", "r" * 513, "s", "1" * 32, "2" * 16, 1),
        forged("f", "r", "s", "0" * 32, "2" * 16, 1),
        forged("f", "r", "s", "1" * 32, "Z" * 16, 1),
        forged("f", "r", "s", "1" * 32, "2" * 16, 0),
        forged("f", "r", "s", "1" * 32, "2" * 16, 2**63),
    ],
)
def test_a_token_that_is_none_records_nothing_and_is_warned_of_once(
    client: RecordingClient, caplog: pytest.LogCaptureFixture, token: Any
) -> None:
    assert client.complete(token) is False
    assert client.complete(token) is False
    assert client.events == []
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


@given(st.text() | st.text().map(lambda text: "fp1." + text))
def test_no_text_whatever_makes_the_reading_of_a_token_raise(text: str) -> None:
    decode_token(text)


def test_a_token_fits_into_an_address(client: RecordingClient) -> None:
    assert re.fullmatch(r"[A-Za-z0-9._-]+", begun(client))
