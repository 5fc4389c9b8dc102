"""Poster: one body at a time to one URL over a kept-alive connection, within a deadline."""

from __future__ import annotations

import email.utils
import math
import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import requests
import urllib3
from requests.adapters import HTTPAdapter

from failpath_otel import clock
from failpath_otel.endpoint import Tls, Trust, is_loopback
from failpath_otel.errors import ConfigError, RetryableError
from failpath_otel.events.text import clip
from failpath_otel.exporters.deadline import MAX_ANSWER_BYTES, DeadlineAdapter
from failpath_otel.exporters.deadline import deadline as answer_deadline
from failpath_otel.exporters.unseen import UntracedSession, unseen
from failpath_otel.interruption import is_interruption

_MAX_RETRY_AFTER_SECONDS: Final = 3600.0
_UNKNOWN_AUTHORITY: Final = frozenset({18, 19, 20, 21})
"""OpenSSL's codes for a certificate that nobody who is trusted has signed."""


@dataclass(frozen=True)
class Answer:
    """What came back; the body is empty where it broke off, since the status alone decides what happened."""

    status: int
    headers: Any
    body: bytes

    @property
    def retry_after(self) -> float | None:
        """Seconds from a ``Retry-After`` header, which holds seconds or a date (RFC 9110, section 10.2.3)."""
        value = self.headers.get("Retry-After")
        if value is None:
            return None
        try:
            seconds = float(value)
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(value).timestamp() - clock.time_ns() / 1e9
            except (ValueError, TypeError, OverflowError):
                return None
        return None if math.isnan(seconds) else min(max(seconds, 0.0), _MAX_RETRY_AFTER_SECONDS)


@dataclass
class Poster:
    """Posts to one URL. Redirects are not followed; a forked child makes a connection of its own.

    Args:
        url: Where to. On loopback it is reached directly, past any proxy of the environment.
        headers: Of each request.
        tls: Whom to trust, and who we are.
        open_session: Makes sessions that authorize requests themselves; without it they are plain ones.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)  # the key is among them
    tls: Tls = field(default_factory=Tls)
    open_session: Callable[[], requests.Session] | None = None
    _session: requests.Session | None = field(default=None, init=False, repr=False)
    _trust: Trust | None = field(default=None, init=False, repr=False)
    _pid: int = field(default=0, init=False, repr=False)

    def post(self, body: bytes, headers: Mapping[str, str], deadline: float | None) -> Answer:
        """The answer to a request, which ends by ``deadline`` (monotonic seconds).

        Raises:
            RetryableError: No answer came, or no time was left for it.
        """
        remaining = None if deadline is None else deadline - clock.monotonic()
        if remaining is not None and remaining <= 0:
            raise RetryableError(f"no time was left to reach {self.url}")
        token = answer_deadline.set(deadline)
        try:
            with (
                unseen(),
                self._connected().post(
                    self.url,
                    data=body,
                    headers=headers,
                    timeout=remaining,
                    verify=self._verify(),
                    cert=self.tls.identity,
                    allow_redirects=False,
                    stream=True,
                ) as response,
            ):
                return Answer(response.status_code, response.headers, _read(response))
        except ConfigError:
            raise
        except Exception as error:
            # Of whatever kind: what tests put in place of clocks and sockets raises anything, and none of it tells of the body.
            if not isinstance(error, requests.RequestException | OSError) and is_interruption(error):
                raise
            raise RetryableError(f"{self.url} cannot be reached: {self._reason(error)}") from error
        finally:
            answer_deadline.reset(token)

    def close(self) -> None:
        """Closes the connection."""
        session, self._session = self._session, None
        if session is not None and self._pid == os.getpid():
            session.close()

    def _connected(self) -> requests.Session:
        if self._session is None or self._pid != os.getpid():
            # A forked child must not write into its parent's connection.
            session = self._plain_session() if self.open_session is None else self._given_session(self.open_session())
            self._session, self._pid = session, os.getpid()
        return self._session

    def _verify(self) -> str | bool | None:
        """Whom to trust: always a path, since `requests` would look at variables by itself, and off loopback only."""
        if not self.url.startswith("https:"):
            return self.tls.certificate or True
        if self.open_session is not None:
            return self.tls.certificate  # without one, the session that was given knows
        if self._trust is None:
            self._trust = self.tls.trust()
            self._trust.warn()
        return self._trust.path

    def _reason(self, error: BaseException) -> str:
        """Why there was no answer: the innermost cause, since what requests and urllib3 wrap around it says less."""
        for _ in range(8):
            error = error.__cause__ or error.__context__ or error
        reason = clip(str(error) or type(error).__name__, 512)
        trust, self._trust = self._trust, None  # what it is may be put right meanwhile
        if trust is not None and isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _UNKNOWN_AUTHORITY:
            return f"{reason}; trusted is {trust.path}, named by {trust.named_by}. {self.tls.option} names another authority"
        return reason

    def _plain_session(self) -> requests.Session:
        session = UntracedSession()
        session.mount("http://", DeadlineAdapter())
        session.mount("https://", DeadlineAdapter())
        session.headers["Accept-Encoding"] = "identity"
        if is_loopback(self.url):
            # What is meant for this machine, perhaps without a key, must not go to a proxy from the environment.
            session.trust_env = False
        # Set on the session, because requests lets ~/.netrc replace an Authorization header that is merely a header.
        session.auth = self._with_headers
        return session

    def _given_session(self, session: requests.Session) -> requests.Session:
        for prefix, adapter in list(session.adapters.items()):
            if type(adapter) is HTTPAdapter:  # one of its own does what we cannot know
                session.mount(prefix, DeadlineAdapter())
        session.headers.update({"Accept-Encoding": "identity", **self.headers})
        return session

    def _with_headers(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self.headers)
        return request


def _read(response: requests.Response) -> bytes:
    try:
        body: bytes = response.raw.read(MAX_ANSWER_BYTES, decode_content=False)
    except (urllib3.exceptions.HTTPError, OSError):
        return b""
    return body
