"""OTLP over TLS, by HTTP and by gRPC: certificates to trust, and a certificate of the client's own."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import grpc  # type: ignore[import-untyped]
import pytest
from support.delivery import event
from support.otlp_grpc import grpc_sink

from failpath_otel.errors import RetryableError
from failpath_otel.exporters.otlp.exporter import OtlpExporter

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command to make certificates")


class Pair(NamedTuple):
    certificate: Path
    key: Path


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    """Makes a certificate for this machine, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")

    def made(name: str) -> Pair:
        pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
        options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
        options += [
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout",
            str(pair.key),
            "-out",
            str(pair.certificate),
        ]
        subprocess.run(["openssl", "req", "-x509", *options], check=True, capture_output=True, timeout=60)
        return pair

    return made


@pytest.fixture(scope="module")
def server_pair(make: Callable[[str], Pair]) -> Pair:
    return make("server")


@pytest.fixture(scope="module")
def client_pair(make: Callable[[str], Pair]) -> Pair:
    return make("client")


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
def https_server(own: Pair, trusted: Pair) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.key)
    context.load_verify_locations(trusted.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    with Server(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join(10)


@contextmanager
def grpc_server(own: Pair, trusted: Pair) -> Iterator[int]:
    pairs = [(own.key.read_bytes(), own.certificate.read_bytes())]
    credentials = grpc.ssl_server_credentials(pairs, trusted.certificate.read_bytes(), require_client_auth=True)
    with grpc_sink(credentials) as sink:
        yield sink.port


@pytest.fixture(params=["http/protobuf", "grpc"])
def server(request: pytest.FixtureRequest, server_pair: Pair, client_pair: Pair) -> Iterator[dict[str, str]]:
    """A server that demands the client's certificate; the variables that lead to it."""
    serving = grpc_server if request.param == "grpc" else https_server
    with serving(server_pair, client_pair) as port:
        yield {"OTEL_EXPORTER_OTLP_PROTOCOL": request.param, "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://localhost:{port}"}


def export(variables: dict[str, str]) -> None:
    exporter = OtlpExporter(variables)
    try:
        exporter.export([event()], timeout_millis=10_000)
    finally:
        exporter.close()


def test_certificates_of_the_environment_are_used(server: dict[str, str], server_pair: Pair, client_pair: Pair) -> None:
    own = {
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(server_pair.certificate),
        "OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE": str(client_pair.certificate),
        "OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY": str(client_pair.key),
    }
    export({**server, **own})


def test_a_server_that_is_not_trusted_gets_nothing(server: dict[str, str], client_pair: Pair) -> None:
    own = {
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(client_pair.certificate),
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(client_pair.certificate),
        "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(client_pair.key),
    }
    with pytest.raises(RetryableError, match=r"(?i)certificate|ssl|handshake"):
        export({**server, **own})


def test_without_its_own_certificate_the_client_is_turned_away(server: dict[str, str], server_pair: Pair) -> None:
    with pytest.raises(RetryableError):
        export({**server, "OTEL_EXPORTER_OTLP_CERTIFICATE": str(server_pair.certificate)})
