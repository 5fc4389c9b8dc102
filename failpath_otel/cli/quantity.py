"""Times and sizes as people write them: ``7d``, ``2GB``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from failpath_otel.errors import ConfigError

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_BYTES: Final = {
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "tb": 1000**4,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
    "tib": 1024**4,
}
_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([a-z]+)", re.IGNORECASE)


def seconds_of(option: str, text: str) -> float:
    """The seconds of a time such as ``90s``, ``15m``, ``12h``, ``7d`` or ``4w``.

    Raises:
        ConfigError: It is no such time, or none at all; the message names ``option`` and the text.
    """
    return _amount(option, text, _SECONDS, "a time such as 12h or 7d")


def bytes_of(option: str, text: str) -> int:
    """The bytes of a size such as ``500MB`` or ``2GiB``; B, KB, MB, GB, TB are powers of 1000.

    Raises:
        ConfigError: It is no such size, or none at all; the message names ``option`` and the text.
    """
    return int(_amount(option, text, _BYTES, "a size such as 500MB or 2GB"))


def _amount(option: str, text: str, units: Mapping[str, int], wanted: str) -> float:
    found = _QUANTITY.fullmatch(text.strip())
    unit = units.get(found[2].lower()) if found else None
    if found is None or unit is None or not float(found[1]):
        raise ConfigError(f"{option} must be {wanted}, with one of the units {', '.join(units)}; got {text!r}")
    return float(found[1]) * unit
