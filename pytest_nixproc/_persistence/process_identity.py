"""The identity of a process, which distinguishes it from later ones that reuse its pid, even after a reboot."""

from __future__ import annotations

import os
from dataclasses import asdict
from functools import cache
from typing import Any, Self

from pytest_nixproc.machines.process_table import identity_of, is_alive, read_facts
from pytest_nixproc.values.value import Value


@cache
def boot_id() -> str:
    """Return a text that identifies this boot of the machine."""
    if identity := read_facts("/proc/sys/kernel/random/boot_id").decode().strip():
        return identity
    # Cygwin has no psutil, but a /proc/stat.
    lines = read_facts("/proc/stat").decode().splitlines()
    return next((line.split()[1] for line in lines if line.startswith("btime ")), "") or boot_time()


@cache
def host_name() -> str:
    """Return a text that identifies this machine, whichever boot of it: some have no machine-id(5), or another's."""
    return f"{read_facts('/etc/machine-id').decode(errors='replace').strip()} {os.uname().nodename}"


@cache
def pid_namespace() -> str:
    """Return a text that identifies the numbering of processes that we see: containers have others (pid_namespaces(7)).

    It is empty where there is one only.
    """
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def boot_time() -> str:
    """Return when the machine was booted, where it has no ``/proc``."""
    import psutil

    return str(int(psutil.boot_time()))


class ProcessIdentity(Value):
    """A process of this machine, as leases name their owners."""

    pid: int
    started: str
    """Start of the process, as the platform tells it."""

    boot: str
    """Boot of the machine in which the process was started."""

    namespace: str = ""
    """The numbering that its pid is of; earlier versions have not said it."""

    @classmethod
    def of(cls, pid: int) -> Self:
        """Return the identity of a process that runs."""
        return cls(pid, identity_of(pid), boot_id(), pid_namespace())

    @classmethod
    def current(cls) -> Self:
        """Return the identity of this process."""
        return cls.of(os.getpid())

    @classmethod
    def read(cls, facts: Any) -> Self:
        """Return an identity from its data; raises ``TypeError``, ``KeyError`` or ``ValueError`` for other data."""
        return cls(int(facts["pid"]), str(facts["started"]), str(facts["boot"]), str(facts.get("namespace", "")))

    def facts(self) -> dict[str, Any]:
        """Return the identity as data, for :meth:`read`."""
        return asdict(self)

    @property
    def is_alive(self) -> bool:
        """Tell whether this very process still runs, in this boot; one of another container is believed to."""
        if self.boot != boot_id():
            return False
        if self.namespace not in ("", pid_namespace()):
            return True
        return identity_of(self.pid) == self.started and is_alive(self.pid)
