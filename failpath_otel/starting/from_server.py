"""The flows that a running server knows, those among them that no file declares."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import requests

from failpath_otel.config import resolve_tls
from failpath_otel.endpoint import checked_endpoint, is_loopback
from failpath_otel.errors import ConfigError
from failpath_otel.flows import Edge, Flow, Node

TIMEOUT_SECONDS: Final = 10.0
_MAX_BYTES: Final = 16 * 1024 * 1024


class _Node(msgspec.Struct, rename="camel"):
    step_key: str
    label: str


class _Flow(msgspec.Struct):
    slug: str
    name: str
    nodes: list[_Node]
    edges: list[Edge]


class _Flows(msgspec.Struct):
    flows: list[_Flow]


def flows_of_server(url: str, token: str | None) -> list[Flow]:
    """The flows as ``/api/flows`` tells them: steps of a flow that is not declared in the order in which they first came.

    Raises:
        ConfigError: A certificate of the environment cannot be used; or the server cannot be reached, wants another token, or
            answers otherwise.
    """
    address = checked_endpoint("--from-server", url) + "/api/flows"
    try:
        answer = msgspec.json.decode(_read(address, token), type=_Flows)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise ConfigError(f"{address} answers otherwise than a failpath-otel server does: {error}") from error
    return [
        Flow(flow.slug, flow.name, tuple(Node(node.step_key, node.label) for node in flow.nodes), tuple(flow.edges))
        for flow in answer.flows
    ]


def _read(address: str, token: str | None) -> bytes:
    headers = {"Accept": "application/json"}
    tls = resolve_tls()
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        with requests.Session() as session:
            # What is on this machine is not behind a proxy, and ~/.netrc is not to take the token's place.
            session.trust_env = not is_loopback(address)
            session.auth = _as_it_is
            answer: Any = session.get(
                address,
                headers=headers,
                timeout=TIMEOUT_SECONDS,
                allow_redirects=False,
                stream=True,
                verify=tls.trust().path,
                cert=tls.identity,
            )
            body: bytes = answer.raw.read(_MAX_BYTES, decode_content=True)
    except (requests.RequestException, OSError) as error:
        raise ConfigError(f"{address} cannot be reached: {error}") from error
    if answer.status_code in (401, 403):
        raise ConfigError(f"{address} wants the reader's token: --token, or FAILPATH_TOKEN")
    if answer.status_code != 200:
        raise ConfigError(f"{address} answered {answer.status_code}; give the address of the page of a failpath-otel server")
    return body


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
