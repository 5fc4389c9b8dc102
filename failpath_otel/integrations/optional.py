"""Packages that an integration needs and this package does not bring."""

from __future__ import annotations

import importlib
from typing import Any


def needed(module: str, package: str) -> Any:
    """The module of a package that has to be there.

    Raises:
        ImportError: It is not there; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # the package is there, and lacks something itself
        raise ImportError(f"this integration needs {package}, which is not installed: pip install {package}") from error
