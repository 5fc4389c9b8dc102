"""Options and the environment, read once: argument > environment > default."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from failpath_otel.endpoint import (
    DEFAULT_ENDPOINT,
    Tls,
    check_identity,
    checked_certificate,
    checked_endpoint,
    checked_file,
    checked_project_key,
    is_loopback,
)
from failpath_otel.errors import ConfigError
from failpath_otel.rules.discovery import FromEnvironment
from failpath_otel.rules.rule import SpanRule, SpanRules

DELIVERIES: Final = ("background", "await")
EXPORTERS: Final = ("http", "otlp", "console", "jsonl", "memory", "none")

ACCEPT_INCOMING_VARIABLE: Final = "FAILPATH_ACCEPT_INCOMING"
"""No option of the client: who calls is a matter of each place where requests come in."""

_MAX_COUNT: Final = 2**31 - 1
"""More milliseconds than a socket's timeout can take would fail at each request."""
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True)
class Option:
    """One option of the client, declared here and nowhere else.

    The signatures of `FailpathClient` and `FailpathSpanProcessor`, their docstrings, `Options` and the table in
    ``docs/configuration.md`` say the same again, each for its own readers; a test holds them to this.

    Attributes:
        type: What an argument may be, as the signatures write it; they take ``None`` besides, for "not given".
        env: The environment variable, if it has one.
        check: Makes a value of an argument or a variable usable; takes the name under which it was given, and the value.
        doc: What it does, in one line.
        of_processor: Whether a span processor that stands on its own takes it, too.
    """

    name: str
    type: str
    env: str | None
    default: Any
    check: Callable[[str, Any], Any]
    doc: str
    of_processor: bool = False


@dataclass(frozen=True)
class Options:
    """Every option, resolved and checked."""

    project_key: str | None
    endpoint: str
    certificate: str | None
    client_certificate: str | None
    client_key: str | None
    enabled: bool
    default_metadata: Mapping[str, Any]
    capture_stack: bool
    delivery: Literal["background", "await"]
    raise_on_send_error: bool
    send_timeout_millis: int
    max_queue_size: int
    on_error: Callable[..., object] | None
    on_drop: Callable[..., object] | None
    mask: Callable[..., Any] | None
    exporter: Any
    tracer_provider: Any
    flows: Any
    metadata_on_spans: bool
    propagate: bool
    rules: Any
    record_unsampled: bool

    @property
    def sends_to_remote(self) -> bool:
        """Whether events go by HTTP, with a project key, to a host that is not this machine."""
        return self.exporter == "http" and not is_loopback(self.endpoint)

    @property
    def tls(self) -> Tls:
        """Whom events by HTTP trust, and who they come from."""
        return Tls(self.certificate, self.client_certificate, self.client_key)


def resolve(given: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Options:
    """The options from arguments (``None`` stands for "not given"), the environment and the defaults.

    Raises:
        ConfigError: A value cannot be used; the message names the option or variable, the value, and what is allowed.
    """
    return Options(**_resolved(OPTIONS, given, os.environ if environ is None else environ))


def resolve_tls(environ: Mapping[str, str] | None = None) -> Tls:
    """Whom commands of ours trust, and who they are: what `resolve` finds, without a look at the other options.

    Raises:
        ConfigError: A variable cannot be used.
    """
    options = [option for option in OPTIONS if option.name in ("certificate", "client_certificate", "client_key")]
    return Tls(**_resolved(options, {}, os.environ if environ is None else environ))


def _resolved(options: Iterable[Option], given: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    names: dict[str, str] = {}
    for option in options:
        value, names[option.name] = given.get(option.name), option.name
        if value is None and option.env is not None:
            value = environ.get(option.env, "").strip() or None
            names[option.name] = option.env if value else f"{option.name} ({option.env})"
        values[option.name] = option.default if value is None else option.check(names[option.name], value)
    certificate, key = ((names[name], values[name]) for name in ("client_certificate", "client_key"))
    check_identity(certificate, key)
    return values


def accepts_incoming(given: Any, environ: Mapping[str, str] | None = None) -> bool:
    """Whether requests may go on with the run that their caller names: as given, else by the environment, else yes.

    Raises:
        ConfigError: The argument or the variable is neither true nor false.
    """
    if given is not None:
        return _flag("accept_incoming", given)
    text = (os.environ if environ is None else environ).get(ACCEPT_INCOMING_VARIABLE, "").strip()
    return _flag(ACCEPT_INCOMING_VARIABLE, text) if text else True


def _flag(name: str, value: Any) -> bool:
    text = str(value).lower() if isinstance(value, str | int) else ""
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ConfigError(f"{name} must be true or false, got {value!r}")


def _count(minimum: int) -> Callable[[str, Any], int]:
    def check(name: str, value: Any) -> int:
        try:
            number = int(value)
            whole = number == float(value) and not isinstance(value, bool)
        except (TypeError, ValueError, OverflowError):
            number, whole = 0, False
        if not whole:
            raise ConfigError(f"{name} must be a whole number, got {value!r}")
        if number < minimum:
            raise ConfigError(f"{name} must be at least {minimum}, got {number}")
        if number > _MAX_COUNT:
            raise ConfigError(f"{name} must be at most {_MAX_COUNT}, got {number}")
        return number

    return check


def _one_of(choices: tuple[str, ...]) -> Callable[[str, Any], str]:
    def check(name: str, value: Any) -> str:
        if isinstance(value, str) and value.lower() in choices:
            return value.lower()
        raise ConfigError(f"{name} must be one of {', '.join(choices)}, got {value!r}")

    return check


def _metadata(name: str, value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return cast(Mapping[str, Any], value)
    if isinstance(value, str):
        pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
        if all(separator and key.strip() for key, separator, _ in pairs):
            return {key.strip(): text.strip() for key, _, text in pairs}
    raise ConfigError(f"{name} must be a mapping, or text such as region=eu,tier=gold, got {value!r}")


def _callable(name: str, value: Any) -> Callable[..., Any]:
    if not callable(value):
        raise ConfigError(f"{name} must be callable, got {value!r}")
    return cast(Callable[..., Any], value)


def _exporter(name: str, value: Any) -> Any:
    if isinstance(value, str):
        kind, _, argument = value.partition(":")
        if kind.lower() == "jsonl" and argument:
            return f"jsonl:{argument}"
        return _one_of(EXPORTERS)(name, value)
    if callable(getattr(value, "export", None)) and callable(getattr(value, "close", None)):
        return value
    choices = ", ".join(EXPORTERS)
    raise ConfigError(f"{name} must be one of {choices}, or an object with export() and close(), got {value!r}")


def _provider(name: str, value: Any) -> Any:
    if callable(getattr(value, "get_tracer", None)):
        return value
    raise ConfigError(f"{name} must be an OpenTelemetry tracer provider with get_tracer(), got {value!r}")


def _flows(name: str, value: Any) -> Any:
    if value is False or isinstance(value, str | os.PathLike) or hasattr(value, "by_slug"):
        return cast("Any", value)
    raise ConfigError(f"{name} must be the path of a flows.json, a Flows object, or False, got {value!r}")


def _rules(name: str, value: Any) -> Any:
    if name == "FAILPATH_RULES":
        return False if value.lower() in _FALSE else FromEnvironment(value)
    listed = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    if isinstance(value, SpanRules) or (listed and all(isinstance(rule, SpanRule) for rule in cast("Sequence[Any]", value))):
        return cast("Any", value)
    if value is False or (isinstance(value, str | os.PathLike) and os.fspath(cast("Any", value))):
        return cast("Any", value)
    raise ConfigError(f"{name} must be the path of a spans.json, SpanRules, a list of SpanRule, or False, got {value!r}")


OPTIONS: Final = (
    Option(
        "project_key",
        "str",
        "FAILPATH_PROJECT_KEY",
        None,
        checked_project_key,
        "The project's key. Without one nothing goes to a remote host; an endpoint on loopback needs none.",
        of_processor=True,
    ),
    Option(
        "endpoint",
        "str",
        "FAILPATH_DEV_ENDPOINT",
        DEFAULT_ENDPOINT,
        checked_endpoint,
        "Base URL that takes the events.",
        of_processor=True,
    ),
    Option(
        "certificate",
        "str | os.PathLike[str]",
        "FAILPATH_CERTIFICATE",
        None,
        checked_certificate,
        "PEM file of the authorities to trust at an https endpoint, in place of all others.",
        of_processor=True,
    ),
    Option(
        "client_certificate",
        "str | os.PathLike[str]",
        "FAILPATH_CLIENT_CERTIFICATE",
        None,
        checked_file,
        "PEM file of a certificate of our own, for an endpoint that demands one; its key may be in it.",
        of_processor=True,
    ),
    Option(
        "client_key",
        "str | os.PathLike[str]",
        "FAILPATH_CLIENT_KEY",
        None,
        checked_file,
        "PEM file of that certificate's key, without a passphrase.",
        of_processor=True,
    ),
    Option(
        "enabled",
        "bool",
        "FAILPATH_ENABLED",
        True,
        _flag,
        "False: functions still run, no span is opened and nothing is sent.",
        of_processor=True,
    ),
    Option(
        "default_metadata",
        "Mapping[str, Any]",
        "FAILPATH_DEFAULT_METADATA",
        {},
        _metadata,
        "Metadata of every event; run and step metadata win over it. In the environment as `key=value,key=value`.",
        of_processor=True,
    ),
    Option(
        "capture_stack", "bool", "FAILPATH_CAPTURE_STACK", False, _flag, "Send the traceback with errors.", of_processor=True
    ),
    Option(
        "delivery",
        'Literal["background", "await"]',
        "FAILPATH_DELIVERY",
        "background",
        _one_of(DELIVERIES),
        "`background` sends from a thread; `await` sends each event before the call goes on.",
    ),
    Option(
        "raise_on_send_error",
        "bool",
        "FAILPATH_RAISE_ON_SEND_ERROR",
        False,
        _flag,
        "Raise `DeliveryError` when sending fails: from `flush()`, or with `await` after the step's function.",
    ),
    Option(
        "send_timeout_millis",
        "int",
        "FAILPATH_SEND_TIMEOUT_MILLIS",
        1500,
        _count(0),
        "How long one request may take; 0: no limit.",
        of_processor=True,
    ),
    Option(
        "max_queue_size",
        "int",
        "FAILPATH_MAX_QUEUE_SIZE",
        20_000,
        _count(1),
        "How many events may wait or be in flight; beyond it events are dropped by rank and counted.",
        of_processor=True,
    ),
    Option(
        "on_error",
        "Callable[[Exception], object]",
        None,
        None,
        _callable,
        "Called with the exception of each failed attempt to send, from the worker's thread.",
        of_processor=True,
    ),
    Option(
        "on_drop",
        "Callable[[StepEvent, DropReason], object]",
        None,
        None,
        _callable,
        "Called with each dropped event and the reason.",
        of_processor=True,
    ),
    Option(
        "mask",
        "Callable[[StepEvent], StepEvent]",
        None,
        None,
        _callable,
        "Called with each event before it leaves; returns the event that may leave. Spans are not masked.",
        of_processor=True,
    ),
    Option(
        "exporter",
        "str | EventExporter",
        "FAILPATH_EXPORTER",
        "http",
        _exporter,
        "`http`, `otlp`, `console`, `jsonl` (or `jsonl:PATH`), `memory`, `none` (spans only), or an exporter object.",
        of_processor=True,
    ),
    Option(
        "tracer_provider",
        "TracerProvider",
        None,
        None,
        _provider,
        "The tracer provider to open spans with; without one, the global one of the moment.",
    ),
    Option(
        "flows",
        "str | os.PathLike[str] | Flows | Literal[False]",
        "FAILPATH_FLOWS",
        None,
        _flows,
        "Path of flows.json, to warn of unknown keys; without one it is looked for from the working directory "
        "up. `strict` (or `strict:PATH`): unknown keys raise. False: none.",
    ),
    Option("metadata_on_spans", "bool", "FAILPATH_METADATA_ON_SPANS", True, _flag, "Put metadata on the spans too."),
    Option(
        "propagate",
        "bool",
        "FAILPATH_PROPAGATE",
        True,
        _flag,
        "Put flow and run id of the current run into W3C baggage, so that the services called go on with the run.",
    ),
    Option(
        "rules",
        "str | os.PathLike[str] | SpanRules | Sequence[SpanRule] | Literal[False]",
        "FAILPATH_RULES",
        None,
        _rules,
        "Which spans of others are steps: path of spans.json, or rules; without it `.failpath/spans.json` is "
        "looked for from the working directory up. False: none.",
        of_processor=True,
    ),
    Option(
        "record_unsampled",
        "bool",
        "FAILPATH_RECORD_UNSAMPLED",
        False,
        _flag,
        "Have spans recorded, not exported, that the sampler drops and that could be steps; see `RecordingSampler`.",
    ),
)
"""Every option of `FailpathClient`, in the order of its signature."""
