"""With OpenTelemetry's instrumentations of servers, clients, databases, queues and threads: their spans stay as they are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.http_sink import HttpSink
from support.instrumented import INSTRUMENTED
from support.processes import arrived, once, script, settings
from support.tools import MEMORY, SDK, theirs

LIBRARIES = ("asyncio", "celery", "django", "fastapi", "flask", "httpx", "requests", "sqlalchemy", "threading", "urllib3")
OTHERS = ("celery", "django", "fastapi", "flask", "httpx")


def parents_of_steps(held: list[dict[str, Any]]) -> Counter[tuple[str, str]]:
    """Within what each step lies, by name."""
    by_id = {item["id"]: item for item in held}
    return Counter((item["name"], by_id[item["parent"]]["name"]) for item in held if item["scope"] == "failpath_otel")


def test_instrumented_libraries_give_the_same_spans_and_each_step_comes_once_within_them(
    sink: HttpSink, tmp_path: Path, needs: Callable[..., None]
) -> None:
    needs(*OTHERS, *(f"opentelemetry.instrumentation.{library}" for library in LIBRARIES))
    without, with_us = (
        script(tmp_path, MEMORY + SDK + INSTRUMENTED, settings(sink, {"OURS": flag, "PYTHONWARNINGS": "ignore"}))
        for flag in ("0", "1")
    )
    assert with_us.stderr == without.stderr
    plain, mixed = (json.loads(done.stdout.splitlines()[-1]) for done in (without, with_us))
    scopes = {item["scope"].removeprefix("opentelemetry.instrumentation.") for item in plain}
    assert scopes >= {*LIBRARIES} - {"threading"}, "an instrumentation gave no span: this test would prove nothing of it"
    assert theirs(mixed) == theirs(plain)
    assert arrived(sink) == {
        "fastapi": once(*both("fastapi"), *both("asyncio") * 2, ("fails", "running"), ("fails", "error")),
        "flask": once(*both("flask"), *both("thread") * 2),
        "django": once(*both("django")),
        "celery": once(*both("celery")),
    }
    assert set(sink.arrivals.values()) == {1}
    assert parents_of_steps(mixed) == {
        ("checkout/fastapi", "GET /pay/{run_id}"): 1,
        ("checkout/asyncio", "checkout/fastapi"): 2,
        ("checkout/fails", "GET /fails/{run_id}"): 1,
        ("checkout/flask", "GET /pay/<run_id>"): 1,
        ("checkout/thread", "checkout/flask"): 2,
        ("checkout/django", "GET pay/<run_id>"): 1,
        ("checkout/celery", "run/shop.mail"): 1,
    }


def both(key: str) -> tuple[tuple[str, str], ...]:
    return ((key, "running"), (key, "success"))
