"""Addresses that sockets are bound to, and those at which they are reached from the machine that they are on."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from ipaddress import IPv6Address, ip_address
from typing import Final

IPV4_LOOPBACK: Final = "127.0.0.1"
IPV6_LOOPBACK: Final = "::1"
LOOPBACKS: Final = (IPV4_LOOPBACK, IPV6_LOOPBACK)
LOCALHOST: Final = "localhost"
"""The name of either loopback address; no resolver is asked for it (RFC 6761)."""

DUAL_STACK: Final = "*"
"""All addresses of both families, as ss(8) writes it; ``::`` are those of IPv6 alone then."""

ALL_IPV4: Final = "0.0.0.0"  # noqa: S104 - recognised, not listened on
ALL_IPV6: Final = "::"

REACHED_AT: Final = {
    "": LOOPBACKS,
    DUAL_STACK: LOOPBACKS,
    LOCALHOST: LOOPBACKS,
    ALL_IPV4: (IPV4_LOOPBACK,),
    ALL_IPV6: (IPV6_LOOPBACK, IPV4_LOOPBACK),
}
"""The addresses that stand for others, with those at which they are reached, the likeliest first."""

ANY_ADDRESS: Final = frozenset(REACHED_AT) - {LOCALHOST}
WILDCARDS: Final = (ALL_IPV4, ALL_IPV6)


@cache
def canonical(host: str) -> str:
    """Return an address as the kernel writes it, without brackets and zone; what is no address is left as it is.

    An IPv4 address that is written as one of IPv6 is one of IPv4: the sockets are the same.
    """
    try:
        address = ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


@cache
def is_known(host: str) -> bool:
    """Tell whether a text says where a socket is bound: an address, or a name that always means the same."""
    if host in REACHED_AT:
        return True
    try:
        ip_address(canonical(host))
    except ValueError:
        return False
    return True


def reached_at(host: str) -> tuple[str, ...]:
    """Return the addresses at which a socket is reached that is bound to ``host``."""
    return REACHED_AT.get(host, (host,))


def bound_to(host: str) -> tuple[str, ...]:
    """Return the addresses that a server may bind which is told ``host``; all where that says nothing."""
    if host == LOCALHOST:
        return LOOPBACKS
    return WILDCARDS if host in ("", DUAL_STACK) or not is_known(host) else (host,)


def leads_to(host: str, bound: str) -> bool:
    """Tell whether a connection to an address reaches a socket that is bound to another one, or to all."""
    if bound in ANY_ADDRESS:
        return bound in ("", DUAL_STACK) or (bound == ALL_IPV6) == (":" in host)
    return canonical(host) == canonical(bound)


def open_ports(bound: Iterable[tuple[int, str]], loopbacks: Iterable[str] = LOOPBACKS) -> dict[int, tuple[str, ...]]:
    """Return the ports of some sockets, each with the addresses at which it is reached.

    ``bound`` are their ports and the addresses that they are bound to, ``loopbacks`` the loopback addresses there are.
    """
    found: dict[int, dict[str, None]] = {}
    for port, own in bound:
        hosts = (host for host in (*loopbacks, own) if host not in ANY_ADDRESS and leads_to(host, own))
        found.setdefault(port, {}).update(dict.fromkeys(hosts))
    return {port: tuple(hosts) for port, hosts in found.items()}


def url_of(host: str, port: int) -> str:
    """Return the URL of a server; an IPv6 address stands in brackets, the mark of its zone is quoted (RFC 6874)."""
    return f"http://[{host.replace('%', '%25')}]:{port}" if ":" in host else f"http://{host}:{port}"
