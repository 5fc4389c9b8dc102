"""How a bridge is told where to send, and what one shows that keeps nothing."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from support.bridges import bridge_to
from support.served import event
from support.tls import VARIABLES, Authority, https_sink

from failpath_otel.cli.forwarding import destination_of
from failpath_otel.cli.group import cli
from failpath_otel.errors import ConfigError
from failpath_otel.server.forward.own_address import is_own
from failpath_otel.server.serve import build, listen
from failpath_otel.server.settings import Settings

REMOTE = "https://failpath.example"


CERTIFICATES = dict.fromkeys(("FAILPATH_CERTIFICATE", "FAILPATH_CLIENT_CERTIFICATE", "FAILPATH_CLIENT_KEY"))


def _refused(*arguments: str, env: dict[str, str] | None = None) -> str:
    """What a start that must fail says: one message on stderr and exit code 2."""
    done = CliRunner(env={"FAILPATH_PROJECT_KEY": None, **CERTIFICATES, **(env or {})}).invoke(
        cli, ["serve", "--port", "0", *arguments]
    )
    assert (done.exit_code, done.stdout) == (2, ""), done
    assert done.stderr.startswith("Error: ")
    return done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--no-store",), "--no-store keeps no event, so it takes --forward-to"),
        (("--forward-to", REMOTE), f"--forward-to {REMOTE} is not on this machine, which takes the project key: --forward-key"),
        (("--forward-to", REMOTE, "--forward-key", "a b"), "--forward-key holds characters that an HTTP header cannot carry"),
        (("--forward-to", "failpath.example", "--forward-key", "k"), "--forward-to must be an http:// or https:// URL"),
        (("--forward-to", "https://u:pass@failpath.example", "--forward-key", "k"), "--forward-to must not hold a user name"),
        (
            ("--forward-to", "https://127.0.0.1:9", "--forward-certificate", "none.pem"),
            "--forward-certificate must be the path of a file that can be read, got 'none.pem': No such file or directory",
        ),
        (
            ("--forward-to", "https://127.0.0.1:9", "--forward-client-key", __file__),
            "--forward-client-key is the key of a certificate, which takes --forward-client-certificate beside it",
        ),
        (("--no-store", "--forward-to", "http://127.0.0.1:9", "--db", "x.db"), "--no-store keeps nothing, so --db cannot"),
        (
            ("--no-store", "--forward-to", "http://127.0.0.1:9", "--retain", "7d", "--max-size", "1GB", "--flows", "f.json"),
            "--no-store keeps nothing, so --flows, --retain, --max-size cannot be given beside it",
        ),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    said = _refused(*arguments)
    assert words in said
    assert "pass" not in said.replace("password", "")


def test_the_key_may_come_from_the_environment(monkeypatch):
    assert destination_of(REMOTE, "fp_project_1").url == REMOTE
    assert "fp_project_1" not in repr(destination_of(REMOTE, "fp_project_1"))


def test_a_bridge_trusts_and_shows_the_certificates_that_it_is_given(tmp_path, start_server, monkeypatch):
    servers, clients = Authority(tmp_path / "servers"), Authority(tmp_path / "clients")
    certificate, key = map(str, clients.signed("bridge.test"))
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with https_sink(servers.server(clients_of=clients)) as sink:
        with bridge_to(sink.url, None, certificate=str(servers.file), client_certificate=certificate, client_key=key) as bridge:
            assert bridge.send_events(event("1")).status == 202
        by_variables = {
            "FAILPATH_CERTIFICATE": str(servers.file),
            "FAILPATH_CLIENT_CERTIFICATE": certificate,
            "FAILPATH_CLIENT_KEY": key,
        }
        served = start_server("--no-store", "--forward-to", sink.url, env=by_variables)
        assert served.send_events(event("2")).status == 202
        assert {each["runId"] for each in sink.events} == {"1", "2"}
        with bridge_to(sink.url, None, certificate=str(servers.file)) as bridge:
            assert bridge.send_events(event("3")).status == 503


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_server_does_not_send_to_itself(tmp_path, host, name):
    with listen(host, 0) as listener:
        url = f"http://{name}:{listener.getsockname()[1]}"
        settings = Settings(None, host=host, token="t", ingest_key="k", forward=destination_of(url, None))
        with pytest.raises(ConfigError, match=f"--forward-to {url} is this server itself"):
            build(settings, listener, print)


def test_another_port_or_another_machine_is_another_server():
    with listen("0.0.0.0", 0) as listener:
        port = listener.getsockname()[1]
        assert is_own(f"http://127.0.0.1:{port}", listener)
        assert not is_own(f"http://127.0.0.1:{port ^ 1}", listener)
        assert not is_own(f"http://198.51.100.7:{port}", listener)
        assert not is_own("http://127.0.0.1", listener)
        assert not is_own(f"http://no.such.host.invalid:{port}", listener)


def test_it_says_where_events_go_on_to_after_the_line_that_scripts_read(start_server, sink):
    bridge = start_server("--no-store", "--forward-to", sink.url + "/")
    assert bridge.process.stdout.readline() == f"events go on to {sink.url}\n"
    assert bridge.process.stdout.readline() == "nothing is kept here\n"
    keeping = start_server("--forward-to", sink.url)
    assert keeping.process.stdout.readline() == f"events go on to {sink.url}\n"
    assert keeping.process.stdout.readline().startswith("runs are kept in ")


def test_a_bridge_without_a_store_says_where_the_runs_are(sink):
    with bridge_to(sink.url, None) as bridge:
        assert bridge.send_events(event("r")).status == 202
        page = bridge.get("/")
        assert page.status == 200
        assert bridge.get("/api/about").json["keepsRuns"] is False
        assert bridge.get("/api/intake").json["forward"]["to"] == sink.url
        assert bridge.get("/static/app.css").status == 200
        missing = bridge.get("/api/run", flow="checkout", run_id="r")
        assert missing.status == 404
        assert sink.url in missing.json["detail"]


def test_a_server_that_sends_nothing_on_says_so(api):
    assert api.get("/api/intake").json["forward"] is None
