"""What takes events away: the protocol that users implement, and the exporters that come with the package."""

from __future__ import annotations

from failpath_otel.exporters.console import ConsoleExporter
from failpath_otel.exporters.http import HttpExporter
from failpath_otel.exporters.jsonl import JsonlExporter
from failpath_otel.exporters.memory import MemoryExporter
from failpath_otel.exporters.protocol import EventExporter, ProbingExporter

__all__ = ["ConsoleExporter", "EventExporter", "HttpExporter", "JsonlExporter", "MemoryExporter", "ProbingExporter"]
