"""OTLP over TLS, by HTTP and by gRPC: certificates to trust, and a certificate of the client's own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc  # type: ignore[import-untyped]
import pytest
from support.delivery import event
from support.otlp_grpc import grpc_sink
from support.tls import LOOPBACK, Authority

from failpath_otel.errors import RetryableError
from failpath_otel.exporters.otlp.exporter import OtlpExporter

pytestmark = pytest.mark.usefixtures("nobody_is_trusted")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("servers"))


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("clients"))


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A handshake that fails is what a test wants."""


@contextmanager
def https_server(servers: Authority, clients: Authority | None) -> Iterator[int]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.socket = servers.server(clients_of=clients).wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join(10)


@contextmanager
def grpc_server(servers: Authority, clients: Authority | None) -> Iterator[int]:
    certificate, key = servers.signed(*LOOPBACK)
    demanded = None if clients is None else clients.file.read_bytes()
    pairs = [(key.read_bytes(), certificate.read_bytes())]
    credentials = grpc.ssl_server_credentials(pairs, demanded, require_client_auth=clients is not None)
    with grpc_sink(credentials) as sink:
        yield sink.port


SERVERS = {"http/protobuf": https_server, "grpc": grpc_server}


@pytest.fixture(params=SERVERS)
def strict(request: pytest.FixtureRequest, servers: Authority, clients: Authority) -> Iterator[dict[str, str]]:
    """A server that demands the client's certificate; the variables that lead to it."""
    with SERVERS[request.param](servers, clients) as port:
        yield {"OTEL_EXPORTER_OTLP_PROTOCOL": request.param, "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://localhost:{port}"}


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, servers: Authority) -> Iterator[dict[str, str]]:
    """A server that takes any client; the variables that lead to it."""
    with SERVERS[request.param](servers, None) as port:
        yield {"OTEL_EXPORTER_OTLP_PROTOCOL": request.param, "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://localhost:{port}"}


def export(variables: dict[str, str]) -> None:
    exporter = OtlpExporter(variables)
    try:
        exporter.export([event()], timeout_millis=10_000)
    finally:
        exporter.close()


def shown(clients: Authority) -> dict[str, str]:
    certificate, key = clients.signed("client.test")
    return {
        "OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE": str(certificate),
        "OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY": str(key),
    }


def test_certificates_of_the_environment_are_used(strict: dict[str, str], servers: Authority, clients: Authority) -> None:
    export({**strict, **shown(clients), "OTEL_EXPORTER_OTLP_CERTIFICATE": str(servers.file)})


def test_a_client_certificate_may_hold_its_key(
    strict: dict[str, str], servers: Authority, clients: Authority, tmp_path: Path
) -> None:
    both = tmp_path / "both.pem"
    both.write_text("".join(path.read_text() for path in clients.signed("client.test")))
    trusted = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(servers.file)}
    export({**strict, **trusted, "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(both)})


def test_a_certificates_file_that_is_away_while_it_is_renewed_loses_nothing(
    server: dict[str, str], servers: Authority, tmp_path: Path
) -> None:
    mounted = tmp_path / "authority.pem"
    mounted.write_bytes(servers.file.read_bytes())
    exporter = OtlpExporter({**server, "OTEL_EXPORTER_OTLP_CERTIFICATE": str(mounted)})
    mounted.unlink()
    with pytest.raises(RetryableError, match=r"authority\.pem"):
        exporter.export([event()], timeout_millis=10_000)
    mounted.write_bytes(servers.file.read_bytes())
    exporter.export([event()], timeout_millis=10_000)
    exporter.close()


def test_a_server_that_is_not_trusted_gets_nothing(strict: dict[str, str], clients: Authority) -> None:
    with pytest.raises(RetryableError, match=r"(?i)certificate|ssl|handshake"):
        export({**strict, **shown(clients), "OTEL_EXPORTER_OTLP_CERTIFICATE": str(clients.file)})


def test_without_its_own_certificate_the_client_is_turned_away(strict: dict[str, str], servers: Authority) -> None:
    with pytest.raises(RetryableError):
        export({**strict, "OTEL_EXPORTER_OTLP_CERTIFICATE": str(servers.file)})


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_a_private_authority_is_trusted_where_a_variable_names_it(
    name: str, server: dict[str, str], servers: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, str(servers.hashed() if name == "SSL_CERT_DIR" else servers.file))
    export(server)


def test_a_private_authority_that_nobody_names_is_not_trusted(server: dict[str, str]) -> None:
    with pytest.raises(RetryableError):
        export(server)


def test_the_way_out_names_the_variable_of_opentelemetry(servers: Authority) -> None:
    with https_server(servers, None) as port, pytest.raises(RetryableError, match="OTEL_EXPORTER_OTLP_CERTIFICATE names"):
        export({"OTEL_EXPORTER_OTLP_ENDPOINT": f"https://localhost:{port}"})


def test_authorities_that_grpc_is_told_of_count_there(
    servers: Authority, clients: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(clients.file))
    monkeypatch.setenv("SSL_CERT_FILE", str(servers.file))
    with grpc_server(servers, None) as port, pytest.raises(RetryableError):
        export({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://localhost:{port}"})
