"""The states of services, read from the output of s6-svstat."""

from __future__ import annotations

from typing import Final

from pytest_nixproc.values.value import Value

FIELDS: Final = "up,wantedup,pid,exitcode,signum"
"""The fields that are asked for, of those of s6-svstat that programs can read."""


class ServiceState(Value):
    """The state of one service, as s6-svstat shows it."""

    is_supervised: bool = True
    """Whether s6-supervise looks after it."""

    pid: int | None = None
    """Its process; None while it is down."""

    is_settled: bool = True
    """False when it is down and s6-supervise wants it up: ``finish`` has still to say whether it stays down."""

    exit_status: int | None = None
    """How its last process ended: a status, or minus a signal's number; None while it is up."""

    @classmethod
    def read(cls, line: str) -> ServiceState:
        """Read a line; an empty one is that of a service which nobody supervises."""
        if not line:
            return cls(is_supervised=False)
        up, wanted_up, pid, exit_code, signal = line.split()
        if up == "true":
            return cls(pid=int(pid))
        return cls(is_settled=wanted_up == "false", exit_status=-int(signal) if int(signal) > 0 else int(exit_code))


def service_states(output: str) -> list[ServiceState]:
    """Return the states that s6-svstat has printed, one line a service."""
    return [ServiceState.read(line) for line in output.split("\n")[:-1]]
