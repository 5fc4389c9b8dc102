"""Every option: argument > environment > default; and each bad value says its name, itself, and the way out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from failpath_otel import ConfigError, FailpathClient
from failpath_otel.config import OPTIONS, is_loopback, resolve
from failpath_otel.exporters import MemoryExporter

DEFAULTS: dict[str, Any] = {
    "project_key": None,
    "endpoint": "https://api.failpath.dev",
    "certificate": None,
    "client_certificate": None,
    "client_key": None,
    "enabled": True,
    "default_metadata": {},
    "capture_stack": False,
    "delivery": "background",
    "raise_on_send_error": False,
    "send_timeout_millis": 1500,
    "max_queue_size": 20_000,
    "on_error": None,
    "on_drop": None,
    "mask": None,
    "exporter": "http",
    "tracer_provider": None,
    "flows": None,
    "metadata_on_spans": True,
    "propagate": True,
    "rules": None,
    "record_unsampled": False,
}

# Option: the text of its variable, what that means, and an argument that differs from it.
GIVEN: dict[str, tuple[str, Any, Any]] = {
    "project_key": ("fp_env", "fp_env", "fp_arg"),
    "endpoint": ("http://env.test/base/", "http://env.test/base", "http://arg.test:81"),
    "enabled": ("off", False, True),
    "default_metadata": ("region=eu, tier = gold", {"region": "eu", "tier": "gold"}, {"region": "us"}),
    "capture_stack": ("YES", True, False),
    "delivery": ("Await", "await", "background"),
    "raise_on_send_error": ("1", True, False),
    "send_timeout_millis": ("0", 0, 250),
    "max_queue_size": ("1", 1, 5),
    "exporter": ("console", "console", "memory"),
    "flows": ("some/flows.json", "some/flows.json", "other.json"),
    "metadata_on_spans": ("no", False, True),
    "propagate": ("no", False, True),
    "rules": ("some/spans.json", "some/spans.json", "other.json"),
    "record_unsampled": ("yes", True, False),
}


def value_of(name: str, given: Mapping[str, Any], environ: Mapping[str, str]) -> Any:
    return getattr(resolve(given, environ), name)


def test_the_defaults() -> None:
    assert {option.name: getattr(resolve({}, {}), option.name) for option in OPTIONS} == DEFAULTS


def test_every_option_with_a_variable_is_held_here() -> None:
    # Files, which have to be there: test_tls.py.
    files = {"certificate", "client_certificate", "client_key"}
    assert {option.name for option in OPTIONS if option.env} - files == set(GIVEN)


@pytest.mark.parametrize("name", GIVEN)
def test_argument_wins_over_environment_over_default(name: str) -> None:
    text, meaning, argument = GIVEN[name]
    variable = next(option.env for option in OPTIONS if option.name == name)
    assert variable is not None
    assert value_of(name, {}, {variable: text}) == meaning
    assert value_of(name, {}, {variable: f"  {text}  "}) == meaning
    assert value_of(name, {name: argument}, {variable: text}) == argument
    assert value_of(name, {name: None}, {variable: text}) == meaning
    assert value_of(name, {}, {variable: "  "}) == DEFAULTS[name]


def test_variables_are_named_after_their_options() -> None:
    names = {option.name: option.env for option in OPTIONS if option.env}
    assert names.pop("endpoint") == "FAILPATH_DEV_ENDPOINT"
    assert names == {name: f"FAILPATH_{name.upper()}" for name in names}


BAD: list[tuple[str, Any]] = [
    ("project_key", 5),
    ("project_key", "fp key"),
    ("project_key", "fp_\nkey"),
    ("project_key", "schlüssel"),
    ("endpoint", ""),
    ("endpoint", "api.failpath.dev"),
    ("endpoint", "ftp://host"),
    ("endpoint", "http://"),
    ("endpoint", "http://host:99999"),
    ("endpoint", "http://host:x"),
    ("endpoint", "http://[::1"),
    ("endpoint", "http://a b"),
    ("endpoint", "http://host/?token=1"),
    ("endpoint", "http://host/#part"),
    ("endpoint", "http://user:secret@host"),
    ("endpoint", 7),
    ("enabled", "maybe"),
    ("enabled", 2),
    ("enabled", []),
    ("default_metadata", 5),
    ("default_metadata", "region"),
    ("default_metadata", "=eu"),
    ("capture_stack", "sometimes"),
    ("delivery", "sync"),
    ("delivery", True),
    ("raise_on_send_error", "x"),
    ("send_timeout_millis", -1),
    ("send_timeout_millis", "soon"),
    ("send_timeout_millis", 1.5),
    ("send_timeout_millis", True),
    ("send_timeout_millis", float("inf")),
    ("send_timeout_millis", float("nan")),
    ("send_timeout_millis", 10**12),
    ("max_queue_size", 0),
    ("max_queue_size", "many"),
    ("on_error", "print"),
    ("on_drop", 3),
    ("mask", {}),
    ("exporter", "carrier-pigeon"),
    ("exporter", 5),
    ("exporter", {}),
    ("tracer_provider", {}),
    ("flows", 5),
    ("flows", True),
    ("metadata_on_spans", "x"),
    ("propagate", "x"),
    ("rules", 5),
    ("record_unsampled", "x"),
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=repr)
def test_a_bad_argument_names_the_option_and_the_way_out(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({name: value}, {})
    message = str(caught.value)
    assert message.startswith(f"{name} ")
    assert " must " in message or "copy the key again" in message
    if name != "project_key" and "secret" not in str(value):
        assert repr(value) in message or str(value) in message or f"got {type(value).__name__}" in message
    assert "secret" not in message
    assert isinstance(caught.value, ValueError)


IN_ENVIRONMENT = [
    (name, value) for name, value in BAD if isinstance(value, str) and value and name in GIVEN and name != "flows"
]


@pytest.mark.parametrize(("name", "value"), IN_ENVIRONMENT, ids=repr)
def test_a_bad_variable_names_the_variable(name: str, value: str) -> None:
    variable = next(option.env for option in OPTIONS if option.name == name)
    assert variable is not None
    with pytest.raises(ConfigError, match=f"^{variable} "):
        resolve({}, {variable: value})


def test_the_key_is_never_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({"project_key": "fp secret"}, {})
    assert "fp" not in str(caught.value)


def test_an_empty_key_is_none() -> None:
    assert resolve({"project_key": ""}, {"FAILPATH_PROJECT_KEY": "fp_env"}).project_key is None


@pytest.mark.parametrize("text", ["1", "true", "TRUE", "yes", "on", 1, True])
def test_what_counts_as_true(text: Any) -> None:
    assert resolve({"capture_stack": text}, {}).capture_stack is True


@pytest.mark.parametrize("text", ["0", "false", "False", "no", "off", 0, False])
def test_what_counts_as_false(text: Any) -> None:
    assert resolve({"enabled": text}, {}).enabled is False


def test_an_exporter_object_is_taken_as_it_is() -> None:
    exporter = MemoryExporter()
    assert resolve({"exporter": exporter}, {}).exporter is exporter


def test_a_path_may_follow_jsonl(tmp_path: Path) -> None:
    assert resolve({"exporter": f"JSONL:{tmp_path}/a:b"}, {}).exporter == f"jsonl:{tmp_path}/a:b"


def test_the_environment_is_read_at_construction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILPATH_MAX_QUEUE_SIZE", "zero")
    with pytest.raises(ConfigError, match=r"FAILPATH_MAX_QUEUE_SIZE must be a whole number, got 'zero'"):
        FailpathClient(flows=False)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("http://127.0.0.1:8787", True),
        ("http://localhost", True),
        ("http://shop.localhost/x", True),
        ("http://[::1]:1", True),
        ("http://127.255.255.254", True),
        ("http://localhost.example.com", False),
        ("http://notlocalhost", False),
        ("http://0.0.0.0", False),
        ("http://192.168.0.1", False),
        ("https://api.failpath.dev", False),
    ],
)
def test_what_counts_as_loopback(endpoint: str, expected: bool) -> None:
    assert is_loopback(endpoint) is expected
