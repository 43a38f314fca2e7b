"""Listening TCP sockets, unconnected UDP sockets, and the processes that hold them.

On Linux the kernel is asked for listening sockets alone (sock_diag(7)): its other tables list every connection that is
waiting to be forgotten, and reading them grows with what anybody has done on the machine in the last minute.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple

from pytest_nixproc.machines.process_table import all_processes, offspring, read_facts
from pytest_nixproc.values.addresses import ALL_IPV6, DUAL_STACK, canonical
from pytest_nixproc.values.machine import Listener, Protocol

NETLINK_SOCK_DIAG: Final = 4  # <linux/netlink.h>
SOCK_DIAG_BY_FAMILY: Final = 20  # <linux/sock_diag.h>
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
REQUEST_DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
STATES: Final[Mapping[Protocol, tuple[int, int]]] = {
    "tcp": (socket.IPPROTO_TCP, 1 << 10),
    "udp": (socket.IPPROTO_UDP, 1 << 7),
}
"""The kernel's states of listening sockets (<net/tcp_states.h>): TCP_LISTEN; of UDP, unconnected, TCP_CLOSE."""

V6ONLY: Final = 11  # INET_DIAG_SKV6ONLY of <linux/inet_diag.h>
HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr
QUERY: Final = struct.Struct("=BBBBI48x")  # struct inet_diag_req_v2, the socket's identity left open
SOCKET: Final = struct.Struct("=4x2s2x16s44xI")  # struct inet_diag_msg, of it: port, address, inode
ATTRIBUTE: Final = struct.Struct("=HH")  # struct rtattr
RECEIVE_BYTES: Final = 1 << 16


class Address(NamedTuple):
    """The address of a listening socket."""

    host: str
    port: int
    protocol: Protocol = "tcp"

    def held_by(self, pid: int | None) -> Listener:
        """Return the address as a listener, together with the process that holds it."""
        return Listener(self.host, self.port, pid, self.protocol)


def listening_sockets(protocols: Iterable[Protocol] = tuple(STATES)) -> dict[int, Address]:
    """Return the address of every listening socket, by its inode; raises ``OSError`` where the kernel cannot tell."""
    found: dict[int, Address] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
        for name in protocols:
            protocol, state = STATES[name]
            for family in (socket.AF_INET, socket.AF_INET6):
                query = QUERY.pack(family, protocol, 0, 0, state)
                kernel.send(HEADER.pack(HEADER.size + len(query), SOCK_DIAG_BY_FAMILY, REQUEST_DUMP, 0, 0) + query)
                for message in answers(kernel):
                    port, address, inode = SOCKET.unpack_from(message)
                    found[inode] = Address(host_of(family, address, message), int.from_bytes(port), name)
    return found


def host_of(family: socket.AddressFamily, address: bytes, message: bytes) -> str:
    """Return the address that a socket is bound to, as :func:`~pytest_nixproc.values.addresses.canonical` does.

    A socket on all addresses of IPv6 has those of IPv4, too, unless it says otherwise.
    """
    if family == socket.AF_INET:
        return socket.inet_ntop(family, address[:4])
    host = canonical(socket.inet_ntop(family, address))
    return DUAL_STACK if host == ALL_IPV6 and not is_ipv6_only(message) else host


def is_ipv6_only(message: bytes) -> bool:
    """Tell whether the attributes of a socket say that it is for IPv6 alone (ipv6(7), IPV6_V6ONLY)."""
    start = SOCKET.size
    while start + ATTRIBUTE.size <= len(message):
        length, kind = ATTRIBUTE.unpack_from(message, start)
        if kind == V6ONLY:
            return bool(message[start + ATTRIBUTE.size])
        start += max(length + 3 & ~3, ATTRIBUTE.size)
    return False


def answers(kernel: socket.socket) -> Iterator[bytes]:
    """Yield the bodies of the messages that answer a query."""
    while True:
        data = kernel.recv(RECEIVE_BYTES)
        while data:
            length, kind, *_ = HEADER.unpack_from(data)
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                raise OSError("the kernel refuses to list sockets")
            yield data[HEADER.size : length]
            data = data[(length + 3) & ~3 :]


def inodes_of(pid: int) -> Iterator[int]:
    """Yield the inodes of a process's sockets; nothing for processes that we may not look at."""
    with suppress(OSError):
        for entry in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                target = os.readlink(f"/proc/{pid}/fd/{entry}")
                if target.startswith("socket:["):
                    yield int(target[8:-1])


def listeners(likely: Iterable[int], starter: Iterable[int], wanted: Container[int] | None) -> list[Listener]:
    """Return all listening sockets with their processes, as far as those are wanted.

    The likely processes are looked at, and as long as any of the wanted ports is left, or all are wanted, first their
    offspring, then that of the starter, and then everybody.
    """
    sockets = listening_sockets()
    likely = list(likely)
    found = list(held_by(likely, sockets))
    for others in (partial(offspring, likely), partial(offspring, starter), all_processes):
        if any(wanted is None or address.port in wanted for address in sockets.values()):
            found += held_by(others(), sockets)
    return found + [address.held_by(None) for address in sockets.values()]


def listeners_by_psutil() -> list[Listener]:
    """Return all listening sockets where the kernel cannot be asked for them alone.

    macOS shows ordinary users only what their own processes hold, and only when it is asked about each of them.
    """
    import psutil

    try:
        found = {heard(item, item.pid) for item in psutil.net_connections("inet") if is_listening(item)}
    except psutil.AccessDenied:
        found = set()
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                connections = process.net_connections("inet")
                found |= {heard(item, process.pid) for item in connections if is_listening(item)}
    return list(found)


def listeners_by_netstat() -> list[Listener]:
    """Return all listening sockets of Windows, where Cygwin's interpreter has no psutil."""
    with os.popen("netstat -a -n -o -p TCP; netstat -a -n -o -p TCPv6") as lines:  # noqa: S605, S607 - a fixed command
        printed = lines.read()
    # Windows has numbers of its own for Cygwin's processes.
    numbers = {pid: read_facts(f"/proc/{pid}/winpid").strip() for pid in all_processes()}
    return list(read_netstat(printed, {int(number): pid for pid, number in numbers.items() if number.isdigit()}))


def read_netstat(text: str, pids: Mapping[int, int]) -> Iterator[Listener]:
    """Yield the listeners in the output of netstat of Windows: listening and unconnected sockets.

    The word for their state is translated.
    """
    for line in text.splitlines():
        protocol, *fields = line.split() or [""]
        if protocol == "TCP" and len(fields) == 4 and fields[1] in ("0.0.0.0:0", "[::]:0"):
            host, _, port = fields[0].rpartition(":")
            yield Listener(host.strip("[]"), int(port), pids.get(int(fields[3])))


def is_listening(connection: Any) -> bool:
    """Tell whether a connection of psutil's is a socket that listens, or is unconnected."""
    is_open = connection.status == "LISTEN" or (connection.type == socket.SOCK_DGRAM and not connection.raddr)
    return is_open and bool(connection.laddr)


def heard(connection: Any, pid: int | None) -> Listener:
    """Return a connection of psutil's as a listener."""
    host, port = connection.laddr
    return Listener(canonical(host), port, pid, "udp" if connection.type == socket.SOCK_DGRAM else "tcp")


def held_by(pids: Iterable[int], sockets: dict[int, Address]) -> Iterator[Listener]:
    """Yield the sockets that processes hold, and take them out of ``sockets``."""
    for pid in pids:
        for inode in inodes_of(pid):
            if inode in sockets:
                yield sockets.pop(inode).held_by(pid)
