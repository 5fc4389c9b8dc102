"""failpath-otel: see which step of a business process succeeded, failed, was skipped, is stuck or never happened."""

from __future__ import annotations

from failpath_otel.client import FailpathClient
from failpath_otel.delivery import DropReason, FlushResult, Stats
from failpath_otel.errors import (
    BatchRefusedError,
    ConfigError,
    DeliveryError,
    EventError,
    ExportError,
    FailpathError,
    RejectedError,
    RetryableError,
    UnauthorizedError,
    UnknownKeyError,
)
from failpath_otel.events.step import Status, StepError, StepEvent
from failpath_otel.exporters import ConsoleExporter, EventExporter, HttpExporter, JsonlExporter, MemoryExporter, ProbingExporter
from failpath_otel.flow_key import FlowKey
from failpath_otel.flows import Edge, Flow, Flows, Node
from failpath_otel.propagation.executors import ContextExecutor, with_context
from failpath_otel.propagation.propagator import RunPropagator
from failpath_otel.rules import (
    Attribute,
    Baggage,
    ErrorWhen,
    Glob,
    Present,
    Range,
    Regex,
    SkipWhen,
    SpanRule,
    SpanRules,
)
from failpath_otel.steps.run import Run, current_run
from failpath_otel.steps.step import Step
from failpath_otel.tracing.processor import FailpathSpanProcessor
from failpath_otel.tracing.sampler import RecordingSampler
from failpath_otel.version import VERSION

__version__ = VERSION

__all__ = [
    "Attribute",
    "Baggage",
    "BatchRefusedError",
    "ConfigError",
    "ConsoleExporter",
    "ContextExecutor",
    "DeliveryError",
    "DropReason",
    "Edge",
    "ErrorWhen",
    "EventError",
    "EventExporter",
    "ExportError",
    "FailpathClient",
    "FailpathError",
    "FailpathSpanProcessor",
    "Flow",
    "FlowKey",
    "Flows",
    "FlushResult",
    "Glob",
    "HttpExporter",
    "JsonlExporter",
    "MemoryExporter",
    "Node",
    "Present",
    "ProbingExporter",
    "Range",
    "RecordingSampler",
    "Regex",
    "RejectedError",
    "RetryableError",
    "Run",
    "RunPropagator",
    "SkipWhen",
    "SpanRule",
    "SpanRules",
    "Stats",
    "Status",
    "Step",
    "StepError",
    "StepEvent",
    "UnauthorizedError",
    "UnknownKeyError",
    "__version__",
    "current_run",
    "with_context",
]
