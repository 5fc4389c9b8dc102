"""Which tracer to use at this moment, and the service's name: tracing may be set up late, replaced, or absent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.resources import OTELResourceDetector

from failpath_otel.events import semconv
from failpath_otel.events.text import clip
from failpath_otel.interruption import is_interruption
from failpath_otel.notices import warn_once

OnProvider = Callable[[Any], None]


class Tracing:
    """The tracer of the provider in use, looked up at each step, since providers come late and go.

    Args:
        provider: The provider to use; ``None`` means the global one of the moment.
        on_provider: Called once with each provider that comes into use.
        version: The version in the instrumentation scope.
    """

    def __init__(self, provider: Any, on_provider: OnProvider, version: str) -> None:
        self._given = provider
        self._on_provider = on_provider
        self._version = version
        self._provider: Any = None
        self._behind: Any = None
        self._tracer: trace.Tracer = trace.NoOpTracer()
        self._resource: Any = None
        self._service: str | None = None
        self._service_from_env: str | None = None
        self._env_read = False

    @property
    def is_global(self) -> bool:
        """Whether the provider in use is the global one, whose spans everyone's are."""
        return self._given is None or self._given is self._global()

    @staticmethod
    def _global() -> Any:
        try:
            return trace.get_tracer_provider()
        except Exception as error:  # OTEL_PYTHON_TRACER_PROVIDER names one that cannot be loaded
            if is_interruption(error):
                raise
            warn_once("provider", "the tracer provider cannot be loaded; steps go on without spans", exc_info=True)
            return None

    def tracer(self) -> trace.Tracer:
        """The tracer to open a step's span with. Never raises."""
        if self._given is None:
            provider: Any = self._global()
            if provider is None:
                return self._tracer
        else:
            provider = self._given
        if provider is not self._provider or (self._behind is not provider and self._behind is not behind(provider)):
            self._bind(provider)
        return self._tracer

    def service(self, span: Any) -> str | None:
        """``service.name`` of the span's resource, else of the provider's, else of the environment.

        A span that is sampled out has no resource, and its step is reported all the same.
        """
        resource = getattr(span, "resource", None) or getattr(self._provider, "resource", None)
        if resource is None:
            return self._environment_service()
        if resource is not self._resource:
            self._service = service_of(resource)
            self._resource = resource
        return self._service

    def _bind(self, provider: Any) -> None:
        try:
            self._tracer = provider.get_tracer(semconv.SCOPE_NAME, self._version)
            self._provider = provider
            self._behind = behind(provider)
        except Exception as error:
            if is_interruption(error):
                raise
            self._tracer, self._provider = trace.NoOpTracer(), None  # not those that were in use before
            warn_once("provider", "the tracer provider cannot be used; steps go on without spans", exc_info=True)
            return
        try:
            self._on_provider(provider)
        except Exception as error:
            if is_interruption(error):
                raise
            warn_once("attach", "the tracer provider takes no span processor; foreign spans are not seen", exc_info=True)

    def _environment_service(self) -> str | None:
        if not self._env_read:
            self._service_from_env = service_of(OTELResourceDetector().detect())
            self._env_read = True
        return self._service_from_env


def behind(provider: Any) -> Any:
    """The provider that does the work: logfire's is a proxy, which puts another behind itself each time it is configured."""
    return getattr(provider, "provider", provider)


def service_of(resource: Any) -> str | None:
    """``service.name`` of a resource."""
    try:
        name = resource.attributes.get(semconv.SERVICE_NAME)
    except Exception as error:
        if is_interruption(error):
            raise
        return None
    return clip(name) if isinstance(name, str) and name else None
