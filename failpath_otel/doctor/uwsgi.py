"""uWSGI's configuration, as far as it decides about delivery."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from failpath_otel.doctor.finding import Finding, ok, warning
from failpath_otel.doctor.versions import VersionOf, parts

_THREADS_BY_DEFAULT: Final = (2, 0, 27)
_FILE: Final = "uwsgi.ini"
_OPTION: Final = re.compile(r"^\s*([a-z0-9-]+)\s*=\s*(.*?)\s*$", re.MULTILINE)
_OFF: Final = ("false", "no", "off", "0")


def judge_uwsgi(environ: Mapping[str, str], folder: Path, version_of: VersionOf) -> Iterator[Finding]:
    """Findings where variables or a file configure uWSGI here; nothing where neither does."""
    options, where = _options(environ, folder)
    if not where:
        return
    version = version_of("uwsgi")
    rests = version is None or parts(version) < _THREADS_BY_DEFAULT
    if rests and not options & {"enable-threads", "threads"}:
        yield warning(
            "processes",
            f"uWSGI is configured here ({where}) without enable-threads",
            "Before 2.0.27 uWSGI then lets no Python thread run between requests: steps are sent while later ones are served, "
            "and when a worker ends.",
            "Set enable-threads = true in uWSGI's configuration, or UWSGI_ENABLE_THREADS=1.",
        )
    elif "skip-atexit" in options:
        yield warning(
            "processes",
            f"uWSGI is configured here ({where}) with skip-atexit",
            "A worker ends without exit handlers then, and what it recorded in the last 200 ms is lost.",
            "Take skip-atexit away; skip-atexit-teardown, which leaves out the interpreter's end alone, does no harm.",
        )
    else:
        yield ok("processes", f"uWSGI ({where}): no thread of ours is in its first process, and each worker sends for itself")


def _options(environ: Mapping[str, str], folder: Path) -> tuple[set[str], str]:
    variables = {name.removeprefix("UWSGI_"): value for name, value in environ.items() if name.startswith("UWSGI_")}
    found = {name.lower().replace("_", "-"): value for name, value in variables.items()}
    try:
        text = (folder / _FILE).read_text("utf-8", "replace")
    except OSError:
        text = ""
    found = {**dict(_OPTION.findall(text)), **found}
    where = " and ".join([*([_FILE] if text else []), *(["the environment"] if variables else [])])
    return {name for name, value in found.items() if value.lower() not in _OFF}, where
