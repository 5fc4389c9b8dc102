"""Which flows the keys of a client are checked against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from failpath_otel.errors import ConfigError
from failpath_otel.flows import DEFAULT_PATH, Flows, find_flows_file, load_flows, split_strict
from failpath_otel.notices import warn_once


def flows_in_use(given: Any) -> tuple[Flows, bool]:
    """The flows to check keys against, and whether an unknown key is an error.

    Args:
        given: The option ``flows``: a path, ``strict`` with or without one, `Flows`, False, or ``None`` to look for a file.

    Raises:
        ConfigError: A file that was asked for cannot be used.
    """
    if isinstance(given, Flows):
        return given, False
    if given is False:
        return Flows(), False
    strict, path = split_strict(given) if isinstance(given, str) else (False, given)
    if path:
        return load_flows(Path(path)), strict
    try:
        found = find_flows_file(Path.cwd())
        if found is not None:
            return load_flows(found), strict
    except (OSError, ConfigError) as error:
        if strict:
            raise ConfigError(f"flows={given!r} needs flows that can be read: {error}") from error
        # Nobody asked for this file, so it is no reason to stop a service.
        warn_once("flows", "flows are not known: %s", error)
    if strict:
        raise ConfigError(f"flows={given!r} found no {DEFAULT_PATH} from {Path.cwd()} up; name it: flows='strict:PATH'")
    return Flows(), False
