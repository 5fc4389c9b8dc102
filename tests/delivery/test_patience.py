"""Where a process is ended without a word, an outcome waits until it is sent, within bounds; elsewhere nothing waits."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable

import pytest
from support.http_sink import HttpSink, hang

from failpath_otel.delivery.patience import Patience

Finish = Callable[..., dict[str, str]]


def test_waits_end_by_a_deadline_and_are_no_more_when_the_time_for_them_is_spent() -> None:
    deadlines: list[float] = []
    Patience(60).spend(deadlines.append)
    assert len(deadlines) == 1
    assert deadlines[0] > time.monotonic()
    Patience(-60).spend(deadlines.append)
    assert len(deadlines) == 1


def test_what_a_wait_took_is_spent_also_where_it_raised() -> None:
    def interrupted(deadline: float) -> None:
        while time.monotonic() < deadline + 0.2:
            pass
        raise KeyboardInterrupt

    patience = Patience(0.001)
    with pytest.raises(KeyboardInterrupt):
        patience.spend(interrupted)
    patience.spend(lambda deadline: pytest.fail("there was time left"))


CHILDREN = """
    from failpath_otel.delivery import process
    client = make()

    def work(kind, heeds):
        if heeds:
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit())
        client.run("checkout", "r1").step(kind, lambda: None)
        told(kind, process.patience() is not None)

    if __name__ == "__main__":
        work("parent", False)
        context = multiprocessing.get_context("{method}")
        kinds = [("daemonic", True, False), ("daemonic with a handler", True, True), ("ordinary", False, False)]
        for kind, daemon, heeds in kinds:
            child = context.Process(target=work, args=(kind, heeds), daemon=daemon)
            child.start()
            child.join()
            assert child.exitcode == 0
"""


@pytest.mark.parametrize("method", [name for name in ("fork", "spawn") if name in multiprocessing.get_all_start_methods()])
def test_only_daemonic_children_that_do_not_heed_their_end_have_recording_wait(finish: Finish, method: str) -> None:
    assert finish(CHILDREN.format(method=method)) == {
        "parent": "False",
        "daemonic": "True",
        "daemonic with a handler": "False",
        "ordinary": "False",
    }


def test_a_destination_that_fails_is_waited_for_once(finish: Finish, sink: HttpSink) -> None:
    """A thousand outcomes that wait for a request each would take far longer than the test may."""
    sink.answer = hang(sink)
    finish(
        """
        client = make(send_timeout_millis=200)

        def work(number):
            for _ in range(500):
                client.run("checkout", number).step("s", lambda: None)

        if __name__ == "__main__":
            with multiprocessing.Pool(1) as pool:
                pool.map(work, range(2), chunksize=1)
        """,
        noise="events cannot be sent",
    )
