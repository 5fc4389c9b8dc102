"""failpath_otel.testing: a client that keeps its events, a run's story in one line, a fixture for everyone's tests."""

from __future__ import annotations

import contextlib
import random
import threading

import pytest
from support.tracing import Tracing, told

from failpath_otel import FailpathClient, FlushResult, StepEvent, current_run
from failpath_otel.testing import RecordingClient

pytest_plugins = ["pytester"]


def _checkout(client: FailpathClient, run_id: str = "1") -> None:
    run = client.run("checkout", run_id)
    run.step("validate", lambda: None)
    for problem in (TimeoutError(), None):
        try:
            with run.step("charge"):
                if problem is not None:
                    raise problem
        except TimeoutError:
            pass
    run.skip("receipt", reason="opted out")


def test_events_are_there_as_soon_as_the_step_goes_on(client: RecordingClient) -> None:
    with client.run("checkout", "1").step("charge"):
        assert told(client.events) == ["charge:running"]
    assert told(client.events) == ["charge:running", "charge:success"]
    assert client.flush() == FlushResult(sent=2)


def test_no_thread_is_started_and_the_environment_cannot_turn_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("FAILPATH_ENABLED", "false"),
        ("FAILPATH_EXPORTER", "http"),
        ("FAILPATH_DELIVERY", "await"),
        ("FAILPATH_DEV_ENDPOINT", "http://127.0.0.1:9"),
        ("FAILPATH_DEFAULT_METADATA", "region=eu"),
    ):
        monkeypatch.setenv(name, value)
    before = threading.active_count()
    client = RecordingClient(flows=False)
    _checkout(client)
    assert threading.active_count() == before
    assert len(client.events) == 7
    assert client.events[0].metadata == {"region": "eu"}


def test_a_story_tells_each_step_in_the_order_of_its_first_event(client: RecordingClient) -> None:
    _checkout(client)
    assert client.story("checkout") == "validate:success charge:error(TimeoutError),success receipt:skipped"


def test_a_step_that_is_still_open_is_running(client: RecordingClient) -> None:
    with client.run("checkout", "1").step("charge"):
        assert client.story("checkout") == "charge:running"


def test_a_step_that_is_tried_again_with_the_ids_of_a_seeded_generator_is_told_twice(tracing: Tracing) -> None:
    client = RecordingClient(tracer_provider=tracing.provider)
    for fails in (True, False):
        random.seed(7)
        with contextlib.suppress(TimeoutError), client.run("checkout", "1").step("charge"):
            if fails:
                raise TimeoutError
    assert len({event.span_id for event in client.events}) == 1
    client.assert_story("checkout", "charge:error(TimeoutError),success")


def test_a_flow_without_events_has_an_empty_story(client: RecordingClient) -> None:
    assert client.story("checkout") == ""
    client.assert_story("checkout", "")


def test_where_a_flow_has_several_runs_one_must_say_which(client: RecordingClient) -> None:
    _checkout(client, "1")
    client.run("checkout", "2").skip("all")
    client.run("other", "3").skip("other")
    with pytest.raises(AssertionError, match="flow 'checkout' has 2 runs, say which: 1, 2"):
        client.story("checkout")
    assert client.story("checkout", "2") == "all:skipped"
    assert client.story("other") == "other:skipped"


def test_assert_story_shows_both_stories(client: RecordingClient) -> None:
    client.run("checkout", "1").skip("receipt")
    client.assert_story("checkout", "receipt:skipped")
    client.assert_story("checkout", "receipt:skipped", "1")
    with pytest.raises(AssertionError, match=r"expected: receipt:success\s+recorded: receipt:skipped"):
        client.assert_story("checkout", "receipt:success")
    with pytest.raises(AssertionError, match=r"recorded: \(nothing\)"):
        client.assert_story("refund", "receipt:success")


def test_reset_forgets_the_events(client: RecordingClient) -> None:
    _checkout(client)
    client.reset()
    assert client.events == []
    client.run("checkout", "1").skip("receipt")
    assert told(client.events) == ["receipt:skipped"]


def test_on_event_is_told_of_each_event_and_may_be_set_later() -> None:
    told_of: list[StepEvent] = []
    client = RecordingClient(on_event=told_of.append, flows=False)
    _checkout(client)
    assert told_of == client.events
    client.on_event = None
    client.run("checkout", "1").skip("receipt")
    assert len(told_of) == len(client.events) - 1


def test_what_on_event_raises_reaches_the_log_and_not_the_step(caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: StepEvent) -> None:
        raise RuntimeError("hook")

    client = RecordingClient(on_event=fail, flows=False)
    assert client.run("checkout", "1").step("charge", lambda: 5) == 5
    assert told(client.events) == ["charge:running", "charge:success"]
    assert "an event could not be recorded" in caplog.text


def test_on_event_may_itself_run_steps(client: RecordingClient) -> None:
    def follow_up(event: StepEvent) -> None:
        if event.step_key == "charge":
            client.run("audit", "1").skip(event.status)

    client.on_event = follow_up
    client.run("checkout", "1").step("charge", lambda: None)
    assert told(client.events) == ["charge:running", "running:skipped", "charge:success", "success:skipped"]


def test_a_mask_is_applied() -> None:
    import msgspec

    client = RecordingClient(mask=lambda event: msgspec.structs.replace(event, metadata={}), flows=False)
    client.run("checkout", "1").skip("receipt", metadata={"card": "4111"})
    assert client.events[0].metadata == {}


def test_a_mask_that_raises_takes_the_metadata_along(caplog: pytest.LogCaptureFixture) -> None:
    def mask(event: StepEvent) -> StepEvent:
        raise RuntimeError("mask")

    client = RecordingClient(mask=mask, flows=False)
    client.run("checkout", "1").skip("receipt", reason="private", metadata={"card": "4111"})
    (event,) = client.events
    assert (event.metadata, event.skip_reason) == ({}, None)
    assert client.stats().mask_failures == 1


def test_a_mask_that_writes_into_the_event_writes_into_no_other() -> None:
    def mask(event: StepEvent) -> StepEvent:
        event.metadata.pop("card", None)
        return event

    client = RecordingClient(mask=mask, flows=False)
    run = client.run("checkout", "1", metadata={"card": "4111"})
    run.skip("receipt")
    assert client.events[0].metadata == {}
    assert dict(run.metadata) == {"card": "4111"}


def test_after_shutdown_events_are_counted_as_dropped(client: RecordingClient) -> None:
    client.shutdown()
    client.run("checkout", "1").skip("receipt")
    assert client.events == []
    assert client.stats().dropped == {"shutdown": 1}


def test_foreign_spans_are_recorded_too(client: RecordingClient, tracing: Tracing) -> None:
    attributes = {"failpath.flow.slug": "checkout", "failpath.run.id": "1", "failpath.step.key": "charge"}
    tracing.tracer.start_span("POST /pay", attributes=attributes).end()
    client.assert_story("checkout", "charge:success")


def test_threads_may_record_at_once(client: RecordingClient) -> None:
    threads = [threading.Thread(target=_checkout, args=(client, str(number))) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(client.events) == 7 * 8
    assert client.story("checkout", "5") == "validate:success charge:error(TimeoutError),success receipt:skipped"


def test_the_plugin_gives_each_test_a_fresh_client(pytester: pytest.Pytester) -> None:
    """Installed as a plugin: the other project's tests ask for the fixture by name, and import nothing."""
    pytester.makepyfile(
        """
        kept = []

        def test_first(failpath_client):
            failpath_client.run("checkout", "1").skip("receipt")
            failpath_client.assert_story("checkout", "receipt:skipped")
            kept.append(failpath_client)

        def test_second(failpath_client):
            assert failpath_client.events == []
            assert failpath_client is not kept[0]
            kept[0].run("checkout", "1").skip("late")
            assert kept[0].stats().dropped == {"shutdown": 1}

        def test_that_fails(failpath_client):
            failpath_client.assert_story("checkout", "receipt:skipped")
        """
    )
    result = pytester.runpytest_subprocess("-W", "error", "-p", "no:randomly")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*recorded: (nothing)*"])


def test_the_fixture_takes_over_the_client_that_a_module_of_the_service_made(pytester: pytest.Pytester) -> None:
    """One that would send, were it not for the fixture, to a port where nobody listens: it is used as the service uses it."""
    pytester.makepyfile(
        shop="""
        from failpath_otel import FailpathClient

        failpath = FailpathClient(endpoint="http://127.0.0.1:9", on_error=lambda error: errors.append(error), flows=False)
        errors = []
        run = failpath.run("checkout", "of the module")

        @failpath.step("charge-card")
        def charge():
            pass

        def checkout(run_id):
            with failpath.run("checkout", run_id):
                charge()
            failpath.flush()
            failpath.shutdown()
        """,
        test_shop="""
        import pytest
        import shop

        @pytest.mark.parametrize("run_id", ["first", "second"])
        def test_a_checkout_charges(failpath_client, run_id):
            shop.checkout(run_id)
            failpath_client.assert_story("checkout", "charge-card:success")
            shop.run.skip("late")
            assert shop.failpath.stats().dropped == {"shutdown": 1}

        def test_nothing_was_sent_or_kept():
            assert shop.errors == []
            assert shop.failpath.stats().recorded == 0
        """,
    )
    pytester.runpytest_subprocess("-W", "error", "-p", "no:randomly").assert_outcomes(passed=3)


def test_the_plugin_says_what_its_fixture_is(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--fixtures")
    result.stdout.fnmatch_lines(["failpath_client*", "*shut down after the test*"])


def test_nothing_is_left_current() -> None:
    assert current_run() is None
