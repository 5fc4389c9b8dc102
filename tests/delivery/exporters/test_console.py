from __future__ import annotations

import io
import sys
from collections.abc import Callable

import pytest
from support.delivery import event

from failpath_otel import FailpathClient
from failpath_otel.events.step import StepError, StepEvent
from failpath_otel.exporters import ConsoleExporter
from failpath_otel.exporters.console import format_line

NOON = 1_772_366_400_000_000_000  # 2026-03-01T12:00:00Z


def line(status: str = "success", **fields: object) -> str:
    return format_line(event(1, status, timestamp=NOON + 250_500_000, **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (line("running"), "12:00:00.250  ▶ running  checkout/step-1  run=r1"),
        (line("success", started_at=NOON), "12:00:00.250  ✔ success  checkout/step-1  run=r1  250.5ms"),
        (line("error", started_at=NOON), "12:00:00.250  ✘ error    checkout/step-1  run=r1  250.5ms  Declined: no"),
        (line("skipped", skip_reason="opted out"), "12:00:00.250  ↷ skipped  checkout/step-1  run=r1  (opted out)"),
        (line(metadata={"a": 1, "b": "é"}), '12:00:00.250  ✔ success  checkout/step-1  run=r1  {"a":1,"b":"é"}'),
    ],
)
def test_one_readable_line_an_event(written: str, expected: str) -> None:
    assert written == expected


def test_a_stack_is_indented_below() -> None:
    error = StepError("Declined", "no", "Traceback\n  File x\n")
    assert line("error", error=error).splitlines()[1:] == ["    Traceback", "      File x"]


def test_control_characters_are_shown_and_not_sent_to_the_terminal() -> None:
    """Neither an escape sequence nor a line break of a run id or message can forge a line."""
    error = StepError("Declined", "a\x1b[31mred\nforged\r\u202e", "one\x1b]0;title\x07\ntwo")
    written = line("error", run_id="r\x9b1", error=error, metadata={"k": "\x00"})
    assert all(char.isprintable() or char == "\n" for char in written)
    assert len(written.splitlines()) == 3
    assert "\\x1b[31mred\\nforged" in written


def test_batches_are_written_to_the_stream() -> None:
    stream = io.StringIO()
    exporter = ConsoleExporter(stream)
    exporter.export([event(1), event(2)], timeout_millis=100)
    exporter.close()
    assert [each.split("/")[1].split()[0] for each in stream.getvalue().splitlines()] == ["step-1", "step-2"]


def test_a_stream_that_lacks_characters_gets_others() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    ConsoleExporter(stream).export([event(1)], timeout_millis=100)
    assert b"? success  checkout/step-1" in raw.getvalue()


def test_without_a_stream_it_is_the_standard_error_of_the_moment(
    client: Callable[..., FailpathClient], capsys: pytest.CaptureFixture[str]
) -> None:
    failpath = client(exporter="console")
    failpath.run("checkout", "r1").step("pay", lambda: None)
    assert failpath.flush()
    out, err = capsys.readouterr()
    assert out == ""
    assert [each.split()[2] for each in err.splitlines()] == ["running", "success"]


@pytest.mark.parametrize("stream", [None, "closed"])
def test_a_stream_that_cannot_be_written_costs_nothing_but_the_events(
    client: Callable[..., FailpathClient], monkeypatch: pytest.MonkeyPatch, stream: object
) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", None if stream is None else closed)
    failpath = client(exporter="console")
    assert failpath.run("checkout", "r1").step("pay", lambda: 4) == 4
    assert sum(failpath.flush().dropped.values()) == 2


def test_metadata_that_is_no_json_is_still_written() -> None:
    odd = event(1, metadata={"x": object})
    assert isinstance(odd, StepEvent)
    assert "class 'object'" in format_line(odd)
