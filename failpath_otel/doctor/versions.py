"""Versions that fit together."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Final

from failpath_otel.doctor.finding import Finding, ok, problem, warning

_PACKAGE: Final = "failpath-otel"
_OPENTELEMETRY: Final = ("opentelemetry-api", "opentelemetry-sdk", "opentelemetry-exporter-otlp", "opentelemetry-proto")
_MINIMUM: Final = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)>=(?P<version>[0-9.]+)$")

VersionOf = Callable[[str], "str | None"]


def installed(name: str) -> str | None:
    """The version of an installed package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def minimums() -> dict[str, str]:
    """The oldest versions that this package works with, by its own metadata."""
    found = (_MINIMUM.match(line.partition(";")[0].strip()) for line in requires(_PACKAGE) or () if "extra ==" not in line)
    return {match["name"]: match["version"] for match in found if match is not None}


def judge_versions(version_of: VersionOf = installed, needed: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Findings about Python, this package and OpenTelemetry."""
    needed = minimums() if needed is None else needed
    yield ok("versions", f"Python {platform.python_version()}, {_PACKAGE} {version_of(_PACKAGE)}")
    known = {name: version_of(name) for name in _OPENTELEMETRY}
    old = [
        f"{name} {found or 'missing'}, needed is {needed[name]}"
        for name, found in known.items()
        if name in needed and (found is None or parts(found) < parts(needed[name]))
    ]
    shown = ", ".join(f"{name.removeprefix('opentelemetry-')} {found}" for name, found in known.items())
    if old:
        yield problem(
            "opentelemetry",
            "; ".join(old),
            "Older versions have not the interfaces that are used here.",
            f"pip install --upgrade {' '.join(f'{name}>={needed[name]}' for name in known if name in needed)}",
        )
    elif len({parts(found or "")[:2] for found in known.values()}) > 1:
        yield warning(
            "opentelemetry",
            f"OpenTelemetry's packages are of different releases: {shown}",
            "They are released together, and each release is tested only with itself.",
            f"pip install --upgrade {' '.join(known)}",
        )
    else:
        yield ok("opentelemetry", f"OpenTelemetry {shown}")


def parts(text: str) -> tuple[int, ...]:
    """A version's first three numbers, to compare."""
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("+")[0])[:3])
