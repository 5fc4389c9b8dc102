"""The clients of this process, by which what is pickled finds its own again, here or in another process."""

from __future__ import annotations

import secrets
import weakref
from collections.abc import Callable
from typing import Any, Final, Protocol

from failpath_otel.notices import warn_once
from failpath_otel.steps.recorder import Recorder


class KnownClient(Protocol):
    """What is asked of a client here."""

    @property
    def recorder(self) -> Recorder:
        """What its runs and steps share."""
        ...


_by_name: Final[weakref.WeakValueDictionary[str, KnownClient]] = weakref.WeakValueDictionary()
_stand_ins: Final[list[KnownClient]] = []
_make_stand_in: list[Callable[[], Any]] = []


def make_stand_ins_by(make: Callable[[], Any]) -> None:
    """How to make a client that records nothing."""
    _make_stand_in[:] = [make]


def remember(client: KnownClient) -> str:
    """A name for ``client``, by which `find` finds it in this process and its forked children."""
    name = secrets.token_hex(8)
    _by_name[name] = client
    return name


def find(name: str) -> Any:
    """The client of this name; in another process the first one made there; where there is none, one that records nothing."""
    found = _by_name.get(name) or next((client for client in list(_by_name.values()) if client.recorder.enabled), None)
    if found is not None:
        return found
    warn_once(
        "unpickled",
        "a client, run or step came from another process, and this one has no FailpathClient: nothing is recorded under it; "
        "make one when the process starts",
    )
    if not _stand_ins:
        _stand_ins.append(_make_stand_in[0]())
    return _stand_ins[0]
