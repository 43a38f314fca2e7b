"""Ports for tests, so that they can run beside other tests and beside a system that uses the usual ports."""

from __future__ import annotations

import random
import socket

# Below the ports from which systems take the client ends of connections (Linux and IANA: 32768 and 49152 upwards).
CANDIDATES = range(10000, 32000)


def free_port_block(count: int) -> int:
    """Return the first of ``count`` successive TCP ports that are free now."""
    starts = random.SystemRandom().sample(CANDIDATES, 1000)
    return next(start for start in starts if all(is_free(port) for port in range(start, start + count)))


def is_free(port: int) -> bool:
    """Tell whether a server could listen on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
