"""The network of this machine."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from pytest_nixproc.machines.host.guardian import OwnGuardian
from pytest_nixproc.machines.listeners import (
    listeners,
    listeners_by_netstat,
    listeners_by_psutil,
    listening_sockets,
)
from pytest_nixproc.machines.parts import Network
from pytest_nixproc.machines.shielding import verb
from pytest_nixproc.values.addresses import LOOPBACKS, bound_to, is_known, open_ports, reached_at
from pytest_nixproc.values.machine import Listener

CONNECT_SECONDS: Final = 1.0


class HostNetwork(Network):
    """The network that the tests are in."""

    def __init__(self, guardian: OwnGuardian) -> None:
        self._guardian = guardian

    @verb
    def listeners(self, likely: Iterable[int] = (), wanted: Container[int] | None = None) -> list[Listener]:
        """Return the listening sockets; the kernel is asked for these alone where it can filter them."""
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                return listeners(likely, self._guardian.pids, wanted)
        platform: str = sys.platform
        return listeners_by_netstat() if platform == "cygwin" else listeners_by_psutil()

    @verb
    def open_ports(self) -> Mapping[int, Sequence[str]] | None:
        """Return the open ports where the kernel lists them; elsewhere, each process would have to be asked."""
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                bound = listening_sockets(["tcp"]).values()
                return open_ports(((item.port, item.host) for item in bound), self._loopbacks)
        return None

    @cached_property
    def _loopbacks(self) -> tuple[str, ...]:
        """The loopback addresses that this machine has: in many containers, there is none of IPv6."""
        return tuple(host for host in LOOPBACKS if bind_error(host, 0) != errno.EADDRNOTAVAIL)

    @verb
    def port_is_free(self, port: int, host: str = "") -> bool:
        """Tell whether the port can be bound as servers bind it, with SO_REUSEADDR.

        An address, or a family, that the machine lacks does not matter.
        """
        return all(bind_error(address, port) != errno.EADDRINUSE for address in bound_to(host))

    @verb
    def connection_problem(self, address: tuple[str, int] | str) -> str:
        """Connect, and close without a reset; return why the connection fails, or an empty text.

        A reset would spare a TIME_WAIT entry, but many servers log it as an error.
        """
        if isinstance(address, str):
            return connection_problem(socket.AF_UNIX, address)
        try:
            places = list(resolved(*address))
        except OSError as error:
            return error.strerror or str(error)
        reason = ""
        for family, place in places:
            if not (problem := connection_problem(family, place)):
                return ""
            reason = reason or problem
        return reason

    def is_shared_with(self, pid: int) -> bool:
        """Tell whether a process has our network namespace (namespaces(7)); where there are none, all share one."""
        try:
            return os.stat(f"/proc/{pid}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino
        except OSError:
            return True


def family_of(host: str) -> socket.AddressFamily:
    """Return the family of an address."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def resolved(host: str, port: int) -> Iterator[tuple[int, Any]]:
    """Yield the families and places to connect to for a host; raises ``OSError`` for an unknown one."""
    if is_known(host):
        yield from ((family_of(address), (address, port)) for address in reached_at(host))
    else:
        for family, _, _, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            yield family, place


def connection_problem(family: int, place: Any) -> str:
    """Connect to a place of an address family; return why that fails, or an empty text."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_SECONDS)
        try:
            probe.connect(place)
        except OSError as error:
            return error.strerror or str(error)
    return ""


def bind_error(host: str, port: int) -> int:
    """Return the number of the error with which a server would fail that binds an address; 0 if it would not."""
    family = family_of(host)
    try:
        probe = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        return errno.EADDRNOTAVAIL
    with probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno or errno.EADDRNOTAVAIL
    return 0
