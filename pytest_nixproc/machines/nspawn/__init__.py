"""A throwaway machine: a container of systemd-nspawn that boots systemd from this host's own ``/usr``.

Its root is a tmpfs (``--volatile=yes``): accounts, units and ``/var`` are its own and vanish with it. ``/usr`` is the
host's, read-only; other top-level directories with software can be seen, and written without the host noticing. So can
the needed parts of the host's ``/tmp`` and ``/var`` (:mod:`~pytest_nixproc.machines.nspawn.showing`). All that the two
share is the directory that the machine is given. systemd-nspawn(1) explains the options.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import ClassVar

from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.machines.accounts import GetentAccounts
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.host import Host
from pytest_nixproc.machines.nspawn.boot import own_file
from pytest_nixproc.machines.nspawn.container import MachineContainer
from pytest_nixproc.machines.nspawn.control_groups import control_groups, remove_listed_groups
from pytest_nixproc.machines.nspawn.files import NspawnFiles
from pytest_nixproc.machines.nspawn.lifecycle import NspawnLifecycle
from pytest_nixproc.machines.nspawn.remote import RemoteClock, RemoteNetwork, RemoteProcesses
from pytest_nixproc.values.addresses import IPV4_LOOPBACK
from pytest_nixproc.values.machine import Facts, MachineSpec


class Nspawn(Machine):
    """One throwaway machine: an agent inside it carries out requests, a ``MachineContainer`` boots and kills it."""

    name: ClassVar[str] = "nspawn"
    throwaway: ClassVar[bool] = True

    def __init__(self, spec: MachineSpec | None = None) -> None:
        super().__init__(spec)
        self._container = MachineContainer(self.name, self.spec, Host())
        ask = self._container.ask
        self.clock = RemoteClock(ask)
        self.processes = RemoteProcesses(ask, self._container.host.processes)
        self.files = NspawnFiles(self._container, self.processes, self.clock, lambda: self.facts)
        self.network = RemoteNetwork(ask)
        self.accounts = GetentAccounts(self.processes, self.files, self.clock, lambda: self.facts)
        self.lifecycle = NspawnLifecycle(self._container)

    @classmethod
    def unavailable_reason(cls) -> str:
        """Return why system containers are not available here, with the remedy, or an empty text."""
        if sys.platform != "linux":
            return "system containers need Linux"
        if os.geteuid() != 0:
            return "only root can boot a system container: run the tests as root"
        for tool in ("systemd-nspawn", "unshare", "mount"):
            if not shutil.which(tool):
                return f"{tool} is not installed: apt-get install systemd-container util-linux"
        if not os.path.islink("/bin"):
            return "a volatile machine needs a host whose /bin and /lib are links into /usr (file-hierarchy(7))"
        groups = [path for path in control_groups("nixproc") if not os.access(os.path.dirname(path), os.W_OK)]
        return f"control groups cannot be made in {os.path.dirname(groups[0])}: is it read-only?" if groups else ""

    @classmethod
    def clear_away(cls, directory: str) -> list[str]:
        """Remove the control groups of a machine that has ended; its last processes may still be ending."""
        return remove_listed_groups(own_file(directory, "cgroups"))

    @property
    def facts(self) -> Facts:
        """The facts about the host, which hold for the machine too: the same software, and the tests run as root."""
        return self._container.host.facts

    def start(self) -> None:
        """Boot the machine; return when units can be started."""
        if not self._container.is_up:
            self._container.boot()

    def shutdown(self, *, timeout: float = 60) -> None:
        """Have systemd power the machine off."""
        self._container.shut_down(lambda: self.execute(["systemctl", "--no-block", "poweroff"]), timeout)

    def crash(self) -> None:
        """Kill the machine with everything on it."""
        self._container.crash()

    def address(self, port: int, host: str = IPV4_LOOPBACK) -> tuple[str, int]:
        """Return an address of this host that reaches a port of the machine, forwarded if its network is private."""
        return self._container.forwards.address(port, host)

    def block(self) -> None:
        """Stop forwarding ports to the machine."""
        self._container.forwards.block()

    def unblock(self) -> None:
        """Forward ports to the machine again."""
        self._container.forwards.unblock()


@hookimpl
def nixproc_machines() -> list[type[Machine]]:
    """Return the throwaway machine that systemd-nspawn makes, for the registry."""
    return [Nspawn]
