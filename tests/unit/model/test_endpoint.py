"""Endpoints, and the addresses that they are bound to and reached at."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from pytest_nixproc.model.endpoint import Endpoint
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.values.addresses import canonical, is_known, leads_to, open_ports, url_of

WEB = create_managed_process(name="web", process="/bin/web")
ALL_IPV4 = "0.0.0.0"  # noqa: S104 - recognised, not listened on


@pytest.mark.parametrize("text", ["tcp 80", "udp 53", "tcp 127.0.0.1:80", "udp ::1:53"])
def test_endpoint_as_text(text: str) -> None:
    """An endpoint that is read from its text has the same one, and meets itself."""
    endpoint = Endpoint.read(text)
    assert endpoint.text == text
    assert endpoint.meets(Endpoint.read(text))


@pytest.mark.parametrize(
    ("host", "address", "wildcard"),
    [
        ("", "", ""),
        ("*", "", "*"),
        (ALL_IPV4, "", ALL_IPV4),
        ("::", "", "::"),
        ("127.0.0.2", "127.0.0.2", ""),
        ("[::1]", "::1", ""),
        ("0:0:0:0:0:0:0:1", "::1", ""),
        ("::ffff:127.0.0.1", "127.0.0.1", ""),
        ("fe80::1%lo", "fe80::1%lo", ""),
        ("localhost", "localhost", ""),
        ("web.local", "web.local", ""),
    ],
)
def test_declared_address(host: str, address: str, wildcard: str) -> None:
    """What an instance says of an address is that address, as it is usually written, or how all of them are meant."""
    (endpoint,) = Instance(WEB, port=80, bind_address=host).endpoints
    assert endpoint == Endpoint("port", 80, "tcp", address, wildcard)


@pytest.mark.parametrize(
    ("host", "reachable", "hosts"),
    [
        ("127.0.0.2", None, ["127.0.0.2"]),
        ("127.0.0.2", ["127.0.0.1"], ["127.0.0.2"]),
        (ALL_IPV4, ["::1", "127.0.0.1"], ["127.0.0.1"]),
        ("::", None, ["::1", "127.0.0.1"]),
        ("::", ["127.0.0.1", "::1"], ["::1", "127.0.0.1"]),
        ("::", ["127.0.0.1"], ["127.0.0.1"]),
        ("::", [], ["::1"]),
        ("localhost", ["::1", "127.0.0.2"], ["::1"]),
        ("localhost", [], ["127.0.0.1"]),
        ("", None, ["127.0.0.1", "::1"]),
        ("", [], ["127.0.0.1"]),
        ("", ["127.0.0.1", "::1"], ["127.0.0.1", "::1"]),
        ("", ["10.0.0.7", "127.0.0.2", "::1"], ["::1", "10.0.0.7", "127.0.0.2"]),
        ("web.local", ["127.0.0.2"], ["127.0.0.2"]),
        ("127.0.0.1:80", ["127.0.0.1"], ["127.0.0.1"]),
    ],
)
def test_hosts(host: str, reachable: Collection[str] | None, hosts: list[str]) -> None:
    """An answer is expected at the address that is declared; where none is, wherever the port can be reached."""
    assert list(Endpoint.declared("port", 80, "tcp", host).hosts(reachable)) == hosts


@pytest.mark.parametrize(
    ("host", "bound", "is_served"),
    [
        ("127.0.0.2", "127.0.0.2", True),
        ("127.0.0.2", "127.0.0.1", False),
        ("127.0.0.2", ALL_IPV4, True),
        ("::1", "*", True),
        ("localhost", "127.0.0.1", True),
        ("localhost", "::1", True),
        ("localhost", "127.0.0.2", False),
        ("fe80::1%lo", "fe80::1", True),
        ("", "127.0.0.2", True),
        ("::", "127.0.0.2", True),
        ("web.local", "127.0.0.2", True),
    ],
)
def test_sockets_of_an_endpoint(host: str, bound: str, *, is_served: bool) -> None:
    """A socket is an endpoint's if it is bound to its address, or to all; where nothing is said, any is."""
    assert Endpoint.declared("port", 80, "tcp", host).is_served_at(bound) is is_served


def test_own_endpoints() -> None:
    """The endpoint of a URL is that of ``port``, or the only one of TCP; one port may be on several addresses."""
    assert Instance(WEB, port=80, x_port=81, udp_port=53).main_endpoint == Endpoint("port", 80)
    assert Instance(WEB, x_port=81, udp_port=53).main_endpoint == Endpoint("x_port", 81)
    assert Instance(WEB, x_port=81, y_port=82).main_endpoint is None
    twice = Instance(WEB, a_port=80, a_bind_ip="127.0.0.2", b_port=80, b_bind_ip="127.0.0.3", udp_port=80)
    assert [endpoint.address for endpoint in twice.endpoints_of(80)] == ["127.0.0.2", "127.0.0.3"]
    assert twice.endpoints_of(81) == ()


@pytest.mark.parametrize(
    ("host", "bound", "leads"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", ALL_IPV4, True),
        ("::1", ALL_IPV4, False),
        ("127.0.0.1", "::", False),
        ("::1", "::", True),
        ("127.0.0.1", "*", True),
        ("::1", "*", True),
        ("[::1]", "0:0:0:0:0:0:0:1", True),
    ],
)
def test_addresses_that_lead_to_a_socket(host: str, bound: str, *, leads: bool) -> None:
    """A socket on all addresses of a family is reached at those of this family, any other at its own alone."""
    assert leads_to(host, bound) is leads


def test_open_ports() -> None:
    """A port is reached at the addresses of all its sockets, and at the loopback addresses that there are."""
    bound = [(80, "127.0.0.2"), (80, "::1"), (81, "*"), (82, "::"), (83, ALL_IPV4)]
    assert open_ports(bound) == {
        80: ("127.0.0.2", "::1"),
        81: ("127.0.0.1", "::1"),
        82: ("::1",),
        83: ("127.0.0.1",),
    }
    assert open_ports([(81, "*"), (82, "::")], ["127.0.0.1"]) == {81: ("127.0.0.1",), 82: ()}


def test_texts_of_addresses() -> None:
    """An IPv6 address stands in brackets in a URL; what is no address is left as it is, and known by its meaning."""
    assert [url_of(host, 80) for host in ("127.0.0.1", "::1", "fe80::1%lo", "web.local")] == [
        "http://127.0.0.1:80",
        "http://[::1]:80",
        "http://[fe80::1%25lo]:80",
        "http://web.local:80",
    ]
    assert [canonical(text) for text in ("[::1]", "::FFFF:10.0.0.1", "eth0")] == ["::1", "10.0.0.1", "eth0"]
    assert [is_known(text) for text in ("", "*", "localhost", "::1", "10.0.0.1", "eth0", "10.0.0.1:80")] == [
        *(True, True, True, True, True, False, False)
    ]
