"""Legacy: what uWSGI's first process recorded before it had workers. One of them sends it, and no other process does."""

from __future__ import annotations

import contextlib

from failpath_otel.delivery import process, uwsgi
from failpath_otel.delivery.outbox import Outbox
from failpath_otel.events.step import StepEvent


class Legacy:
    """Of one delivery, through its forks. Without uWSGI it is nothing, in every process."""

    def __init__(self) -> None:
        self._leaves = False
        self._left: list[StepEvent] = []

    def starts_threads(self, outbox: Outbox) -> bool:
        """Whether a thread may be started here; where workers are still to come, they are called to send what there is."""
        if uwsgi.awaits_workers():
            self._leaves = True
            outbox.admit()  # what is in the queue when workers have come is theirs, what is in the inbox then is not
            uwsgi.call_in_workers(process.begin_in_child)
        self.settle(outbox)
        if uwsgi.is_first_process():
            return False
        uwsgi.warn_where_threads_rest()
        return True

    def nobody_sends(self) -> bool:
        """Whether what is recorded here is left to nobody and no thread sends it: in the first process once it has workers."""
        return not self._leaves and uwsgi.is_first_process()

    def cross(self, outbox: Outbox) -> None:
        """Called in a forked child with its parent's outbox. What this child is may be told only later."""
        if self._leaves:
            self._leaves, self._left = False, outbox.unsettled()

    def settle(self, outbox: Outbox) -> None:
        """Puts what was left into the outbox of the process that sends it, and has the others forget it."""
        if self._left and uwsgi.knows_its_place():
            if not uwsgi.is_heir():
                self._left.clear()
            with contextlib.suppress(IndexError):  # of the end, also where two threads come here
                while True:
                    outbox.inbox.appendleft(self._left.pop())
        if self._leaves and not uwsgi.awaits_workers():
            self._leaves = False
            if not uwsgi.is_heir():  # as the first process itself is where uWSGI has no master
                outbox.forget()
