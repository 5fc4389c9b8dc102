"""The HTTP contract of ``/v1/events`` and the reads, on a real socket."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.served import Client, event, until


def _problem(reply: Any, status: int) -> str:
    """The detail of a problem document, which every error of ours is."""
    assert reply.status == status, reply.body
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.json["status"] == status
    assert reply.json["title"]
    return str(reply.json["detail"])


def _raw(api: Client, request: bytes, *, half_close: bool = False) -> bytes:
    """Everything that the server answers to these bytes until it closes or is silent."""
    parts = urlsplit(api.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(request)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while b"\r\n\r\n" not in answer and (part := connection.recv(65536)):
            answer += part
        return answer


def test_stored_events_are_acknowledged_and_seen_by_the_next_read(api):
    reply = api.send_events(event("seen", "validate-cart", "running"), event("seen", "validate-cart", "error"))
    assert (reply.status, reply.json) == (202, {"accepted": 2, "duplicates": 0, "rejected": []})
    steps = {step["stepKey"]: step for step in api.get("/api/run", flow="checkout", run_id="seen").json["steps"]}
    assert steps["validate-cart"]["status"] == "error"
    assert steps["charge-card"]["status"] == "missing"


def test_an_event_that_comes_twice_is_counted_as_a_duplicate(api):
    api.send_events(event("twice"))
    assert api.send_events(event("twice"), event("twice", "other")).json == {"accepted": 1, "duplicates": 1, "rejected": []}


def test_bad_events_are_refused_with_a_reason_and_good_ones_beside_them_are_stored(api):
    bad = [
        event("mixed", "empty", eventId="e1", runId=""),
        event("mixed", "long", eventId="e2", stepKey="x" * 513),
        event("mixed", "type", eventId="e3", metadata=[]),
        event("mixed", "status", eventId="e4", status="done"),
        event("mixed", "time", eventId="e5", timestamp="yesterday"),
        event("mixed", "naive", eventId="e6", timestamp="2026-01-01T00:00:00"),
        {"eventId": "e7"},
        "no object",
        {"eventId": 8},
        None,
    ]
    reply = api.post("/v1/events", {"events": [event("mixed", "first"), *bad, event("mixed", "last")]})
    assert reply.status == 202
    assert reply.json["accepted"] == 2
    assert [entry["eventId"] for entry in reply.json["rejected"]] == ["e1", "e2", "e3", "e4", "e5", "e6", "e7", "", "", ""]
    assert all(entry["reason"] for entry in reply.json["rejected"])
    assert "$.runId" in reply.json["rejected"][0]["reason"]
    stored = api.get("/api/run/events", flow="checkout", run_id="mixed").json["events"]
    assert [entry["stepKey"] for entry in stored] == ["first", "last"]


def test_what_strict_json_refuses_in_one_event_costs_no_other(api):
    good = json.dumps(event("strange", "good")).encode()
    deep = json.dumps(event("strange", "deep")).encode()[:-1] + b',"metadata":{"d":' + b"[" * 3000 + b"1" + b"]" * 3000 + b"}}"
    surrogate = json.dumps(event("strange", "surrogate", metadata={"s": "\ud800"})).encode()
    latin = json.dumps(event("strange", "latin")).encode()[:-1] + b',"metadata":{"n":"caf\xe9"}}'
    nan = json.dumps(event("strange", "nan")).encode()[:-1] + b',"metadata":{"n":NaN}}'
    reply = api.post("/v1/events", b'{"events":[' + b",".join([deep, good, surrogate, latin, nan]) + b"]}")
    assert (reply.status, reply.json["accepted"], reply.json["rejected"]) == (202, 5, [])
    stored = {row["stepKey"]: row for row in api.get("/api/run/events", flow="checkout", run_id="strange").json["events"]}
    assert stored["surrogate"]["metadata"] == {"s": "�"}
    assert stored["latin"]["metadata"] == {"n": "caf�"}
    assert stored["nan"]["metadata"] == {"n": "NaN"}
    assert "cut: deeper than" in json.dumps(stored["deep"]["metadata"])


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"events":{}}', b'{"events":[}', b"\xff\xfe", b"null", b"[" * 100_000]
)
def test_a_body_that_is_no_batch_is_a_problem_that_says_what_is_wanted(api, body):
    assert '"events"' in _problem(api.post("/v1/events", body), 400)


def test_an_empty_batch_is_accepted(api):
    assert api.send_events().json == {"accepted": 0, "duplicates": 0, "rejected": []}


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/x-protobuf", ""])
def test_another_content_type_is_refused(api, kind):
    assert "application/json" in _problem(api.post("/v1/events", b"{}", {"Content-Type": kind}), 415)


def test_content_type_may_carry_a_charset_in_any_case(api):
    reply = api.post("/v1/events", b'{"events":[]}', {"Content-Type": "Application/JSON; Charset=UTF-8"})
    assert reply.status == 202


def test_gzip_bodies_are_inflated(api):
    body = json.dumps({"events": [event("zipped")]}).encode()
    for step, raw in enumerate((gzip.compress(body), gzip.compress(body[:10]) + gzip.compress(body[10:]))):
        reply = api.post("/v1/events", raw, {"Content-Encoding": "GZip"})
        assert reply.json == {"accepted": 1 - step, "duplicates": step, "rejected": []}


@pytest.mark.parametrize("raw", [b"", b"no gzip", gzip.compress(b'{"events":[]}')[:-3], gzip.compress(b"{}") + b"tail"])
def test_a_corrupt_or_truncated_gzip_body_is_a_problem(api, raw):
    assert "gzip" in _problem(api.post("/v1/events", raw, {"Content-Encoding": "gzip"}), 400)


def test_a_gzip_bomb_is_refused_without_being_inflated_whole(api):
    bomb = gzip.compress(b" " * (64 * 1024 * 1024))
    assert "inflated" in _problem(api.post("/v1/events", bomb, {"Content-Encoding": "gzip"}), 413)


def test_another_coding_is_refused_and_told_what_is_read(api):
    reply = api.post("/v1/events", b"{}", {"Content-Encoding": "br"})
    assert "'br'" in _problem(reply, 415)
    assert reply.headers["Accept-Encoding"] == "gzip, identity"


@pytest.mark.parametrize("path", ["/v1/events", "/v1/traces", "/v1/logs"])
def test_a_body_over_4_mib_is_refused_on_every_way_in(api, path):
    assert api.post(path, b" " * (4 * 1024 * 1024 + 1)).status == 413
    chunks = iter([b" " * 1024 * 1024] * 5)
    assert api.request("POST", path, chunks, {"Content-Type": "application/json"}).status == 413
    assert api.get("/healthz").status == 200


def test_a_chunked_body_is_read(api):
    body = json.dumps({"events": [event("chunked")]}).encode()
    reply = api.request("POST", "/v1/events", iter([body[:20], body[20:]]), {"Content-Type": "application/json"})
    assert reply.json["accepted"] == 1


def test_a_body_shorter_than_its_content_length_is_never_acknowledged(api):
    body = json.dumps({"events": [event("short")]}).encode()
    head = b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    answer = _raw(api, head % (len(body) + 5) + body, half_close=True)
    assert b" 202 " not in answer
    assert api.get("/api/run", flow="checkout", run_id="short").status == 404


@pytest.mark.parametrize("length", [b"-1", b"1e3", b"99999999999999999999999999", b"5, 6"])
def test_a_content_length_that_is_none_is_a_client_error(api, length):
    head = (
        b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
        + length
        + b"\r\n\r\n"
    )
    assert _raw(api, head).startswith(b"HTTP/1.1 4")


def test_requests_share_a_connection_also_after_an_error(api):
    connection = api.connect()
    connection.connect()
    opened = connection.sock
    for path, status in (("/healthz", 200), ("/nowhere", 404), ("/api/runs?limit=0", 400), ("/healthz", 200)):
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        assert (response.status, connection.sock) == (status, opened)
    connection.close()


def test_runs_are_listed_newest_first_and_in_pages(api):
    for second in range(3):
        api.send_events(event(f"page-{second}", flowKey="paged", timestamp=f"2026-03-01T12:00:0{second}Z"))
    first = api.get("/api/runs", flow="paged", limit=2).json
    assert [run["runId"] for run in first["runs"]] == ["page-2", "page-1"]
    rest = api.get("/api/runs", flow="paged", limit=2, cursor=first["nextCursor"]).json
    assert ([run["runId"] for run in rest["runs"]], rest["nextCursor"]) == (["page-0"], None)
    assert [run["runId"] for run in api.get("/api/runs", flow="paged", q="e-1").json["runs"]] == ["page-1"]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "limit=-1", "limit=1e1", "status=done", "cursor=nonsense", "cursor=%00"]
)
def test_a_bad_query_parameter_is_a_problem(api, query):
    assert _problem(api.get(f"/api/runs?{query}"), 400)


@pytest.mark.parametrize("path", ["/api/run", "/api/run/events"])
def test_a_run_that_is_not_stored_or_not_named_is_a_problem(api, path):
    assert "'nobody'" in _problem(api.get(path, flow="checkout", run_id="nobody"), 404)
    assert "'run_id'" in _problem(api.get(path, flow="checkout"), 400)
    assert "'flow'" in _problem(api.get(path, run_id="nobody"), 400)


def test_ids_are_arbitrary_text(api):
    odd = "a/b ..?&=%2F#\n漢字 😀"
    api.send_events(event(odd, odd, flowKey=odd))
    found = api.get("/api/run", flow=odd, run_id=odd).json
    assert (found["flowKey"], found["runId"], found["steps"][0]["stepKey"]) == (odd, odd, odd)


def test_flows_tell_declared_from_discovered(api):
    api.send_events(event("found", flowKey="somewhere"))
    flows = {flow["slug"]: flow for flow in api.get("/api/flows").json["flows"]}
    assert (flows["checkout"]["discovered"], flows["somewhere"]["discovered"]) == (False, True)


def test_unknown_paths_and_methods_are_problems(api):
    assert "openapi.json" in _problem(api.get("/nowhere"), 404)
    assert _problem(api.get("/api/flows/"), 404)
    reply = api.get("/v1/events")
    assert _problem(reply, 405)
    assert "POST" in reply.headers["Allow"]


def test_intake_counts_what_was_no_event(api):
    before = api.get("/api/intake").json["rejected"]
    api.send_events({"eventId": "bad"})
    assert api.get("/api/intake").json["rejected"] == before + 1


def _messages(response: http.client.HTTPResponse) -> list[dict[str, str]]:
    """The fields of the next message of a stream that has any."""
    fields: dict[str, str] = {}
    while True:
        line = response.fp.readline().decode().rstrip("\n")
        if not line and "data" in fields:
            return [fields]
        name, _, value = line.partition(": ")
        if name:
            fields[name] = value


def _open_stream(api: Client, last_id: str | None = None) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = api.connect()
    connection.request("GET", "/api/live", headers={} if last_id is None else {"Last-Event-ID": last_id})
    response = connection.getresponse()
    assert (response.status, response.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
    return connection, response


def test_live_tells_of_a_run_that_has_news_and_resumes_where_it_was(api):
    connection, response = _open_stream(api)
    api.send_events(event("live-1"))
    first = _messages(response)[0]
    connection.close()
    response.close()
    assert json.loads(first["data"]) == {"id": int(first["id"]), "flow": "checkout", "runId": "live-1"}
    api.send_events(event("live-2"))
    connection, response = _open_stream(api, first["id"])
    assert json.loads(_messages(response)[0]["data"])["runId"] == "live-2"
    connection.close()
    response.close()


def test_live_refuses_an_id_that_is_none(api):
    assert "Last-Event-ID" in _problem(api.get("/api/live", {"Last-Event-ID": "x"}), 400)


def test_many_senders_at_once_get_exact_receipts(api):
    counts: list[int] = []

    def send(sender: int) -> None:
        own = Client(api.url)
        for batch in range(5):
            reply = own.send_events(*(event(f"many-{sender}-{batch}", f"s{n}", flowKey="many") for n in range(20)))
            counts.append(reply.json["accepted"])
        own.close()

    threads = [threading.Thread(target=send, args=(sender,)) for sender in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [20] * 40
    assert until(lambda: len(api.get("/api/runs", flow="many", limit=200).json["runs"]) == 40)
