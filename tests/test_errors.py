"""The exception tree."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from failpath_otel import errors

CLASSES = {name: kind for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)}


def drawn() -> list[tuple[int, str]]:
    """Depth and name of each class in the picture of the module's docstring."""
    lines = re.findall(r"^ {4}([│├└─ ]*)(\w+Error)\b", errors.__doc__ or "", re.MULTILINE)
    return [(len(lead) // 4, name) for lead, name in lines]


def test_the_picture_shows_every_class_under_its_base() -> None:
    above: list[str] = []
    for depth, name in drawn():
        del above[depth:]
        bases = {base.__name__ for base in CLASSES[name].__mro__[1:]}
        assert set(above) <= bases
        assert bases & set(CLASSES) == set(above)
        above.append(name)
    assert {name for _, name in drawn()} == set(CLASSES)


@pytest.mark.parametrize("kind", [errors.ConfigError, errors.EventError])
def test_what_a_value_causes_is_a_value_error_too(kind: type[Exception]) -> None:
    assert issubclass(kind, ValueError)


def test_a_retryable_error_carries_the_seconds_to_wait() -> None:
    assert errors.RetryableError("busy").retry_after is None
    assert errors.RetryableError("busy", retry_after=2.5).retry_after == 2.5


def test_a_rejection_tells_how_many_and_the_first_reason() -> None:
    error = errors.RejectedError({"e1": "no flow", "e2": "no run"})
    assert str(error) == "2 events rejected; the first, e1: no flow"
    assert error.rejected == {"e1": "no flow", "e2": "no run"}


@pytest.mark.parametrize("error", [errors.RejectedError({"e1": "no flow"}), errors.RetryableError("busy", retry_after=1)])
def test_errors_survive_a_way_through_another_process(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
