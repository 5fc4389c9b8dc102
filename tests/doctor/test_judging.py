"""What is made of facts: no process, no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from support.tls import Authority

from failpath_otel import RecordingSampler
from failpath_otel.cli.serve import serve
from failpath_otel.config import OPTIONS, resolve
from failpath_otel.doctor.configured import SERVER_VARIABLES, judge_key, judge_names, judge_options
from failpath_otel.doctor.declared import judge_flows, judge_rules, judge_targets
from failpath_otel.doctor.destination import judge_destination
from failpath_otel.doctor.facts import ProcessFacts, ProcessorFacts
from failpath_otel.doctor.finding import Finding
from failpath_otel.doctor.inside import without_secrets
from failpath_otel.doctor.surroundings import judge_django, judge_processes, judge_proxy, judge_trust
from failpath_otel.doctor.tracing import judge_process, judge_sampler
from failpath_otel.doctor.versions import judge_versions, minimums
from failpath_otel.rules import Attribute, SpanRule, SpanRules

PARENT = ",remoteParentSampled:AlwaysOnSampler,remoteParentNotSampled:AlwaysOffSampler}"
NEEDED = {"opentelemetry-api": "1.37", "opentelemetry-sdk": "1.37"}
REMOTE = "https://api.failpath.dev"


def levels(findings: Any) -> list[tuple[str, str]]:
    return [(finding.check, finding.level) for finding in findings]


def one(findings: Any) -> Finding:
    (finding,) = findings
    assert isinstance(finding, Finding)
    return finding


# Versions


def test_the_oldest_versions_are_those_of_the_package_itself() -> None:
    assert {name for name in minimums() if name.startswith("opentelemetry-")} == {
        "opentelemetry-api",
        "opentelemetry-sdk",
        "opentelemetry-exporter-otlp",
        "opentelemetry-proto",
    }


@pytest.mark.parametrize(
    ("version", "level", "said"),
    [
        ("1.37.0", "ok", "api 1.37.0"),
        ("1.9.0", "problem", "opentelemetry-api 1.9.0, needed is 1.37"),
        (None, "problem", "opentelemetry-api missing, needed is 1.37"),
    ],
)
def test_a_version_is_held_to_the_oldest_that_works(version: str | None, level: str, said: str) -> None:
    _, found = judge_versions(lambda name: version, NEEDED)
    assert (found.level, said in found.what) == (level, True), found
    assert bool(found.fix) == (level == "problem")


def test_packages_of_different_releases_are_warned_of() -> None:
    _, found = judge_versions(lambda name: "1.40.0" if name.endswith("sdk") else "1.45.1", NEEDED)
    assert found.level == "warning"
    assert "sdk 1.40.0" in found.what


# Options, key, variables


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, [("options", "problem")]),
        ({"FAILPATH_ENABLED": "false"}, [("options", "warning")]),
        ({"FAILPATH_EXPORTER": "console"}, [("options", "ok")]),
        ({"FAILPATH_DEV_ENDPOINT": "http://127.0.0.1:4600"}, [("options", "ok"), ("project-key", "ok")]),
        ({"FAILPATH_DEV_ENDPOINT": REMOTE}, [("options", "ok"), ("project-key", "problem")]),
        ({"FAILPATH_PROJECT_KEY": "fp_project_abc"}, [("options", "ok"), ("project-key", "ok")]),
        ({"FAILPATH_PROJECT_KEY": "abc"}, [("options", "ok"), ("project-key", "warning")]),
    ],
)
def test_options_say_whether_and_where_events_go(environ: dict[str, str], expected: list[tuple[str, str]]) -> None:
    assert levels(judge_options(resolve({}, environ), environ, in_code=False)) == expected


def test_an_application_may_say_itself_where_events_go() -> None:
    assert levels(judge_options(resolve({}, {}), {}, in_code=True)) == [("options", "ok")]


@pytest.mark.parametrize("key", ["fp_project_topsecret", "topsecret"])
def test_a_key_is_never_shown(key: str) -> None:
    for endpoint in (REMOTE, "https://runs.example.com", "http://127.0.0.1:1"):
        finding = judge_key(key, endpoint)
        assert "topsecret" not in repr(finding)


def test_a_key_of_another_server_may_look_as_it_likes() -> None:
    assert judge_key("an-ingest-key", "https://runs.example.com").level == "ok"


def test_a_mistyped_variable_is_found_with_the_one_that_was_meant() -> None:
    finding = one(judge_names({"FAILPATH_PROJEKT_KEY": "secret", "FAILPATH_DB": "x", "PATH": "y"}))
    assert (finding.level, finding.fix) == ("warning", "Did you mean FAILPATH_PROJECT_KEY?")
    assert "secret" not in repr(finding)


def test_variables_of_clients_and_of_the_server_are_known() -> None:
    of_server = {str(option.envvar) for option in serve.params if getattr(option, "envvar", None)}
    assert of_server - {option.env for option in OPTIONS} <= SERVER_VARIABLES
    known = [*of_server, *(option.env or "" for option in OPTIONS), "FAILPATH_ACCEPT_INCOMING"]
    assert list(judge_names(dict.fromkeys(known, "x"))) == []


# Tracing

SDK = "opentelemetry.sdk.trace.TracerProvider"
OURS = ProcessorFacts(name="failpath_otel.tracing.processor.FailpathSpanProcessor", ours=True)
BATCH = ProcessorFacts(name="opentelemetry.sdk.trace.export.BatchSpanProcessor", exporter="a.OTLPSpanExporter")


def judged(facts: ProcessFacts, app: str | None = None, **environ: str) -> list[tuple[str, str]]:
    return levels(judge_process(facts, app, environ, spans_matter=True))


def test_a_provider_with_our_processor_is_well() -> None:
    facts = ProcessFacts(provider=SDK, takes_processors=True, sampler="AlwaysOnSampler", processors=[BATCH, OURS])
    assert judged(facts) == [("provider", "ok"), ("processors", "ok"), ("exporters", "ok"), ("sampler", "ok")]


def test_what_hinders_spans_is_warned_of_with_a_fix() -> None:
    bare = ProcessFacts(provider=SDK, takes_processors=True)
    for facts in (
        ProcessFacts(),
        ProcessFacts(zero_code=True),
        bare,
        ProcessFacts(provider="ddtrace.X"),
        ProcessFacts(provider=SDK, takes_processors=True, processors=[BATCH]),
        ProcessFacts(warnings=["opentelemetry.trace: Overriding of current TracerProvider is not allowed"]),
    ):
        for app in (None, "shop:app"):
            found = list(judge_process(facts, app, {}, spans_matter=True))
            assert any(finding.level == "warning" for finding in found)
            assert all(finding.fix and finding.why for finding in found if finding.level != "ok")
    assert ("provider", "warning") in judged(bare, OTEL_SDK_DISABLED="TRUE")


@pytest.mark.parametrize("app", [None, "shop:app"])
def test_what_cannot_be_set_up_is_a_problem(app: str | None) -> None:
    found = list(judge_process(ProcessFacts(failure="KeyError: 'x' (shop.py:3)"), app, {}, spans_matter=False))
    assert found[0].level == "problem"
    assert "shop.py:3" in found[0].what


def test_drops_of_the_process_are_told_by_reason() -> None:
    ours = ProcessorFacts(name="x", ours=True, dropped={"queue_full": 3})
    facts = ProcessFacts(provider=SDK, takes_processors=True, processors=[ours])
    found = [finding for finding in judge_process(facts, None, {}, spans_matter=True) if finding.check == "queue"]
    assert "3 queue_full" in one(found).what


@pytest.mark.parametrize(
    ("description", "said"),
    [
        ("ParentBased{root:TraceIdRatioBased{0.1}" + PARENT, "Only 10% of"),
        ("TraceIdRatioBased{0.001}", "Only 0.10% of"),
        ("ParentBased{root:AlwaysOnSampler" + PARENT, "unless the caller"),
        ("AlwaysOffSampler", "No span is recorded"),
        ("ParentBased{root:AlwaysOffSampler" + PARENT, "No span is recorded"),
        ("SomeoneElses", "keeps back"),
    ],
)
def test_a_sampler_is_warned_of_only_where_runs_come_from_spans(description: str, said: str) -> None:
    finding = judge_sampler(description, spans_matter=True)
    assert (finding.level, said in finding.why) == ("warning", True), finding
    assert judge_sampler(description, spans_matter=False).level == "ok"


@pytest.mark.parametrize("description", ["AlwaysOnSampler", RecordingSampler(TraceIdRatioBased(0.1)).get_description()])
def test_a_sampler_that_keeps_no_step_back_is_well(description: str) -> None:
    assert judge_sampler(description, spans_matter=True).level == "ok"


# Files, ways of running, destinations


@pytest.mark.parametrize(
    ("text", "given", "level"),
    [
        (None, None, "warning"),
        (None, "strict", "problem"),
        ("{", None, "warning"),
        ("{", "strict", "problem"),
        ('{"flows": []}', None, "warning"),
        ('{"flows": [{"slug": "checkout"}]}', None, "warning"),
        ('{"flows": [{"slug": "checkout", "nodes": [{"sdkStepKey": "pay"}]}]}', None, "ok"),
    ],
)
def test_flows_are_found_and_read(text: str | None, given: str | None, level: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / ".failpath").mkdir()
        (tmp_path / ".failpath" / "flows.json").write_text(text)
    below = tmp_path / "src"
    below.mkdir()
    assert one(judge_flows(given, below)).level == level


def test_a_file_that_was_named_has_to_be_readable(tmp_path: Path) -> None:
    assert one(judge_flows(str(tmp_path / "no.json"), tmp_path)).level == "problem"


RULE = '{"name": "pay", "flow": "checkout", "step": "pay", "run": ["trace"]}'


@pytest.mark.parametrize(
    ("text", "level", "count"),
    [
        (None, "ok", 0),
        ("{", "problem", 0),
        ('{"version": 1, "rules": [{"name": "pay"}]}', "problem", 0),
        ('{"version": 1, "rules": []}', "warning", 0),
        ('{"version": 1, "rules": [' + RULE + "]}", "ok", 1),
    ],
)
def test_rules_are_found_and_read(text: str | None, level: str, count: int, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / ".failpath").mkdir()
        (tmp_path / ".failpath" / "spans.json").write_text(text)
    finding, rules = judge_rules(None, tmp_path)
    assert (finding.level, len(rules)) == (level, count), finding
    assert (".failpath/spans.json:1" in finding.what) == (level == "problem")


def test_a_rule_for_what_is_not_declared_is_told(tmp_path: Path) -> None:
    (tmp_path / ".failpath").mkdir()
    flows = tmp_path / ".failpath" / "flows.json"
    rules = SpanRules(
        (
            SpanRule(name="a", flow="checkout", step="pay", run=["trace"]),
            SpanRule(name="b", flow="checkout", step="pya", run=["trace"]),
            SpanRule(name="c", flow="chekout", step="pay", run=["trace"]),
            SpanRule(name="d", flow=Attribute("flow"), step=Attribute("step"), run=["trace"]),
        )
    )
    assert list(judge_targets(rules, None, tmp_path)) == []
    flows.write_text('{"flows": [{"slug": "checkout", "nodes": [{"sdkStepKey": "pay"}]}]}')
    found = list(judge_targets(rules, None, tmp_path))
    assert levels(found) == [("rules", "warning")] * 2
    assert "step 'pya' of flow 'checkout'" in found[0].what
    assert "flow 'chekout'" in found[1].what
    flows.write_text("{")
    assert list(judge_targets(rules, None, tmp_path)) == []


@pytest.mark.parametrize(
    ("environ", "level", "said"),
    [
        ({}, "ok", "no sign"),
        ({"UWSGI_HTTP": ":80"}, "warning", "enable-threads"),
        ({"AWS_LAMBDA_FUNCTION_NAME": "shop"}, "warning", "AWS Lambda"),
        ({"GUNICORN_CMD_ARGS": "-w 4 --preload"}, "ok", "GUNICORN_CMD_ARGS"),
    ],
)
def test_servers_that_fork_or_freeze_are_known(environ: dict[str, str], level: str, said: str, tmp_path: Path) -> None:
    finding = one(judge_processes(environ, tmp_path, lambda name: None))
    assert (finding.level, said in finding.what) == (level, True), finding


@pytest.mark.parametrize(
    ("file", "environ", "version", "level", "said"),
    [
        ("[uwsgi]\nmodule = shop\n", {}, "2.0.31", "ok", "uwsgi.ini"),
        ("[uwsgi]\nmodule = shop\n", {}, "2.0.26", "warning", "without enable-threads"),
        ("[uwsgi]\nmodule = shop\n", {}, None, "warning", "without enable-threads"),
        ("[uwsgi]\nenable-threads = true\n", {}, "2.0.26", "ok", "uwsgi.ini"),
        ("[uwsgi]\nenable-threads = false\n", {"UWSGI_THREADS": "4"}, "2.0.26", "ok", "uwsgi.ini and the environment"),
        ("[uwsgi]\nenable-threads = false\n", {}, "2.0.26", "warning", "without enable-threads"),
        ("[uwsgi]\nskip-atexit = true\n", {}, "2.0.31", "warning", "with skip-atexit"),
        ("[uwsgi]\nskip-atexit-teardown = true\n", {}, "2.0.31", "ok", "uwsgi.ini"),
        ("", {"UWSGI_SKIP_ATEXIT": "1"}, "2.0.31", "warning", "the environment"),
    ],
)
def test_uwsgis_configuration_is_read(
    file: str, environ: dict[str, str], version: str | None, level: str, said: str, tmp_path: Path
) -> None:
    if file:
        (tmp_path / "uwsgi.ini").write_text(file)
    finding = one(judge_processes(environ, tmp_path, {"uwsgi": version}.get))
    assert (finding.level, said in finding.what) == (level, True), finding


def test_airflow_whose_tasks_end_without_exit_handlers_is_told_of(tmp_path: Path) -> None:
    finding = one(judge_processes({}, tmp_path, {"apache-airflow-core": "3.1.0"}.get))
    assert (finding.level, "flush" in finding.fix) == ("warning", True)


def test_gunicorns_configuration_is_read(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text("workers = 2\npreload_app = True\n")
    assert "gunicorn.conf.py" in one(judge_processes({}, tmp_path)).what


@pytest.mark.parametrize(
    ("environ", "version", "expected"),
    [
        ({}, "0.66b1", [("django", "warning")]),
        ({"DJANGO_SETTINGS_MODULE": "shop.settings"}, "0.66b1", [("django", "ok")]),
        ({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "flask, django"}, "0.66b1", []),
        ({}, None, []),
    ],
    ids=["no settings", "settings", "switched off", "not installed"],
)
def test_a_django_project_whose_instrumentation_finds_no_settings_is_told_of(
    environ: dict[str, str], version: str | None, expected: list[tuple[str, str]], tmp_path: Path
) -> None:
    assert levels(judge_django(environ, tmp_path, lambda name: version)) == []
    (tmp_path / "manage.py").touch()
    assert levels(judge_django(environ, tmp_path, lambda name: version)) == expected


def test_a_proxy_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://me:topsecret@proxy.example.com:8080")
    finding = judge_proxy(REMOTE)
    assert finding.what == "api.failpath.dev is reached through proxy.example.com:8080, as the environment says"
    monkeypatch.setenv("no_proxy", "api.failpath.dev")
    assert judge_proxy(REMOTE).what == "none for api.failpath.dev"
    assert "directly" in judge_proxy("http://127.0.0.1:4600").what


def test_whom_an_https_endpoint_is_trusted_by_is_shown_with_the_variables_that_cannot_be_used(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    environ = {"REQUESTS_CA_BUNDLE": "/no/such.pem", "SSL_CERT_FILE": str(authority.file)}
    passed_over, trusted = judge_trust(REMOTE, resolve({}, environ).tls, environ)
    assert passed_over.level == "warning"
    assert passed_over.what == "no certificates to trust come from REQUESTS_CA_BUNDLE=/no/such.pem: No such file or directory"
    assert trusted.what == f"the certificate of {REMOTE} is held against {authority.file}, named by SSL_CERT_FILE"
    ours = {**environ, "FAILPATH_CERTIFICATE": str(authority.file)}
    assert "named by certificate (FAILPATH_CERTIFICATE)" in one(judge_trust(REMOTE, resolve({}, ours).tls, ours)).what
    assert list(judge_trust("http://127.0.0.1:4600", resolve({}, environ).tls, environ)) == []


@pytest.mark.parametrize(("exporter", "level"), [("none", "warning"), ("memory", "warning"), ("console", "ok")])
def test_an_exporter_without_a_destination_is_told_of(exporter: str, level: str) -> None:
    finding = judge_destination(resolve({}, {"FAILPATH_EXPORTER": exporter}))
    assert isinstance(finding, Finding)
    assert finding.level == level


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:topsecret@host:1/v1?token=topsecret#x", "https://host:1/v1"),
        ("localhost:4317", "localhost:4317"),
        ("http://[", "a URL that cannot be read"),
    ],
)
def test_addresses_are_shown_without_secrets(url: str, shown: str) -> None:
    assert without_secrets(url) == shown
