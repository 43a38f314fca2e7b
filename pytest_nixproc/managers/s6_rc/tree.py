"""The supervision tree of a deployment: s6-svscan, and the processes below it."""

from __future__ import annotations

import signal

from pytest_nixproc.errors import DeploymentError, WaitTimeout
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.waiting import Deadline, wait_until
from pytest_nixproc.managers.s6_rc.generator import LAUNCHER, scanner_file
from pytest_nixproc.managers.s6_rc.tools import Toolbox
from pytest_nixproc.values.commands import Spawn
from pytest_nixproc.values.pid_files import pid_in
from pytest_nixproc.values.target import Target


class Tree:
    """The supervision tree, which is found by the file that names its process."""

    def __init__(self, machine: Machine, target: Target, tools: Toolbox) -> None:
        self.machine = machine
        self.target = target
        self.tools = tools

    def start(self) -> int:
        """Start s6-svscan, and return its process."""
        argv = (f"{self.target.directory}/{LAUNCHER}",)
        return self.machine.processes.spawn(Spawn(argv, self.tools.environment, self.tools.log))

    def await_ready(self, pid: int, deadline: Deadline) -> None:
        """Wait until s6-svscan says that it is ready."""

        def look() -> str:
            if len((self.machine.files.read(scanner_file(self.target)) or b"").splitlines()) > 1:
                return ""
            if self.machine.processes.ended([pid]):
                raise DeploymentError("s6-svscan ended at its start", details=self.tools.said())
            return "it has not said so"

        try:
            wait_until(look, deadline, "wait for s6-svscan to be ready")
        except WaitTimeout as error:
            raise DeploymentError(error.brief, details=f"{error.details}\n{self.tools.said()}") from error

    def end(self, deadline: Deadline) -> None:
        """End s6-svscan with its whole tree, if it runs and is the deployment's, and wait for that."""
        pid = pid_in(self.machine.files.read(scanner_file(self.target)) or b"")
        if pid and not self.machine.processes.ended([pid]) and self.is_ours(pid):
            self.machine.processes.signal(pid, signal.SIGTERM)
            self.machine.processes.wait_ended([pid], deadline)

    def is_ours(self, pid: int) -> bool:
        """Tell whether a process is one of the deployment's."""
        return all(self.machine.processes.has_tag(pid, f"{name}={value}") for name, value in self.target.tags.items())
