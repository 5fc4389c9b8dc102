"""HttpExporter: events by HTTP, as ``docs/wire.md`` describes."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import msgspec

from failpath_otel import clock
from failpath_otel.endpoint import checked_tls
from failpath_otel.errors import BatchRefusedError, ExportError, RejectedError, RetryableError, UnauthorizedError
from failpath_otel.events.step import StepEvent
from failpath_otel.events.text import clip
from failpath_otel.events.wire import encode_event, join_events
from failpath_otel.exporters.posting import Answer, Poster
from failpath_otel.interruption import is_interruption

EVENTS_PATH: Final = "/v1/events"

_JSON: Final = {"Content-Type": "application/json"}
_GZIP_ABOVE_BYTES: Final = 1024
_MAX_BODY_BYTES: Final = 1024 * 1024
"""A quarter of what the server takes, so that a batch of large events goes out in several requests."""
_ABOUT_THE_BATCH: Final = frozenset({400, 409, 422})


class HttpExporter:
    """Posts batches to ``{endpoint}/v1/events``: JSON, gzip above 1 KiB, one kept-alive connection.

    Connection faults, timeouts, 408, 429 and 5xx are raised as `RetryableError` with the answer's ``Retry-After``; 413 splits
    the batch; 401 and 403 raise `UnauthorizedError`, which `probe` looks into; 400, 409 and 422 refuse what is in the batch:
    `BatchRefusedError`. Any other answer means that nothing there takes events: `ExportError`. Redirects are not followed.

    Args:
        endpoint: The base URL, without the path.
        project_key: Sent as ``Authorization: Bearer``; without one the header is left out.
        user_agent: The ``User-Agent`` header.
        certificate: PEM file of the authorities to trust, in place of those that ``REQUESTS_CA_BUNDLE``, ``CURL_CA_BUNDLE``,
            ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` names, else `certifi` has.
        client_certificate: PEM file of a certificate of our own; its key may be in it.
        client_key: PEM file of that certificate's key, without a passphrase.

    Raises:
        ConfigError: A file cannot be used.
    """

    def __init__(
        self,
        endpoint: str,
        project_key: str | None = None,
        *,
        user_agent: str = "failpath-otel",
        certificate: str | os.PathLike[str] | None = None,
        client_certificate: str | os.PathLike[str] | None = None,
        client_key: str | os.PathLike[str] | None = None,
    ) -> None:
        self.endpoint = endpoint.rstrip("/")
        files = {"certificate": certificate, "client_certificate": client_certificate, "client_key": client_key}
        tls = checked_tls({option: (option, path) for option, path in files.items()})
        self.tls = replace(tls, option="certificate (FAILPATH_CERTIFICATE)")
        self._url = self.endpoint + EVENTS_PATH
        self._has_key = bool(project_key)
        headers = {"User-Agent": user_agent}
        if project_key:
            headers["Authorization"] = f"Bearer {project_key}"
        self._poster = Poster(self._url, headers, self.tls)

    def __repr__(self) -> str:
        return f"HttpExporter({self._url!r}, project_key={'set' if self._has_key else None})"

    def export(self, batch: Sequence[StepEvent], /, *, timeout_millis: int) -> None:
        """Posts the batch in as few requests as the size limit allows, within ``timeout_millis`` in all.

        Raises:
            RetryableError, RejectedError, BatchRefusedError, UnauthorizedError, ExportError: As the class describes.
        """
        deadline = clock.monotonic() + timeout_millis / 1000 if timeout_millis else None
        rejected: dict[str, str] = {}
        for ids, encoded in _within_limit(batch, rejected):
            self._send(ids, encoded, deadline, rejected)
        if rejected:
            raise RejectedError(rejected)

    def probe(self, *, timeout_millis: int) -> Answer:
        """Posts a batch without events, of which nothing is stored: whether the way and the key are good.

        Raises:
            RetryableError, BatchRefusedError, UnauthorizedError, ExportError: As the class describes.
        """
        poster = Poster(self._url, self._poster.headers, self.tls)  # of its own, for the worker may be using the other
        try:
            deadline = clock.monotonic() + timeout_millis / 1000 if timeout_millis else None
            answer = poster.post(join_events([]), _JSON, deadline)
        finally:
            poster.close()
        if not 200 <= answer.status < 300:
            raise self._failure(answer)
        if not _is_receipt(answer.body):
            raise ExportError(f"{self._url} answered {answer.status} without a count of accepted events")
        return answer

    def close(self) -> None:
        """Closes the connection."""
        self._poster.close()

    def _send(self, ids: list[str], encoded: list[bytes], deadline: float | None, rejected: dict[str, str]) -> None:
        answer = self._post(join_events(encoded), deadline)
        status = answer.status
        if status == 413 and len(encoded) > 1:
            half = len(encoded) // 2
            self._send(ids[:half], encoded[:half], deadline, rejected)
            self._send(ids[half:], encoded[half:], deadline, rejected)
        elif 200 <= status < 300:
            rejected.update(_rejected_in(answer.body))
        elif status == 413:
            rejected[ids[0]] = f"{len(encoded[0])} bytes are too large for {self._url}"
        else:
            raise self._failure(answer)

    def _failure(self, answer: Answer) -> ExportError:
        """What an answer means that is neither success nor 413."""
        status, body = answer.status, answer.body
        if status in (401, 403):
            return UnauthorizedError(f"{self._url} answered {status}: {_detail(body)}; check the project key")
        if status in (408, 429) or status >= 500:
            return RetryableError(f"{self._url} answered {status}: {_detail(body)}", retry_after=answer.retry_after)
        if 300 <= status < 400:
            target = clip(str(answer.headers.get("Location", "nowhere")), 512)
            return ExportError(f"{self._url} redirects ({status}) to {target}, which is not followed; set that as the endpoint")
        kind = BatchRefusedError if status in _ABOUT_THE_BATCH else ExportError
        return kind(f"{self._url} answered {status}: {_detail(body)}")

    def _post(self, body: bytes, deadline: float | None) -> Answer:
        headers = dict(_JSON)
        if len(body) > _GZIP_ABOVE_BYTES:
            body = gzip.compress(body, compresslevel=1, mtime=0)
            headers["Content-Encoding"] = "gzip"
        return self._poster.post(body, headers, deadline)


def _within_limit(batch: Sequence[StepEvent], rejected: dict[str, str]) -> Iterator[tuple[list[str], list[bytes]]]:
    """The batch encoded and divided into bodies under the size limit; an event that cannot be encoded is rejected alone."""
    ids: list[str] = []
    encoded: list[bytes] = []
    size = 0
    for event in batch:
        try:
            raw = encode_event(event)
        except Exception as error:
            if is_interruption(error):
                raise
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


def _is_receipt(body: bytes) -> bool:
    try:
        answer: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(answer, dict) and "accepted" in answer


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
