"""The driver: asks a systemd for everything, through systemctl."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Final

from pytest_nixproc.errors import CommandFailed, DeploymentError, MachineError, Unreachable, WaitTimeout
from pytest_nixproc.machines.api import OUTPUT_TAIL, Machine, Spawn, describe_failure
from pytest_nixproc.machines.waiting import Deadline, wait_until
from pytest_nixproc.managers.api import Driver, Status, Target, Unit
from pytest_nixproc.managers.systemd.generator import UNITS, journal_command, journalled, prefix, target_unit, unit_name
from pytest_nixproc.managers.systemd.home import (
    RECORD,
    SYSTEM_UNITS,
    Home,
    own_cgroup,
    search_path,
    session_directory,
)
from pytest_nixproc.managers.systemd.launcher import CGROUP_MOUNTS, LAUNCHER
from pytest_nixproc.managers.systemd.looks import COMMANDS, PROPERTIES, Look, looks, reason_of_end

ASK_SECONDS: Final = 10.0
NOTICE_SECONDS: Final = 2.0
"""How long systemd may take to notice the end of a process."""

KILL_SECONDS: Final = 2.0
"""How long after its time is over a process may take to be killed by systemd."""

NOT_LOADED: Final = 5
"""How systemctl ends when it has to stop what systemd knows nothing of (LSB: not installed)."""

JOURNAL_SOCKET: Final = "/run/systemd/journal/stdout"

ALONE: Final = "--job-mode=ignore-requirements"
"""The deployment decides what is started and stopped: systemd is not to take what is required, or requires, along."""

LINK: Final = 'mkdir -p -- "$2" && ln -s -f -- "$1"/* "$2"/'
UNLINK: Final = 'rm -f -- "$1/$2"[-.]*'
CLEAR: Final = """
if [ -d "$1" ]; then
    echo 1 > "$1/cgroup.kill" || kill -KILL $(find "$1" -name cgroup.procs -exec cat {} +)
    find "$1" -depth -type d -exec rmdir {} +
fi
[ -d "$1" ] || { chmod -R u+rwx -- "$2" && rm -rf -- "$2"; }
"""
"""Ends a control group; and removes the runtime directory, parts of which systemd closes to its own user too."""


class SystemdDriver(Driver):
    """Finds its systemd again by a record in the deployment's directory, and units by their names."""

    def __init__(self, machine: Machine, target: Target) -> None:
        super().__init__(machine, target)
        self._log = f"{target.state.log_dir}/systemd.log"
        self._known: dict[str, Look] = {}
        """What systemd has said last; it holds for units whose processes still run."""

    @cached_property
    def _home(self) -> Home:
        home = Home.recall(self.machine, self.target)
        if home is None:
            raise MachineError(f"no systemd is known: {self.target.directory}/{RECORD} is missing")
        return home

    def open(self, deadline: Deadline) -> None:
        """Start a systemd of the deployment's own, or have one that runs already know the units."""
        home = Home.choose(self.machine, self.target)
        home.record(self.machine, self.target)
        self.__dict__["_home"] = home
        if home.kind == "private":
            self._launch(home, deadline)
        else:
            self._link(home, deadline)
            self._succeed(deadline, "start", target_unit(self.target))

    def _launch(self, home: Home, deadline: Deadline) -> None:
        """Start a systemd, and wait for its socket."""
        environment = {
            "PATH": self.machine.path_variable,
            "XDG_RUNTIME_DIR": home.runtime_directory,
            "SYSTEMD_UNIT_PATH": search_path(self.target, UNITS),
            "SYSTEMD_GENERATOR_PATH": "",
            "SYSTEMD_ENVIRONMENT_GENERATOR_PATH": "",
            **self.target.tags,
        }
        script = f"{self.target.directory}/{LAUNCHER}"
        pid = self.machine.spawn(Spawn((script, "enter", home.cgroup), environment, self._log))

        def look() -> str:
            problem = self.machine.connection_problem(home.socket)
            if problem and self.machine.ended([pid]):
                raise DeploymentError("systemd ended at its start", details=self._said())
            return problem

        try:
            wait_until(look, deadline, "wait for systemd's socket")
        except WaitTimeout as error:
            raise DeploymentError(error.brief, details=f"{error.details}\n{self._said()}") from error

    def _said(self) -> str:
        """Return the end of what was written where an own systemd was started."""
        return (self.machine.read(self._log) or b"").decode(errors="replace")[-OUTPUT_TAIL:].rstrip()

    def _link(self, home: Home, deadline: Deadline) -> None:
        """Have the units found in the runtime directory of a systemd that has others too.

        It looks for units that it does not know; to have it read all again would make it forget how others have failed.
        """
        self._shell(deadline, LINK, f"{self.target.directory}/{UNITS}", home.links)

    def _shell(self, deadline: Deadline, text: str, *words: str) -> str:
        """Run shell text with arguments; return its output, whatever its status."""
        argv = (self.machine.facts.shell, "-c", text, "sh", *words)
        environment = {"PATH": self.machine.path_variable, **self.target.tags}
        return self.machine.capture(Spawn(argv, environment), deadline)[1]

    def close(self, deadline: Deadline) -> None:
        """End an own systemd and its control group, or take the units away from one that has others too."""
        home = Home.recall(self.machine, self.target)
        if home is None:
            return
        if home.kind == "private":
            self._end(home, deadline)
        elif home.kind == "system" or self.machine.exists(home.socket):
            self._withdraw(home, deadline)

    def _end(self, home: Home, deadline: Deadline) -> None:
        """End a systemd with everything in its control group: units have been stopped before, as far as they were."""
        places = home.cgroup, f"{home.runtime_directory}/systemd"

        def look() -> str:
            if not any(map(self.machine.exists, places)):
                return ""
            said = self._shell(deadline, CLEAR, *places)
            left = list(filter(self.machine.exists, places))
            return ", ".join((*left, *said.splitlines()[-1:])) if left else ""

        wait_until(look, deadline, "end systemd and its control group")

    def _withdraw(self, home: Home, deadline: Deadline) -> None:
        """Stop what there is under our names, and have it forgotten."""
        names = f"{prefix(self.target)}-*", target_unit(self.target)
        status, output = self._ask(deadline, "stop", *names)
        if status is None:
            brief = "systemd does not stop the deployment's units"
            raise Unreachable(brief, details=output, remedy="see what systemctl list-jobs shows")
        self._ask(deadline, "reset-failed", *names)
        self._shell(deadline, UNLINK, home.links, prefix(self.target))

    def remains(self) -> Sequence[str]:
        """Return the control group and the link of the unit for the whole that are still there.

        Those of the other units are made after that one, and all are removed together.
        """
        links = (SYSTEM_UNITS, f"{session_directory()}/systemd/user")
        home = Home.recall(self.machine, self.target)
        group = home.cgroup if home else own_cgroup(self.machine, self.target)
        places = [group, *(f"{directory}/{target_unit(self.target)}" for directory in links)]
        return [f"left of systemd: {path}" for path in places if path and self.machine.exists(path)]

    def refresh(self, old: Sequence[Unit], new: Sequence[Unit]) -> None:  # noqa: ARG002 - systemd compares by itself
        """Have all unit files read again."""
        deadline = self.machine.deadline(ASK_SECONDS)
        self._known = {}
        if self._home.links:
            self._shell(deadline, UNLINK, self._home.links, prefix(self.target))
            self._link(self._home, deadline)
        self._succeed(deadline, "daemon-reload")

    def _ask(self, deadline: Deadline, *words: str) -> tuple[int | None, str]:
        """Run systemctl; return its status and output."""
        return self.machine.capture(self._home.command(self.machine, self.target, *words), deadline)

    def _succeed(self, deadline: Deadline, *words: str) -> str:
        """Run systemctl, which must succeed."""
        command = self._home.command(self.machine, self.target, *words)
        status, output = self.machine.capture(command, deadline)
        if status != 0:
            raise MachineError(describe_failure(command.argv, status), details=output[-OUTPUT_TAIL:])
        return output

    def _names(self, units: Iterable[Unit]) -> list[str]:
        return [unit_name(self.target, unit.name) for unit in units]

    def activate(self, units: Sequence[Unit], deadline: Deadline) -> dict[str, str]:
        """Start units by one command, and wait until systemd takes them for started.

        What has ended already is reported as it is by who waits for it.
        """
        if silent := self._silent(units):
            return dict.fromkeys(
                silent, f"its overrides send its output to the journal, and none runs: no {JOURNAL_SOCKET}"
            )
        # systemd would leave a unit alone of which it has not noticed that its process has ended.
        self._look_at(units)
        status, output = self._ask(deadline, "start", ALONE, *self._names(units))
        self._known = {}
        statuses = self.status(units)
        return {
            unit.name: self._problem(unit, statuses[unit.name], output if status else "")
            for unit in units
            if not (statuses[unit.name].running or statuses[unit.name].has_ended)
        }

    def _problem(self, unit: Unit, status: Status, output: str) -> str:
        awaited = f"systemd waits for PID file {unit.pid_file} to name a process of the unit" if unit.pid_file else ""
        return "\n".join(filter(None, (status.text, self.missing(unit) or awaited, output.rstrip())))

    def deactivate(self, units: Sequence[Unit], deadline: Deadline) -> None:
        """Stop units by one command, which ends when all of their processes have; systemd kills those that do not."""
        self._known = {}
        seconds = deadline.remaining + KILL_SECONDS
        status, output = self._ask(self.machine.deadline(seconds), "stop", ALONE, *self._names(units))
        if status not in (0, None, NOT_LOADED):
            raise CommandFailed("systemd has not stopped units", details=output[-OUTPUT_TAIL:].rstrip())

    def reload(self, unit: Unit, deadline: Deadline) -> None:
        """Have systemd run the command for it, which sends SIGHUP unless overrides say otherwise."""
        status, output = self._ask(deadline, "reload", *self._names([unit]))
        if status != 0:
            raise CommandFailed(f"{unit.name} was not reloaded", details=output[-OUTPUT_TAIL:])

    def status(self, units: Sequence[Unit]) -> dict[str, Status]:
        """Ask about all units at once, and again about those that have failed: why."""
        try:
            found = self._look_at(units)
            return {name: self._explained(look) for name, look in found.items()}
        except MachineError as error:
            return {unit.name: Status(running=False, text=str(error)) for unit in units}

    def _explained(self, look: Look) -> Status:
        """Return the status of a unit, with the reason why it has failed."""
        if look["ActiveState"] != "failed":
            return look.status()
        properties = [f"--property={name}" for name in COMMANDS]
        shown = self._succeed(self.machine.deadline(ASK_SECONDS), "show", *properties, "--", look["Id"])
        return look.status(reason_of_end(look, shown))

    def _look_at(self, units: Sequence[Unit]) -> dict[str, Look]:
        """Return what systemd knows of each unit, once it has noticed the processes that have ended."""
        found = {unit.name: self._known[unit.name] for unit in units if self._still_holds(unit)}
        if len(found) < len(units):
            found |= self._show([unit for unit in units if unit.name not in found])
        for _ in self.machine.deadline(NOTICE_SECONDS).pauses():
            ended = self.machine.ended([look.pid for look in found.values() if look.pid])
            late = [unit for unit in units if found[unit.name].pid in ended]
            if not late:
                break
            found |= self._show(late)
        return found

    def _still_holds(self, unit: Unit) -> bool:
        """Tell whether a unit was seen running, and its process still does."""
        look = self._known.get(unit.name)
        return (
            look is not None
            and look["ActiveState"] == "active"
            and bool(look.pid)
            and not self.machine.ended([look.pid or 0])
        )

    def _show(self, units: Sequence[Unit]) -> Mapping[str, Look]:
        properties = f"--property={','.join(PROPERTIES)}"
        names = self._names(units)
        output = self._succeed(self.machine.deadline(ASK_SECONDS), "show", properties, "--", *names)
        by_id = {look["Id"]: look for look in looks(output)}
        if missing := [name for name in names if name not in by_id]:
            raise MachineError(f"systemd does not know {missing[0]}", details=output[-OUTPUT_TAIL:])
        found = {unit.name: by_id[name] for unit, name in zip(units, names, strict=True)}
        self._known |= found
        return found

    def exit_status(self, unit: Unit, pid: int) -> int | None:
        """Return how the main process has ended, of which systemd is the parent."""
        look = self._look_at([unit])[unit.name]
        return look.exit_status if look["ExecMainPID"] == str(pid) else None

    def members(self, unit: Unit) -> Sequence[int]:
        """Return everything in a unit's control group."""
        group = self._look_at([unit])[unit.name]["ControlGroup"]
        contents = (self.machine.read(f"{mount}{group}/cgroup.procs") for mount in CGROUP_MOUNTS) if group else ()
        return [int(pid) for content in contents for pid in (content or b"").split()]

    def _silent(self, units: Sequence[Unit]) -> list[str]:
        """Return the names of units that log to a journal where there is none."""
        names = [unit.name for unit in units if journalled(unit)]
        return [] if self.machine.exists(JOURNAL_SOCKET) else names

    def log_size(self, unit: Unit) -> int:
        """Return the number of bytes logged so far."""
        return len(self._journal(unit)) if journalled(unit) else super().log_size(unit)

    def log(self, unit: Unit, start: int = 0) -> str:
        """Return what a unit has logged from byte ``start`` on."""
        if not journalled(unit):
            return super().log(unit, start)
        return self._journal(unit)[start:].decode(errors="replace")

    def _journal(self, unit: Unit) -> bytes:
        """Return what the journal has of a unit's processes, once it has taken in what they have written."""
        deadline = self.machine.deadline(ASK_SECONDS)
        name, *words = journal_command(unit_name(self.target, unit.name))
        path = self.machine.which(name) or name
        environment = {"PATH": self.machine.path_variable, "LC_ALL": "C.UTF-8", **self.target.tags}
        # An ordinary user may not ask for it, and sees a moment later what is written.
        self.machine.capture(Spawn((path, "--sync"), environment), deadline)
        return self.machine.capture(Spawn((path, *words), environment), deadline)[1].encode()
