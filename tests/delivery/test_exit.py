"""What is sent when the interpreter goes, however it goes; and that it goes in time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.http_sink import HttpSink, always, hang

Finish = Callable[..., dict[str, str]]
Script = Callable[..., "subprocess.Popen[str]"]

BOUND_SECONDS = 3
"""What an exit may wait, all in all."""
ENDED_SECONDS = BOUND_SECONDS + 20
"""With what the interpreter's end itself may take on a busy machine. What must not be waited for here takes longer."""


def keys(sink: HttpSink) -> list[str]:
    """The steps that ended, sorted; each event arrived once."""
    assert set(sink.arrivals.values()) <= {1}
    return sorted(event["stepKey"] for event in sink.events if event["status"] != "running")


def test_a_normal_exit_sends_everything(finish: Finish, sink: HttpSink) -> None:
    finish("""
        run = make().run("checkout", "r1")
        for n in range(3000):
            run.step(f"step-{n}", lambda: None)
    """)
    assert len(sink.stored) == 6000
    assert set(sink.arrivals.values()) == {1}


@pytest.mark.parametrize(
    ("last", "code", "noise"),
    [
        ("sys.exit(3)", 3, None),
        ("raise ValueError('boom')", 1, "ValueError: boom"),
        ("raise KeyboardInterrupt", -signal.SIGINT, "KeyboardInterrupt"),
        ("signal.raise_signal(signal.SIGINT)", -signal.SIGINT, "KeyboardInterrupt"),
        ("threading.Thread(target=sys.exit).start()", 0, None),
    ],
)
def test_every_kind_of_exit_sends_what_was_recorded(
    finish: Finish, sink: HttpSink, last: str, code: int, noise: str | None
) -> None:
    finish(
        f"""
        run = make().run("checkout", "r1")
        with run.step("step"):
            {last}
        """,
        code=code,
        noise=noise,
    )
    assert keys(sink) == ["step"]


@pytest.mark.parametrize(
    ("left", "noise"),
    [
        ("run.step('charge', charge)", "never awaited"),
        ("loop.create_task(run.step('charge', charge)); loop.run_until_complete(asyncio.sleep(0))", "pending"),
        ("run.step('charge', lambda: loop.create_task(charge()))", "pending"),
        ("run.step('charge', loop.create_future)", None),
    ],
    ids=["coroutine", "task", "returned task", "future"],
)
def test_what_is_pending_as_the_process_ends_ends_its_step_as_cancelled(
    finish: Finish, sink: HttpSink, left: str, noise: str | None
) -> None:
    finish(
        f"""
        import asyncio
        async def charge():
            await asyncio.Event().wait()
        loop = asyncio.new_event_loop()
        run = make().run("checkout", "r1")
        left = {left}
        """,
        noise=noise,
    )
    assert keys(sink) == ["charge"]
    assert [event["error"]["name"] for event in sink.events if event["status"] != "running"] == ["CancelledError"]


@pytest.mark.parametrize("delivery", ["background", "await"])
def test_exit_with_a_server_that_hangs_takes_no_longer_than_its_bound(finish: Finish, sink: HttpSink, delivery: str) -> None:
    """It is asked again and again, without end, as long as nothing ends that."""
    sink.answer = hang(sink)
    told = finish(
        """
        run = make().run("checkout", "r1")
        for n in range(50):
            run.step(f"step-{n}", lambda: None)
        told("wall", time.time())
        """,
        noise="",
        FAILPATH_DELIVERY=delivery,
    )
    assert time.time() - float(told["wall"]) < ENDED_SECONDS


def test_exit_does_not_wait_for_a_server_that_asked_for_longer(finish: Finish, sink: HttpSink) -> None:
    """With a bound of a minute instead of 3 s, so that one who waits for it is seen on a busy machine too."""
    sink.answer = always(503, b"", Retry_After="120")
    told = finish(
        """
        from failpath_otel.delivery import process

        process.EXIT_TIMEOUT_MILLIS = 60_000
        failed = threading.Event()
        client = make(on_error=lambda error: failed.set())
        client.run("checkout", "r1").step("step", lambda: None)
        failed.wait(60)
        told("wall", time.time())
        """,
        noise="events are dropped (shutdown)",
        timeout=100,
    )
    assert time.time() - float(told["wall"]) < 30


def test_threads_that_are_still_recording(finish: Finish, sink: HttpSink) -> None:
    """Non-daemon threads are waited for by Python itself; what daemons record before the drain is sent."""
    finish(
        """
        run = make().run("checkout", "r1")
        recorded, more, without_end = threading.Event(), threading.Event(), threading.Event()

        def plain():
            run.step("plain", lambda: None)
            threading.main_thread().join()  # it has come to its end, and Python waits for this thread
            recorded.clear()
            more.set()
            recorded.wait(60)
            for n in range(20):
                run.step("plain", lambda: None)
            run.step("plain-last", lambda: None)
            without_end.set()
            more.set()

        def daemon():
            while True:
                for n in range(20):
                    run.step("daemon", lambda: None)
                recorded.set()
                if not without_end.is_set():
                    more.wait(60)
                    more.clear()

        threading.Thread(target=plain).start()
        threading.Thread(target=daemon, daemon=True).start()
        recorded.wait(60)
        """,
        noise="",
    )
    found = keys(sink)
    assert found.count("plain-last") == 1
    assert found.count("plain") > 10
    assert found.count("daemon") > 30


def test_steps_in_exit_handlers_are_sent(finish: Finish, sink: HttpSink) -> None:
    """Those registered after the import run before the drain."""
    finish("""
        run = make().run("checkout", "r1")
        run.step("step", lambda: None)
        atexit.register(lambda: run.step("at-exit", lambda: None))
    """)
    assert keys(sink) == ["at-exit", "step"]


def test_steps_after_the_drain_start_no_thread_and_do_no_harm(sink: HttpSink, tmp_path: Path) -> None:
    script = tmp_path / "late.py"
    script.write_text(
        "import atexit, threading\n"
        "def late():\n"
        "    before = threading.active_count()\n"
        "    assert run.step('late', lambda: 7) == 7\n"
        "    client.flush(); client.shutdown()\n"
        "    print(threading.active_count() - before, client.stats().dropped)\n"
        "atexit.register(late)\n"
        "from failpath_otel import FailpathClient\n"
        "client = FailpathClient(flows=False)\n"
        "run = client.run('checkout', 'r1')\n"
        "run.step('step', lambda: None)\n"
    )
    env = {**os.environ, "FAILPATH_DEV_ENDPOINT": sink.url}
    done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "0 {'shutdown': 2}"
    assert keys(sink) == ["step"]


def test_a_first_step_at_exit_is_sent_where_no_thread_can_be_started(finish: Finish, sink: HttpSink) -> None:
    """Python 3.12 starts no threads at exit; then the calling thread sends."""
    finish("""
        run = make().run("checkout", "r1")
        atexit.register(lambda: run.step("at-exit", lambda: None))
    """)
    assert keys(sink) == ["at-exit"]


def test_the_order_of_shutting_down_tracing_and_us_does_not_matter(finish: Finish, sink: HttpSink) -> None:
    for order in (("provider()", "client()"), ("client()", "provider()")):
        finish(f"""
            from opentelemetry import trace
            from opentelemetry.sdk.trace import TracerProvider

            def provider():
                trace.set_tracer_provider(TracerProvider())

            def client():
                global failpath
                failpath = make()

            {order[0]}
            {order[1]}
            failpath.run("checkout", "r1").step("{order[0][:4]}", lambda: None)
        """)
    assert keys(sink) == ["clie", "prov"]


def test_sigterm_is_left_to_the_application(script: Script, sink: HttpSink) -> None:
    """Without a handler the process dies of it at once; nothing of ours holds it back."""
    process = script("""
        client = make()
        client.run("checkout", "r1").step("step", lambda: None)
        client.flush()
        told("handler", signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
        threading.Event().wait()
    """)
    assert process.stdout is not None
    assert process.stdout.readline() == "handler=True\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGTERM
    assert keys(sink) == ["step"]


@pytest.mark.parametrize("ending", ["client.shutdown(); os._exit(0)", "sys.exit(0)", "client.flush(); os._exit(0)"])
def test_a_sigterm_handler_may_shut_the_client_down(script: Script, sink: HttpSink, ending: str) -> None:
    """Wherever the main thread is at that moment, here most often inside of delivery."""
    process = script(f"""
        client = make(max_queue_size=100_000)
        run = client.run("checkout", "r1")

        def handler(number, frame):
            {ending}

        signal.signal(signal.SIGTERM, handler)
        run.step("first", lambda: None)
        told("ready", 1)
        while True:
            for n in range(50):
                run.step("step", lambda: None)
                client.stats()
            client.flush()  # so that no more is left at the end than can be sent by then
    """)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready=1\n"
    sink.wait_for(lambda sink: len(sink.stored) > 50)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert set(sink.arrivals.values()) == {1}
    found = keys(sink)
    assert found[0] == "first"
    started = sum(event["status"] == "running" for event in sink.events)
    assert started - len(found) <= 1  # the step that was interrupted


def test_a_hard_exit_loses_only_what_was_not_sent_yet(finish: Finish, sink: HttpSink) -> None:
    finish("""
        client = make()
        run = client.run("checkout", "r1")
        run.step("flushed", lambda: None)
        client.flush()
        run.step("lost", lambda: None)
        os._exit(0)
    """)
    assert keys(sink) == ["flushed"]


def test_several_clients_share_the_bound_at_exit(finish: Finish, sink: HttpSink) -> None:
    sink.answer = hang(sink)
    told = finish(
        """
        clients = [make() for _ in range(15)]
        for client in clients:
            client.run("checkout", "r1").step("step", lambda: None)
        told("wall", time.time())
        """,
        noise="",
    )
    assert time.time() - float(told["wall"]) < ENDED_SECONDS < 15 * BOUND_SECONDS


def test_the_client_as_a_context_manager_sends_at_its_end(finish: Finish, sink: HttpSink) -> None:
    finish("""
        with make() as client:
            client.run("checkout", "r1").step("step", lambda: None)
        os._exit(0)
    """)
    assert keys(sink) == ["step"]
