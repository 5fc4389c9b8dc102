"""Databases of earlier versions are brought to today's, one numbered step after the other. See `runner`."""

from __future__ import annotations

from failpath_otel.server.store.migration.runner import migrate, version_of

__all__ = ["migrate", "version_of"]
