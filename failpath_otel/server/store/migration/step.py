"""What one change of the schema consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection


@dataclass(frozen=True)
class SchemaStep:
    """From the schema version before to ``to``.

    A step says what its own version is. Where `tables` goes on to a later version, what the step took from there is copied
    into it first.

    Attributes:
        to: The version that the database has from the step's first transaction on.
        takes: How long that is and what else it needs, for the operator; a whole sentence.
        begin: Changes the tables, in one transaction, together with the version.
        unfinished: Whether `finish` has anything to do, asked at each start: a step may have been cut off.
        finish: What may take long, in transactions of a bounded size. It gets what gives a connection that may write, and how
            the database is called in the log.
    """

    to: int
    takes: str
    begin: Callable[[Connection], None]
    unfinished: Callable[[Connection], bool]
    finish: Callable[[Callable[[], Connection], str], None]
