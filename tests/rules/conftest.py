"""What the tests of rules share: fresh once-warnings, and a tracing set-up that keeps its spans."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import spans
from support.tracing import Tracing

from failpath_otel import notices

each_kind_of_span = spans.each_kind_of_span


@pytest.fixture(autouse=True)
def fresh_warnings() -> None:
    notices.forget()


@pytest.fixture
def tracing() -> Iterator[Tracing]:
    """A tracer provider of the SDK that keeps its finished spans."""
    tracing = Tracing()
    yield tracing
    tracing.provider.shutdown()
