"""Ports of a machine with a network of its own, and the addresses of this host at which they are reached."""

from __future__ import annotations

import socket
from typing import Any, Protocol

from pytest_nixproc.errors import MachineError
from pytest_nixproc.values.addresses import IPV4_LOOPBACK


class AskWithHandle(Protocol):
    """A function that has the agent carry out a verb, with a file descriptor if one is given."""

    def __call__(self, verb: str, *arguments: object, handle: int | None = None) -> Any:
        """Return the verb's result; raises :class:`~pytest_nixproc.errors.MachineError` when the agent cannot."""


class PortForwards:
    """The forwarded ports of a machine: for each, a listening socket of this host, which the agent serves.

    A machine that is in this host's network needs none, and cannot be cut off.
    """

    def __init__(self, machine: str, ask: AskWithHandle, *, private_network: bool) -> None:
        self._machine = machine
        self._ask = ask
        self._private_network = private_network
        self._listeners: dict[tuple[int, str], socket.socket] = {}
        self._is_blocked = False

    def address(self, port: int, host: str) -> tuple[str, int]:
        """Return an address of this host that reaches a port of the machine, at one of the machine's addresses."""
        if not self._private_network:
            return host, port
        if (port, host) not in self._listeners:
            listener = socket.create_server((IPV4_LOOPBACK, 0))
            self._listeners[port, host] = listener
            if not self._is_blocked:
                self._ask("forward", port, host, handle=listener.fileno())
        return IPV4_LOOPBACK, int(self._listeners[port, host].getsockname()[1])

    def block(self) -> None:
        """Stop forwarding: connections are cut, and new ones stay without an answer."""
        self._refuse_shared_network()
        if not self._is_blocked:
            for port, host in self._listeners:
                self._ask("end_forward", port, host)
        self._is_blocked = True

    def unblock(self) -> None:
        """Forward again, from the same addresses."""
        self._refuse_shared_network()
        if self._is_blocked:
            self._is_blocked = False
            for (port, host), listener in self._listeners.items():
                self._ask("forward", port, host, handle=listener.fileno())

    def _refuse_shared_network(self) -> None:
        if not self._private_network:
            brief = f"machine {self._machine} cannot be cut off: it shares this host's network"
            raise MachineError(brief, remedy="give it one of its own: --nixproc-network=private")

    def drop(self) -> None:
        """Forget all forwards: the machine is gone, or is to live on without us."""
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        self._is_blocked = False
