"""A private systemd, which is started for a deployment alone, and ended with it."""

from __future__ import annotations

from typing import Final

from pytest_nixproc.errors import DeploymentError, WaitTimeout
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.waiting import Deadline, wait_until
from pytest_nixproc.managers.systemd.commands import Commands
from pytest_nixproc.managers.systemd.generator import UNITS
from pytest_nixproc.managers.systemd.launcher import LAUNCHER
from pytest_nixproc.managers.systemd.scope import SystemdScope, search_path
from pytest_nixproc.values.commands import OUTPUT_TAIL, Spawn
from pytest_nixproc.values.target import Target

CLEAR: Final = """
if [ -d "$1" ]; then
    echo 1 > "$1/cgroup.kill" || kill -KILL $(find "$1" -name cgroup.procs -exec cat {} +)
    find "$1" -depth -type d -exec rmdir {} +
fi
"""
"""Ends a control group."""


class OwnSystemd:
    """The private systemd of a deployment, which this class starts and ends."""

    def __init__(self, machine: Machine, target: Target, commands: Commands) -> None:
        self.machine = machine
        self.target = target
        self.commands = commands
        self._log = f"{target.state.log_dir}/systemd.log"

    def start(self, scope: SystemdScope, deadline: Deadline) -> None:
        """Start the systemd, and wait for its socket."""
        environment = {
            "PATH": self.machine.facts.path_variable,
            "XDG_RUNTIME_DIR": scope.runtime_directory,
            "SYSTEMD_UNIT_PATH": search_path(self.target, UNITS),
            "SYSTEMD_GENERATOR_PATH": "",
            "SYSTEMD_ENVIRONMENT_GENERATOR_PATH": "",
            **self.target.tags,
        }
        script = f"{self.target.directory}/{LAUNCHER}"
        pid = self.machine.processes.spawn(Spawn((script, "enter", scope.cgroup), environment, self._log))

        def look() -> str:
            problem = self.machine.network.connection_problem(scope.socket)
            if problem and self.machine.processes.ended([pid]):
                raise DeploymentError("systemd ended at its start", details=self._said())
            return problem

        try:
            wait_until(look, deadline, "wait for systemd's socket")
        except WaitTimeout as error:
            raise DeploymentError(error.brief, details=f"{error.details}\n{self._said()}") from error

    def _said(self) -> str:
        """Return the end of the private systemd's log."""
        return (self.machine.files.read(self._log) or b"").decode(errors="replace")[-OUTPUT_TAIL:].rstrip()

    def end(self, scope: SystemdScope, deadline: Deadline) -> None:
        """Kill the systemd and all processes in its control group, and remove its runtime directory."""
        runtime_directory = f"{scope.runtime_directory}/systemd"
        paths = scope.cgroup, runtime_directory

        def look() -> str:
            if not any(map(self.machine.files.exists, paths)):
                return ""
            said = self.commands.shell(deadline, CLEAR, scope.cgroup)
            if not self.machine.files.exists(scope.cgroup):
                self.machine.files.remove(runtime_directory)
            left = list(filter(self.machine.files.exists, paths))
            return ", ".join((*left, *said.splitlines()[-1:])) if left else ""

        wait_until(look, deadline, "end systemd and its control group")
