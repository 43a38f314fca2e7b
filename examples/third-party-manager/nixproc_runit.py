"""The process manager runit: a runsv(8) for each instance, in a service directory of the deployment's own.

A runsv lives as long as its program: it is started by the deployment, and leaves when the program has ended, once
``finish`` has written down how. What it says of itself is read from ``supervise/status``, as sv(8) does.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pytest_nixproc import ManagedProcess, ProcessesModel, hookimpl
from pytest_nixproc.errors import CommandFailed
from pytest_nixproc.machines.api import Machine, Spawn, describe_failure
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.managers import shell
from pytest_nixproc.managers.api import (
    Capabilities,
    Driver,
    File,
    Generator,
    Manager,
    Status,
    Target,
    Unit,
    apply_override,
    ask_known,
    refuse_unsupported,
)
from pytest_nixproc.managers.proxy import proxy_argv

NAME: Final = "runit"
SERVICES: Final = "service"
TOOLS: Final = ("runsv", "sv")
NOTICE_SECONDS: Final = 2.0
PARAMETERS: Final[Mapping[str, Any]] = {"restart": False}
"""What an override can change: whether runsv starts a program again that has ended by itself."""

CAPABILITIES: Final = Capabilities(
    prefers="foreground",
    platforms=("linux", "freebsd", "darwin"),
    note="a runsv for each instance; programs are not restarted unless overrides say so (restart)",
)


class RunitGenerator(Generator):
    """A service directory for each instance, with ``run`` and ``finish``."""

    def generate(self, key: str, model: ProcessesModel, target: Target) -> Unit:
        """Return the scripts; ``run`` sets up the program's surroundings and becomes it, or its foreground proxy."""
        process = model[key].pkg
        refuse_unsupported(NAME, process, CAPABILITIES)
        parameters = apply_override(NAME, process, dict(PARAMETERS))
        ask_known(parameters, PARAMETERS, NAME, process)
        mode, command = process.command_for("foreground")
        pid_file = target.pid_file(process) if mode == "daemon" else None
        proxy = proxy_argv(target.facts.python, target.facts.package_root, pid_file) if pid_file else ()
        run = shell.launch_script(process, command, target, key, proxy=proxy)
        finish = finish_script(process, target, restart=bool(parameters["restart"]))
        directory = f"{SERVICES}/{process.name}"
        return Unit(
            name=process.name,
            mode=mode,
            log_file=target.log_file(process),
            pid_file=pid_file,
            files=(File(f"{directory}/run", run, 0o755), File(f"{directory}/finish", finish, 0o755)),
            key=key,
        )


def finish_script(process: ManagedProcess, target: Target, *, restart: bool) -> str:
    """Return what runsv runs when the program has ended: runsv(8) tells it how; an ``x`` has runsv leave, too."""
    record = shell.quote(ending_of(process.name, target))
    lines = [f"#!{target.facts.shell}", f'echo "$1 $2" > {record}']
    return "\n".join([*lines, *([] if restart else ["printf x > supervise/control"])]) + "\n"


def ending_of(name: str, target: Target) -> str:
    """Return the file in which ``finish`` writes down how a program has ended."""
    return f"{target.state.runtime_dir}/.{name}.ended"


@dataclass(frozen=True)
class Supervision:
    """What ``supervise/status`` holds: the pid in bytes 12 to 15; byte 19 is 0 when down, 1 running, 2 finishing."""

    pid: int = 0
    is_known: bool = False
    is_down: bool = False
    is_running: bool = False

    @classmethod
    def read(cls, content: bytes | None) -> Supervision:
        """Read the record; there is none before runsv has written it."""
        if content is None or len(content) < 20:
            return cls()
        pid, state = int.from_bytes(content[12:16], "little"), content[19]
        return cls(pid, is_known=True, is_down=state == 0, is_running=state == 1)


class RunitDriver(Driver):
    """Starts runsv processes, asks them through sv(8), and reads what they write down."""

    def __init__(self, machine: Machine, target: Target) -> None:
        super().__init__(machine, target)
        self._unended: set[Unit] = set()
        """Units whose runsv was not seen to end."""

    def _directory(self, unit: Unit) -> str:
        return f"{self.target.directory}/{SERVICES}/{unit.name}"

    def _record(self, unit: Unit) -> str:
        """Return the file in which the pid of a unit's runsv is kept, for a driver made anew."""
        return f"{self.target.state.runtime_dir}/.{unit.name}.runsv"

    def _command(self, *argv: str, output: str | None = None) -> Spawn:
        program = shutil.which(argv[0], path=self.machine.path_variable) or argv[0]
        return Spawn((program, *argv[1:]), {"PATH": self.machine.path_variable, **self.target.tags}, output)

    def activate(self, units: Sequence[Unit], deadline: Deadline) -> dict[str, str]:  # noqa: ARG002 - it does not wait
        """Start a runsv for each unit that does not run; it starts the program at once."""
        statuses = self.status(units)
        idle = [unit for unit in units if not statuses[unit.name].running]
        # What has been killed a moment ago may not have been noticed: a proxy outlives its daemon by that.
        self._end(self._await(idle, self._is_down, self.machine.deadline(NOTICE_SECONDS)))
        for unit in idle:
            self.machine.remove(f"{self._directory(unit)}/supervise")
            self.machine.remove(ending_of(unit.name, self.target))
            pid = self.machine.spawn(self._command("runsv", self._directory(unit), output=unit.log_file))
            self.machine.write(self._record(unit), f"{pid}\n")
        return {}

    def deactivate(self, units: Sequence[Unit], deadline: Deadline) -> None:
        """Ask programs to end and each runsv to leave then; wait until all programs have ended."""
        self._await(units, lambda unit: self._supervision(unit).is_known, deadline)
        supervised = [unit for unit in units if self._supervisor(unit)]
        if supervised:
            self.machine.run([self._command("sv", "exit", *map(self._directory, supervised))], deadline)
        self._unended.update(supervised)
        self._end(self._await(units, self._is_down, deadline))

    def _is_down(self, unit: Unit) -> bool:
        return self._supervision(unit).is_down

    def _await(self, units: Sequence[Unit], holds: Callable[[Unit], bool], deadline: Deadline) -> list[Unit]:
        """Wait until something holds for each unit that has a runsv; return those that are not waited for any more."""
        pending = [unit for unit in units if self._supervisor(unit) and not holds(unit)]
        for _ in deadline.pauses() if pending else ():
            pending = [unit for unit in pending if self._supervisor(unit) and not holds(unit)]
            if not pending:
                break
        return [unit for unit in units if unit not in pending]

    def close(self, deadline: Deadline) -> None:  # noqa: ARG002 - what it ends cannot resist
        """End what is left of runsv processes whose programs had to be killed."""
        self._end(list(self._unended))

    def _end(self, units: Sequence[Unit]) -> None:
        """End runsv processes that have no program left: they rest for a second before they would leave."""
        pids = {pid for unit in units if (pid := self._supervisor(unit))}
        for pid in pids:
            self.machine.signal(pid, signal.SIGKILL)
        for _ in self.machine.deadline(5).pauses() if pids else ():
            pids -= self.machine.ended(pids)
            if not pids:
                break
        self._unended -= set(units)

    def reload(self, unit: Unit, deadline: Deadline) -> None:
        """Have runsv send SIGHUP."""
        command = self._command("sv", "hup", self._directory(unit))
        if status := self.machine.run([command], deadline)[0]:
            raise CommandFailed(f"{unit.name}: {describe_failure(command.argv, status)}")

    def status(self, units: Sequence[Unit]) -> dict[str, Status]:
        """Read what each runsv has written down."""
        return {unit.name: self._status(unit) for unit in units}

    def _status(self, unit: Unit) -> Status:
        found = self._supervision(unit)
        pid = self._daemon(unit) or found.pid
        if found.is_running and not self.machine.ended([found.pid, pid]):
            return Status(running=True, pid=pid, text=f"run: pid {pid}")
        ending = self.machine.read(ending_of(unit.name, self.target))
        words = (ending or b"").split()
        # Between the end of a program and that of "finish", nobody can know how it was.
        has_ended = len(words) == 2 or (self._was_started(unit) and self._supervisor(unit) is None)
        status = exit_status(*words) if len(words) == 2 else None
        return Status(running=False, has_ended=has_ended, exit_status=status, text="down" if has_ended else "not up")

    def _was_started(self, unit: Unit) -> bool:
        return self.machine.exists(self._record(unit))

    def _supervision(self, unit: Unit) -> Supervision:
        return Supervision.read(self.machine.read(f"{self._directory(unit)}/supervise/status"))

    def _supervisor(self, unit: Unit) -> int | None:
        """Return the pid of a unit's runsv, if it lives."""
        content = self.machine.read(self._record(unit)) or b""
        pid = int(content) if content.strip().isdigit() else None
        return pid if pid and not self.machine.ended([pid]) else None

    def _daemon(self, unit: Unit) -> int | None:
        """Return the daemon behind a foreground proxy."""
        return self.process_named(unit, self.machine.read(unit.pid_file) or b"") if unit.pid_file else None


def exit_status(code: bytes, status: bytes) -> int:
    """Return how a program has ended from what ``finish`` is told: a code, or -1 and the wait status of a signal."""
    return -(int(status) & 0x7F) if int(code) == -1 else int(code)


def obstacle(machine: type[Machine]) -> str:  # noqa: ARG001 - machines have the host's software
    """Tell whether runit's tools are installed."""
    missing = ", ".join(tool for tool in TOOLS if shutil.which(tool) is None)
    return f"{missing} is not installed; on Debian: apt-get install --no-install-recommends runit" if missing else ""


@hookimpl
def nixproc_managers() -> list[Manager]:
    """Offer this manager."""
    return [Manager(NAME, RunitGenerator, RunitDriver, CAPABILITIES, obstacle)]
