"""What the routes work with, opened together and closed in the right order."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from failpath_otel.server.ingest import Ingest
from failpath_otel.server.live import Changes
from failpath_otel.server.queries import Queries
from failpath_otel.server.retention import Retention
from failpath_otel.server.settings import Settings
from failpath_otel.server.store import Store


def _pool(name: str, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix=f"failpath-{name}")


@dataclass
class Services:
    """One server's parts."""

    store: Store
    ingest: Ingest
    queries: Queries
    changes: Changes
    readers: ThreadPoolExecutor = field(default_factory=lambda: _pool("read", 4))
    # One thread: decoding holds the interpreter's lock, and two would only fight the event loop for it.
    decoders: ThreadPoolExecutor = field(default_factory=lambda: _pool("decode", 1))

    @classmethod
    def open(cls, settings: Settings) -> Services:
        """Opens the database and sets up what works on it; nothing runs yet.

        Raises:
            ConfigError: The database cannot be used.
        """
        store = Store.open(settings.db)
        retention = Retention(settings.retain_seconds, settings.max_size_bytes)
        ingest = Ingest(store, settings.flows, retention=retention)
        queries = Queries(store, settings.flows, stuck_after_seconds=settings.stuck_after_seconds)
        return cls(store, ingest, queries, ingest.changes)

    async def start(self) -> None:
        """Begins to take events."""
        self.ingest.start()

    async def close(self) -> None:
        """Commits what was taken, within its bound, and lets go of the database."""
        await self.ingest.close()
        for pool in (self.decoders, self.readers):
            pool.shutdown(wait=False, cancel_futures=True)
        # A writer that hangs would hold up the closing of its connection; the end of the process closes it as well.
        await asyncio.wait((asyncio.get_running_loop().run_in_executor(None, self.store.close),), timeout=0.2)
