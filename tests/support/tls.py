"""Authorities, certificates and servers with TLS on loopback, as a private network has them."""

from __future__ import annotations

import datetime
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from support.http_sink import HttpSink

VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH")
REMOTE = "failpath.test"
LOOPBACK = ("localhost", "127.0.0.1")


class Authority:
    """An authority that nobody knows, and what it signs."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ca = trustme.CA()
        self.file = folder / "authority.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def hashed(self) -> Path:
        """A folder with the authority's certificate under the name by which OpenSSL finds it; a skip without that command."""
        openssl = shutil.which("openssl")
        if openssl is None:
            pytest.skip("needs the openssl command to name a certificate by its hash")
        command = [openssl, "x509", "-hash", "-noout", "-in", str(self.file)]
        name = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
        folder = self._folder / "hashed"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.0").write_bytes(self.file.read_bytes())
        return folder

    def signed(self, *names: str, expired: bool = False) -> tuple[Path, Path]:
        """A certificate for these names, and its key."""
        until = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc) if expired else None
        leaf = self._ca.issue_cert(*names, not_before=until and until - datetime.timedelta(days=1), not_after=until)
        kind = f"{'expired-' if expired else ''}{names[0]}"
        certificate, key = self._folder / f"{kind}.pem", self._folder / f"{kind}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(str(key))
        return certificate, key

    def server(self, *names: str, expired: bool = False, clients_of: Authority | None = None) -> ssl.SSLContext:
        """What a server with such a certificate is made of; ``clients_of`` has signed what it demands of clients."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.signed(*names or (*LOOPBACK, REMOTE), expired=expired))
        if clients_of is not None:
            context.load_verify_locations(clients_of.file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


@contextmanager
def https_sink(context: ssl.SSLContext) -> Iterator[HttpSink]:
    """A sink that listens with TLS, until the end of the block."""
    sink = HttpSink(tls=context)
    sink.start()
    try:
        yield sink
    finally:
        sink.released.set()
        sink.stop()
