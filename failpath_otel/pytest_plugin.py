"""The pytest plugin: ``failpath_client``, a fresh `RecordingClient` for each test, which has taken over all other clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from failpath_otel.testing import RecordingClient


@pytest.fixture
def failpath_client() -> Iterator[RecordingClient]:
    """A `RecordingClient`, shut down after the test; meanwhile all clients of the process record into it and send nothing."""
    # Imported here: a plugin is loaded in every test session of whoever has the package installed.
    from failpath_otel.testing import RecordingClient

    with RecordingClient() as client, client.take_over():
        yield client
