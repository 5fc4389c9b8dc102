"""The OpenAPI document, made from the rows themselves and one table of the calls. A test holds the table to the routes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, get_args

import msgspec

from failpath_otel.events.wire import WireEvent
from failpath_otel.server.api.intake import AboutRow, IntakeCounts
from failpath_otel.server.api.receipts import Receipts
from failpath_otel.server.api.runs import Change, EventList, FlowDetail, FlowList, RunDetail, RunFilterStatus, RunPage
from failpath_otel.server.http.headers import JSON, PROTOBUF, speaks_otlp
from failpath_otel.server.http.problem import PROBLEM_JSON, ProblemDocument
from failpath_otel.version import VERSION


class Health(msgspec.Struct, frozen=True):
    """The answer of ``/healthz`` while events can be taken."""

    status: str


class EventBatch(msgspec.Struct, frozen=True):
    """The body of ``POST /v1/events``."""

    events: list[WireEvent]


_Schema = dict[str, Any]

_LEAVE_OUT: Final = frozenset({"WireEvent", "WireError"})
"""What leaves out empty fields on the wire."""


@dataclass(frozen=True)
class Parameter:
    """A query parameter or header of a call."""

    name: str
    description: str
    required: bool = False
    schema: _Schema | None = None
    where: str = "query"


@dataclass(frozen=True)
class Operation:
    """One call: what it takes and what it answers."""

    method: str
    path: str
    name: str
    summary: str
    answer: Any
    status: int = 200
    takes: Any = None
    media_types: tuple[str, ...] = (JSON,)
    parameters: tuple[Parameter, ...] = ()
    problems: tuple[int, ...] = (400, 401, 421)


_FLOW: Final = Parameter("flow", "The flow's slug.", required=True)
_RUN_ID: Final = Parameter("run_id", "The run's id, as the application gave it.", required=True)
_TIME: Final = {"type": "string", "format": "date-time"}
_INTAKE_PROBLEMS: Final = (400, 401, 403, 408, 413, 415, 421, 503)
_OTLP_PROBLEMS: Final = (400, 401, 403, 413, 415, 421, 503)
_READ_PROBLEMS: Final = (400, 401, 404, 421)
_OTLP: Final = (PROTOBUF, JSON)

OPERATIONS: Final = (
    Operation(
        "POST",
        "/v1/events",
        "sendEvents",
        "Takes step events; answered when they are stored and, where they go on to another server, taken there.",
        Receipts,
        202,
        EventBatch,
        problems=_INTAKE_PROBLEMS,
    ),
    Operation(
        "POST",
        "/v1/traces",
        "sendTraces",
        "OTLP/HTTP: an ExportTraceServiceRequest; spans that name a step are taken.",
        None,
        takes=None,
        media_types=_OTLP,
        problems=_OTLP_PROBLEMS,
    ),
    Operation(
        "POST",
        "/v1/logs",
        "sendLogs",
        "OTLP/HTTP: an ExportLogsServiceRequest; log records named failpath.step are taken.",
        None,
        takes=None,
        media_types=_OTLP,
        problems=_OTLP_PROBLEMS,
    ),
    Operation(
        "GET",
        "/api/flows",
        "listFlows",
        "All flows, declared and discovered, with their counts.",
        FlowList,
        problems=_READ_PROBLEMS,
    ),
    Operation(
        "GET",
        "/api/flow",
        "getFlow",
        "One flow: how a window of its newest runs went step by step, and its failures by kind.",
        FlowDetail,
        parameters=(
            _FLOW,
            Parameter(
                "last",
                "How many runs the window holds at most.",
                schema={"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
            ),
            Parameter("cursor", "The window's nextCursor of an earlier answer, for the runs before that window."),
        ),
        problems=_READ_PROBLEMS,
    ),
    Operation(
        "GET",
        "/api/runs",
        "listRuns",
        "Runs, newest first.",
        RunPage,
        parameters=(
            Parameter("flow", "Only runs of the flow with this slug."),
            Parameter(
                "status",
                "Only runs with this status; stuck are those that are running with a step that runs for too long.",
                schema={"type": "string", "enum": sorted(get_args(RunFilterStatus))},
            ),
            Parameter(
                "q", "Only runs with this text in their id, in a value of their metadata, or in an error's name or message."
            ),
            Parameter("since", "Only runs that began then or later: RFC 3339.", schema=_TIME),
            Parameter("until", "Only runs that began before: RFC 3339.", schema=_TIME),
            Parameter("limit", "At most so many.", schema={"type": "integer", "minimum": 1, "maximum": 200, "default": 50}),
            Parameter("cursor", "The nextCursor of the page before."),
        ),
        problems=_READ_PROBLEMS,
    ),
    Operation(
        "GET",
        "/api/run",
        "getRun",
        "One run with its steps.",
        RunDetail,
        parameters=(_FLOW, _RUN_ID),
        problems=_READ_PROBLEMS,
    ),
    Operation(
        "GET",
        "/api/run/events",
        "getRunEvents",
        "Every stored event of a run, by time.",
        EventList,
        parameters=(_FLOW, _RUN_ID),
        problems=_READ_PROBLEMS,
    ),
    Operation(
        "GET",
        "/api/intake",
        "getIntake",
        "What came in since the server's start, what of it was no step, and how it goes on to another server.",
        IntakeCounts,
    ),
    Operation(
        "GET",
        "/api/about",
        "getAbout",
        "The server's version and those of its settings that pages need.",
        AboutRow,
    ),
    Operation(
        "GET",
        "/api/live",
        "watch",
        "Server-sent events: one message a run that has news; data is a Change.",
        Change,
        media_types=("text/event-stream",),
        parameters=(Parameter("Last-Event-ID", "Resumes after this change.", schema={"type": "integer"}, where="header"),),
        problems=_READ_PROBLEMS,
    ),
    Operation("GET", "/healthz", "getHealth", "Whether events can be taken.", Health, problems=(400, 421, 503)),
    Operation("GET", "/openapi.json", "getDescription", "This document.", dict[str, Any]),
)


@lru_cache(maxsize=1)
def document() -> _Schema:
    """The OpenAPI 3.1 document."""
    types = [typed for operation in OPERATIONS for typed in (operation.answer, operation.takes) if typed is not None]
    schemas, components = msgspec.json.schema_components([*types, ProblemDocument], ref_template="#/components/schemas/{name}")
    of = dict(zip(map(str, [*types, ProblemDocument]), schemas, strict=True))
    for name, component in components.items():
        if name not in _LEAVE_OUT and "properties" in component:
            # Rows have defaults for those who make them; on the wire every field is there.
            component["required"] = list(component["properties"])
    paths: dict[str, _Schema] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, of)
    bearer = {"type": "http", "scheme": "bearer"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "failpath-otel", "version": VERSION, "description": "Runs of business processes, step by step."},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": bearer | {"description": "For readers."},
                "ingestKey": bearer | {"description": "For senders."},
            },
        },
    }


def _operation(operation: Operation, schemas: dict[str, _Schema]) -> _Schema:
    is_otlp = speaks_otlp(operation.path)
    error: _Schema = {"schema": {}} if is_otlp else {"schema": schemas[str(ProblemDocument)]}
    error_types = operation.media_types if is_otlp else (PROBLEM_JSON,)
    answer = {"schema": {} if operation.answer is None else schemas[str(operation.answer)]}
    responses: _Schema = {
        str(operation.status): {"description": "Done.", "content": dict.fromkeys(operation.media_types, answer)}
    }
    for status in operation.problems:
        responses[str(status)] = {"description": _REASONS[status], "content": dict.fromkeys(error_types, error)}
    described: _Schema = {
        "operationId": operation.name,
        "summary": operation.summary,
        "security": _security(operation.path),
        "responses": responses,
    }
    if operation.parameters:
        described["parameters"] = [_parameter(parameter) for parameter in operation.parameters]
    if operation.method == "POST":
        body = {"schema": {} if operation.takes is None else schemas[str(operation.takes)]}
        described["requestBody"] = {"required": True, "content": dict.fromkeys(operation.media_types, body)}
    return described


def _parameter(parameter: Parameter) -> _Schema:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.description,
        "required": parameter.required,
        "schema": parameter.schema or {"type": "string"},
    }


def _security(path: str) -> list[_Schema]:
    # The empty entry: on loopback a server may be started without keys.
    if path == "/healthz":
        return []
    return [{}, {"ingestKey" if path.startswith("/v1/") else "token": []}]


_REASONS: Final = {
    400: "The request is malformed; detail says where.",
    401: "The key is missing or wrong.",
    403: "A request of another site.",
    404: "There is no such flow or run, or this server keeps none.",
    408: "The body did not arrive in time.",
    413: "More than 4 MiB on the wire or 16 MiB inflated.",
    415: "Another content type or coding than is read here.",
    421: "The server does not answer to this host name.",
    503: "Not now; Retry-After says when.",
}
