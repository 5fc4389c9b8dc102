"""The OpenAPI document, held to the routes and to what they really answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from starlette.routing import Route
from support.served import Client, Reply, event, in_thread

from failpath_otel.cli.forwarding import destination_of
from failpath_otel.server.app import create_app
from failpath_otel.server.http.shutdown import Lifetime
from failpath_otel.server.routes.openapi import OPERATIONS, document
from failpath_otel.server.routes.page import routes as page_routes
from failpath_otel.server.settings import Settings

NOWHERE = destination_of("http://127.0.0.1:9", None)


@pytest.fixture(scope="module")
def description(api: Client) -> dict[str, Any]:
    found: dict[str, Any] = api.get("/openapi.json").json
    return found


def _hold(description: dict[str, Any], reply: Reply, method: str, path: str) -> None:
    """The answer has a status, a content type and a body that the document knows."""
    responses = description["paths"][path][method]["responses"]
    assert str(reply.status) in responses, (path, reply.status)
    kind = reply.headers["Content-Type"].partition(";")[0]
    schema = responses[str(reply.status)]["content"][kind]["schema"]
    if kind.endswith("json"):
        Draft202012Validator(schema | {"components": description["components"]}).validate(reply.json)


@pytest.mark.parametrize("keeps", [True, False], ids=["with a store", "a bridge without one"])
def test_every_route_is_documented_and_every_documented_call_has_a_route(tmp_path, keeps):
    from failpath_otel.server.app import api_routes
    from failpath_otel.server.services import Services

    services = Services.open(Settings(str(tmp_path / "runs.db")) if keeps else Settings(None, forward=NOWHERE))
    try:
        served = {
            (method, route.path)
            for route in api_routes(services, Lifetime())
            if isinstance(route, Route)
            for method in route.methods or ()
        }
    finally:
        if services.storage is not None:
            services.storage.store.close()
    assert {pair for pair in served if pair[0] != "HEAD"} == {(operation.method, operation.path) for operation in OPERATIONS}


def test_the_application_has_no_routes_beside_the_api_and_the_page(tmp_path):
    async def served() -> list[str]:
        app = create_app(Settings(db=str(tmp_path / "runs.db")))
        async with app.router.lifespan_context(app):
            return [route.path for route in app.routes]  # type: ignore[attr-defined]

    paths = asyncio.run(served())
    page = [route.path for route in page_routes()]  # type: ignore[attr-defined]
    assert sorted(paths) == sorted([*page, *(operation.path for operation in OPERATIONS)])


def test_the_document_is_sound(description):
    assert description["openapi"] == "3.1.0"
    assert description == document()
    names = [call["operationId"] for path in description["paths"].values() for call in path.values()]
    assert len(set(names)) == len(names) == len(OPERATIONS)
    for schema in description["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    text = str(description)
    for name in description["components"]["schemas"]:
        assert text.count(f"#/components/schemas/{name}'") >= 1, f"{name} is used by nothing"


def test_wire_names_are_camel_case(description):
    properties = description["components"]["schemas"]["WireEvent"]["properties"]
    assert {"eventId", "flowKey", "runId", "stepKey", "skipReason"} <= set(properties)


def test_real_answers_are_as_described(api, description):
    sent = [
        event("described", "validate-cart", "running", metadata={"a": [1, None]}),
        event(
            "described", "validate-cart", startedAt="2026-03-01T12:00:00Z", traceId="ab" * 16, spanId="cd" * 8, service="shop"
        ),
        event("described", "charge-card", "error", error={"name": "Declined", "message": "no", "stack": "at x"}),
        event("described", "extra", "skipped", skipReason="opted out"),
        event("described-2", "validate-cart", "running"),
        {"eventId": "bad"},
    ]
    _hold(description, api.send_events(*sent), "post", "/v1/events")
    run = {"flow": "checkout", "run_id": "described"}
    for path, query in (
        ("/api/flows", {}),
        ("/api/flow", {"flow": "checkout"}),
        ("/api/flow", {"flow": "checkout", "last": 1}),
        ("/api/about", {}),
        ("/api/runs", {}),
        ("/api/runs", {"since": "2026-01-31T09:30:00+01:00", "until": "2100-01-31T09:30:00Z"}),
        ("/api/runs", {"status": "error", "q": "desc", "limit": 1}),
        ("/api/run", run),
        ("/api/run/events", run),
        ("/api/intake", {}),
        ("/healthz", {}),
        ("/openapi.json", {}),
    ):
        reply = api.get(path, **query)
        assert reply.status == 200
        _hold(description, reply, "get", path)


def test_real_refusals_are_as_described(api, description):
    for path, query, status in (
        ("/api/runs", {"limit": 0}, 400),
        ("/api/runs", {"since": "yesterday"}, 400),
        ("/api/runs", {"until": "2026-01-31T09:30:00"}, 400),
        ("/api/flow", {}, 400),
        ("/api/flow", {"flow": "checkout", "last": 0}, 400),
        ("/api/flow", {"flow": "checkout", "last": "all"}, 400),
        ("/api/flow", {"flow": "checkout", "cursor": "x"}, 400),
        ("/api/flow", {"flow": "never heard of"}, 404),
        ("/api/run", {}, 400),
        ("/api/run", {"flow": "a", "run_id": "b"}, 404),
        ("/api/run/events", {"flow": "a", "run_id": "b"}, 404),
    ):
        reply = api.get(path, **query)
        assert reply.status == status
        _hold(description, reply, "get", path)
        _hold(description, api.get(path, {"Host": "evil.example"}), "get", path)
    for path in ("/v1/events", "/v1/traces", "/v1/logs"):
        for headers in (
            {},
            {"Content-Encoding": "br"},
            {"Origin": "http://evil.example"},
            {"Host": "evil.example"},
            {"Host": ""},
        ):
            reply = api.post(path, b"{", headers)
            assert reply.status in {400, 403, 415, 421}
            _hold(description, reply, "post", path)


def test_the_answers_of_a_bridge_without_a_store_are_as_described(description):
    with in_thread(Settings(None, port=0, forward=NOWHERE)) as bridge:
        for path, status in (
            ("/api/flows", 404),
            ("/api/flow", 404),
            ("/api/about", 200),
            ("/api/runs", 404),
            ("/api/run", 404),
            ("/api/run/events", 404),
            ("/api/live", 404),
            ("/api/intake", 200),
            ("/healthz", 200),
            ("/openapi.json", 200),
        ):
            reply = bridge.get(path)
            assert reply.status == status
            _hold(description, reply, "get", path)
            if status == 404:
                assert (
                    reply.json["detail"]
                    == "This server keeps nothing; the events go on to http://127.0.0.1:9, where the runs are."
                )
        _hold(description, bridge.send_events(event("no-one-takes-it")), "post", "/v1/events")


def test_what_the_document_says_of_a_bad_answer_is_noticed(description):
    """The validator of these tests does see a difference."""
    schema = {"$ref": "#/components/schemas/RunPage", "components": description["components"]}
    assert not Draft202012Validator(schema).is_valid({"runs": [{"runId": 5}], "nextCursor": None})
