from __future__ import annotations

import os

import pytest
from support.tls import VARIABLES


@pytest.fixture
def nobody_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of this machine names authorities, or a proxy."""
    for name in list(os.environ):
        if name in VARIABLES or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
