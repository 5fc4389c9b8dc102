"""Writing files that are not there yet: all of them, or none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from failpath_otel.errors import ConfigError


def write_new(files: Mapping[Path, str]) -> None:
    """Writes each file, and makes its folder. Nothing is overwritten, and where one cannot be written none is left.

    Raises:
        ConfigError: A file is there already, or cannot be written.
    """
    present = [path for path in files if os.path.lexists(path)]
    if present:
        raise _is_there(present[0])
    written: list[Path] = []
    made: list[Path] = []
    try:
        for path, text in files.items():
            if not path.parent.exists():
                path.parent.mkdir(parents=True)
                made.append(path.parent)
            _write(path, text)
            written.append(path)
    except (OSError, ConfigError) as error:
        for path in written:
            path.unlink(missing_ok=True)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{error.filename} cannot be written: {error.strerror or error}; nothing was written") from error


def _write(path: Path, text: str) -> None:
    try:
        # Another process may have made the file since we looked; it would be the one that stays.
        with path.open("x", encoding="utf-8", newline="\n") as file:
            try:
                file.write(text)
            except OSError:
                with suppress(OSError):
                    path.unlink()
                raise
    except FileExistsError:
        raise _is_there(path) from None


def _is_there(path: Path) -> ConfigError:
    return ConfigError(f"{path} is there already and is left as it is; nothing was written")
