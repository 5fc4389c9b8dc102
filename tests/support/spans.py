"""Spans as the SDK makes them, and as another SDK might: with nothing but what the specification names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from failpath_otel import FailpathSpanProcessor


class PublicSpan:
    """A span whose private fields cannot be seen."""

    def __init__(self, span: Any) -> None:
        self.span = span

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.span, name)


def sees_public_spans(method: Callable[..., None]) -> Callable[..., None]:
    def handle(processor: FailpathSpanProcessor, span: Any, *more: Any, **named: Any) -> None:
        method(processor, PublicSpan(span), *more, **named)

    return handle


@pytest.fixture(scope="module", params=["spans of the SDK", "spans without private fields"])
def each_kind_of_span(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs a module's tests a second time, with the processor on its slow path."""
    if request.param == "spans of the SDK":
        yield
        return
    with pytest.MonkeyPatch.context() as patched:
        for name in ("on_start", "on_end"):
            patched.setattr(FailpathSpanProcessor, name, sees_public_spans(getattr(FailpathSpanProcessor, name)))
        yield
