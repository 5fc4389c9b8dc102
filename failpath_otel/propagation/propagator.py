"""RunPropagator: the run goes to chosen hosts only."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)

from failpath_otel.errors import ConfigError
from failpath_otel.propagation import baggage

_HOST_ATTRIBUTES: Final = ("server.address", "net.peer.name", "http.host")
_URL_ATTRIBUTES: Final = ("url.full", "http.url")


class RunPropagator(TextMapPropagator):
    """A propagator of the service's own, in which the current run goes to the named hosts and to no other.

    All else is left to ``inner``, which is what carries the baggage::

        set_global_textmap(RunPropagator(get_global_textmap(), hosts=["orders.internal", "*.svc.cluster.local"]))

    The host is that of the current client span, as the instrumentations of HTTP clients name it (``server.address``,
    ``url.full``, or the older names). Where there is none to be read, as in a span that is not sampled or in a message to a
    broker, the run stays here; `Run.carrier` takes it along.

    Args:
        inner: The propagator in use so far.
        hosts: Names of hosts without port, any case; ``*`` and ``?`` are wildcards.

    Raises:
        ConfigError: ``hosts`` is text, or holds what is none.
    """

    def __init__(self, inner: TextMapPropagator, *, hosts: Iterable[str]) -> None:
        if isinstance(hosts, str):
            raise ConfigError(f"hosts must be a list of host names such as [{hosts!r}], got the text {hosts!r}")
        names: list[Any] = list(hosts)
        for name in names:
            if not isinstance(name, str) or not name or "/" in name:
                raise ConfigError(f"hosts must hold host names without scheme and path, got {name!r}")
        self._inner = inner
        self._hosts = tuple(name.lower() for name in names)

    def inject(self, carrier: CarrierT, context: Context | None = None, setter: Setter[CarrierT] = default_setter) -> None:
        """Puts into ``carrier`` what ``inner`` does, with the run for a named host, without it for another."""
        within = otel_context.get_current() if context is None else context
        if not self._goes_to(within):
            within = baggage.remove(within)
        self._inner.inject(carrier, within, setter)

    def extract(self, carrier: CarrierT, context: Context | None = None, getter: Getter[CarrierT] = default_getter) -> Context:
        """What ``inner`` makes of ``carrier``."""
        return self._inner.extract(carrier, context, getter)

    @property
    def fields(self) -> set[str]:
        """Those of ``inner``."""
        return self._inner.fields

    def _goes_to(self, within: Context) -> bool:
        host = _host_of(trace.get_current_span(within))
        return host is not None and any(fnmatch.fnmatchcase(host, known) for known in self._hosts)


def _host_of(span: Any) -> str | None:
    attributes: Mapping[str, Any] = getattr(span, "attributes", None) or {}
    for name in _HOST_ATTRIBUTES:
        value = attributes.get(name)
        if isinstance(value, str) and value:
            return value.lower().partition(":")[0] if value.count(":") == 1 else value.lower()  # IPv6 has more of them
    for name in _URL_ATTRIBUTES:
        value = attributes.get(name)
        if isinstance(value, str):
            try:
                host = urlsplit(value).hostname
            except ValueError:
                host = None
            if host:
                return host
    return None
