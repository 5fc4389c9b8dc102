"""A server that our own requests go to: its URL and key, whom they trust there by TLS, and who they are."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn, cast
from urllib.parse import urlsplit

from failpath_otel.errors import ConfigError
from failpath_otel.notices import warn_once

DEFAULT_ENDPOINT: Final = "https://api.failpath.dev"
NOBODY: Final = "certifi"
"""Who names authorities where nobody else does."""
TRUST_VARIABLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""Where others look for authorities; the first that can be used counts."""

_HASHED: Final = re.compile(r"[0-9a-f]{8}\.\d+")
"""The names by which OpenSSL finds authorities in a folder."""


def is_loopback(endpoint: str) -> bool:
    """Whether an endpoint is on this machine."""
    host = urlsplit(endpoint).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def checked_project_key(name: str, value: Any) -> str | None:
    """A key that a header can carry; ``None`` for an empty one.

    Raises:
        ConfigError: It cannot; the message names ``name`` and does not show the key.
    """
    key = checked_text(name, value)
    if not key.isascii() or not key.isprintable() or " " in key:
        # The value is a secret and so is not shown.
        raise ConfigError(f"{name} holds characters that an HTTP header cannot carry; copy the key again")
    return key or None


def checked_endpoint(name: str, value: Any) -> str:
    """A base URL, without a slash at its end.

    Raises:
        ConfigError: It is none; the message names ``name``.
    """
    url = checked_text(name, value)
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        usable = usable and not (parts.query or parts.fragment) and url.isprintable() and " " not in url
    except ValueError:
        usable = False
    if "@" in url:
        # The value may hold a password and so is not shown.
        raise ConfigError(f"{name} must not hold a user name or password; the project key is what authorizes")
    if not usable:
        raise ConfigError(f"{name} must be an http:// or https:// URL such as {DEFAULT_ENDPOINT}, got {value!r}")
    return url.rstrip("/")


def checked_text(name: str, value: Any) -> str:
    """Text without spaces around it.

    Raises:
        ConfigError: It is none; the message names ``name``.
    """
    if not isinstance(value, str):
        raise ConfigError(f"{name} must be text, got {type(value).__name__}")
    return value.strip()


# TLS


class Trust(NamedTuple):
    """The authorities that are trusted.

    Attributes:
        path: Of a PEM file, or of a folder that OpenSSL can read.
        named_by: Which option or variable names it; ``certifi`` where none does.
        passed_over: Variables that cannot be used, each with the reason.
    """

    path: str
    named_by: str
    passed_over: tuple[str, ...]

    def warn(self) -> None:
        """Says once of each variable that it cannot be used. It is not ours, so that is no reason to stop the service."""
        for reason in self.passed_over:
            warn_once(f"trust:{reason}", "no certificates to trust come from %s; it is passed over", reason)

    def read(self) -> bytes:
        """The certificates, as PEM: of a folder those of all its files."""
        if not Path(self.path).is_dir():
            return Path(self.path).read_bytes()
        files = {os.path.realpath(file) for file in Path(self.path).iterdir() if _HASHED.fullmatch(file.name)}
        return b"\n".join(Path(file).read_bytes() for file in sorted(files))


@dataclass(frozen=True)
class Tls:
    """Whom to trust, and who we are. The paths are checked; what lies there may be renewed at any time.

    Attributes:
        certificate: PEM file with the authorities to trust, and no others; without one, those of the environment.
        client_certificate: PEM file of our own, which may hold its key as well.
        client_key: PEM file of its key.
        option: The name by which a user gives ``certificate``.
    """

    certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None
    option: str = "certificate (FAILPATH_CERTIFICATE)"

    @property
    def identity(self) -> str | tuple[str, str] | None:
        """Who we are, as `requests` takes it."""
        if self.client_certificate and self.client_key:
            return self.client_certificate, self.client_key
        return self.client_certificate

    def trust(self, environ: Mapping[str, str] | None = None) -> Trust:
        """Whom to trust now: a file that a variable names may have come or gone since. See `Trust.warn`."""
        if self.certificate is not None:
            return Trust(self.certificate, self.option, ())
        passed_over: list[str] = []
        for name, path in _named(os.environ if environ is None else environ):
            reason = _unusable(path)
            if reason is None:
                return Trust(path, name, tuple(passed_over))
            passed_over.append(f"{name}={path}: {reason}")
        from requests.utils import DEFAULT_CA_BUNDLE_PATH  # as some systems package it, the system's own

        return Trust(DEFAULT_CA_BUNDLE_PATH, NOBODY, tuple(passed_over))


def checked_tls(named: Mapping[str, tuple[str, Any]]) -> Tls:
    """What files say of trust and of us.

    Args:
        named: ``certificate``, ``client_certificate`` and ``client_key``, each with the name by which the user knows it and
            with its path; ``None`` where none was given.

    Raises:
        ConfigError: One of them cannot be used.
    """
    checked: dict[str, str | None] = {}
    for option, (name, path) in named.items():
        check = checked_certificate if option == "certificate" else checked_file
        checked[option] = None if path is None else check(name, path)
    identity, key = ((named[option][0], checked[option]) for option in ("client_certificate", "client_key"))
    check_identity(identity, key)
    return Tls(checked["certificate"], checked["client_certificate"], checked["client_key"], named["certificate"][0])


def checked_certificate(name: str, value: Any) -> str:
    """The absolute path of a PEM file with certificates to trust.

    Raises:
        ConfigError: There is none; the message names ``name``, the value and the way out.
    """
    path = checked_file(name, value)
    reason = _unusable(path)
    if reason is not None:
        raise ConfigError(f"{name} must be a PEM file with the certificates to trust, got {value!r}: {reason}")
    return path


def checked_file(name: str, value: Any) -> str:
    """The absolute path of a file that can be read: a service may change its working directory later.

    Raises:
        ConfigError: It cannot; the message names ``name`` and the value.
    """
    try:
        path = Path(cast(str, os.fspath(value))).absolute()
        with path.open("rb"):
            return str(path)
    except TypeError:
        raise ConfigError(f"{name} must be the path of a PEM file, got {value!r}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name} must be the path of a file that can be read, got {value!r}: {_said(error)}") from None


def check_identity(certificate: tuple[str, str | None], key: tuple[str, str | None]) -> None:
    """Holds a client's certificate and its key against one another, each with the name under which it was given.

    Raises:
        ConfigError: They do not belong together, one is missing, or the key wants a passphrase.
    """
    (name, path), (key_name, key_path) = certificate, key
    if path is None:
        if key_path is not None:
            raise ConfigError(f"{key_name} is the key of a certificate, which takes {name} beside it")
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path, key_path, _no_passphrase)
    except _EncryptedError:
        raise ConfigError(f"{key_name if key_path else name} wants a passphrase, and nobody is there to type it") from None
    except ssl.SSLError as error:
        if key_path is None:
            wanted = f"{name} must hold a certificate and its key as PEM, unless {key_name} names a file with the key"
        elif error.reason == "KEY_VALUES_MISMATCH":
            wanted = f"{key_name} must be the key of the certificate in {name}, and is that of another"
        else:
            wanted = f"{name} must hold a certificate as PEM and {key_name} its key"
        raise ConfigError(f"{wanted}, got {path!r}{f' and {key_path!r}' if key_path else ''}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name} cannot be used, got {path!r}: {_said(error)}") from None


class _EncryptedError(Exception):
    """OpenSSL asks for a passphrase."""


def _no_passphrase() -> NoReturn:
    """Else OpenSSL would ask at the terminal, and wait there."""
    raise _EncryptedError


def _named(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in TRUST_VARIABLES:
        value = environ.get(name, "").strip()
        paths = value.split(os.pathsep) if name == "SSL_CERT_DIR" else [value]
        yield from ((name, path) for path in paths if path)


def _unusable(path: str) -> str | None:
    """Why nobody can be trusted by what lies there; ``None`` where somebody can."""
    try:
        if Path(path).is_dir():
            hashed = any(_HASHED.fullmatch(file.name) for file in Path(path).iterdir())
            return None if hashed else f"the folder has no names that OpenSSL knows; openssl rehash {path} makes them"
        about = Path(path).stat()
        return _unreadable(path, about.st_ino, about.st_mtime_ns, about.st_size)
    except (OSError, ValueError) as error:
        return _said(error)


@lru_cache(maxsize=16)
def _unreadable(path: str, *_version: int) -> str | None:
    """Why OpenSSL cannot read a file as it is now: those of a whole system take it some 30 ms, so each is read once."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return "no certificate can be read from it"
    return None


def _said(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
