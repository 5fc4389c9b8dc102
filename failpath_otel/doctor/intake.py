"""What a server of ours tells of what came in, where it tells it to anyone."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import requests

from failpath_otel.doctor.finding import Finding, ok, warning
from failpath_otel.endpoint import Tls, is_loopback
from failpath_otel.events.text import clip

CHECK: Final = "intake"
_MAX_BYTES: Final = 4 * 1024 * 1024


class _Refusal(msgspec.Struct):
    count: int
    sample: str


class _Intake(msgspec.Struct, rename="camel"):
    since: str
    accepted: int
    last_arrival_at: str | None = None
    refusals: list[_Refusal] = []


def judge_intake(endpoint: str, tls: Tls, seconds: float) -> list[Finding]:
    """What came in, and what was refused; nothing where that cannot be known: another service, or readers need a token."""
    try:
        intake = msgspec.json.decode(_read(endpoint, tls, seconds), type=_Intake)
    except (requests.RequestException, OSError, msgspec.DecodeError, UnicodeDecodeError):
        return []
    if intake.refusals:
        count = sum(refusal.count for refusal in intake.refusals)
        return [
            warning(
                CHECK,
                f"the server has refused {count} times since {intake.since}: {clip(intake.refusals[0].sample, 256)}",
                "What is refused is on no page. It may have come from another sender.",
                f"See the page of what came in: {endpoint}",
            )
        ]
    if not intake.accepted:
        return [ok(CHECK, f"nothing has arrived at the server since it was started at {intake.since}")]
    last = f", the last at {intake.last_arrival_at}" if intake.last_arrival_at else ""
    return [ok(CHECK, f"{intake.accepted} events have arrived at the server since {intake.since}{last}")]


def _read(endpoint: str, tls: Tls, seconds: float) -> bytes:
    with requests.Session() as session:
        session.trust_env = not is_loopback(endpoint)
        answer: Any = session.get(
            f"{endpoint}/api/intake",
            timeout=seconds,
            allow_redirects=False,
            stream=True,
            verify=tls.trust().path,
            cert=tls.identity,
        )
        body: bytes = answer.raw.read(_MAX_BYTES, decode_content=True)
        return body if answer.status_code == 200 else b""
