"""Daemons that s6-rc has started as oneshots: it knows that it has started them, and nothing else."""

from __future__ import annotations

import signal

from pytest_nixproc.errors import CommandFailed
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.s6_rc.generator import atom
from pytest_nixproc.managers.s6_rc.live import LiveState
from pytest_nixproc.managers.s6_rc.syntax import service_name
from pytest_nixproc.managers.s6_rc.tools import ASK_SECONDS
from pytest_nixproc.managers.s6_rc.tree import Tree
from pytest_nixproc.values.pid_files import pid_in
from pytest_nixproc.values.units import Status, Unit


class Oneshots:
    """The daemons of oneshots, found by their PID files if the processes are the deployment's."""

    def __init__(self, machine: Machine, live: LiveState, tree: Tree) -> None:
        self.machine = machine
        self.live = live
        self.tree = tree

    def daemon(self, unit: Unit) -> int | None:
        """Return the process that a PID file names, if it runs and is one of the deployment's."""
        pid = pid_in(self.machine.files.read(unit.pid_file) or b"") if unit.pid_file else None
        return pid if pid and not self.machine.processes.ended([pid]) and self.tree.is_ours(pid) else None

    def status(self, unit: Unit) -> Status:
        """Return the status of a daemon."""
        if pid := self.daemon(unit):
            return Status(running=True, pid=pid, text=f"up (pid {pid})")
        name = atom(service_name(unit.name))
        up, _ = self.live.survey(self.machine.deadline(ASK_SECONDS), "-u", [name])
        text = "up for s6-rc, and its daemon does not run" if name in up else "down"
        return Status(running=False, has_ended=name in up, text=text)

    def reload(self, unit: Unit) -> None:
        """Send a daemon the signal that asks to read the configuration again."""
        pid = self.daemon(unit)
        if pid is None:
            raise CommandFailed(f"{unit.name}: it does not run")
        self.machine.processes.signal(pid, signal.Signals[f"SIG{unit.reload_signal}"])
