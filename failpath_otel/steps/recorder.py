"""Recorder: what the steps of one client share. Where events go, which tracer, and the options that steps need."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from failpath_otel.config import DELIVERIES
from failpath_otel.delivery import Sink, takeover
from failpath_otel.errors import DeliveryError, UnknownKeyError
from failpath_otel.events.metadata import Rendered, render
from failpath_otel.events.step import StepEvent
from failpath_otel.events.text import MAX_ID_CHARS, identifier
from failpath_otel.flows import Flows
from failpath_otel.interruption import is_interruption
from failpath_otel.nearest import nearest
from failpath_otel.notices import warn_once
from failpath_otel.tracing.provider import Tracing


class Recorder:
    """Shared by the runs and steps of one client. No method raises, save `check_key` where ``strict_keys`` asks for it.

    Attributes:
        sink: Takes the events; ``None`` where only spans are wanted.
        enabled: False: functions run, and nothing else happens.
        waits: ``delivery="await"``: each event is sent before the call goes on.
        checks_keys: Whether there is a flows.json to check keys against.
        strict_keys: An unknown key is an error.
        propagates: The current run goes into the baggage.
        client_name: What `known_clients` finds the client by.
        is_silent: Whether it was made by `silent`, for what belongs to no run.
        made_of: The client's own, which a copy keeps alive: as long as one is left the client is not forgotten.
    """

    client_name = ""
    is_silent = False
    made_of: Recorder | None = None

    def __init__(
        self,
        *,
        sink: Sink | None,
        tracing: Tracing,
        enabled: bool,
        waits: bool,
        raise_on_send_error: bool,
        send_timeout_millis: int,
        capture_stack: bool,
        metadata_on_spans: bool,
        default_metadata: Rendered,
        flows: Flows,
        strict_keys: bool = False,
        propagates: bool = False,
    ) -> None:
        self.sink = sink
        self.tracing = tracing
        self.enabled = enabled
        self.waits = waits and sink is not None
        self.raise_on_send_error = raise_on_send_error
        self.capture_stack = capture_stack
        self.metadata_on_spans = metadata_on_spans
        self.default_metadata = default_metadata
        self.propagates = propagates
        self._send_timeout_millis = send_timeout_millis
        self._flows = flows
        # A client that is switched off changes nothing of what the application does.
        self.strict_keys = strict_keys and enabled
        self.checks_keys = bool(flows) or self.strict_keys
        takeover.join(self)

    def lend(self, sink: Sink) -> Callable[[], None]:
        """Gives its events to ``sink``, also where none were wanted, until what this returns is called."""
        before = self.sink, self.enabled, self.waits
        self.sink, self.enabled, self.waits = sink, True, False

        def give_back() -> None:
            self.sink, self.enabled, self.waits = before

        return give_back

    def silent(self) -> Recorder:
        """One like this that records nothing, for what belongs to no run."""
        other = copy(self)
        other.enabled = other.strict_keys = other.checks_keys = False
        other.is_silent = True
        other.made_of = self
        return other

    def delivering(self, delivery: str | None) -> Recorder:
        """One like this that delivers in this way; this one itself for ``None``, and for a way that there is not."""
        if delivery is None:
            return self
        if delivery not in DELIVERIES:
            warn_once("delivery", "a run's delivery must be one of %s, got %r; the client's is taken", DELIVERIES, delivery)
            return self
        other = copy(self)
        other.waits = delivery == "await" and self.sink is not None
        other.made_of = self
        takeover.join(other)
        return other

    @property
    def difference(self) -> str | None:
        """What `differing` makes one like this of the client's own by; ``None`` where this is the client's own."""
        if self.made_of is None:
            return None
        if self.is_silent:
            return "silent"
        return "await" if self.waits else "background"

    def differing(self, difference: str | None) -> Recorder:
        """One like this that differs from it as another did from its client's own."""
        return self.silent() if difference == "silent" else self.delivering(difference)

    @property
    def would_hold_up_a_loop(self) -> bool:
        """Whether `emit` would wait on a thread that runs an event loop."""
        return self.waits and _in_asyncio()

    def emit(self, event: StepEvent | None, *, wait: bool = True) -> DeliveryError | None:
        """Takes an event; with ``delivery="await"``, what kept it from being sent is returned."""
        if event is None or self.sink is None:
            return None
        try:
            if self.waits and wait:
                return self.sink.record_and_wait(event, self._send_timeout_millis)
            self.sink.record(event)
        except Exception as error:
            if is_interruption(error):
                raise
            warn_once("record", "an event could not be recorded", exc_info=True)
        return None

    def emit_again(self, event: StepEvent | None) -> None:
        """Takes an event whose recording was interrupted, unless it got that far; it may come twice, and is not waited for."""
        if event is not None and self.sink is not None and not self.sink.holds(event):
            self.emit(event, wait=False)

    def record(self, event: StepEvent | None) -> None:
        """Takes an event that belongs to no function call: what kept it from being sent is raised where that is asked for.

        Raises:
            DeliveryError: Only with ``delivery="await"`` and ``raise_on_send_error=True``.
        """
        failure = self.emit(event)
        if failure is not None and self.raise_on_send_error:
            raise failure

    async def emit_async(self, event: StepEvent | None) -> DeliveryError | None:
        """Like `emit`, but waits without holding up the event loop, nor any thread of the service."""
        if not self.waits or event is None or self.sink is None or not _in_asyncio():
            return self.emit(event)
        try:
            return await self.sink.record_and_wait_async(event, self._send_timeout_millis)
        except Exception as error:
            if is_interruption(error):
                raise
            warn_once("record", "an event could not be recorded", exc_info=True)
        return None

    def metadata(self, metadata: Mapping[str, Any] | None) -> Rendered:
        """Metadata as it is at this moment, safe for JSON."""
        if metadata is None:
            return {}
        try:
            return render(metadata)
        except Exception as error:
            if is_interruption(error):
                raise
            warn_once("metadata", "metadata %s cannot be read", type(metadata).__name__, exc_info=True)
            return {}

    def identifier(self, kind: str, value: object, empty: str = "unnamed") -> str:
        """A flow slug, run id or step key as text; `identifier` has the rules. What had to be changed is warned of once."""
        if type(value) is str and 0 < len(value) <= MAX_ID_CHARS and value.isascii():
            return value
        text = identifier(value)
        if not text:
            if empty:
                warn_once(f"empty:{kind}", "an empty %s was given; %r is recorded instead", kind, empty)
            return empty
        if len(text) == MAX_ID_CHARS and not (isinstance(value, str) and len(value) == MAX_ID_CHARS):
            warn_once(f"long:{kind}", "a %s over %d characters was cut and ends in a hash: %s", kind, MAX_ID_CHARS, text)
        return text

    def check_key(self, flow_key: str, step_key: str | None = None) -> None:
        """Warns, once each, of a flow or step that flows.json does not know. It is recorded all the same.

        Raises:
            UnknownKeyError: Instead, with ``strict_keys``.
        """
        if not self.checks_keys:
            return
        flow = self._flows.get(flow_key)
        if flow is None:
            self._unknown(_Unknown(f"flow {flow_key!r}", flow_key, self._flows.by_slug, self._flows.path))
        elif step_key is not None and step_key not in flow.step_keys:
            what = f"step {step_key!r} of flow {flow_key!r}"
            self._unknown(_Unknown(what, step_key, flow.step_keys, self._flows.path))

    def check_step_of_any_flow(self, step_key: str) -> None:
        """Looks at a step whose flow is not known yet, and only where an unknown key is an error.

        Raises:
            UnknownKeyError: No flow has such a step, with ``strict_keys``.
        """
        if self.strict_keys:
            known = frozenset(key for flow in self._flows for key in flow.step_keys)
            if step_key not in known:
                self._unknown(_Unknown(f"step {step_key!r} of any flow", step_key, known, self._flows.path))

    def _unknown(self, unknown: _Unknown) -> None:
        if self.strict_keys:
            raise UnknownKeyError(str(unknown))
        warn_once(unknown.what, "%s; it is recorded as discovered", unknown)


@dataclass(frozen=True)
class _Unknown:
    """A key that flows.json does not know. The nearest one is looked for when this is shown, which a warning is once."""

    what: str
    key: str
    known: Collection[str]
    path: Path | None

    def __str__(self) -> str:
        found = nearest(self.key, self.known)
        meant = "" if found is None else f" (did you mean {found!r}?)"
        return f"{self.what} is not in {self.path or 'the flows given'}{meant}"


def _in_asyncio() -> bool:
    # Under another event loop, such as trio's, asyncio has no thread pool to lend; the wait is bounded anyway.
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
