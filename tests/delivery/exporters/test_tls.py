"""Events by https: whom the client trusts, on loopback as elsewhere, and who it says it is."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from support.delivery import event
from support.http_sink import HttpSink, http_sink
from support.tls import REMOTE, Authority, https_sink

from failpath_otel import ConfigError, FailpathClient, FailpathSpanProcessor
from failpath_otel.endpoint import NOBODY, Tls
from failpath_otel.errors import RetryableError
from failpath_otel.exporters import HttpExporter

pytestmark = pytest.mark.usefixtures("nobody_is_trusted")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other"))


@pytest.fixture
def sink(authority: Authority) -> Iterator[HttpSink]:
    """An https server of the private authority."""
    with https_sink(authority.server()) as listening:
        yield listening


@pytest.fixture(params=["on loopback", "elsewhere"])
def url(request: pytest.FixtureRequest, sink: HttpSink, monkeypatch: pytest.MonkeyPatch) -> str:
    """The server under a name of this machine, and under one that could be anywhere."""
    if request.param == "on loopback":
        return sink.url
    looked_up = socket.getaddrinfo

    def resolve(host: Any, *arguments: Any, **options: Any) -> Any:
        return looked_up("127.0.0.1" if host == REMOTE else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return f"https://{REMOTE}:{sink.port}"


def export(url: str, **files: Any) -> None:
    exporter = HttpExporter(url, "key", **files)
    try:
        exporter.export([event()], timeout_millis=20_000)
    finally:
        exporter.close()


def named(name: str, authority: Authority) -> str:
    return str(authority.hashed() if name == "SSL_CERT_DIR" else authority.file)


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_a_private_authority_is_trusted_where_a_variable_names_it(
    name: str, url: str, sink: HttpSink, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, named(name, authority))
    export(url)
    assert len(sink.events) == 1


def test_a_private_authority_is_trusted_by_argument_whatever_the_variables_say(
    url: str, sink: HttpSink, authority: Authority, other: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other.file))
    export(url, certificate=authority.file)
    assert len(sink.events) == 1


def test_a_private_authority_that_nobody_names_is_not_trusted_and_the_way_out_is_told(url: str, sink: HttpSink) -> None:
    with pytest.raises(RetryableError, match=r"certificate.* named by certifi\. certificate \(FAILPATH_CERTIFICATE\) names"):
        export(url)
    assert sink.requests == []


def test_the_authorities_of_the_option_are_the_only_ones(
    url: str, sink: HttpSink, authority: Authority, other: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    with pytest.raises(RetryableError, match=f"trusted is {other.file}, named by certificate"):
        export(url, certificate=other.file)
    assert sink.requests == []


def test_the_first_variable_counts(authority: Authority, other: Authority) -> None:
    environ = {name: named(name, other) for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")}
    found = [Tls(str(authority.file)).trust(environ).named_by]
    while environ:
        found.append(Tls().trust(environ).named_by)
        del environ[found[-1]]
    found.append(Tls().trust(environ).named_by)
    order = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", NOBODY]
    assert found == ["certificate (FAILPATH_CERTIFICATE)", *order]


def test_an_empty_variable_and_the_missing_folders_of_a_list_are_passed_over(authority: Authority) -> None:
    folders = os.pathsep.join(["/no/such/folder", str(authority.hashed())])
    trust = Tls().trust({"REQUESTS_CA_BUNDLE": " ", "SSL_CERT_DIR": folders})
    assert (trust.path, trust.named_by) == (str(authority.hashed()), "SSL_CERT_DIR")


BAD_FILES = {
    "that is not there": (lambda folder: folder / "none.pem", "No such file or directory"),
    "that is no certificate": (
        lambda folder: write(folder / "junk.pem", "a certificate"),
        "no certificate can be read from it",
    ),
    "that is cut off": (
        lambda folder: write(folder / "cut.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"),
        "no certificate can be read from it",
    ),
}
BAD_TRUST = {
    **BAD_FILES,
    "that is a folder without names of OpenSSL's": (lambda folder: folder, "the folder has no names that OpenSSL knows"),
}


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("made", BAD_TRUST)
def test_a_variable_of_others_with_a_file(
    made: str, url: str, sink: HttpSink, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """… is passed over: it is not ours to stop a service for, which is told once."""
    make, reason = BAD_TRUST[made]
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(make(tmp_path)))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    export(url)
    export(url)
    assert len(sink.events) == 1
    warnings = [record.getMessage() for record in caplog.records if record.name == "failpath_otel"]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"no certificates to trust come from REQUESTS_CA_BUNDLE={make(tmp_path)}: {reason}")


def test_a_file_that_comes_later_is_found_and_one_that_is_renewed_is_read_again(
    sink: HttpSink, authority: Authority, other: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = tmp_path / "mounted.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(mounted))
    exporter = HttpExporter(sink.url)
    for content, good in ((None, False), (other, False), (authority, True)):
        if content is not None:
            mounted.write_bytes(content.file.read_bytes())
        if good:
            exporter.export([event()], timeout_millis=20_000)
        else:
            with pytest.raises(RetryableError):
                exporter.export([event()], timeout_millis=20_000)
    exporter.close()


def test_a_server_under_another_name_is_not_trusted(authority: Authority) -> None:
    with https_sink(authority.server("another.test")) as sink, pytest.raises(RetryableError, match=r"(?i)mismatch"):
        export(sink.url, certificate=authority.file)


def test_a_server_whose_certificate_is_over_is_not_trusted(authority: Authority) -> None:
    with https_sink(authority.server(expired=True)) as sink, pytest.raises(RetryableError, match="expired"):
        export(sink.url, certificate=authority.file)


# Who we are


@pytest.fixture
def strict(authority: Authority, other: Authority) -> Iterator[HttpSink]:
    """A server that takes clients alone that the other authority knows."""
    with https_sink(authority.server(clients_of=other)) as listening:
        yield listening


def together(certificate: Path, key: Path, folder: Path) -> Path:
    return write(folder / "together.pem", key.read_text() + certificate.read_text())


def test_a_client_shows_its_certificate(strict: HttpSink, authority: Authority, other: Authority, tmp_path: Path) -> None:
    certificate, key = other.signed("client.test")
    export(strict.url, certificate=authority.file, client_certificate=certificate, client_key=key)
    export(strict.url, certificate=authority.file, client_certificate=together(certificate, key, tmp_path))
    assert len(strict.requests) == 2


@pytest.mark.parametrize("shown", ["nothing", "a certificate of somebody else's"])
def test_a_client_that_shows(shown: str, strict: HttpSink, authority: Authority) -> None:
    """… is turned away."""
    certificate, key = authority.signed("stranger.test")
    files = {} if shown == "nothing" else {"client_certificate": certificate, "client_key": key}
    with pytest.raises(RetryableError):
        export(strict.url, certificate=authority.file, **files)
    assert strict.requests == []


def encrypted(key: Path, folder: Path) -> Path:
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    secret = serialization.BestAvailableEncryption(b"hush")
    return write(folder / "encrypted.key", loaded.private_bytes(pem, form, secret).decode())


def the_pair(other: Authority, folder: Path) -> dict[str, Any]:
    certificate, key = other.signed("client.test")
    return {"client_certificate": certificate, "client_key": key}


BAD_PAIRS: dict[str, tuple[Callable[[Authority, Path], dict[str, Any]], str]] = {
    "a key without a certificate": (
        lambda other, folder: {"client_key": the_pair(other, folder)["client_key"]},
        "client_key is the key of a certificate, which takes client_certificate",
    ),
    "a certificate without its key": (
        lambda other, folder: {"client_certificate": the_pair(other, folder)["client_certificate"]},
        "client_certificate must hold a certificate and its key as PEM, unless client_key",
    ),
    "the key of another": (
        lambda other, folder: {**the_pair(other, folder), "client_key": other.signed("another-client.test")[1]},
        "client_key must be the key of the certificate in client_certificate, and is that of another",
    ),
    "a key that is none": (
        lambda other, folder: {**the_pair(other, folder), "client_key": write(folder / "junk", "a key")},
        "client_certificate must hold a certificate as PEM and client_key its key",
    ),
    "a key with a passphrase": (
        lambda other, folder: {
            **the_pair(other, folder), "client_key": encrypted(the_pair(other, folder)["client_key"], folder)
        },
        "client_key wants a passphrase",
    ),
    "a file that is not there": (
        lambda other, folder: {**the_pair(other, folder), "client_certificate": folder / "none.pem"},
        "client_certificate must be the path of a file that can be read",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_PAIRS)
@pytest.mark.parametrize("owner", [FailpathClient, FailpathSpanProcessor, HttpExporter])
def test_it_is_refused_when_it_is_made_with(case: str, owner: Any, other: Authority, tmp_path: Path) -> None:
    files, message = BAD_PAIRS[case]
    with pytest.raises(ConfigError) as caught:
        owner(endpoint="https://localhost:9", **files(other, tmp_path))
    assert message in str(caught.value).replace(" (FAILPATH_CLIENT_CERTIFICATE)", "").replace(" (FAILPATH_CLIENT_KEY)", "")


@pytest.mark.parametrize("made", BAD_FILES)
@pytest.mark.parametrize("by", ["argument", "variable"])
def test_a_certificate_to_trust(made: str, by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """… is a ConfigError that names the option, the value and the reason."""
    make, reason = BAD_FILES[made]
    path = make(tmp_path)
    options = {"certificate": path} if by == "argument" else {}
    if by == "variable":
        monkeypatch.setenv("FAILPATH_CERTIFICATE", str(path))
    name = "certificate" if by == "argument" else "FAILPATH_CERTIFICATE"
    with pytest.raises(ConfigError) as caught:
        FailpathClient(flows=False, **options)
    assert str(caught.value).startswith(f"{name} must be")
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith(reason)


@pytest.mark.parametrize("value", [7, b"\0", ""])
def test_what_is_no_path_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="certificate must be the path of"):
        FailpathClient(flows=False, certificate=value)


# From the client


def test_the_clients_options_lead_there_from_any_folder(
    strict: HttpSink, authority: Authority, other: Authority, client: Callable[..., FailpathClient],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    certificate, key = other.signed("client.test")
    monkeypatch.chdir(authority.file.parent)
    monkeypatch.setenv("FAILPATH_CERTIFICATE", authority.file.name)
    monkeypatch.setenv("FAILPATH_CLIENT_CERTIFICATE", str(certificate))
    failpath = client(endpoint=strict.url, client_key=key)
    monkeypatch.chdir(tmp_path)
    failpath.run("checkout", "1").step("charge", lambda: None)
    assert failpath.flush(timeout_millis=30_000)
    assert len(strict.events) == 2


def test_a_proxy_is_passed_by_on_loopback_and_what_goes_there_is_verified_all_the_same(
    sink: HttpSink, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    export(sink.url)
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(RetryableError, match="certificate verify failed"):
        export(sink.url)
    assert len(sink.requests) == 1


def test_a_probe_goes_the_same_way(strict: HttpSink, authority: Authority, other: Authority) -> None:
    certificate, key = other.signed("client.test")
    exporter = HttpExporter(strict.url, certificate=authority.file, client_certificate=certificate, client_key=key)
    assert exporter.probe(timeout_millis=20_000).status == 202
    exporter.close()


def test_certificates_do_not_matter_where_there_is_no_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with http_sink() as sink:
        export(sink.url)
        assert len(sink.events) == 1
