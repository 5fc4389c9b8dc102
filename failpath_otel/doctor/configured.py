"""Options of the environment, the project key, and variables that nobody reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from failpath_otel.config import ACCEPT_INCOMING_VARIABLE, OPTIONS, Options
from failpath_otel.doctor.finding import Finding, ok, problem, warning
from failpath_otel.endpoint import DEFAULT_ENDPOINT, is_loopback
from failpath_otel.nearest import nearest
from failpath_otel.zero_code import ASKED_BY, is_asked_for

KEY_PREFIX: Final = "fp_project_"
SERVER_VARIABLES: Final = frozenset(
    {
        "FAILPATH_ALLOWED_HOSTS",
        "FAILPATH_DB",
        "FAILPATH_FLOWS",
        "FAILPATH_FORWARD_TO",
        "FAILPATH_GRPC_PORT",
        "FAILPATH_HOST",
        "FAILPATH_INGEST_KEY",
        "FAILPATH_MAX_SIZE",
        "FAILPATH_NO_STORE",
        "FAILPATH_PORT",
        "FAILPATH_PROJECT_KEY",
        "FAILPATH_RETAIN",
        "FAILPATH_STUCK_AFTER",
        "FAILPATH_TOKEN",
        "FAILPATH_TRACE_URL",
    }
)
"""What `failpath-otel serve` reads, which may stand in the same environment."""


def judge_options(options: Options, environ: Mapping[str, str], *, in_code: bool) -> Iterator[Finding]:
    """Findings about options that could be read; ``in_code``: the application's own client says where events go."""
    given = sorted(option.env for option in OPTIONS if option.env and environ.get(option.env, "").strip())
    if not options.enabled:
        yield warning(
            "options", "FAILPATH_ENABLED is false", "Functions run, and nothing is reported.", "Unset FAILPATH_ENABLED."
        )
    elif is_asked_for(environ):
        yield ok("options", f"set in the environment: {', '.join(given)}")
        if options.exporter == "http":
            yield judge_key(options.project_key, options.endpoint)
    elif in_code:
        yield ok("options", "the environment does not say where events go; the application's own client does")
    else:
        yield problem(
            "options",
            "the environment does not say where events go",
            "Under opentelemetry-instrument nothing is reported then, and nothing is said.",
            f"Set one of {', '.join(ASKED_BY)}; or see the service's own client: --app module:attribute",
        )


def unreadable(error: Exception) -> Finding:
    """Options that cannot be used."""
    return problem(
        "options",
        str(error),
        "FailpathClient() raises ConfigError; under opentelemetry-instrument the service runs and nothing is reported.",
        "Correct or unset what the message names.",
    )


def judge_key(key: str | None, endpoint: str) -> Finding:
    """Whether the key is there and looks like one. Never shows it."""
    copy = "Copy the project's key from Failpath into FAILPATH_PROJECT_KEY."
    if key is None and is_loopback(endpoint):
        return ok("project-key", "none, and an endpoint on this machine needs none")
    if key is None:
        return problem("project-key", "there is none", f"Nothing is sent to {endpoint} without a key.", copy)
    shown = f"{KEY_PREFIX}… ({len(key)} characters)" if key.startswith(KEY_PREFIX) else f"set ({len(key)} characters)"
    if key.startswith(KEY_PREFIX) or urlsplit(endpoint).hostname != urlsplit(DEFAULT_ENDPOINT).hostname:
        return ok("project-key", shown)
    return warning("project-key", shown, f"Keys of Failpath begin with {KEY_PREFIX}; this one is likely to be refused.", copy)


def judge_names(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Variables that look as if they were meant for us."""
    known = {option.env for option in OPTIONS if option.env} | SERVER_VARIABLES | {ACCEPT_INCOMING_VARIABLE}
    for name in sorted(environ):
        if name.startswith("FAILPATH_") and name not in known:
            meant = nearest(name, known)
            yield warning(
                "variables",
                f"{name} is read by nobody",
                "A mistyped variable counts as not set.",
                f"Did you mean {meant}?" if meant else "Unset it, or see docs/configuration.md for the names.",
            )
