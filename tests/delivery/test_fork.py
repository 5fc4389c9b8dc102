"""Forked children start afresh: they send their own events, and none of their parent's."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable

import pytest
from support.delivery import ScriptedExporter, event, no_thread
from support.http_sink import HttpSink, hang

from failpath_otel.delivery import Delivery, FlushResult

Finish = Callable[..., dict[str, str]]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

# The locks of a delivery are taken in two tests by their private names: each is held for moments only, and nothing that can be
# called from outside holds all of them while another thread forks.


def arrived(sink: HttpSink) -> Counter[tuple[str, str]]:
    """How often each event arrived, by step and status."""
    counts: Counter[tuple[str, str]] = Counter()
    for identity, times in sink.arrivals.items():
        stored = sink.stored[identity]
        counts[stored["stepKey"], stored["status"]] += times
    return counts


def steps(*keys: str) -> Counter[tuple[str, str]]:
    return Counter({(key, status): 1 for key in keys for status in ("running", "success")})


def test_parent_and_child_each_send_their_own_events_once(finish: Finish, sink: HttpSink) -> None:
    told = finish("""
        client = make()
        run = client.run("checkout", "r1")
        run.step("before", lambda: None)
        if (pid := os.fork()) == 0:
            told("at_start", client.stats().recorded)
            run.step("child", lambda: None)
            told("child", client.flush().sent)
            os._exit(0)
        os.waitpid(pid, 0)
        run.step("after", lambda: None)
        told("parent", client.flush().sent)
    """)
    assert told == {"at_start": "0", "child": "2", "parent": "4"}
    assert arrived(sink) == steps("before", "child", "after")


def test_nested_forks_that_exit_by_themselves_send_everything(finish: Finish, sink: HttpSink) -> None:
    finish("""
        client = make()
        run = client.run("checkout", "r1")
        run.step("parent", lambda: None)
        for key in ("child", "grandchild", "great-grandchild"):
            if pid := os.fork():
                os.waitpid(pid, 0)
                break
            run.step(key, lambda: None)
    """)
    assert arrived(sink) == steps("parent", "child", "grandchild", "great-grandchild")


def test_a_fork_while_other_threads_hold_every_lock(finish: Finish, sink: HttpSink) -> None:
    finish("""
        client = make()
        run = client.run("checkout", "r1")
        run.step("before", lambda: None)
        client.flush()
        held, go_on = threading.Event(), threading.Event()

        def hold():
            held.set()
            go_on.wait(30)

        sink = client._sink

        thread = threading.Thread(target=sink._outbox._lock.run, args=(sink._starting.run, sink._sending.run, hold))
        thread.start()
        held.wait()
        if (pid := os.fork()) == 0:
            run.step("child", lambda: None)
            os._exit(0 if client.flush(20_000).sent == 2 else 9)
        told("child", os.waitpid(pid, 0)[1])
        go_on.set()
        thread.join()
    """)
    assert arrived(sink) == steps("before", "child")


def test_a_child_reports_nothing_of_the_step_it_was_forked_in(finish: Finish, sink: HttpSink) -> None:
    """The parent ends it; the child merely unwinds it, here with an exception."""
    finish("""
        client = make()
        run = client.run("checkout", "r1")
        try:
            with run.step("outer"):
                if (pid := os.fork()) == 0:
                    run.step("child", lambda: None)
                    raise SystemExit(0)
                os.waitpid(pid, 0)
        finally:
            pass
    """)
    assert arrived(sink) == steps("outer", "child")


def test_a_child_of_a_client_that_was_shut_down_sends_nothing(finish: Finish, sink: HttpSink) -> None:
    told = finish(
        """
        client = make()
        run = client.run("checkout", "r1")
        run.step("before", lambda: None)
        client.shutdown()
        if (pid := os.fork()) == 0:
            run.step("child", lambda: None)
            told("child", client.stats().dropped)
            os._exit(0)
        os.waitpid(pid, 0)
    """,
        noise="events are dropped (shutdown)",
    )
    assert arrived(sink) == steps("before")
    assert told == {"child": "{'shutdown': 2}"}


def test_awaiting_delivery_works_in_children(finish: Finish, sink: HttpSink) -> None:
    finish(
        """
        client = make()
        run = client.run("checkout", "r1")
        run.step("before", lambda: None)
        if (pid := os.fork()) == 0:
            run.step("child", lambda: None)
            os._exit(0)
        os.waitpid(pid, 0)
        """,
        FAILPATH_DELIVERY="await",
    )
    assert arrived(sink) == steps("before", "child")


@pytest.mark.parametrize("ending", ["client.flush()", "client.shutdown()", "client.stats()"])
def test_a_fork_that_goes_round_pythons_hooks(finish: Finish, sink: HttpSink, ending: str) -> None:
    """As uWSGI's in C: the child notices by its process id, whatever it calls first, also in the second generation.

    No worker runs across the forks: after such a fork CPython itself may wait for ever for a thread that wanted its lock.
    """
    finish(f"""
        import ctypes
        c_fork = ctypes.PyDLL(None).fork
        client = make()
        run = client.run("checkout", "r1")

        def no_thread(thread):
            raise RuntimeError("can't start new thread")

        def quietly(key):
            start, threading.Thread.start = threading.Thread.start, no_thread
            run.step(key, lambda: None)
            threading.Thread.start = start

        quietly("before")
        if (pid := c_fork()) == 0:
            {ending}
            if "shutdown" not in {ending!r}:
                quietly("child")
                if (pid := c_fork()) == 0:
                    run.step("grandchild", lambda: None)
                    client.flush()
                    os._exit(0)
                os.waitpid(pid, 0)
                client.flush()
            os._exit(0)
        os.waitpid(pid, 0)
    """)
    assert arrived(sink) == (steps("before") if "shutdown" in ending else steps("before", "child", "grandchild"))


def test_a_fork_that_goes_round_pythons_hooks_while_a_lock_is_held(finish: Finish, sink: HttpSink) -> None:
    finish("""
        import ctypes
        client = make()
        run = client.run("checkout", "r1")
        held, go_on = threading.Event(), threading.Event()

        def hold():
            held.set()
            go_on.wait(30)

        sink = client._sink

        thread = threading.Thread(target=sink._outbox._lock.run, args=(sink._starting.run, hold))
        thread.start()
        held.wait()
        if (pid := ctypes.PyDLL(None).fork()) == 0:
            run.step("child", lambda: None)
            os._exit(0 if client.flush(20_000).sent == 2 else 9)
        status = os.waitpid(pid, 0)[1]
        go_on.set()
        thread.join()
        sys.exit(status)
    """)
    assert arrived(sink) == steps("child")


def test_a_process_id_that_changed_is_noticed_by_every_entry(
    deliver: Callable[..., Delivery], monkeypatch: pytest.MonkeyPatch
) -> None:
    entries: list[Callable[[Delivery], object]] = [
        lambda delivery: delivery.record(event(2)),
        lambda delivery: delivery.record_and_wait(event(2), 5_000),
        lambda delivery: delivery.flush(100),
        lambda delivery: delivery.stats(),
    ]
    for entry in entries:
        exporter = ScriptedExporter()
        delivery = deliver(exporter, linger_millis=600_000)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread)  # a fork takes no threads along
            delivery.record(event(1))
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: -1)
            given = entry(delivery)
            if isinstance(given, FlushResult):
                assert given.recorded == 0
            delivery.flush(20_000)
            assert 1 not in exporter.numbers
            assert delivery.stats().recorded == exporter.numbers.count(2)
            delivery.shutdown(20_000)


MULTIPROCESSING = """
    client = make()
    run = client.run("checkout", "r1")

    def work(key):
        client.run("checkout", "r1").step(key, lambda: None)

    if __name__ == "__main__":
        run.step("parent", lambda: None)
        context = multiprocessing.get_context("{method}")
        children = [context.Process(target=work, args=(f"child-{{n}}",)) for n in range(2)]
        for child in children:
            child.start()
        for child in children:
            child.join()
            assert child.exitcode == 0
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_children_send_before_they_end(finish: Finish, sink: HttpSink, method: str) -> None:
    finish(MULTIPROCESSING.format(method=method))
    assert arrived(sink) == steps("parent", "child-0", "child-1")


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_step_while_a_child_imports_its_main_module_does_not_cost_it_the_end(
    finish: Finish, sink: HttpSink, method: str
) -> None:
    """multiprocessing forgets what was registered before a child's own work begins."""
    finish(
        MULTIPROCESSING.format(method=method).replace(
            'run = client.run("checkout", "r1")',
            'run = client.run("checkout", "r1")\n    if __name__ != "__main__":\n        run.step("import", lambda: None)\n'
            "        client.flush()",
        )
    )
    counts = arrived(sink)
    assert counts.pop(("import", "running"), 0) == counts.pop(("import", "success"), 0) > 0
    assert counts == steps("parent", "child-0", "child-1")


def test_a_pool_of_processes_sends_everything(finish: Finish, sink: HttpSink) -> None:
    finish("""
        from concurrent.futures import ProcessPoolExecutor
        client = make()

        def work(n):
            with client.run("checkout", "r1").step(f"step-{n}"):
                return n

        if __name__ == "__main__":
            with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
                assert sorted(pool.map(work, range(20))) == list(range(20))
    """)
    assert arrived(sink) == steps(*(f"step-{n}" for n in range(20)))


def test_a_child_that_hangs_on_a_dead_server_ends_in_time(finish: Finish, sink: HttpSink) -> None:
    sink.answer = hang(sink)
    told = finish(
        """
        client = make()

        def work():
            client.run("checkout", "r1").step("child", lambda: None)

        if __name__ == "__main__":
            child = multiprocessing.get_context("fork").Process(target=work)
            started = time.monotonic()
            child.start()
            child.join()
            told("seconds", time.monotonic() - started)
        """,
        noise="events are dropped (shutdown)",
    )
    assert float(told["seconds"]) < 3 + 20, "more than its bound and what a busy machine takes"
