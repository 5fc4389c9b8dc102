"""A PostgreSQL server of its own for tests, on a socket in a temporary folder, where one is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def postgres_folder() -> Path | None:
    """Where ``initdb`` and ``postgres`` lie."""
    command = shutil.which("initdb")
    found = [Path(command).parent] if command else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "postgres").exists()), None)


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Starts a server with the programs in ``folder`` and gives the URL of an empty database."""
    # PostgreSQL refuses to run as root, and a socket's path must be short.
    nobody = pwd.getpwnam("nobody") if os.getuid() == 0 else None
    user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []} if nobody else {}
    home = Path(tempfile.mkdtemp(prefix="fp-pg-", dir="/tmp"))
    try:
        if nobody:
            os.chown(home, nobody.pw_uid, nobody.pw_gid)
        data = home / "data"
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": home}
        initdb = [folder / "initdb", "-D", data, "-U", "failpath", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        subprocess.run(initdb, check=True, timeout=60, **user, **quiet)
        options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={home}", "-c", "fsync=off"]
        server = subprocess.Popen([folder / "postgres", "-D", data, *options], **user, **quiet)
        try:
            url = f"postgresql+psycopg://failpath@/postgres?host={home}"
            _await(server, url)
            yield url
        finally:
            server.terminate()
            with suppress(subprocess.TimeoutExpired):
                server.wait(10)
            server.kill()
            server.wait()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _await(server: subprocess.Popen[bytes], url: str) -> None:
    import psycopg

    for _ in range(300):
        assert server.poll() is None, "postgres ended while it started"
        try:
            psycopg.connect(url.replace("+psycopg", "")).close()
        except psycopg.OperationalError:
            with suppress(subprocess.TimeoutExpired):
                server.wait(0.1)
        else:
            return
    raise AssertionError("postgres did not start in 30 s")
