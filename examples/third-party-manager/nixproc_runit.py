"""The process manager runit: a runsv(8) for each instance, in a service directory of the deployment's own.

A runsv lives as long as its program: it is started by the deployment, and leaves when the program has ended, once
``finish`` has written down how. What it says of itself is read from ``supervise/status``, as sv(8) does.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from shlex import quote
from typing import Any, Final

from pytest_nixproc import hookimpl
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.managers.api import Capabilities, Driver, Generator, Manager, daemon_of
from pytest_nixproc.managers.kinds import TRUTH
from pytest_nixproc.managers.launch import Launch
from pytest_nixproc.managers.shell import launch_script
from pytest_nixproc.values.units import Status, Unit

NAME: Final = "runit"
SERVICES: Final = "service"
TOOLS: Final = ("runsv", "sv")
NOTICE_SECONDS: Final = 2.0
PARAMETERS: Final[Mapping[str, Any]] = {"restart": False}
"""What an override can change: whether runsv starts a program again that has ended by itself."""

CAPABILITIES: Final = Capabilities(
    prefers="foreground",
    platforms=("linux", "freebsd", "darwin"),
    example_override={"restart": True},
    note="a runsv for each instance; programs are not restarted unless overrides say so (restart)",
)


class RunitGenerator(Generator):
    """A service directory for each instance, with ``run`` and ``finish``."""

    def generate(self, launch: Launch) -> Unit:
        """Return the scripts; ``run`` sets up the program's surroundings and becomes it, or its foreground proxy."""
        parameters = launch.overridden(PARAMETERS, known=PARAMETERS, kinds={"restart": TRUTH})
        directory = f"{SERVICES}/{launch.name}"
        finish = finish_script(launch, restart=bool(parameters["restart"]))
        scripts = {f"{directory}/run": launch_script(launch), f"{directory}/finish": finish}
        if launch.stop_signal != "TERM":
            # runsv has this done in place of sending SIGTERM.
            ask = f'kill -{launch.stop_signal} "$(cat supervise/pid)"'
            scripts[f"{directory}/control/t"] = f"#!{launch.target.facts.shell}\n{ask}\n"
        return launch.unit(scripts=scripts)


def finish_script(launch: Launch, *, restart: bool) -> str:
    """Return what runsv runs when the program has ended: runsv(8) tells it how; an ``x`` has runsv leave, too."""
    record = quote(ending_of(launch.name, launch.target.state.runtime_dir))
    lines = [f"#!{launch.target.facts.shell}", f'echo "$1 $2" > {record}']
    return "\n".join([*lines, *([] if restart else ["printf x > supervise/control"])]) + "\n"


def ending_of(name: str, directory: str) -> str:
    """Return the file in which ``finish`` writes down how a program has ended."""
    return f"{directory}/.{name}.ended"


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


class Runsv:
    """The runsv of a unit, as its files show it."""

    def __init__(self, driver: Driver, unit: Unit) -> None:
        self.machine = driver.machine
        runtime_dir = driver.target.state.runtime_dir
        self.directory = f"{driver.target.directory}/{SERVICES}/{unit.name}"
        self.ending = ending_of(unit.name, runtime_dir)
        self.record = f"{runtime_dir}/.{unit.name}.runsv"
        """The file in which its pid is kept, for a driver made anew."""

    @property
    def supervision(self) -> Supervision:
        """What it has written down."""
        return Supervision.read(self.machine.files.read(f"{self.directory}/supervise/status"))

    @property
    def pid(self) -> int | None:
        """Its process, if that lives."""
        content = self.machine.files.read(self.record) or b""
        pid = int(content) if content.strip().isdigit() else None
        return pid if pid and not self.machine.processes.ended([pid]) else None


class RunitDriver(Driver):
    """Starts runsv processes, asks them through sv(8), and reads what they write down."""

    @cached_property
    def _unended(self) -> set[Unit]:
        """Units whose runsv was not seen to end."""
        return set()

    def activate(self, units: Sequence[Unit], deadline: Deadline) -> dict[str, str]:  # noqa: ARG002 - it does not wait
        """Start a runsv for each unit that does not run; it starts the program at once."""
        statuses = self.status(units)
        idle = [unit for unit in units if not statuses[unit.name].running]
        # What has been killed a moment ago may not have been noticed: a proxy outlives its daemon by that.
        self._end(self._await(idle, lambda seen: seen.is_down, self.machine.deadline(NOTICE_SECONDS)))
        for unit in idle:
            runsv = Runsv(self, unit)
            self.machine.files.remove(f"{runsv.directory}/supervise")
            self.machine.files.remove(runsv.ending)
            pid = self.machine.processes.spawn(self.command("runsv", runsv.directory, output=unit.log_file))
            self.machine.files.write(runsv.record, f"{pid}\n")
        return {}

    def deactivate(self, units: Sequence[Unit], deadline: Deadline) -> None:
        """Ask programs to end and each runsv to leave then; wait until all programs have ended."""
        self._await(units, lambda seen: seen.is_known, deadline)
        supervised = {unit: runsv.directory for unit in units if (runsv := Runsv(self, unit)).pid}
        if supervised:
            self.machine.processes.run([self.command("sv", "exit", *supervised.values())], deadline)
        self._unended.update(supervised)
        self._end(self._await(units, lambda seen: seen.is_down, deadline))

    def _await(self, units: Sequence[Unit], holds: Callable[[Supervision], bool], deadline: Deadline) -> list[Unit]:
        """Wait until something holds for each unit that has a runsv; return those that are not waited for any more."""

        def pending() -> list[Unit]:
            all_ = ((unit, Runsv(self, unit)) for unit in units)
            return [unit for unit, runsv in all_ if runsv.pid and not holds(runsv.supervision)]

        left = [] if deadline.until(lambda: not pending()) else pending()
        return [unit for unit in units if unit not in left]

    def close(self, deadline: Deadline) -> None:  # noqa: ARG002 - what it ends cannot resist
        """End what is left of runsv processes whose programs had to be killed."""
        self._end(list(self._unended))

    def _end(self, units: Sequence[Unit]) -> None:
        """End runsv processes that have no program left: they rest for a second before they would leave."""
        pids = {pid for unit in units if (pid := Runsv(self, unit).pid)}
        for pid in pids:
            self.machine.processes.signal(pid, signal.SIGKILL)
        self.machine.processes.wait_ended(pids, self.machine.deadline(5))
        self._unended -= set(units)

    def reload(self, unit: Unit, deadline: Deadline) -> None:
        """Send the process's signal, of which sv(8) does not know all."""
        pid = self.status([unit])[unit.name].pid
        self.succeed(unit, self.command("kill", f"-{unit.reload_signal}", str(pid or "")), deadline)

    def status(self, units: Sequence[Unit]) -> dict[str, Status]:
        """Read what each runsv has written down."""
        return {unit.name: self._status(unit, Runsv(self, unit)) for unit in units}

    def _status(self, unit: Unit, runsv: Runsv) -> Status:
        found = runsv.supervision
        pid = daemon_of(unit, self.machine, self.target) or found.pid
        if found.is_running and not self.machine.processes.ended([found.pid, pid]):
            return Status(running=True, pid=pid, text=f"run: pid {pid}")
        words = (self.machine.files.read(runsv.ending) or b"").split()
        # Between the end of a program and that of "finish", nobody can know how it was.
        has_ended = len(words) == 2 or (self.machine.files.exists(runsv.record) and runsv.pid is None)
        status = exit_status(*words) if len(words) == 2 else None
        return Status(running=False, has_ended=has_ended, exit_status=status, text="down" if has_ended else "not up")


def exit_status(code: bytes, status: bytes) -> int:
    """Return how a program has ended from what ``finish`` is told: a code, or -1 and the wait status of a signal."""
    return -(int(status) & 0x7F) if int(code) == -1 else int(code)


def unavailable_reason(machine: object) -> str:  # noqa: ARG001 - machines have the host's software
    """Tell whether runit's tools are installed."""
    missing = ", ".join(tool for tool in TOOLS if shutil.which(tool) is None)
    return f"{missing} is not installed; on Debian: apt-get install --no-install-recommends runit" if missing else ""


@hookimpl
def nixproc_managers() -> list[Manager]:
    """Offer this manager."""
    return [Manager(NAME, RunitGenerator, RunitDriver, CAPABILITIES, unavailable_reason)]
