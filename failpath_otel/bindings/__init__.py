"""A Python module of flows.json: flows and step keys as names and types. Text in, text out."""

from failpath_otel.bindings.module import MARK, render_module

__all__ = ["MARK", "render_module"]
