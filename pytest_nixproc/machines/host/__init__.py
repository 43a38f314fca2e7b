"""The machine that the tests themselves run on."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.host.accounts import HostAccounts
from pytest_nixproc.machines.host.facts import own_facts
from pytest_nixproc.machines.host.files import HostFiles
from pytest_nixproc.machines.host.guardian import HostClock, HostLifecycle, OwnGuardian
from pytest_nixproc.machines.host.network import HostNetwork
from pytest_nixproc.machines.host.processes import HostProcesses
from pytest_nixproc.values.machine import Facts, MachineSpec


class Host(Machine):
    """This machine, as the calling user, through one guardian per test process."""

    name: ClassVar[str] = "host"

    def __init__(self, spec: MachineSpec | None = None) -> None:
        super().__init__(spec)
        guardian = OwnGuardian()
        processes = HostProcesses(guardian)
        self.processes = processes
        self.files = HostFiles(lambda: self.facts)
        self.network = HostNetwork(guardian)
        self.accounts = HostAccounts(self.files)
        self.lifecycle = HostLifecycle(guardian, processes.forget)
        self.clock = HostClock(guardian)

    @cached_property
    def facts(self) -> Facts:
        """The facts about this machine that generated files may rely on."""
        return own_facts()


@hookimpl
def nixproc_machines() -> list[type[Machine]]:
    """Return the machine that the tests run on, for the registry."""
    return [Host]
