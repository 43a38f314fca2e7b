"""What s6-svstat shows of services, and what that means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FIELDS: Final = "up,wantedup,pid,exitcode,signum"
"""What is asked for: the programmatically parsable fields of s6-svstat."""


@dataclass(frozen=True)
class Look:
    """What s6-svstat has shown of one service.

    It is not settled when it is down and s6-supervise wants it up: ``finish`` has still to say whether it stays down.
    """

    is_supervised: bool = True
    pid: int | None = None
    is_settled: bool = True
    exit_status: int | None = None

    @classmethod
    def read(cls, line: str) -> Look:
        """Read a line; an empty one is that of a service which nobody supervises."""
        if not line:
            return cls(is_supervised=False)
        up, wanted_up, pid, exit_code, signal = line.split()
        if up == "true":
            return cls(pid=int(pid))
        return cls(is_settled=wanted_up == "false", exit_status=-int(signal) if int(signal) > 0 else int(exit_code))


def looks(output: str) -> list[Look]:
    """Return what was shown, one line a service."""
    return [Look.read(line) for line in output.split("\n")[:-1]]
