"""A request while it is served: the context that its run and its step are current in, and how the step ends."""

from __future__ import annotations

import http
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from contextvars import Token
from functools import lru_cache
from types import TracebackType
from typing import TypeVar, cast

from opentelemetry import context as otel_context
from opentelemetry.context import Context

from failpath_otel.errors import DeliveryError
from failpath_otel.propagation.current import detach
from failpath_otel.steps.execution import Execution

T = TypeVar("T")


class Served:
    """Within ``with``, the run of the request is current, and its step where the request is one.

    May be entered as often as there are parts of an answer, by whichever thread or task makes them. An exception that leaves a
    part ends the step. It ends once, by whoever comes first, and that touches nobody's context: the last byte may be sent deep
    within the application.
    """

    def __init__(self, context: Context, execution: Execution | None) -> None:
        self.is_step = execution is not None
        self._context = context
        self._open = [] if execution is None else [execution]
        self._tokens: list[Token[Context]] = []

    def __enter__(self) -> None:
        self._tokens.append(otel_context.attach(self._context))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        detach(self._tokens.pop())
        # Not by which iterators say that there is no more.
        if error is not None and not isinstance(error, StopIteration | StopAsyncIteration):
            self.end(error)

    async def started(self) -> None:
        """Sends the step's start, where ``delivery="await"`` wants that before the application goes on."""
        for execution in self._open:
            await execution.send_start()

    def end(self, error: BaseException | None = None) -> None:
        """Ends the step, as ``error`` where there is one. Later calls do nothing."""
        execution = self._taken()
        if execution is not None:
            with suppress(DeliveryError):  # raise_on_send_error is for the service's own calls
                execution.finish(error)

    async def aend(self, error: BaseException | None = None) -> None:
        """`end` without holding up the event loop."""
        execution = self._taken()
        if execution is not None:
            with suppress(DeliveryError):
                await execution.finish_async(error)

    def _taken(self) -> Execution | None:
        try:
            return self._open.pop()
        except IndexError:  # it has ended, perhaps in another thread just now
            return None


Judge = Callable[[BaseException | None], BaseException | None]
"""What the step's error is, by the exception that left the application, or by the answer where there is none."""


class Parts(Iterator[T]):
    """An answer that is made while it is sent, each part of it within the run. The step ends when there is no more.

    Also where the client has gone, of which servers tell by `close`, or by dropping what they do not need any more.
    """

    def __init__(self, served: Served, parts: Iterable[T], judge: Judge) -> None:
        self._served = served
        self._given = parts
        self._judge = judge
        self._parts: Iterator[T] | None = None

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._served:
            try:
                if self._parts is None:
                    self._parts = iter(self._given)
                return next(self._parts)
            except StopIteration:
                self._served.end(self._judge(None))
                raise
            except BaseException as error:
                self._served.end(self._judge(error))
                raise

    def close(self) -> None:
        """Closes what makes the parts, and ends the step."""
        close = cast("Callable[[], object] | None", getattr(self._given, "close", None))
        if close is not None:
            with self._served:
                close()
        self._served.end(self._judge(None))

    def __del__(self) -> None:
        self._served.end(self._judge(None))


class AsyncParts(AsyncIterator[T]):
    """`Parts` of an asynchronous iterable."""

    def __init__(self, served: Served, parts: AsyncIterable[T], judge: Judge) -> None:
        self._served = served
        self._given = parts
        self._judge = judge
        self._parts: AsyncIterator[T] | None = None

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        with self._served:
            try:
                if self._parts is None:
                    self._parts = aiter(self._given)
                return await anext(self._parts)
            except StopAsyncIteration:
                await self._served.aend(self._judge(None))
                raise
            except BaseException as error:
                await self._served.aend(self._judge(error))
                raise

    def close(self) -> None:
        """Ends the step; what makes the parts closes by itself, or in the event loop."""
        self._served.end(self._judge(None))

    def __del__(self) -> None:
        self.close()


def failure_of(status: int | None) -> Exception | None:
    """What a status says of the service: 500 and above that it failed, named ``HTTP 503``; all else is an answer."""
    if status is None or status < 500:
        return None
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:  # one of the application's own
        phrase = ""
    return named_failure(f"HTTP {status}", phrase)


def named_failure(name: str, message: str) -> Exception:
    """A failure that no exception of the application tells of, under a name of ours."""
    return _kind(name)(message)


@lru_cache(maxsize=256)
def _kind(name: str) -> type[Exception]:
    # An error's name is that of its type, and its module would stand before it on the span.
    return type(name, (Exception,), {"__module__": "builtins"})
