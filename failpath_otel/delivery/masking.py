"""Masking: what must not leave is taken out of events, and an event whose mask fails leaves bare."""

from __future__ import annotations

import copy
from collections.abc import Callable

import msgspec

from failpath_otel.events.metadata import render
from failpath_otel.events.step import StepError, StepEvent
from failpath_otel.events.text import clip, clip_middle
from failpath_otel.interruption import is_interruption
from failpath_otel.notices import warn_once

Mask = Callable[[StepEvent], StepEvent]
"""Given an event, returns the event that may leave, made with ``msgspec.structs.replace``."""


def masked(event: StepEvent, mask: Mask, guard: type[BaseException] = Exception) -> tuple[StepEvent, bool]:
    """The event that may leave, and whether ``mask`` did its work.

    Only metadata, error and skip reason are taken from what ``mask`` returns: who, when and how it ended stay as they were
    recorded, since the fold depends on them. Where ``mask`` raises or returns no event, the event goes without metadata,
    message, stack and skip reason. ``guard`` is what counts as raising: on a thread of our own, everything.
    """
    try:
        # A copy, since metadata is shared by the events of a run, and a mask may well change it in place.
        result = mask(msgspec.structs.replace(event, metadata=copy.deepcopy(event.metadata)) if event.metadata else event)
        return msgspec.structs.replace(
            event,
            metadata=render(result.metadata),
            error=_checked(result.error),
            skip_reason=None if result.skip_reason is None else clip(str(result.skip_reason)),
        ), True
    except guard as error:
        if guard is Exception and is_interruption(error):
            raise
        warn_once("mask", "mask raised; the event goes without metadata, error message and stack", exc_info=True)
        bare = None if event.error is None else StepError(name=event.error.name)
        return msgspec.structs.replace(event, metadata={}, error=bare, skip_reason=None), False


def _checked(error: StepError | None) -> StepError | None:
    if error is None:
        return None
    stack = None if error.stack is None else clip_middle(str(error.stack))
    return StepError(name=clip(str(error.name)), message=clip(str(error.message)), stack=stack)
