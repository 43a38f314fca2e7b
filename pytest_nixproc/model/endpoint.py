"""Endpoints: the ports that instances declare, and the addresses that they are bound to."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal, Self

from pytest_nixproc.values.addresses import ANY_ADDRESS, LOOPBACKS, canonical, is_known, leads_to, reached_at
from pytest_nixproc.values.value import Value

ADDRESSES: Final = ("bind_address", "bind_ip", "listen_address", "listen_host", "address")
"""Attributes that hold the address on which an instance listens; ``http_bind_ip`` is that of ``http_port`` alone."""


class Endpoint(Value):
    """A port that an instance declares."""

    value_path: str
    """Path of the attribute that declares the port; empty where it is not known."""

    port: int
    protocol: Literal["tcp", "udp"] = "tcp"
    address: str = ""
    """Address that the port is bound to; empty for all addresses."""

    wildcard: str = ""
    """How all addresses are declared, such as ``::``; empty where nothing is said about them."""

    @property
    def text(self) -> str:
        """The endpoint for people and journals: ``tcp 80``, ``tcp 127.0.0.1:80``."""
        return f"{self.protocol} {f'{self.address}:' if self.address else ''}{self.port}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Return an endpoint from its text, which does not name the attribute that declares it."""
        protocol, _, rest = text.partition(" ")
        address, _, port = rest.rpartition(":")
        return cls("", int(port), "udp" if protocol == "udp" else "tcp", address)

    @classmethod
    def declared(cls, value_path: str, port: int, protocol: Literal["tcp", "udp"], host: str) -> Self:
        """Return an endpoint that is declared on an address, on all of them, or with nothing said about that."""
        if host in ANY_ADDRESS:
            return cls(value_path, port, protocol, wildcard=host)
        # With a zone, it is an address of one link only.
        return cls(value_path, port, protocol, host.strip("[]") if "%" in host else canonical(host))

    def meets(self, other: Endpoint) -> bool:
        """Tell whether two endpoints conflict: they have one port and protocol, and an address in common."""
        is_same_port = (self.protocol, self.port) == (other.protocol, other.port)
        return is_same_port and (self.address == other.address or not self.address or not other.address)

    def is_served_at(self, bound: str) -> bool:
        """Tell whether a socket on its port that is bound to ``bound`` can be the one that is meant.

        An address that says nothing, like the name of a machine, may be any.
        """
        if bound in ANY_ADDRESS or not self.address or not is_known(self.address):
            return True
        return any(leads_to(host, bound) for host in reached_at(self.address))

    def hosts(self, reachable: Collection[str] | None) -> tuple[str, ...]:
        """Return the addresses at which to expect its answer, the likeliest first; there is always one.

        ``reachable`` are those at which its port can be reached, whoever listens there; None where that is not known.
        Where its own address says nothing, it may be any of them.
        """
        declared = self.address or self.wildcard
        likely = reached_at(declared if is_known(declared) else "")
        if reachable is None:
            return likely
        says_nothing = not declared or not is_known(declared)
        others = sorted(set(reachable) - set(LOOPBACKS)) if says_nothing else ()
        return tuple(host for host in (*likely, *others) if host in reachable) or likely[:1]
