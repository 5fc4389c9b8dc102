"""Imports: from the module that is named to the file of the tree, without importing anything."""

from __future__ import annotations

from pathlib import Path

from failpath_otel.checking.source import Source, UnreadableError


class Modules:
    """Every source that is read, once each."""

    def __init__(self) -> None:
        self._sources: dict[Path, Source | UnreadableError | OSError] = {}
        self._found: dict[tuple[Path, str], Path | None] = {}

    def read(self, path: Path) -> Source:
        """The source at this path.

        Raises:
            UnreadableError: It cannot be parsed.
            OSError: It cannot be read.
        """
        key = path.absolute()
        if key not in self._sources:
            try:
                self._sources[key] = Source(path)
            except (UnreadableError, OSError) as error:
                self._sources[key] = error
        known = self._sources[key]
        if isinstance(known, Source):
            return known
        raise known

    def imported(self, name: str, source: Source) -> Source | None:
        """The module that ``import name`` means in a source, where it is a file of the tree; dots before it count."""
        path = self._path_of(name, source.path.absolute())
        if path is None:
            return None
        try:
            return self.read(path)
        except (UnreadableError, OSError):
            return None

    def _path_of(self, name: str, importer: Path) -> Path | None:
        key = (importer.parent, name)
        if key not in self._found:
            dots = len(name) - len(name.lstrip("."))
            folders = [importer.parents[dots - 1]] if 0 < dots <= len(importer.parents) else _roots(importer)
            parts = name[dots:].split(".") if name[dots:] else []
            candidates = (_file(folder.joinpath(*parts)) for folder in folders)
            self._found[key] = next((path for path in candidates if path is not None), None)
        return self._found[key]


def _roots(importer: Path) -> list[Path]:
    """Where Python may begin to look: the folders above that are no packages, up to the one with the project in it."""
    roots: list[Path] = []
    for folder in importer.parents:
        if not (folder / "__init__.py").is_file():
            roots += [folder, folder / "src"]
        if any((folder / mark).exists() for mark in (".git", "pyproject.toml", "setup.py", ".failpath")):
            break
    return roots


def _file(path: Path) -> Path | None:
    candidates = (path.with_name(f"{path.name}.py"), path / "__init__.py") if path.name else ()
    return next((file for file in candidates if file.is_file()), None)
