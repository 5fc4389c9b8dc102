"""Prints Pythons on this machine that the package supports: `interpreters.py default|oldest|installed|newest|all`.

The default is the Python that runs this file, if it is supported, else the newest that is installed.

Looks at the versions that pyenv keeps, at `python3.N` and `python3` on PATH, and at what `python314.sh` has fetched, which is
not installed: it has no headers to build extensions with, and fewer packages have wheels for it. Each is run once, since a
pyenv shim can be on PATH without a Python behind it. Standard library only, and runs on any Python 3.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST_SUPPORTED = (3, 10)
NEWEST_TRIED = 20


def fetched():
    """The path that `python314.sh` puts a Python at."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return str(Path(cache) / "failpath-otel" / "python3.14" / "usr" / "bin" / "python3.14")


def candidates():
    """Paths that may be a Python."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(str(path) for path in root.glob("versions/3.*/bin/python3"))
    for minor in range(OLDEST_SUPPORTED[1], NEWEST_TRIED):
        yield shutil.which("python3.%d" % minor)
    yield shutil.which("python3")
    yield sys.executable
    yield fetched()


def version(path):
    """The version of the Python at `path`, or None where there is none, or none that can make a virtual environment."""
    code = "import sys, venv, ensurepip, sqlite3, ssl; print(*sys.version_info[:3], sys.version_info.releaselevel)"
    try:
        # "/" as the folder: a pyenv shim obeys the .python-version of the folder that it is run in.
        done = subprocess.run([path, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30, cwd="/")
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = done.stdout.decode().split()
    if done.returncode != 0 or words[3:] != ["final"]:
        return None
    return tuple(int(word) for word in words[:3])


def main():
    """Prints what was asked for."""
    found = {}
    for path in candidates():
        number = version(path) if path else None
        if number and number >= OLDEST_SUPPORTED:
            found.setdefault(number[:2], path)
    if not found:
        sys.exit("no Python >= 3.10 with venv was found: neither among pyenv's versions nor as python3.N on PATH")
    minors = sorted(found)
    installed = [minor for minor in minors if found[minor] != fetched()] or minors
    own = [minor for minor in minors if minor == sys.version_info[:2]]
    choices = {
        "default": own or installed[-1:],
        "oldest": minors[:1],
        "installed": installed[-1:],
        "newest": minors[-1:],
        "all": minors,
    }
    which = sys.argv[1] if len(sys.argv) > 1 else "all"
    chosen = choices.get(which)
    if chosen is None:
        sys.exit("say one of %s, got %s" % (", ".join(choices), which))
    for minor in chosen:
        print(found[minor])


if __name__ == "__main__":
    main()
