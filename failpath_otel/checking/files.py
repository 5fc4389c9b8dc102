"""Which files of a source tree are looked at."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from failpath_otel.errors import ConfigError

PASSED_OVER: Final = frozenset({"__pycache__", "node_modules", "site-packages", "venv", "env"})
"""Folders with code of others. Hidden ones are passed over too, and those that hold a virtual environment."""


def python_files(paths: Sequence[Path], exclude: Sequence[str] = ()) -> list[Path]:
    """The Python files below the paths, sorted; a file that is named itself is looked at whatever its name.

    Args:
        paths: Files and folders.
        exclude: Patterns as in .gitignore: ``*_pb2.py`` and ``migrations`` match a name at any depth, ``tests/data`` a path
            from the folder that was given.

    Raises:
        ConfigError: A path does not exist, or a folder cannot be read.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found.update(dict.fromkeys(_below(path, exclude)))
        elif path.is_file():
            found[path] = None
        else:
            raise ConfigError(f"{path} does not exist; name files or folders to check")
    return sorted(found)


def _below(root: Path, exclude: Sequence[str]) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise ConfigError(f"{error.filename} cannot be read: {error.strerror}") from error

    for folder, below, names in os.walk(root, onerror=refuse):
        place = Path(folder)
        below[:] = sorted(
            name for name in below if not _passed_over(place / name) and not _matches(root, place / name, exclude)
        )
        for name in names:
            file = place / name
            if name.endswith((".py", ".pyi")) and not _is_device(file) and not _matches(root, file, exclude):
                yield file


def _is_device(path: Path) -> bool:
    """A pipe or a socket, to read from which would wait. A link that leads nowhere is none: it is said when it is read."""
    return path.exists() and not path.is_file()


def _passed_over(folder: Path) -> bool:
    return folder.name in PASSED_OVER or folder.name.startswith(".") or (folder / "pyvenv.cfg").is_file()


def _matches(root: Path, path: Path, patterns: Sequence[str]) -> bool:
    relative = path.relative_to(root).as_posix()
    for pattern in patterns:
        wanted = pattern.strip().removeprefix("./").rstrip("/")
        if "/" in wanted.lstrip("/"):
            if fnmatchcase(relative, wanted.lstrip("/")) or fnmatchcase(f"/{relative}", wanted):
                return True
        elif fnmatchcase(relative if wanted.startswith("/") else path.name, wanted.lstrip("/")):
            return True
    return False
