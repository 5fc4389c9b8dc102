"""The exception tree.

::

    FailpathError
    ├── ConfigError (also ValueError)    an option or a file that cannot be used; raised at construction
    ├── EventError (also ValueError)     an event or span that breaks the contract; carries the reason
    ├── UnknownKeyError (also ValueError) a flow or step that flows.json does not know; only with ``flows="strict"``
    ├── DeliveryError                    what ``raise_on_send_error`` asks for
    └── ExportError                      what exporters raise to report failure
        ├── RetryableError               try again, after ``retry_after`` seconds where that is known
        ├── RejectedError                some events of the batch were refused, the others were taken
        ├── BatchRefusedError            the batch was refused as it is; one event of it may be the reason
        └── UnauthorizedError            the destination refuses the project key, or the batch as if by its key
"""

from __future__ import annotations

from collections.abc import Mapping


class FailpathError(Exception):
    """The base of every exception that this package raises."""


class ConfigError(FailpathError, ValueError):
    """An option, an environment variable or a file that cannot be used.

    The message names the option, the value that was given, and the way out.
    """


class EventError(FailpathError, ValueError):
    """An event, span or log record that breaks the contract; ``str(error)`` is the reason."""


class UnknownKeyError(FailpathError, ValueError):
    """A flow or step that flows.json does not know. Raised only where ``flows="strict"`` asks for it, before anything runs.

    The message names the key, the file and the nearest key that is known.
    """


class DeliveryError(FailpathError):
    """Events could not be delivered. Raised only where ``raise_on_send_error=True`` asks for it."""


class ExportError(FailpathError):
    """An exporter could not deliver a batch, and trying again would not help."""


class RetryableError(ExportError):
    """An exporter could not deliver a batch now; the batch is held and tried again.

    Args:
        message: What happened.
        retry_after: Seconds for which the destination asked not to be called; ``None`` leaves it to the backoff.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RejectedError(ExportError):
    """The destination refused some events for good and took the rest of the batch.

    Args:
        rejected: Event id → the reason for which it was refused.
    """

    def __init__(self, rejected: Mapping[str, str]) -> None:
        first = next(iter(rejected.items()), ("", "no reason given"))
        super().__init__(f"{len(rejected)} events rejected; the first, {first[0]}: {first[1]}")
        self.rejected = dict(rejected)

    def __reduce__(self) -> tuple[type[RejectedError], tuple[dict[str, str]]]:
        # The default would call the class with the message, and an exporter's failure may cross a process.
        return type(self), (self.rejected,)


class BatchRefusedError(ExportError):
    """The destination refused a batch for what is in it, without saying which event; parts of it may be taken."""


class UnauthorizedError(ExportError):
    """The destination answers as it does to a wrong project key (401 or 403).

    Where the exporter has ``probe``, an empty batch tells whether it is the key or something in the batch. While it is the
    key, events are dropped, and it is asked again after 30 s, then after twice as long each time up to 10 min.
    """
