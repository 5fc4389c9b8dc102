"""What the routes work with, opened together and closed in the right order."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

from msgspec.structs import replace

from failpath_otel.rules import CompiledRules
from failpath_otel.server.api.intake import IntakeCounts
from failpath_otel.server.forward.bridge import Bridge
from failpath_otel.server.forward.forwarder import Forward
from failpath_otel.server.intake.diagnostics import IntakeDiagnostics
from failpath_otel.server.queries.intake_detail import retention_row, unknown_names
from failpath_otel.server.queries.reader import Queries
from failpath_otel.server.settings import Settings
from failpath_otel.server.sink import EventSink
from failpath_otel.server.store.changes import Changes
from failpath_otel.server.store.database import Store
from failpath_otel.server.store.ingest import Ingest
from failpath_otel.server.store.retention import Retention


def _pool(name: str, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix=f"failpath-{name}")


@dataclass
class Storage:
    """What a server has that keeps events: the runs, and news of them."""

    store: Store
    queries: Queries
    changes: Changes
    ingest: Ingest
    retention: Retention

    def about_intake(self, counts: IntakeCounts) -> IntakeCounts:
        """The counts with what the store tells of what came in. Blocks."""
        size_bytes = self.store.used_bytes()
        with self.store.read() as connection:
            unknown = unknown_names(connection, self.ingest.flows)
            kept = retention_row(connection, self.retention, size_bytes, self.ingest.deleted_runs)
        return replace(counts, unknown=unknown, retention=kept)


@dataclass
class Services:
    """One server's parts.

    Attributes:
        settings: The server's settings.
        sink: Where events go that come in.
        storage: ``None`` where nothing is stored.
        forward: ``None`` where events do not go on to another server.
    """

    settings: Settings
    sink: EventSink
    storage: Storage | None
    forward: Forward | None = None
    diagnostics: IntakeDiagnostics = field(default_factory=IntakeDiagnostics)
    readers: ThreadPoolExecutor = field(default_factory=lambda: _pool("read", 4))
    # One thread: decoding holds the interpreter's lock, and two would only fight the event loop for it.
    decoders: ThreadPoolExecutor = field(default_factory=lambda: _pool("decode", 1))

    @classmethod
    def open(cls, settings: Settings) -> Services:
        """Opens the database and sets up what works on it; nothing runs yet.

        Raises:
            ConfigError: The database cannot be used.
        """
        ingest, storage = (None, None) if settings.db is None else _open_storage(settings.db, settings)
        if settings.forward is None:
            assert ingest is not None, "Settings see to it that a server without a store forwards"
            return cls(settings, ingest, storage)
        forward = Forward(settings.forward)
        return cls(settings, Bridge(forward, ingest), storage, forward)

    @cached_property
    def rules(self) -> CompiledRules | None:
        """Which spans of others are steps; ``None`` where there are no rules."""
        return CompiledRules(self.settings.rules) if len(self.settings.rules) else None

    async def start(self) -> None:
        """Begins to take events."""
        self.sink.start()

    @property
    def destination(self) -> str:
        """Where events go on to; empty where they do not."""
        return self.forward.url if self.forward is not None else ""

    def begin_close(self) -> None:
        """Senders who wait for another server get their answer in time for the end. Called in the event loop."""
        if self.forward is not None:
            self.forward.begin_close()

    async def close(self) -> None:
        """Finishes what was taken, within its bounds, and lets go of the database."""
        await self.sink.close()
        for pool in (self.decoders, self.readers):
            pool.shutdown(wait=False, cancel_futures=True)
        if self.storage is not None:
            # A writer that hangs would hold up the closing of its connection; the end of the process closes it as well.
            closing = asyncio.get_running_loop().run_in_executor(None, self.storage.store.close)
            await asyncio.wait((closing,), timeout=0.2)


def _open_storage(db: str, settings: Settings) -> tuple[Ingest, Storage]:
    store = Store.open(db)
    retention = Retention(settings.retain_seconds, settings.max_size_bytes)
    ingest = Ingest(store, settings.flows, retention=retention)
    queries = Queries(store, settings.flows, stuck_after_seconds=settings.stuck_after_seconds)
    return ingest, Storage(store, queries, ingest.changes, ingest, retention)
