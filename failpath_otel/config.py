"""Options and the environment, read once: argument > environment > default."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

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
from failpath_otel.option_values import (
    checked_callable,
    checked_count,
    checked_exporter,
    checked_flag,
    checked_flows,
    checked_metadata,
    checked_one_of,
    checked_provider,
    checked_rules,
)

DELIVERIES: Final = ("background", "await")

ACCEPT_INCOMING_VARIABLE: Final = "FAILPATH_ACCEPT_INCOMING"
"""No option of the client: who calls is a matter of each place where requests come in."""


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
        return checked_flag("accept_incoming", given)
    text = (os.environ if environ is None else environ).get(ACCEPT_INCOMING_VARIABLE, "").strip()
    return checked_flag(ACCEPT_INCOMING_VARIABLE, text) if text else True


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
        checked_flag,
        "False: functions still run, no span is opened and nothing is sent.",
        of_processor=True,
    ),
    Option(
        "default_metadata",
        "Mapping[str, Any]",
        "FAILPATH_DEFAULT_METADATA",
        {},
        checked_metadata,
        "Metadata of every event; run and step metadata win over it. In the environment as `key=value,key=value`.",
        of_processor=True,
    ),
    Option(
        "capture_stack",
        "bool",
        "FAILPATH_CAPTURE_STACK",
        False,
        checked_flag,
        "Send the traceback with errors.",
        of_processor=True,
    ),
    Option(
        "delivery",
        'Literal["background", "await"]',
        "FAILPATH_DELIVERY",
        "background",
        checked_one_of(DELIVERIES),
        "`background` sends from a thread; `await` sends each event before the call goes on.",
    ),
    Option(
        "raise_on_send_error",
        "bool",
        "FAILPATH_RAISE_ON_SEND_ERROR",
        False,
        checked_flag,
        "Raise `DeliveryError` when sending fails: from `flush()`, or with `await` after the step's function.",
    ),
    Option(
        "send_timeout_millis",
        "int",
        "FAILPATH_SEND_TIMEOUT_MILLIS",
        1500,
        checked_count(0),
        "How long one request may take; 0: no limit.",
        of_processor=True,
    ),
    Option(
        "max_queue_size",
        "int",
        "FAILPATH_MAX_QUEUE_SIZE",
        20_000,
        checked_count(1),
        "How many events may wait or be in flight; beyond it events are dropped by rank and counted.",
        of_processor=True,
    ),
    Option(
        "on_error",
        "Callable[[Exception], object]",
        None,
        None,
        checked_callable,
        "Called with the exception of each failed attempt to send, from the worker's thread.",
        of_processor=True,
    ),
    Option(
        "on_drop",
        "Callable[[StepEvent, DropReason], object]",
        None,
        None,
        checked_callable,
        "Called with each dropped event and the reason.",
        of_processor=True,
    ),
    Option(
        "mask",
        "Callable[[StepEvent], StepEvent]",
        None,
        None,
        checked_callable,
        "Called with each event before it leaves; returns the event that may leave. Spans are not masked.",
        of_processor=True,
    ),
    Option(
        "exporter",
        "str | EventExporter",
        "FAILPATH_EXPORTER",
        "http",
        checked_exporter,
        "`http`, `otlp`, `console`, `jsonl` (or `jsonl:PATH`), `memory`, `none` (spans only), or an exporter object.",
        of_processor=True,
    ),
    Option(
        "tracer_provider",
        "TracerProvider",
        None,
        None,
        checked_provider,
        "The tracer provider to open spans with; without one, the global one of the moment.",
    ),
    Option(
        "flows",
        "str | os.PathLike[str] | Flows | Literal[False]",
        "FAILPATH_FLOWS",
        None,
        checked_flows,
        "Path of flows.json, to warn of unknown keys; without one it is looked for from the working directory "
        "up. `strict` (or `strict:PATH`): unknown keys raise. False: none.",
    ),
    Option("metadata_on_spans", "bool", "FAILPATH_METADATA_ON_SPANS", True, checked_flag, "Put metadata on the spans too."),
    Option(
        "propagate",
        "bool",
        "FAILPATH_PROPAGATE",
        True,
        checked_flag,
        "Put flow and run id of the current run into W3C baggage, so that the services called go on with the run.",
    ),
    Option(
        "rules",
        "str | os.PathLike[str] | SpanRules | Sequence[SpanRule] | Literal[False]",
        "FAILPATH_RULES",
        None,
        checked_rules,
        "Which spans of others are steps: path of spans.json, or rules; without it `.failpath/spans.json` is "
        "looked for from the working directory up. False: none.",
        of_processor=True,
    ),
    Option(
        "record_unsampled",
        "bool",
        "FAILPATH_RECORD_UNSAMPLED",
        False,
        checked_flag,
        "Have spans recorded, not exported, that the sampler drops and that could be steps; see `RecordingSampler`.",
    ),
)
"""Every option of `FailpathClient`, in the order of its signature."""
