"""OTLP/HTTP: bodies of ``/v1/traces`` and ``/v1/logs`` → step events, and the answers to their senders.

Whatever the sender got wrong costs the item that is wrong and no other: it is counted in ``partial_success`` with its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from failpath_otel.errors import EventError
from failpath_otel.events.step import StepEvent
from failpath_otel.events.text import clip
from failpath_otel.rules import CompiledRules
from failpath_otel.server.http.body import too_large
from failpath_otel.server.http.headers import JSON, PROTOBUF
from failpath_otel.server.otlp import json, protobuf
from failpath_otel.server.otlp.item import MAX_KINDS, Lacking, Passed, Reading
from failpath_otel.server.otlp.rules import BodyRules

MAX_ERROR_MESSAGE_BYTES: Final = 4096
"""Senders read at most 64 KiB of an answer."""

MAX_ITEMS: Final = 250_000
"""Of 16 MiB, so many smallest spans."""

MAX_SERVICE_CHARS: Final = 200

_Reader = Callable[[bytes, str | None], Reading | None]
_Groups = Iterable[tuple[str | None, bytes, Iterable[bytes | EventError]]]


@dataclass
class Decoded:
    """What a body held: events, the reasons of what was refused, and counts of what is in order but gives none."""

    events: list[StepEvent] = field(default_factory=list[StepEvent])
    rejected: list[str] = field(default_factory=list[str])
    unmapped: int = 0
    lacking: Counter[Lacking] = field(default_factory=Counter[Lacking])

    @property
    def incomplete(self) -> int:
        """How many items lack some of the attributes that name a step."""
        return self.lacking.total()

    def pass_over(self, passed: Passed, service: str | None) -> None:
        """Counts an item that is in order but gives no event."""
        if not passed.missing:
            self.unmapped += 1
            return
        kind = (passed.missing, None if service is None else service[:MAX_SERVICE_CHARS])
        self.lacking[kind if kind in self.lacking or len(self.lacking) < MAX_KINDS else (passed.missing, None)] += 1


def decode_traces(body: bytes, media_type: str, rules: CompiledRules | None = None) -> Decoded:
    """The step events in a body of ``/v1/traces``, JSON or protobuf by its media type. Rules make steps of other spans too.

    Raises:
        EventError: The body is no OTLP request.
        Problem: 413, more items than a body of spans can hold.
    """
    if media_type == JSON:
        read, body_rules = json.read_span, None if rules is None else BodyRules(rules, json)
        return _read(json.span_groups(body), read, body_rules)
    body_rules = None if rules is None else BodyRules(rules, protobuf)
    return _read(protobuf.groups(body), protobuf.read_span, body_rules)


def decode_logs(body: bytes, media_type: str, _: CompiledRules | None = None) -> Decoded:
    """The step events in a body of ``/v1/logs``, by the same rules of the contract. Span rules do not concern records."""
    if media_type == JSON:
        return _read(json.log_groups(body), json.read_log)
    return _read(protobuf.groups(body), protobuf.read_log)


def trace_answer(rejected: list[str], media_type: str) -> bytes:
    """The body of the 200 to ``/v1/traces``; ``partial_success`` is unset where nothing was refused."""
    if media_type == JSON:
        return _json_answer("rejectedSpans", rejected)
    answer = ExportTraceServiceResponse()
    if rejected:
        answer.partial_success.rejected_spans = len(rejected)
        answer.partial_success.error_message = _summary(rejected)
    return answer.SerializeToString()


def log_answer(rejected: list[str], media_type: str) -> bytes:
    """The body of the 200 to ``/v1/logs``."""
    if media_type == JSON:
        return _json_answer("rejectedLogRecords", rejected)
    answer = ExportLogsServiceResponse()
    if rejected:
        answer.partial_success.rejected_log_records = len(rejected)
        answer.partial_success.error_message = _summary(rejected)
    return answer.SerializeToString()


@dataclass(frozen=True)
class Signal:
    """One of the two kinds of data: how its bodies are read and answered."""

    decode: Callable[[bytes, str, CompiledRules | None], Decoded]
    answer: Callable[[list[str], str], bytes]


TRACES: Final = Signal(decode_traces, trace_answer)
LOGS: Final = Signal(decode_logs, log_answer)
MEDIA_TYPES: Final = frozenset({JSON, PROTOBUF})


def _read(groups: _Groups, read: _Reader, body_rules: BodyRules | None = None) -> Decoded:
    decoded = Decoded()
    seen = 0
    for service, scope, items in groups:
        reader = read if body_rules is None else body_rules.reader(scope, read)
        for item in items:
            seen += 1
            if seen > MAX_ITEMS:
                raise too_large(f"The body has more than {MAX_ITEMS} items")
            _note(decoded, service, lambda: _reading(item, service, reader))  # noqa: B023 - called at once
    for service, settle in () if body_rules is None else body_rules.waiting():
        _note(decoded, service, settle)
    return decoded


def _note(decoded: Decoded, service: str | None, read: Callable[[], Reading | None]) -> None:
    try:
        reading = read()
    except EventError as error:
        decoded.rejected.append(str(error))
    except Exception as error:
        # No item, however strange, may cost its neighbours.
        decoded.rejected.append(f"the item cannot be read: {type(error).__name__}")
    else:
        if isinstance(reading, Passed):
            decoded.pass_over(reading, service)
        elif reading is not None:
            decoded.events.append(reading)


def _reading(item: bytes | EventError, service: str | None, read: _Reader) -> Reading | None:
    if isinstance(item, EventError):
        raise item
    return read(item, service)


def _json_answer(count_name: str, rejected: list[str]) -> bytes:
    if not rejected:
        return b"{}"
    # Protobuf's JSON writes 64-bit integers as text.
    partial: dict[str, Any] = {count_name: str(len(rejected)), "errorMessage": _summary(rejected)}
    return msgspec.json.encode({"partialSuccess": partial})


def _summary(rejected: list[str]) -> str:
    """Each reason once, the first ones first."""
    return clip("; ".join(dict.fromkeys(rejected)), MAX_ERROR_MESSAGE_BYTES)
