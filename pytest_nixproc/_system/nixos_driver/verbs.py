"""A machine as scripts of the NixOS test driver know it: its verbs, with the driver's parameters and defaults.

The verbs are those of the driver's ``Machine`` (NixOS manual, "Writing Tests"), as far as they make sense without a
virtual machine. What a screen, a boot loader or a serial console is needed for is refused.
"""

from __future__ import annotations

import shlex
import sys
from typing import Any, Final

from pytest_nixproc._system.system import System
from pytest_nixproc.errors import CommandFailed, MachineError
from pytest_nixproc.machines.waiting import wait_until
from pytest_nixproc.values.addresses import LOCALHOST
from pytest_nixproc.values.commands import OUTPUT_TAIL, Spawn, describe_failure
from pytest_nixproc.values.tags import DEPLOYMENT

COMMAND_SECONDS: Final = 900
"""How long a command may take unless the script says otherwise: the driver's own limit for waits."""

LEAST_SECONDS: Final = 0.1
"""The least time limit of a command that is tried again and again: its last try has that."""

SU: Final = """#!/bin/sh
# Stands for su in the scripts of tests that run without privileges: whom they become has started them already.
account=$1
[ "$1" = - ] && account=$2
case $account in
    unprivileged | {user})
        [ "$1" = - ] && shift
        shift
        exec {shell} "$@"
        ;;
esac
exec {su} "$@"
"""
"""A stand-in for su(1), which upstream's test scripts call for a user that has started them already."""


class DriverMachine:
    """The machine of one running system, as its scripts see it.

    ``path`` is where commands find programs before the machine's own. Waits last for ``wait_seconds`` unless the script
    says otherwise.
    """

    def __init__(self, system: System, path: tuple[str, ...], wait_seconds: float) -> None:
        self.name = "machine"
        self._system = system
        self._machine = system.machine
        self._path = ":".join((*stand_ins(system), *path, system.machine.facts.path_variable))
        self._seconds = wait_seconds

    def __getattr__(self, verb: str) -> Any:
        if verb.startswith("_"):
            raise AttributeError(verb)
        remedy = "do without it, or run this test under the driver of NixOS"
        raise MachineError(f"machine.{verb} needs a virtual machine, or is no verb of the test driver", remedy=remedy)

    def execute(
        self,
        command: str,
        check_return: bool = True,  # noqa: FBT001, FBT002 - the driver's parameter
        check_output: bool = True,  # noqa: FBT001, FBT002, ARG002 - the same
        timeout: float | None = COMMAND_SECONDS,
    ) -> tuple[int | None, str]:
        """Run shell text as the driver does; return its status (-1 if not requested) and its output."""
        status, output = self._run(command, timeout or COMMAND_SECONDS)
        return (status if check_return else -1), output

    def succeed(self, *commands: str, timeout: float | None = None) -> str:
        """Run commands that must succeed; return their output."""
        return "".join(self._checked(command, timeout, must_fail=False) for command in commands)

    def fail(self, *commands: str, timeout: float | None = None) -> str:
        """Run commands that must fail; return their output."""
        return "".join(self._checked(command, timeout, must_fail=True) for command in commands)

    def wait_until_succeeds(self, command: str, timeout: float | None = None) -> str:
        """Run a command until it succeeds; return its output then."""
        return self._repeated(command, timeout, must_fail=False)

    def wait_until_fails(self, command: str, timeout: float | None = None) -> str:
        """Run a command until it fails; return its output then."""
        return self._repeated(command, timeout, must_fail=True)

    def _run(self, command: str, seconds: float) -> tuple[int | None, str]:
        """Run shell text that ends at its first failure, also in a pipeline where there is a shell that can."""
        bash = self._machine.files.which("bash")
        shell = (bash, "-euo", "pipefail", "-c") if bash else (self._machine.facts.shell, "-eu", "-c")
        environment = {"PATH": self._path, DEPLOYMENT: self._system.root}
        return self._machine.processes.capture(Spawn((*shell, command), environment), self._machine.deadline(seconds))

    def _checked(self, command: str, timeout: float | None, *, must_fail: bool) -> str:
        status, output = self._run(command, timeout or COMMAND_SECONDS)
        if problem := problem_of(command, status, must_fail=must_fail):
            raise CommandFailed(problem, details=output[-OUTPUT_TAIL:])
        return output

    def _repeated(self, command: str, timeout: float | None, *, must_fail: bool) -> str:
        deadline = self._machine.deadline(timeout or self._seconds)
        last = ""

        def look() -> str:
            nonlocal last
            status, last = self._run(command, max(deadline.remaining, LEAST_SECONDS))
            problem = problem_of(command, status, must_fail=must_fail)
            return problem and f"{problem}\n{last[-OUTPUT_TAIL:]}"

        wait_until(look, deadline, f"wait for a command to {'fail' if must_fail else 'succeed'}: {command}")
        return last

    def wait_for_unit(self, unit: str, user: str | None = None, timeout: float | None = None) -> None:  # noqa: ARG002
        """Wait until a unit is active: an instance of the system under any manager, else one of the machine's."""
        name = unit.removesuffix(".service")
        if name in self._system:
            self._system[name].wait_ready()
        else:
            self._machine.wait_for_unit(unit, timeout=timeout or self._seconds)

    def systemctl(self, query: str, user: str | None = None) -> tuple[int | None, str]:  # noqa: ARG002 - the driver's
        """Run systemctl on the machine; return its status and output."""
        return self._machine.systemctl(query)

    def start_job(self, jobname: str, user: str | None = None) -> tuple[int | None, str]:  # noqa: ARG002 - the driver's
        """Start a unit of the machine's own."""
        return self._machine.systemctl(["start", jobname])

    def stop_job(self, jobname: str, user: str | None = None) -> tuple[int | None, str]:  # noqa: ARG002 - the driver's
        """Stop a unit of the machine's own."""
        return self._machine.systemctl(["stop", jobname])

    def wait_for_file(self, filename: str, timeout: float | None = None) -> None:
        """Wait until a file exists."""
        self._machine.wait_for_file(filename, timeout=timeout or self._seconds)

    def wait_for_open_port(self, port: int, addr: str = LOCALHOST, timeout: float | None = None) -> None:
        """Wait until a TCP port accepts connections."""
        self._machine.wait_for_open_port(port, addr, timeout=timeout or self._seconds)

    def wait_for_closed_port(self, port: int, addr: str = LOCALHOST, timeout: float | None = None) -> None:
        """Wait until a TCP port refuses connections."""
        self._machine.wait_for_closed_port(port, addr, timeout=timeout or self._seconds)

    def wait_for_open_unix_socket(
        self,
        addr: str,
        is_datagram: bool = False,  # noqa: FBT001, FBT002 - the driver's parameter
        timeout: float | None = None,
    ) -> None:
        """Wait until a Unix socket accepts connections."""
        if is_datagram:
            raise MachineError(f"{addr}: datagram sockets cannot be waited for", remedy="use wait_for_file")
        self._machine.wait_for_open_unix_socket(addr, timeout=timeout or self._seconds)

    def sleep(self, secs: float) -> None:
        """Sleep on the machine, for some seconds."""
        self._machine.succeed(["sleep", str(secs)], timeout=secs + COMMAND_SECONDS)

    def copy_from_host(self, source: str, target: str) -> None:
        """Copy a file or directory to the machine."""
        self._machine.copy_from_host(source, target)

    def log(self, msg: str) -> None:
        """Print a line."""
        say(msg)

    def start(self, **_: object) -> None:
        """Do nothing: the machine runs."""

    connect = wait_for_shutdown = reset_terminal = start

    def shutdown(self) -> None:
        """Power the machine off, if it is a throwaway one."""
        self._machine.shutdown()

    def crash(self) -> None:
        """End the machine at once, if it is a throwaway one."""
        self._machine.crash()

    def block(self) -> None:
        """Cut the machine off from the tests, if it is a throwaway one."""
        self._machine.block()

    def unblock(self) -> None:
        """Undo :meth:`block`."""
        self._machine.unblock()


def problem_of(command: str, status: int | None, *, must_fail: bool) -> str:
    """Return why a command's end is not the one that is wanted; an empty text if it is."""
    if (status != 0) == must_fail:
        return ""
    return (
        f"command succeeded, although it must fail: {command}"
        if must_fail
        else f"command {describe_failure(command, status)}"
    )


def stand_ins(system: System) -> tuple[str, ...]:
    """Write replacements of programs that would not work as scripts expect; return their directory."""
    machine = system.machine
    if not system.is_unprivileged:
        return ()
    directory = f"{system.root}/scripts"
    facts = {"user": machine.facts.account.user, "shell": machine.facts.shell, "su": machine.files.which("su") or "su"}
    machine.files.write(
        f"{directory}/su", SU.format(**{name: shlex.quote(text) for name, text in facts.items()}), 0o755
    )
    return (directory,)


def say(text: str) -> None:
    """Print a line to the test's output."""
    sys.stdout.write(f"{text}\n")
