"""Who is found to hold a listening socket: this very process, looked for in different ways."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Container, Iterator

import pytest

from pytest_nixproc.machines import listeners as listening
from pytest_nixproc.machines import process_table
from pytest_nixproc.machines.listeners import listeners, listening_sockets
from pytest_nixproc.values.machine import Listener

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel cannot be asked")


@pytest.fixture
def port() -> Iterator[int]:
    """Return a port that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(params=["children", "whole table"])
def offspring(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have offspring looked for in both ways."""
    if request.param == "children" and not process_table.HAS_CHILDREN:
        pytest.skip("this kernel does not list children")
    monkeypatch.setattr(process_table, "HAS_CHILDREN", request.param == "children")


def holder(port: int, likely: list[int], starter: list[int], wanted: Container[int] | None) -> int | None:
    """Return who holds a port, as far as it is looked for."""
    (found,) = (item for item in listeners(likely, starter, wanted) if item.port == port)
    assert found.host == "127.0.0.1"
    return found.pid


def test_likely_process(port: int) -> None:
    """A likely process is looked at in any case."""
    assert holder(port, [os.getpid()], [], ()) == os.getpid()


@pytest.mark.usefixtures("offspring")
def test_offspring(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a wanted port the children of likely processes are looked at, and then those of the starter."""
    monkeypatch.setattr(listening, "all_processes", list)
    assert holder(port, [os.getppid()], [], {port}) == os.getpid()
    assert holder(port, [], [os.getppid()], {port}) == os.getpid()
    assert holder(port, [], [], {port}) is None


def test_nobody_is_looked_at_in_vain(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the likely processes hold all that is wanted, no others are looked at."""
    monkeypatch.setattr(listening, "offspring", lambda _: pytest.fail("others are looked at"))
    assert holder(port, [os.getpid()], [os.getppid()], {port}) == os.getpid()
    assert holder(port, [], [os.getppid()], ()) is None


def test_strangers_are_looked_at_for_wanted_ports(port: int) -> None:
    """All processes are looked at for a port that is wanted, and for all ports where none are named."""
    assert holder(port, [], [], {port}) == os.getpid()
    assert holder(port, [], [], None) == os.getpid()


@pytest.mark.parametrize(
    ("family", "host", "ipv6_only", "seen"),
    [
        (socket.AF_INET, "127.0.0.2", 0, "127.0.0.2"),
        (socket.AF_INET, "0.0.0.0", 0, "0.0.0.0"),  # noqa: S104 - for a moment, and nobody is answered
        (socket.AF_INET6, "::1", 1, "::1"),
        (socket.AF_INET6, "::", 1, "::"),
        (socket.AF_INET6, "::", 0, "*"),
        (socket.AF_INET6, "::ffff:127.0.0.1", 0, "127.0.0.1"),
    ],
)
def test_address(family: int, host: str, ipv6_only: int, seen: str) -> None:
    """A socket's address is its own; one of IPv6 that has IPv4, too, is told from one that has not."""
    with socket.socket(family) as server:
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, ipv6_only)
        server.bind((host, 0))
        server.listen()
        port = server.getsockname()[1]
        assert [item.host for item in listening_sockets().values() if item.port == port] == [seen]


def test_datagrams() -> None:
    """A UDP socket that waits for anybody is listed, and one that is connected to somebody is not."""
    with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
        server.bind(("127.0.0.1", 0))
        client.connect(server.getsockname())
        ports = {server.getsockname()[1], client.getsockname()[1]}
        found = [item for item in listeners([os.getpid()], [], ()) if item.port in ports]
        assert found == [Listener("127.0.0.1", server.getsockname()[1], os.getpid(), "udp")]


def test_process_that_is_gone() -> None:
    """A process that does not exist has no offspring, and nothing is known of it."""
    gone = 1 << 23
    assert process_table.offspring([gone]) == set()
    assert (process_table.stat_fields(gone), process_table.environment_of(gone)) == ([], b"")
