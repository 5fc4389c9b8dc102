"""Ports for programs that have to be told one."""

from __future__ import annotations

import random
import socket

# Systems give ports above these to whoever asks for any, and to each outgoing connection. One of those could be taken before
# the program listens there, or while it is down.
_BELOW_THE_EPHEMERAL = range(20_000, 32_000)
# Not the generator that Hypothesis seeds: every worker of a parallel run would draw the same.
_random = random.SystemRandom()
_given: set[int] = set()


def free_port() -> int:
    """A port of loopback that nobody listens on, and that nobody comes to by chance."""
    for port in _random.sample(_BELOW_THE_EPHEMERAL, 1000):
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise AssertionError("no free port was found in a thousand attempts")
