"""DeliveringClient: what a client does with what its runs and steps recorded, and what becomes of it when it is copied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, TypeVar

from typing_extensions import Self

from failpath_otel.delivery import FlushResult, Sink, Stats
from failpath_otel.delivery.own_thread import run_in_own_thread
from failpath_otel.delivery.process import EXIT_TIMEOUT_MILLIS
from failpath_otel.delivery.takeover import TakenSink
from failpath_otel.propagation import baggage
from failpath_otel.steps import known_clients
from failpath_otel.steps.recorder import Recorder
from failpath_otel.tracing import late_provider
from failpath_otel.tracing.attachment import Attachment

C = TypeVar("C", bound="DeliveringClient")

FLUSH_TIMEOUT_MILLIS: Final = 10_000


class DeliveringClient:
    """The half of `FailpathClient` that records nothing."""

    _recorder: Recorder
    _attachment: Attachment

    @property
    def _sink(self) -> Sink | None:
        return self._recorder.sink  # which a test may have taken over

    @property
    def recorder(self) -> Recorder:
        """What runs and steps share; internal."""
        return self._recorder

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        # A copy is the same client. In another process it is that one's: queue and thread are this one's, and so is the key.
        return known_clients.find, (self._recorder.client_name,)

    # Delivery

    def flush(self, timeout_millis: int = FLUSH_TIMEOUT_MILLIS) -> FlushResult:
        """Waits until every event recorded before is sent or dropped, at most ``timeout_millis``.

        Returns:
            Counts since the client's start; truthy when nothing is pending.

        Raises:
            DeliveryError: Only with ``raise_on_send_error=True``: sending failed since the last flush.
        """
        if self._sink is None:
            return FlushResult()
        stats = self._sink.flush(timeout_millis)
        failure = self._sink.take_error()
        if failure is not None and self._recorder.raise_on_send_error and not self._recorder.waits:
            raise failure
        return FlushResult(stats.sent, stats.pending, stats.dropped)

    async def aflush(self, timeout_millis: int = FLUSH_TIMEOUT_MILLIS) -> FlushResult:
        """`flush` without holding up the event loop."""
        return await run_in_own_thread(self.flush, timeout_millis)

    def stats(self) -> Stats:
        """The counts of this moment, with retries, mask failures and baggage that was not believed."""
        stats = Stats() if self._sink is None else self._sink.stats()
        return replace(stats, baggage_refused=baggage.refused()) if self._recorder.enabled else stats

    def shutdown(self, timeout_millis: int = EXIT_TIMEOUT_MILLIS) -> None:
        """Sends what is left, within ``timeout_millis``, and ends delivery. Also run at exit; a second call does nothing.

        Steps still run afterwards; their events are counted as dropped.
        """
        sink = self._sink
        if sink is not None:
            sink.shutdown(timeout_millis)
        if not isinstance(sink, TakenSink):  # a test's is shut down for that test alone
            late_provider.forget(self._recorder.tracing)
            self._attachment.detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.shutdown()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await run_in_own_thread(self.shutdown)
