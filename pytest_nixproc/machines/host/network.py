"""The network of this machine."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Container, Iterable
from typing import Final

from pytest_nixproc.machines import process_table
from pytest_nixproc.machines.host.guardian import OwnGuardian
from pytest_nixproc.machines.listeners import listeners, listeners_by_netstat, listeners_by_psutil
from pytest_nixproc.machines.parts import Network
from pytest_nixproc.values.machine import Listener

CONNECT_SECONDS: Final = 1.0
WILDCARDS: Final = ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"))  # noqa: S104 - bound for a moment, never listened on


class HostNetwork(Network):
    """The network that the tests are in."""

    def __init__(self, guardian: OwnGuardian) -> None:
        self._guardian = guardian

    def listeners(self, likely: Iterable[int] = (), wanted: Container[int] | None = None) -> list[Listener]:
        """Return the listening sockets; the kernel is asked for these alone where it can filter them."""
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                likely, guardian = list(likely), self._guardian.running
                # Likely processes that are older than our guardian are another one's, and can hold any socket.
                is_ours = guardian and (not likely or ticks(likely[0]) >= ticks(guardian.process.pid))
                older = self._guardian.older_sockets if is_ours else frozenset()
                return listeners(likely, self._guardian.pids, older, wanted)
        platform: str = sys.platform
        return listeners_by_netstat() if platform == "cygwin" else listeners_by_psutil()

    def port_is_free(self, port: int) -> bool:
        """Tell whether the port can be bound on the wildcard addresses, as servers bind it (with SO_REUSEADDR)."""
        return all(can_bind(family, address, port) for family, address in WILDCARDS)

    def connection_problem(self, address: tuple[str, int] | str) -> str:
        """Connect, and close without a reset; return why the connection fails, or an empty text.

        A reset would spare a TIME_WAIT entry, but many servers log it as an error.
        """
        family = (
            socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        )
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(CONNECT_SECONDS)
            try:
                probe.connect(address)
            except OSError as error:
                return error.strerror or str(error)
        return ""

    def is_shared_with(self, pid: int) -> bool:
        """Tell whether a process has our network namespace (namespaces(7)); where there are none, all share one."""
        try:
            return os.stat(f"/proc/{pid}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino
        except OSError:
            return True


def ticks(pid: int) -> int:
    """Return when a process started; 0 for one that is gone."""
    return int(process_table.start_time(pid) or 0)


def can_bind(family: socket.AddressFamily, address: str, port: int) -> bool:
    """Tell whether a server could bind the port; a family that the machine lacks does not matter."""
    try:
        probe = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        return True
    with probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True
