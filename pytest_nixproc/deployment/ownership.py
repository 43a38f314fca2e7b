"""Who owns something: a process, told apart from later ones with its pid, and later boots."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Self

from pytest_nixproc.machines.process_table import identity_of, is_alive, read_facts


@cache
def boot_id() -> str:
    """Return what identifies this boot of the machine."""
    if identity := read_facts("/proc/sys/kernel/random/boot_id").decode().strip():
        return identity
    # Cygwin has no psutil, but a /proc/stat.
    lines = read_facts("/proc/stat").decode().splitlines()
    return next((line.split()[1] for line in lines if line.startswith("btime ")), "") or boot_time()


def boot_time() -> str:
    """Return when the machine was booted, where it has no ``/proc``."""
    import psutil

    return str(int(psutil.boot_time()))


@dataclass(frozen=True)
class Owner:
    """A process as the owner of leases."""

    pid: int
    started: str
    boot: str

    @classmethod
    def of(cls, pid: int) -> Self:
        """Return a process of this machine as an owner."""
        return cls(pid, identity_of(pid), boot_id())

    @classmethod
    def current(cls) -> Self:
        """Return this process as an owner."""
        return cls.of(os.getpid())

    @classmethod
    def read(cls, facts: Any) -> Self:
        """Read an owner back; raises ``TypeError`` or ``KeyError`` for what is none."""
        return cls(int(facts["pid"]), str(facts["started"]), str(facts["boot"]))

    def facts(self) -> dict[str, Any]:
        """Return what :meth:`read` reads."""
        return asdict(self)

    @property
    def is_alive(self) -> bool:
        """Tell whether this very process still runs, in this boot."""
        return self.boot == boot_id() and identity_of(self.pid) == self.started and is_alive(self.pid)
