"""Who may call: host names, origins, keys, and the headers of every answer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.otlp_bodies import step, traces
from support.served import Client, event, in_thread

from failpath_otel.errors import ConfigError
from failpath_otel.server.http.security import SECURITY_HEADERS
from failpath_otel.server.settings import Settings, default_db, host_name, is_loopback

TOKEN = "reader-token-1"
KEY = "fp_project_key-1"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server that asks readers and senders for their keys."""
    db = str(tmp_path_factory.mktemp("locked") / "runs.db")
    settings = Settings(db=db, port=0, token=TOKEN, ingest_key=KEY, allowed_hosts=("Shop.Internal:80", "fd00::5"))
    with in_thread(settings) as client:
        yield client


def _port(client: Client) -> int:
    port = urlsplit(client.url).port
    assert port is not None
    return port


def test_loopback_names_are_answered_with_and_without_a_port(api):
    for host in ("localhost", "LOCALHOST", "localhost.", "127.0.0.1", "[::1]", "localhost:1", "127.0.0.1:4600", "[::1]:4600"):
        assert api.get("/healthz", {"Host": host}).status == 200, host


def test_allowed_names_are_answered(locked):
    for host in ("shop.internal", "shop.internal:4600", "SHOP.internal.", "[fd00::5]:1", "[FD00:0::5]"):
        assert locked.get("/healthz", {"Host": host}).status == 200, host


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:4600", "10.0.0.1", "[::2]", "0"]
)
@pytest.mark.parametrize("path", ["/", "/healthz", "/api/runs", "/v1/events", "/nowhere", "/static/app.css"])
def test_other_names_are_refused_before_any_route_with_the_way_out(api, host, path):
    reply = api.get(path, {"Host": host})
    assert reply.status == 421
    assert "--allow-host" in reply.json["detail"]
    assert host.strip("[]").removesuffix(":4600") in reply.json["detail"]


@pytest.mark.parametrize(
    "host", ["", "a b", "local_host/", "localhost:x", "[::1", "[::1]x", "@localhost", "a@localhost", "localhost:1:2", "\xff"]
)
def test_a_malformed_host_is_refused(api, host):
    assert api.get("/healthz", {"Host": host}).status == 400


def test_two_hosts_or_none_are_refused(api):
    for head in (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", b"GET /healthz HTTP/1.0\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", _port(api)), timeout=10) as connection:
            connection.sendall(head)
            assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("path", ["/v1/events", "/v1/traces", "/v1/logs", "/api/runs"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://[broken"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_requests_of_other_sites_may_change_nothing(api, path, headers):
    assert api.post(path, {"events": [event("cross")]}, headers).status == 403
    assert api.get("/api/run", flow="checkout", run_id="cross").status == 404


def test_pages_of_the_server_itself_and_senders_without_a_browser_may_post(api):
    own = {"Origin": api.url, "Sec-Fetch-Site": "same-origin"}
    for headers in ({}, own, {"Sec-Fetch-Site": "none"}):
        assert api.post("/v1/events", {"events": []}, headers).status == 202


def test_no_answer_invites_other_origins(api):
    reply = api.request(
        "OPTIONS", "/v1/events", headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    )
    assert reply.status == 405
    for headers in (reply.headers, api.get("/api/runs", {"Origin": "http://evil.example"}).headers):
        assert not [name for name in headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    "path", ["/", "/run?flow=a&run_id=b", "/healthz", "/api/runs", "/api/run", "/nowhere", "/openapi.json", "/static/app.css"]
)
def test_every_answer_carries_the_security_headers(api, path):
    headers = api.get(path).headers
    for name, value in SECURITY_HEADERS.items():
        assert headers.get_all(name) == [value]
    policy = headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


def test_a_fault_of_ours_is_a_problem_that_tells_nothing_of_the_inside(api, monkeypatch, caplog):
    from failpath_otel.server.queries.reader import Queries

    monkeypatch.setattr(Queries, "flows", lambda _: 1 / 0)
    reply = api.get("/api/flows")
    assert (reply.status, reply.headers["Content-Type"]) == (500, "application/problem+json")
    assert b"Zero" not in reply.body
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("path", ["/v1/events", "/v1/traces", "/v1/logs"])
@pytest.mark.parametrize("shown", [None, "", "Bearer", f"Bearer {KEY}x", f"Bearer {TOKEN}", f"Basic {KEY}", KEY, "Bearer \xff"])
def test_senders_without_the_ingest_key_are_refused(locked, path, shown):
    headers = {} if shown is None else {"Authorization": shown}
    reply = locked.post(path, {"events": [event("unauthorized")]}, headers)
    assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_senders_with_the_ingest_key_are_served(locked):
    key = {"Authorization": f"bearer {KEY}"}
    assert locked.post("/v1/events", {"events": [event("authorized")]}, key).json["accepted"] == 1
    body = traces(step("authorized")).SerializeToString()
    assert locked.post("/v1/traces", body, {**key, "Content-Type": "application/x-protobuf"}).status == 200


@pytest.mark.parametrize(
    "path", ["/", "/run", "/api/flows", "/api/runs", "/api/live", "/openapi.json", "/static/app.css", "/nowhere"]
)
@pytest.mark.parametrize("shown", [None, "Bearer x", f"Bearer {KEY}"])
def test_readers_without_the_token_are_refused(locked, path, shown):
    reply = locked.get(path, {} if shown is None else {"Authorization": shown})
    assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "/?token=" in reply.json["detail"]


def test_readers_with_the_token_are_served(locked):
    assert locked.get("/api/runs", {"Authorization": f"Bearer {TOKEN}"}).status == 200


def test_health_is_for_everyone_and_no_other_path_that_begins_like_it(locked):
    assert locked.get("/healthz").status == 200
    for path in ("/healthz/", "/healthzz", "/healthz/../api/runs"):
        assert locked.get(path).status == 401, path


def test_a_browser_that_opens_the_page_with_the_token_gets_a_cookie_and_a_clean_address(locked):
    reply = locked.get("/", token=TOKEN, flow="a b")
    assert (reply.status, reply.headers["Location"]) == (303, "/?flow=a+b")
    cookie = reply.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert TOKEN not in cookie
    pair = cookie.partition(";")[0]
    assert locked.get("/", {"Cookie": f"other=1; {pair}"}).status == 200
    assert locked.get("/api/runs", {"Cookie": pair}).status == 200
    assert locked.get("/", {"Cookie": pair[:-1]}).status == 401
    assert locked.post("/v1/events", {"events": []}, {"Cookie": pair}).status == 401


@pytest.mark.parametrize(
    ("forwarded", "is_secure"),
    [(None, False), ("https", True), ("HTTPS", True), ("https, http", True), ("http", False), ("http, https", False)],
)
def test_the_cookie_is_for_https_alone_where_the_proxy_in_front_says_that_the_reader_came_by_it(locked, forwarded, is_secure):
    reply = locked.get(f"/?token={TOKEN}", {} if forwarded is None else {"X-Forwarded-Proto": forwarded})
    assert reply.status == 303
    attributes = [part.strip().lower() for part in reply.headers["Set-Cookie"].split(";")]
    assert ("secure" in attributes) is is_secure


@pytest.mark.parametrize("query", ["token=", "token=wrong", f"token={KEY}", f"Token={TOKEN}"])
def test_a_wrong_token_in_the_address_gives_no_cookie(locked, query):
    reply = locked.get(f"/?{query}")
    assert (reply.status, reply.headers["Set-Cookie"]) == (401, None)


def test_the_token_in_the_address_leads_to_the_page_only(locked):
    """A path such as //evil.example would make the redirect leave this server."""
    for path in (f"//evil.example/?token={TOKEN}", f"/api/runs?token={TOKEN}"):
        assert locked.get(path).status == 401


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("localhost", "localhost"), ("LocalHost:80", "localhost"), ("a.b.", "a.b"), ("::1", "::1"), ("[0:0::1]:80", "::1"),
        ("10.0.0.1:5", "10.0.0.1"), ("", None), ("a b", None), ("[::1]:x", None), ("a:b", None), ("-a", None), ("a/b", None),
        ("[x]", None), ("1:2:3", None),
    ],
)  # fmt: skip
def test_host_names_are_read_from_hosts(text, name):
    assert host_name(text) == name


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("localhost", True), ("127.0.0.9", True), ("::1", True), ("0.0.0.0", False), ("::", False), ("shop", False)],
)
def test_loopback_is_what_only_this_machine_reaches(host, loopback):
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"host": "0.0.0.0"}, ["0.0.0.0", "--token and --ingest-key", "FAILPATH_TOKEN"]),
        ({"host": "::", "token": "t"}, ["--ingest-key"]),
        ({"host": "shop", "ingest_key": "k"}, ["--token"]),
        ({"host": ""}, ["--host"]),
        ({"port": 65536}, ["--port", "65536"]),
        ({"stuck_after_seconds": 0}, ["--stuck-after", "0"]),
        ({"stuck_after_seconds": float("nan")}, ["--stuck-after", "nan"]),
        ({"token": "a b"}, ["--token"]),
        ({"ingest_key": "ü"}, ["--ingest-key"]),
        ({"allowed_hosts": ("http://x",)}, ["--allow-host", "http://x"]),
    ],
)
def test_settings_that_cannot_be_used_are_named_with_the_way_out(options, words):
    with pytest.raises(ConfigError) as caught:
        Settings(db="x", **options)
    assert all(word in str(caught.value) for word in words)


def test_off_loopback_both_keys_open_the_way():
    settings = Settings(db="x", host="0.0.0.0", token="t", ingest_key="k")
    assert "'k'" not in repr(settings)


def test_runs_are_kept_beside_the_flows_or_in_the_users_data_folder(tmp_path, monkeypatch):
    below = tmp_path / "project" / "src"
    below.mkdir(parents=True)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert default_db(below, {"XDG_DATA_HOME": str(tmp_path / "data")}, "linux") == tmp_path / "data/failpath-otel/failpath.db"
    assert default_db(below, {"XDG_DATA_HOME": "relative"}, "linux") == tmp_path / "home/.local/share/failpath-otel/failpath.db"
    assert default_db(below, {}, "darwin") == tmp_path / "home/Library/Application Support/failpath-otel/failpath.db"
    assert default_db(below, {"LOCALAPPDATA": str(tmp_path / "local")}, "win32") == tmp_path / "local/failpath-otel/failpath.db"
    (tmp_path / "project" / ".failpath").mkdir()
    assert default_db(below, {}, "linux") == tmp_path / "project/.failpath/failpath.db"
