"""Warnings of ours: to the logger ``failpath_otel``, once per kind, so that a fault does not flood the service's log."""

from __future__ import annotations

import logging
from typing import Final

from failpath_otel.interruption import is_interruption

logger: Final = logging.getLogger("failpath_otel")

_MAX_KINDS: Final = 1000
_given: set[str] = set()


def warn_once(kind: str, message: str, *args: object, exc_info: bool = False) -> None:
    """Logs a warning unless one of this ``kind`` was logged before in this process. Never raises."""
    if kind in _given or len(_given) >= _MAX_KINDS:
        return
    _given.add(kind)
    _log(message, args, exc_info=exc_info)


def all_clear(kind: str, message: str, *args: object) -> None:
    """Says that what was warned of is over, unless nothing was, and lets the warning be given again. Never raises."""
    if kind not in _given:
        return
    _given.discard(kind)
    _log(message, args)


def forget() -> None:
    """Lets every kind be given again; for tests."""
    _given.clear()


def _log(message: str, args: tuple[object, ...], *, exc_info: bool = False) -> None:
    try:
        logger.warning(message, *args, exc_info=exc_info)
    except Exception as error:  # a broken log handler is the application's; telling of it would need a log
        if is_interruption(error):
            raise
