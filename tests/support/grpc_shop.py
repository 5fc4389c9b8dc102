"""A gRPC service over real sockets, of threads and of asyncio. What a request says is what becomes of its call."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


def _decide(how: str, context: Any) -> None:
    if how == "raises":
        raise ValueError("declined")
    if how.startswith("sets "):
        context.set_code(grpc.StatusCode[how.removeprefix("sets ")])
        context.set_details("as it was told")


def _handlers(behaviors: dict[str, Any]) -> Any:
    methods = {kind: getattr(grpc, f"{kind}_rpc_method_handler")(behaviors[kind]) for kind in KINDS}
    return grpc.method_handlers_generic_handler("shop.Stock", methods)


def threaded_handlers(look_up: Callable[[], object]) -> Any:
    """Functions and generators."""

    def answer(how: str, context: Any) -> bytes:
        look_up()
        if how.startswith("aborts "):
            context.abort(grpc.StatusCode[how.removeprefix("aborts ")], "as it was told")
        _decide(how, context)
        return b"done"

    def unary(request: bytes, context: Any) -> bytes:
        return answer(request.decode(), context)

    def stream(request: bytes, context: Any) -> Iterator[bytes]:
        look_up()
        yield b"first"
        while request == b"endless":
            yield b"x" * 1000
        yield answer(request.decode(), context)

    def stream_of_stream(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield from stream(b"".join(requests), context)

    return _handlers(
        {
            "unary_unary": unary,
            "unary_stream": stream,
            "stream_unary": lambda requests, context: unary(b"".join(requests), context),
            "stream_stream": stream_of_stream,
        },
    )


def asyncio_handlers(look_up: Callable[[], object]) -> Any:
    """Coroutine functions and asynchronous generators."""

    async def answer(how: str, context: Any) -> bytes:
        look_up()
        if how.startswith("aborts "):
            await context.abort(grpc.StatusCode[how.removeprefix("aborts ")], "as it was told")
        _decide(how, context)
        return b"done"

    async def unary(request: bytes, context: Any) -> bytes:
        return await answer(request.decode(), context)

    async def stream(request: bytes, context: Any) -> Any:
        look_up()
        yield b"first"
        while request == b"endless":
            yield b"x" * 1000
        yield await answer(request.decode(), context)

    async def unary_of_stream(requests: Any, context: Any) -> bytes:
        return await unary(b"".join([part async for part in requests]), context)

    async def stream_of_stream(requests: Any, context: Any) -> Any:
        async for part in stream(b"".join([part async for part in requests]), context):
            yield part

    return _handlers(
        {
            "unary_unary": unary,
            "unary_stream": stream,
            "stream_unary": unary_of_stream,
            "stream_stream": stream_of_stream,
        },
    )


@contextmanager
def threaded_server(handlers: Any, interceptors: Sequence[Any]) -> Iterator[str]:
    """Serves in threads; gives the address."""
    server = grpc.server(ThreadPoolExecutor(4), handlers=[handlers], interceptors=interceptors)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(5).wait(60)


@contextmanager
def asyncio_server(handlers: Any, interceptors: Sequence[Any]) -> Iterator[str]:
    """Serves in an event loop of its own; gives the address."""
    address: list[str] = []
    up, over = threading.Event(), threading.Event()

    async def main() -> None:
        server = grpc.aio.server(handlers=[handlers], interceptors=interceptors)
        address.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        await server.start()
        up.set()
        await asyncio.to_thread(over.wait)
        await server.stop(5)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert up.wait(60)
        yield address[0]
    finally:
        over.set()
        thread.join(60)


def call(channel: Any, kind: str, how: str, metadata: Any = None) -> list[bytes]:
    """What the call of this kind answers."""
    of = getattr(channel, kind)(f"/shop.Stock/{kind}")
    request: Any = iter([how.encode()]) if kind.startswith("stream") else how.encode()
    answer = of(request, metadata=metadata, timeout=60)
    return list(answer) if kind.endswith("stream") else [answer]


async def acall(channel: Any, kind: str, how: str) -> list[bytes]:
    """The same with a channel of asyncio."""
    of = getattr(channel, kind)(f"/shop.Stock/{kind}")
    request: Any = iter([how.encode()]) if kind.startswith("stream") else how.encode()
    answer = of(request, timeout=60)
    return [part async for part in answer] if kind.endswith("stream") else [await answer]
