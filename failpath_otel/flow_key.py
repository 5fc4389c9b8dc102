"""FlowKey: a flow's slug whose type knows the keys of its steps. ``failpath-otel generate`` writes subclasses of it."""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K", bound=str)


class FlowKey(Generic[K]):
    """A flow's slug. ``K`` is the ``Literal`` of its step keys, so that type checkers know them of the run.

    ``str(flow)`` is the slug. Two of the same slug are equal. It is no `str`: a type checker could not object to a wrong key
    beside something that is also plain text. Subclasses hold the step keys as attributes; ``slug`` is the one name that is
    taken.
    """

    __slots__ = ("slug",)

    slug: str
    """The flow's slug."""

    def __init__(self, slug: str) -> None:
        self.slug = slug

    def __str__(self) -> str:
        return self.slug

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.slug!r})"

    def __eq__(self, other: object) -> bool:
        return self.slug == other.slug if isinstance(other, FlowKey) else NotImplemented

    def __hash__(self) -> int:
        return hash((FlowKey, self.slug))
