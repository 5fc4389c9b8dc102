"""What the tests of the SDK share: a tracing set-up that keeps its spans, a client on it, and fresh once-warnings."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.util._once import Once
from support import spans
from support.tracing import Alone, Tracing

from failpath_otel import notices
from failpath_otel.testing import RecordingClient
from failpath_otel.tracing import late_provider

each_kind_of_span = spans.each_kind_of_span


@pytest.fixture(autouse=True)
def fresh_warnings(caplog: pytest.LogCaptureFixture) -> None:
    """Each test sees the once-warnings anew."""
    notices.forget()
    caplog.set_level(logging.WARNING)


@pytest.fixture
def tracing() -> Iterator[Tracing]:
    """A tracer provider of the SDK that keeps its finished spans."""
    tracing = Tracing()
    yield tracing
    tracing.provider.shutdown()


@pytest.fixture
def client(tracing: Tracing) -> Iterator[RecordingClient]:
    """A client that keeps its events and opens its spans with `tracing`."""
    with RecordingClient(tracer_provider=tracing.provider, flows=False) as client:
        yield client


@pytest.fixture
def alone() -> Iterator[Alone]:
    """A processor on a provider of its own."""
    alone = Alone()
    yield alone
    alone.provider.shutdown()


@pytest.fixture
def no_global_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """The global tracer provider as it is in a process that has set none; what the test sets is taken back."""
    late_provider.forget_all()  # clients of other tests, which would be attached first
    # OpenTelemetry lets a process set its provider once, and has no public way back.
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
