"""Who is found to hold a listening socket: this very process, looked for in different ways."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Container, Iterator
from collections.abc import Set as AbstractSet

import pytest

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


def holder(
    port: int,
    likely: list[int],
    starter: list[int],
    wanted: Container[int] | None,
    older: AbstractSet[int] = frozenset(),
) -> int | None:
    """Return who holds a port, as far as it is looked for."""
    (found,) = (item for item in listeners(likely, starter, older, wanted) if item.port == port)
    assert found.host == "127.0.0.1"
    return found.pid


def test_likely_process(port: int) -> None:
    """A likely process is looked at in any case."""
    assert holder(port, [os.getpid()], [], ()) == os.getpid()


@pytest.mark.usefixtures("offspring")
def test_offspring(port: int) -> None:
    """So are the children of likely processes, and those of the starter."""
    assert holder(port, [os.getppid()], [], ()) == os.getpid()
    assert holder(port, [], [os.getppid()], ()) == os.getpid()


def test_strangers_are_looked_at_for_wanted_ports(port: int) -> None:
    """All processes are looked at for a port that is wanted, and for all ports where none are named."""
    assert holder(port, [], [], {port}) == os.getpid()
    assert holder(port, [], [], None) == os.getpid()


def test_strangers_are_not_looked_at_for_other_ports(port: int) -> None:
    """Who holds a port that nobody wants to know of is left out."""
    assert holder(port, [], [], ()) is None


def test_older_sockets(port: int) -> None:
    """The offspring of a starter is not looked at for sockets that are older, but for each new one."""
    older = listening_sockets().keys()
    assert holder(port, [], [os.getppid()], (), older) is None
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert holder(server.getsockname()[1], [], [os.getppid()], (), older) == os.getpid()


def test_datagrams() -> None:
    """A UDP socket that waits for anybody is listed, and one that is connected to somebody is not."""
    with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
        server.bind(("127.0.0.1", 0))
        client.connect(server.getsockname())
        ports = {server.getsockname()[1], client.getsockname()[1]}
        found = [item for item in listeners([os.getpid()], [], frozenset(), ()) if item.port in ports]
        assert found == [Listener("127.0.0.1", server.getsockname()[1], os.getpid(), "udp")]


def test_process_that_is_gone() -> None:
    """A process that does not exist has no offspring, and nothing is known of it."""
    gone = 1 << 23
    assert process_table.offspring([gone]) == set()
    assert (process_table.stat_fields(gone), process_table.environment_of(gone)) == ([], b"")
