"""The verbs that tests use: those of the NixOS test driver, on any machine."""

from __future__ import annotations

import os
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from pytest_nixproc.errors import CommandFailed
from pytest_nixproc.machines.archive import pack, unpack
from pytest_nixproc.machines.parts import Files, Network, Processes
from pytest_nixproc.machines.shielding import verb
from pytest_nixproc.machines.waiting import Clock, Deadline, wait_until
from pytest_nixproc.values.commands import OUTPUT_TAIL, AnyCommand, Spawn, describe_failure, text_of
from pytest_nixproc.values.machine import Facts

UNIT_PROPERTIES: Final = ("LoadState", "ActiveState", "SubState", "Job")


class Verbs(ABC):
    """The verbs that tests use on a machine, built on its parts, its facts and its clock."""

    processes: Processes
    files: Files
    network: Network
    clock: Clock

    @property
    @abstractmethod
    def facts(self) -> Facts:
        """The facts about the machine that generated files may rely on."""

    def deadline(self, seconds: float) -> Deadline:
        """Return a deadline on this machine's clock."""
        return Deadline(self.clock, seconds)

    @verb
    def execute(self, command: AnyCommand, *, timeout: float = 60) -> tuple[int | None, str]:
        """Run a command; return its exit status (None when it was killed at the timeout) and its output."""
        # Of a sequence too, it is a shell that finds the program in PATH.
        words = (command,) if isinstance(command, str) else ('exec "$@"', "sh", *command)
        spawn = Spawn((self.facts.shell, "-c", *words), {"PATH": self.facts.path_variable})
        return self.processes.capture(spawn, self.deadline(timeout))

    def succeed(self, *commands: AnyCommand, timeout: float = 60) -> str:
        """Run commands that must all succeed; return their output."""
        outputs = []
        for command in commands:
            status, output = self.execute(command, timeout=timeout)
            if status != 0:
                raise CommandFailed(f"command {describe_failure(command, status)}", details=output[-OUTPUT_TAIL:])
            outputs.append(output)
        return "".join(outputs)

    def fail(self, *commands: AnyCommand, timeout: float = 60) -> str:
        """Run commands that must all fail; return their output."""
        outputs = []
        for command in commands:
            status, output = self.execute(command, timeout=timeout)
            if status == 0:
                brief = f"command succeeded, although it must fail: {text_of(command)}"
                raise CommandFailed(brief, details=output[-OUTPUT_TAIL:])
            outputs.append(output)
        return "".join(outputs)

    @verb
    def wait_until_succeeds(self, command: AnyCommand, *, timeout: float = 60) -> str:
        """Run a command again and again until it succeeds; return its output then."""
        return repeat(self, command, lambda status: status == 0, self.deadline(timeout), "succeed")

    @verb
    def wait_until_fails(self, command: AnyCommand, *, timeout: float = 60) -> str:
        """Run a command again and again until it fails; return its output then."""
        return repeat(self, command, lambda status: status != 0, self.deadline(timeout), "fail")

    @verb
    def wait_for_open_port(self, port: int, host: str = "127.0.0.1", *, timeout: float = 60) -> None:
        """Wait until a TCP port accepts connections."""
        wait_until(
            lambda: self.network.connection_problem((host, port)), self.deadline(timeout), f"wait for port {port}"
        )

    @verb
    def wait_for_closed_port(self, port: int, host: str = "127.0.0.1", *, timeout: float = 60) -> None:
        """Wait until a TCP port refuses connections."""

        def look() -> str:
            return "" if self.network.connection_problem((host, port)) else "it accepts connections"

        wait_until(look, self.deadline(timeout), f"wait for port {port} to be closed")

    @verb
    def wait_for_open_unix_socket(self, path: str, *, timeout: float = 60) -> None:
        """Wait until a Unix socket accepts connections."""
        wait_until(lambda: self.network.connection_problem(path), self.deadline(timeout), f"wait for socket {path}")

    @verb
    def wait_for_file(self, path: str, *, timeout: float = 60) -> None:
        """Wait until a file exists."""
        what = f"wait for file {path}"
        wait_until(lambda: "" if self.files.exists(path) else "no such file", self.deadline(timeout), what)

    def systemctl(self, arguments: AnyCommand, *, timeout: float = 60) -> tuple[int | None, str]:
        """Run systemctl for the machine's own systemd; return its exit status and output."""
        words = shlex.split(arguments) if isinstance(arguments, str) else arguments
        return self.execute(["systemctl", "--no-pager", *words], timeout=timeout)

    @verb
    def wait_for_unit(self, unit: str, *, timeout: float = 60) -> None:
        """Wait until a unit of the machine's own systemd is active.

        Raises :class:`~pytest_nixproc.errors.CommandFailed` at once for a unit that is unknown, has failed, or is
        inactive without a job that would start it.
        """
        deadline = self.deadline(timeout)
        wait_until(lambda: missing_of_unit(self, unit, deadline), deadline, f"wait for unit {unit}")

    @verb
    def copy_from_host(self, source: str | os.PathLike[str], target: str) -> None:
        """Copy a file or directory of the test process's machine to a path of this one; memory has to hold it."""
        self.files.unpack(pack(os.fspath(source)), target)

    @verb
    def copy_to_host(self, source: str, target: str | os.PathLike[str]) -> None:
        """Copy a file or directory of this machine to a path of the test process's one; memory has to hold it."""
        unpack(self.files.pack(source), os.fspath(target))


def repeat(
    machine: Verbs, command: AnyCommand, is_wanted: Callable[[int | None], bool], deadline: Deadline, verb: str
) -> str:
    """Run a command until its exit status is as wanted; return its output then."""
    last, missing = "", ""

    def look() -> str:
        nonlocal last, missing
        status, last = machine.execute(command, timeout=max(deadline.remaining, 0.1))
        if is_wanted(status):
            return ""
        # A try that the end of the wait has cut short says less than the one before it.
        if status is not None or not missing:
            missing = f"{describe_failure(command, status)}\n{last[-OUTPUT_TAIL:]}"
        return missing

    wait_until(look, deadline, f"wait for a command to {verb}: {text_of(command)}")
    return last


def missing_of_unit(machine: Verbs, unit: str, deadline: Deadline) -> str:
    """Return the state of a unit, or an empty text when it is active; raise for one that will not become active."""
    asked = ["show", f"--property={','.join(UNIT_PROPERTIES)}", "--", unit]
    status, output = machine.systemctl(asked, timeout=max(deadline.remaining, 1))
    state = dict(line.partition("=")[::2] for line in output.splitlines())
    if status != 0 or not state.keys() >= set(UNIT_PROPERTIES):
        raise CommandFailed(f"systemctl cannot say how unit {unit} is", details=output[-OUTPUT_TAIL:])
    text = f"it is {state['ActiveState']} ({state['SubState']})"
    if state["LoadState"] != "loaded":
        raise CommandFailed(f"unit {unit} cannot be waited for: it is {state['LoadState']}")
    if state["ActiveState"] == "failed" or (state["ActiveState"] == "inactive" and state["Job"] in ("", "0")):
        _, said = machine.systemctl(["status", "--full", "--", unit])
        raise CommandFailed(f"unit {unit} will not become active: {text}", details=said[-OUTPUT_TAIL:])
    return "" if state["ActiveState"] == "active" else text
