"""OpenTelemetry's own variables: what they mean to us is what they mean to the standard exporters, and bad ones are told."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
import requests
import trustme
import urllib3
from opentelemetry.exporter.otlp.proto.grpc import exporter as standard_grpc
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as StandardGrpcExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as StandardHttpExporter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from support.delivery import event
from support.tls import VARIABLES, Authority

from failpath_otel import ConfigError, FailpathClient
from failpath_otel.endpoint import Tls
from failpath_otel.errors import ExportError
from failpath_otel.exporters.otlp.exporter import OtlpExporter
from failpath_otel.exporters.otlp.http import HttpTransport
from failpath_otel.exporters.otlp.settings import OtlpSettings, read_settings

O = "OTEL_EXPORTER_OTLP_"  # noqa: E741 - the tables below read best with a short name


@pytest.fixture(autouse=True)
def no_otel_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OTEL_") or name in VARIABLES or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def pem(tmp_path: Path) -> str:
    """A certificate and its key in one file, which can stand for each."""
    path = tmp_path / "some.pem"
    pair = trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem
    pair.write_to_path(str(path))
    return str(path)


def test_without_variables_it_is_http_to_this_machine() -> None:
    assert read_settings({}) == OtlpSettings(
        protocol="http/protobuf",
        endpoint="http://localhost:4318/v1/logs",
        insecure=False,
        headers={},
        compression="none",
        timeout_seconds=None,
        tls=Tls(option=f"{O}CERTIFICATE"),
        credential_provider=None,
    )


def test_grpc_without_an_endpoint_goes_to_this_machine() -> None:
    settings = read_settings({f"{O}PROTOCOL": "grpc"})
    assert (settings.protocol, settings.endpoint, settings.insecure) == ("grpc", "localhost:4317", True)


@pytest.mark.parametrize(
    "name", ["PROTOCOL", "ENDPOINT", "HEADERS", "COMPRESSION", "TIMEOUT", "CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE"]
)
def test_the_variable_for_logs_counts_more_and_an_empty_one_not_at_all(name: str, pem: str) -> None:
    value = {
        "PROTOCOL": "grpc",
        "ENDPOINT": "http://special.test/logs",
        "HEADERS": "a=special",
        "COMPRESSION": "gzip",
        "TIMEOUT": "3",
    }.get(name, pem)
    pair = {f"{O}CLIENT_CERTIFICATE": pem} if name == "CLIENT_KEY" else {}
    general = {"PROTOCOL": "http/protobuf", "ENDPOINT": "http://general.test", "HEADERS": "a=general", "TIMEOUT": "5"}
    environ = {**pair, f"{O}{name}": general.get(name, value), f"{O}LOGS_{name}": value}
    assert read_settings(environ) == read_settings({**pair, f"{O}LOGS_{name}": value}) != read_settings(pair)
    environ[f"{O}LOGS_{name}"] = "  "
    assert read_settings(environ) == read_settings({**pair, f"{O}{name}": general.get(name, value)})


def test_an_endpoint_for_logs_is_taken_as_it_stands_and_a_general_one_is_a_base() -> None:
    for endpoint in ("http://c.test/otlp", "http://c.test/otlp/"):
        assert read_settings({f"{O}ENDPOINT": endpoint}).endpoint == "http://c.test/otlp/v1/logs"
    endpoint = "https://c.test/otlp?tenant=a"
    assert read_settings({f"{O}LOGS_ENDPOINT": endpoint}).endpoint == endpoint


@pytest.mark.parametrize(
    ("endpoint", "insecure", "expected"),
    [
        ("http://c.test:4317", None, ("c.test:4317", True)),
        ("http://c.test:4317", "false", ("c.test:4317", True)),
        ("https://c.test:4317/path", None, ("c.test:4317", False)),
        ("https://c.test", "true", ("c.test", False)),
        ("c.test:4317", None, ("c.test:4317", False)),
        ("c.test:4317", "TRUE", ("c.test:4317", True)),
        ("unix:///run/otel.sock", "true", ("unix:///run/otel.sock", True)),
        ("dns:///c.test:4317", None, ("dns:///c.test:4317", False)),
    ],
)
def test_grpc_takes_tls_from_the_scheme_else_from_insecure(
    endpoint: str, insecure: str | None, expected: tuple[str, bool]
) -> None:
    environ = {f"{O}PROTOCOL": "grpc", f"{O}ENDPOINT": endpoint, **({f"{O}INSECURE": insecure} if insecure else {})}
    settings = read_settings(environ)
    assert (settings.endpoint, settings.insecure) == expected


BAD = [
    ("PROTOCOL", "http/json", "must be one of http/protobuf, grpc"),
    ("PROTOCOL", "thrift", "must be one of http/protobuf, grpc"),
    ("ENDPOINT", "collector:4318", "must be an http:// or https:// URL"),
    ("ENDPOINT", "http://", "must be an http:// or https:// URL"),
    ("ENDPOINT", "http://c.test:port", "must be an http:// or https:// URL"),
    ("ENDPOINT", "http://c.test?x=1", "carries no query"),
    ("LOGS_ENDPOINT", "http://c.test/a b", "must be an http:// or https:// URL"),
    ("COMPRESSION", "zstd", "must be one of none, gzip, deflate"),
    ("TIMEOUT", "soon", "must be a number of seconds above 0"),
    ("TIMEOUT", "0", "must be a number of seconds above 0"),
    ("LOGS_TIMEOUT", "nan", "must be a number of seconds above 0"),
    ("CERTIFICATE", "/no/such/file", "must be the path of a file that can be read"),
    ("LOGS_CLIENT_KEY", "/no/such/file", "must be the path of a file that can be read"),
    ("CLIENT_CERTIFICATE", "/", "must be the path of a file that can be read"),
]


@pytest.mark.parametrize(("name", "value", "way_out"), BAD)
def test_a_bad_value_is_told_with_its_name_when_the_client_is_made(
    name: str, value: str, way_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{O}{name}", value)
    with pytest.raises(ConfigError) as caught:
        FailpathClient(exporter="otlp", flows=False)
    assert str(caught.value).startswith(f"{O}{name} ")
    assert way_out in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({f"{O}PROTOCOL": "grpc", f"{O}ENDPOINT": "c test"}, f"{O}ENDPOINT must be a URL"),
        ({f"{O}PROTOCOL": "grpc", f"{O}ENDPOINT": "c", f"{O}INSECURE": "maybe"}, f"{O}INSECURE must be one of true, false"),
        (
            {"OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER": "nobody"},
            "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER must name an entry point",
        ),
        (
            {f"{O}PROTOCOL": "grpc", "OTEL_PYTHON_EXPORTER_OTLP_GRPC_LOGS_CREDENTIAL_PROVIDER": "nobody"},
            "OTEL_PYTHON_EXPORTER_OTLP_GRPC_LOGS_CREDENTIAL_PROVIDER must name an entry point",
        ),
    ],
)
def test_bad_values_that_depend_on_others(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings(environ)


@pytest.mark.parametrize(("name", "value"), [("ENDPOINT", "http://me:secret@c.test"), ("HEADERS", "authorization=my%0Asecret")])
def test_what_may_be_a_secret_is_not_shown(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_settings({f"{O}{name}": value})
    assert "secret" not in str(caught.value)
    assert f"{O}{name}" in str(caught.value)


def test_no_secret_is_in_a_repr() -> None:
    environ = {f"{O}HEADERS": "authorization=hush"}
    exporter = OtlpExporter(environ)
    parts = vars(HttpTransport(read_settings(environ), "failpath-otel"))
    assert "hush" not in repr(exporter) + repr(read_settings(environ)) + repr(parts)
    exporter.close()


def test_http_to_the_port_for_grpc_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    OtlpExporter({f"{O}ENDPOINT": "http://localhost:4317"})
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in caplog.text
    caplog.clear()
    OtlpExporter({f"{O}ENDPOINT": "http://localhost:4317", f"{O}PROTOCOL": "grpc"})
    OtlpExporter({f"{O}ENDPOINT": "http://localhost:4318"})
    assert caplog.text == ""


# Beside the standard exporters


@pytest.fixture
def posted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[requests.PreparedRequest, dict[str, Any]]]:
    """Every request that goes out by `requests`, which is answered in the network's place."""
    seen: list[tuple[requests.PreparedRequest, dict[str, Any]]] = []

    def send(self: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        seen.append((request, options))
        response = requests.Response()
        response.status_code = 200
        response.raw = urllib3.HTTPResponse(b"", preload_content=False)
        return response

    monkeypatch.setattr(requests.Session, "send", send)
    return seen


def shown(request: requests.PreparedRequest) -> dict[str, str]:
    """The headers, without those that may differ."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    return {name: headers[name] for name in set(headers) - {"user-agent", "accept-encoding", "content-length"}}


HTTP = [
    {},
    {f"{O}ENDPOINT": "http://c.test:9/base/"},
    {f"{O}LOGS_ENDPOINT": "https://c.test/all?x=1", f"{O}ENDPOINT": "http://other.test"},
    {f"{O}HEADERS": "Api-Key=a%20b, x-tenant = t=1", f"{O}COMPRESSION": "gzip"},
    {f"{O}HEADERS": "a=general", f"{O}LOGS_HEADERS": "Authorization=Bearer abc"},
    {f"{O}COMPRESSION": "gzip", f"{O}LOGS_COMPRESSION": "Deflate"},
    {f"{O}CERTIFICATE": "PEM", f"{O}CLIENT_CERTIFICATE": "PEM"},
    {f"{O}LOGS_CERTIFICATE": "PEM", f"{O}LOGS_CLIENT_CERTIFICATE": "PEM", f"{O}CLIENT_KEY": "PEM"},
]


@pytest.mark.parametrize("variables", HTTP, ids=lambda variables: " ".join(variables).replace(O, "") or "none")
def test_a_request_is_addressed_as_the_standard_exporters(
    variables: dict[str, str],
    posted: list[tuple[requests.PreparedRequest, dict[str, Any]]],
    pem: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, pem if value == "PEM" else value)
    standard = StandardHttpExporter()
    standard.export([])
    OtlpExporter().export([event()], timeout_millis=1000)
    (theirs, their_options), (ours, our_options) = posted
    assert ours.url == theirs.url
    assert ours.method == theirs.method
    assert shown(ours) == shown(theirs)
    assert our_options["cert"] == their_options["cert"]
    # Else requests would look for variables by itself, and not on loopback.
    ours_if_theirs = {True: DEFAULT_CA_BUNDLE_PATH} if ours.url.startswith("https:") else {}
    assert our_options["verify"] == ours_if_theirs.get(their_options["verify"], their_options["verify"])
    standard.shutdown()


def test_a_certificate_counts_more_than_the_one_of_requests(
    posted: list[tuple[requests.PreparedRequest, dict[str, Any]]], pem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    another = str(Authority(tmp_path).file)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", another)
    for environ, expected in (({}, another), ({f"{O}CERTIFICATE": pem}, pem)):
        OtlpExporter({f"{O}ENDPOINT": "https://c.test", **environ}).export([event()], timeout_millis=1000)
        assert posted.pop()[1]["verify"] == expected


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every gRPC channel that is opened, in place of which nothing is."""
    seen: list[dict[str, Any]] = []

    class Channel:
        def unary_unary(self, *arguments: Any, **options: Any) -> Any:
            def call(request: Any, *, metadata: Any, timeout: float) -> Any:
                seen[-1]["metadata"] = dict(metadata)
                return SimpleNamespace(partial_success=SimpleNamespace(rejected_log_records=0, error_message=""))

            return call

        def close(self) -> None:
            pass

    def insecure(target: str, options: Any = None, compression: Any = None) -> Channel:
        seen.append({"target": target, "compression": compression or grpc.Compression.NoCompression, "secure": False})
        return Channel()

    def secure(target: str, credentials: Any, options: Any = None, compression: Any = None) -> Channel:
        seen.append({"target": target, "compression": compression or grpc.Compression.NoCompression, "secure": credentials})
        return Channel()

    def credentials(root_certificates: Any = None, private_key: Any = None, certificate_chain: Any = None) -> Any:
        return (root_certificates, private_key, certificate_chain)

    for place in (grpc, standard_grpc):
        monkeypatch.setattr(place, "insecure_channel", insecure)
        monkeypatch.setattr(place, "secure_channel", secure)
        monkeypatch.setattr(place, "ssl_channel_credentials", credentials)
    return seen


GRPC = [
    {},
    {f"{O}ENDPOINT": "http://c.test:9/base/"},
    {f"{O}LOGS_ENDPOINT": "c.test:4317", f"{O}ENDPOINT": "http://other.test"},
    {f"{O}ENDPOINT": "c.test:4317", f"{O}INSECURE": "true"},
    {f"{O}ENDPOINT": "https://c.test:4317", f"{O}CERTIFICATE": "PEM"},
    {f"{O}ENDPOINT": "https://c.test", f"{O}CERTIFICATE": "PEM", f"{O}CLIENT_KEY": "PEM", f"{O}CLIENT_CERTIFICATE": "PEM"},
    {f"{O}LOGS_COMPRESSION": "gzip", f"{O}HEADERS": "Api-Key=a%20b, x-tenant = t=1"},
]


@pytest.mark.parametrize("variables", GRPC, ids=lambda variables: " ".join(variables).replace(O, "") or "none")
def test_a_channel_is_opened_as_the_standard_exporters(
    variables: dict[str, str], opened: list[dict[str, Any]], pem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {f"{O}PROTOCOL": "grpc", **variables}.items():
        monkeypatch.setenv(name, pem if value == "PEM" else value)
    StandardGrpcExporter().export([])
    OtlpExporter().export([event()], timeout_millis=1000)
    theirs, ours = opened
    assert ours == theirs


# Credential providers


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an entry point of an installed distribution, which gives what ``its_credentials.given`` is."""
    (tmp_path / "its_credentials.py").write_text("given = None\ndef give():\n    return given\n")
    info = tmp_path / "its_credentials-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: its-credentials\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[opentelemetry_otlp_credential_provider]\nits = its_credentials:give\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "its_credentials", raising=False)
    return "its"


def test_a_session_of_a_credential_provider_carries_the_requests(
    provider: str, posted: list[tuple[requests.PreparedRequest, dict[str, Any]]]
) -> None:
    import its_credentials  # type: ignore[import-not-found]

    its_credentials.given = session = requests.Session()
    session.auth = ("me", "secret")
    environ = {"OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER": provider, f"{O}HEADERS": "x-tenant=t1"}
    OtlpExporter(environ).export([event()], timeout_millis=1000)
    ((request, _),) = posted
    assert request.headers["Authorization"].startswith("Basic ")
    assert request.headers["x-tenant"] == "t1"
    assert request.headers["Content-Type"] == "application/x-protobuf"


def test_credentials_of_a_provider_secure_the_channel(
    provider: str, opened: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import its_credentials

    class Credentials:
        pass

    monkeypatch.setattr(grpc, "ChannelCredentials", Credentials)
    its_credentials.given = Credentials()
    environ = {"OTEL_PYTHON_EXPORTER_OTLP_GRPC_LOGS_CREDENTIAL_PROVIDER": provider}
    OtlpExporter({**environ, f"{O}PROTOCOL": "grpc", f"{O}ENDPOINT": "https://c.test"}).export([event()], timeout_millis=1000)
    assert opened[0]["secure"] is its_credentials.given


def test_a_provider_of_something_else_is_told(provider: str) -> None:
    environ = {"OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER": provider}
    with pytest.raises((ConfigError, ExportError), match="must give a Session, got NoneType"):
        OtlpExporter(environ).export([event()], timeout_millis=1000)
