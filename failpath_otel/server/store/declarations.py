"""Which flows are declared, as the writer judges runs by them, and a fingerprint by which a change is noticed."""

from __future__ import annotations

import hashlib

import msgspec

from failpath_otel.flows import Flows
from failpath_otel.server.runs.derive import declared_keys


class Declarations:
    """The steps that each flow should have."""

    def __init__(self, flows: Flows) -> None:
        """Reads them once from ``flows``."""
        self._keys = {flow.slug: declared_keys(flow) for flow in flows}

    def keys(self, slug: str) -> frozenset[str]:
        """The declared steps; none where the flow is not declared."""
        return self._keys.get(slug, frozenset())

    def fingerprint(self, slug: str) -> str:
        """The same for the same set of steps; empty where there are none."""
        keys = self.keys(slug)
        return hashlib.sha256(msgspec.json.encode(sorted(keys))).hexdigest()[:16] if keys else ""
