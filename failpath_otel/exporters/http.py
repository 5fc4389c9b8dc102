"""HttpExporter: events by HTTP, as ``docs/wire.md`` describes."""

from __future__ import annotations

import email.utils
import gzip
import math
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import requests
import urllib3

from failpath_otel.config import is_loopback
from failpath_otel.errors import ExportError, RejectedError, RetryableError, UnauthorizedError
from failpath_otel.events.step import StepEvent
from failpath_otel.events.text import clip
from failpath_otel.events.wire import encode_event, join_events
from failpath_otel.exporters.deadline import MAX_ANSWER_BYTES, DeadlineAdapter
from failpath_otel.exporters.deadline import deadline as answer_deadline

EVENTS_PATH: Final = "/v1/events"

_GZIP_ABOVE_BYTES: Final = 1024
_MAX_BODY_BYTES: Final = 1024 * 1024
"""A quarter of what the server takes, so that a batch of large events goes out in several requests."""
_MAX_RETRY_AFTER_SECONDS: Final = 3600.0


class HttpExporter:
    """Posts batches to ``{endpoint}/v1/events``: JSON, gzip above 1 KiB, one kept-alive connection.

    Connection faults, timeouts, 408, 429 and 5xx are raised as `RetryableError` with the answer's ``Retry-After``; 413 splits
    the batch; 401 and 403 raise `UnauthorizedError`; any other answer refuses the batch. Redirects are not followed.

    Args:
        endpoint: The base URL, without the path.
        project_key: Sent as ``Authorization: Bearer``; without one the header is left out.
        user_agent: The ``User-Agent`` header.
    """

    def __init__(self, endpoint: str, project_key: str | None = None, *, user_agent: str = "failpath-otel") -> None:
        self._url = endpoint.rstrip("/") + EVENTS_PATH
        self._project_key = project_key
        self._user_agent = user_agent
        self._session: requests.Session | None = None
        self._pid = 0

    def __repr__(self) -> str:
        return f"HttpExporter({self._url!r}, project_key={'set' if self._project_key else None})"

    def export(self, batch: Sequence[StepEvent], /, *, timeout_millis: int) -> None:
        """Posts the batch in as few requests as the size limit allows, within ``timeout_millis`` in all.

        Raises:
            RetryableError, RejectedError, UnauthorizedError, ExportError: As the class describes.
        """
        deadline = time.monotonic() + timeout_millis / 1000 if timeout_millis else None
        rejected: dict[str, str] = {}
        for ids, encoded in _within_limit(batch, rejected):
            self._send(ids, encoded, deadline, rejected)
        if rejected:
            raise RejectedError(rejected)

    def close(self) -> None:
        """Closes the connection."""
        session, self._session = self._session, None
        if session is not None and self._pid == os.getpid():
            session.close()

    def _send(self, ids: list[str], encoded: list[bytes], deadline: float | None, rejected: dict[str, str]) -> None:
        status, headers, body = self._post(join_events(encoded), deadline)
        if status == 413 and len(encoded) > 1:
            half = len(encoded) // 2
            self._send(ids[:half], encoded[:half], deadline, rejected)
            self._send(ids[half:], encoded[half:], deadline, rejected)
        elif 200 <= status < 300:
            rejected.update(_rejected_in(body))
        elif status in (401, 403):
            raise UnauthorizedError(f"{self._url} answered {status}: {_detail(body)}; check the project key")
        elif status in (408, 429) or status >= 500:
            raise RetryableError(f"{self._url} answered {status}: {_detail(body)}", retry_after=_retry_after(headers))
        elif status == 413:
            rejected[ids[0]] = f"{len(encoded[0])} bytes are too large for {self._url}"
        elif 300 <= status < 400:
            target = clip(str(headers.get("Location", "nowhere")), 512)
            raise ExportError(f"{self._url} redirects ({status}) to {target}, which is not followed; set that as the endpoint")
        else:
            raise ExportError(f"{self._url} answered {status}: {_detail(body)}")

    def _post(self, body: bytes, deadline: float | None) -> tuple[int, Any, bytes]:
        headers = {"Content-Type": "application/json"}
        if len(body) > _GZIP_ABOVE_BYTES:
            body = gzip.compress(body, compresslevel=1, mtime=0)
            headers["Content-Encoding"] = "gzip"
        remaining = None if deadline is None else deadline - time.monotonic()
        if remaining is not None and remaining <= 0:
            raise RetryableError(f"no time was left to reach {self._url}")
        token = answer_deadline.set(deadline)
        try:
            with self._connected().post(
                self._url, data=body, headers=headers, timeout=remaining, allow_redirects=False, stream=True
            ) as response:
                return response.status_code, response.headers, _read(response)
        except (requests.RequestException, OSError) as error:
            raise RetryableError(f"{self._url} cannot be reached: {_reason(error)}") from error
        finally:
            answer_deadline.reset(token)

    def _connected(self) -> requests.Session:
        if self._session is None or self._pid != os.getpid():
            # A forked child must not write into its parent's connection.
            session = requests.Session()
            session.mount("http://", DeadlineAdapter())
            session.mount("https://", DeadlineAdapter())
            session.headers.update({"User-Agent": self._user_agent, "Accept-Encoding": "identity"})
            if is_loopback(self._url):
                # What is meant for this machine, perhaps without a key, must not go to a proxy from the environment.
                session.trust_env = False
            # Set on the session, because requests lets ~/.netrc replace an Authorization header that is merely a header.
            session.auth = self._authorize
            self._session, self._pid = session, os.getpid()
        return self._session

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._project_key:
            request.headers["Authorization"] = f"Bearer {self._project_key}"
        return request


def _within_limit(batch: Sequence[StepEvent], rejected: dict[str, str]) -> Iterator[tuple[list[str], list[bytes]]]:
    """The batch encoded and divided into bodies under the size limit; an event that cannot be encoded is rejected alone."""
    ids: list[str] = []
    encoded: list[bytes] = []
    size = 0
    for event in batch:
        try:
            raw = encode_event(event)
        except Exception as error:
            rejected[event.event_id] = f"cannot be encoded: {error}"
            continue
        if encoded and size + len(raw) > _MAX_BODY_BYTES:
            yield ids, encoded
            ids, encoded, size = [], [], 0
        ids.append(event.event_id)
        encoded.append(raw)
        size += len(raw)
    if encoded:
        yield ids, encoded


def _read(response: requests.Response) -> bytes:
    """The body as it came, or nothing where it breaks off: the status alone decides what happened."""
    try:
        body: bytes = response.raw.read(MAX_ANSWER_BYTES, decode_content=False)
    except (urllib3.exceptions.HTTPError, OSError):
        return b""
    return body


def _rejected_in(body: bytes) -> dict[str, str]:
    try:
        answer = msgspec.json.decode(body)
        return {str(item["eventId"]): str(item.get("reason", "")) for item in answer.get("rejected", ())}
    except (msgspec.DecodeError, AttributeError, KeyError, TypeError, UnicodeDecodeError):
        return {}


def _detail(body: bytes) -> str:
    """What the answer says of itself, for the log."""
    try:
        problem = msgspec.json.decode(body)
        return clip(str(problem.get("detail") or problem["title"]), 512)
    except (msgspec.DecodeError, AttributeError, KeyError, UnicodeDecodeError):
        return clip(body[:512].decode("utf-8", "replace").strip(), 256) or "no body"


def _retry_after(headers: Any) -> float | None:
    """Seconds from a ``Retry-After`` header, which holds seconds or a date (RFC 9110, section 10.2.3)."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return None if math.isnan(seconds) else min(max(seconds, 0.0), _MAX_RETRY_AFTER_SECONDS)


def _reason(error: BaseException) -> str:
    """The innermost cause: what requests and urllib3 wrap around it says less."""
    seen = 0
    while (cause := error.__cause__ or error.__context__) is not None and seen < 8:
        error, seen = cause, seen + 1
    return clip(str(error) or type(error).__name__, 512)
