"""The host's network: which addresses can be bound, which answer, and at which open ports are reached."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from pytest_nixproc.machines.host import Host
from pytest_nixproc.machines.parts import Network
from pytest_nixproc.testing.fake_machine import FakeMachine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere most loopback addresses are missing")

ALL_IPV4 = "0.0.0.0"  # noqa: S104 - bound for a moment, and nobody is answered
LISTENING = [
    # bound, reached at, and those of some addresses that cannot be bound beside it
    ("127.0.0.1", {"127.0.0.1", "localhost"}, {"", "127.0.0.1", "localhost", ALL_IPV4}),
    ("127.0.0.2", {"127.0.0.2"}, {"", ALL_IPV4}),
    ("::1", {"::1", "localhost"}, {"", "localhost", "::"}),
    (ALL_IPV4, {"127.0.0.1", "127.0.0.2", "localhost"}, {"", "127.0.0.1", "localhost", ALL_IPV4}),
]
ADDRESSES = ("127.0.0.1", "127.0.0.2", "::1", "localhost")


@contextmanager
def listening(host: str) -> Iterator[int]:
    """Listen on an address; yield the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        yield server.getsockname()[1]


@pytest.fixture(params=[Host, FakeMachine])
def place(request: pytest.FixtureRequest) -> Iterator[tuple[Network, ExitStack]]:
    """Return the network of the real machine, and that of the fake one; and what closes all at the end."""
    with request.param() as machine, ExitStack() as stack:
        yield machine.network, stack


def open_port(network: Network, stack: ExitStack, host: str) -> int:
    """Listen on an address of a network; return the port."""
    listen = getattr(network, "listen", None)
    if listen is None:
        return stack.enter_context(listening(host))
    listen(80, host=host)
    return 80


@pytest.mark.parametrize(("bound", "reached", "taken"), LISTENING)
def test_listening(place: tuple[Network, ExitStack], bound: str, reached: set[str], taken: set[str]) -> None:
    """A server is reached at its address, by its name, too; beside it, other addresses of the port can be bound."""
    network, stack = place
    port = open_port(network, stack, bound)
    assert {host for host in ADDRESSES if not network.connection_problem((host, port))} == reached
    assert {
        host for host in ("", "127.0.0.1", "localhost", "::", ALL_IPV4) if not network.port_is_free(port, host)
    } == taken
    assert set((network.open_ports() or {})[port]) == (reached & {bound, "127.0.0.1"})


def test_unknown_host() -> None:
    """A name that nobody knows is a reason, and no error; nor does an address matter that the machine has not."""
    network = Host().network
    assert network.connection_problem(("no-such-host.invalid", 80))
    assert network.port_is_free(9, "192.0.2.1")
