"""The contract of a machine."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import ClassVar, Self, TypeVar

from pytest_nixproc.errors import MachineError
from pytest_nixproc.machines.parts import AccountDatabase, Lifecycle
from pytest_nixproc.machines.verbs import Verbs
from pytest_nixproc.values.addresses import IPV4_LOOPBACK
from pytest_nixproc.values.machine import MachineSpec

Result = TypeVar("Result")


class Machine(Verbs):
    """A machine that systems run on: its parts, for drivers and deployments, and the verbs that tests use.

    Each kind of machine makes its parts, all of them, in its constructor, and says its facts; it has the verbs then.
    """

    name: ClassVar[str]
    throwaway: ClassVar[bool] = False
    """Whether the machine is made for a system and gone with it: then anything may be done to it."""

    accounts: AccountDatabase
    lifecycle: Lifecycle

    def __init__(self, spec: MachineSpec | None = None) -> None:
        self.spec = spec or MachineSpec()

    def __enter__(self) -> Self:
        """Return the machine, for the time of a ``with`` block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the machine."""
        self.lifecycle.close()

    @classmethod
    def unavailable_reason(cls) -> str:
        """Return why no such machine is available here, with the remedy, or an empty text."""
        return ""

    @classmethod
    def clear_away(cls, directory: str) -> list[str]:  # noqa: ARG003 - most leave nothing
        """Remove things that an ended machine has left on this host outside its directory; return those that stay."""
        return []

    def begin(self, action: Callable[[], Result]) -> Future[Result]:
        """Run an action in a thread of its own, beside everything else; it may use the machine."""
        future: Future[Result] = Future()

        def carry_out() -> None:
            try:
                future.set_result(action())
            except BaseException as error:  # noqa: BLE001 - whoever asks for the result is told
                future.set_exception(error)

        Thread(target=carry_out, daemon=True).start()
        return future

    def address(self, port: int, host: str = IPV4_LOOPBACK) -> tuple[str, int]:
        """Return the host and port by which the tests reach a TCP port at an address of the machine."""
        return host, port

    def start(self) -> None:
        """Boot the machine; one that is up is left alone. Raises :class:`~pytest_nixproc.errors.MachineError`."""

    def shutdown(self, *, timeout: float = 60) -> None:  # noqa: ARG002 - only machines of their own can
        """Power the machine off in an orderly way, and wait for its end; :meth:`start` boots it anew."""
        raise not_possible(self.name, "be shut down")

    def crash(self) -> None:
        """End the machine at once, with everything on it; :meth:`start` boots it anew."""
        raise not_possible(self.name, "be crashed")

    def block(self) -> None:
        """Cut the machine's network off from the tests, as if its cable were pulled."""
        raise not_possible(self.name, "be cut off")

    def unblock(self) -> None:
        """Undo :meth:`block`."""
        raise not_possible(self.name, "be cut off")


def not_possible(machine: str, what: str) -> MachineError:
    """Return the error for an action that is refused because the tests themselves run on the machine."""
    remedy = "use a machine that is thrown away: --nixproc-machine=nspawn"
    return MachineError(f"machine {machine} cannot {what}: the tests run on it", remedy=remedy)
