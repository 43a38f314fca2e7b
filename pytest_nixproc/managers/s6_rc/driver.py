"""The driver: compiles definitions, brings a supervision tree up, and has s6-rc change its state."""

from __future__ import annotations

import posixpath
import signal
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Final

from pytest_nixproc.errors import CommandFailed, DeploymentError, MachineError, WaitTimeout
from pytest_nixproc.machines.api import OUTPUT_TAIL, Machine, Spawn, describe_status
from pytest_nixproc.machines.waiting import Deadline, wait_until
from pytest_nixproc.managers.api import Driver, Status, Target, Unit, pid_in
from pytest_nixproc.managers.s6_rc.generator import (
    LAUNCHER,
    SOURCES,
    atom,
    companion,
    interpreter_link,
    live_directory,
    scan_directory,
    scanner_file,
)
from pytest_nixproc.managers.s6_rc.looks import FIELDS, Look, looks
from pytest_nixproc.managers.s6_rc.syntax import service_name
from pytest_nixproc.managers.s6_rc.tools import search_path

RECORD: Final = "s6-tools"
"""The file that says where the tools are: who takes a deployment down may have another ``PATH``."""

ASK_SECONDS: Final = 10.0
UPDATE_SECONDS: Final = 60.0
"""An update that is broken off leaves a live state of which s6-rc-update says that it cannot be relied on."""

NOTICE_SECONDS: Final = 2.0
"""How long s6-supervise may take to notice the end of a process, and s6-rc that its time is over."""

WRITE_SECONDS: Final = 0.5
"""How long a companion is waited for that is given more and more."""

OWN: Final = frozenset({"s6rc-fdholder", "s6rc-oneshot-runner"})
"""Services that s6-rc adds by itself."""

NOT_ALL: Final = (0, 1, 2)
"""How s6-rc ends when it has tried: done, some transitions failed, or its time was over."""

SHOW: Final = f"""\
cd -- "$1/servicedirs" || exit 1
shift
for name; do s6-svstat -o {FIELDS} -- "$name" 2> /dev/null || echo; done"""

SHOW_COMPANIONS: Final = """\
cd -- "$1/servicedirs" || exit 1
for name in *"$2"; do echo "$name $(s6-svstat -o pid -- "$name")"; done"""

SURVEY: Final = """\
live=$1 way=$2
shift 2
s6-rc -l "$live" -b -a list && echo && exec s6-rc -l "$live" -b "$way" listall "$@\""""
"""Prints what is up for s6-rc, and what it would take along."""

CHANGE: Final = """\
cd -- "$1" || exit 111
shift
exec s6-rc "$@\""""
"""The socket by which s6-rc has oneshots run is the deepest of all: by a relative path, it is never too deep."""

TELL: Final = """\
cd -- "$1/servicedirs" || exit 1
limit=$2 what=$3
shift 3
for name; do s6-svc "$what" -T "$limit" -- "$name" & done
wait"""
"""Has s6-supervise start or stop services, side by side, and waits until it has."""

START: Final = "-uwu"
STOP: Final = "-dwD"

SCRIPTS: Final = """\
live=$1 way=$2
shift 2
for name; do s6-rc-db -l "$live" -b "$way" script "$name" | xargs -0 env & done
wait"""
"""Runs the command lines of oneshots, side by side; s6-rc-db prints their words, each with a NUL behind it."""


class S6RcDriver(Driver):
    """Finds its supervision tree by the deployment's directories.

    The deployment decides what is started and stopped, instance by instance. s6-rc takes along what a service needs, or
    what needs it; where that would be somebody else, s6-supervise is told directly, and s6-rc keeps its view.
    """

    def __init__(self, machine: Machine, target: Target) -> None:
        super().__init__(machine, target)
        self._live = live_directory(target)
        self._sources = f"{target.directory}/{SOURCES}"
        self._log = f"{target.state.log_dir}/s6-svscan.log"
        self._known: dict[str, int] = {}
        """Processes of services, as last seen; that holds for those that still run."""
        self._stopped: dict[str, Look] = {}
        """What was seen of services after they were stopped; it holds until they are started."""
        self._companions: dict[str, int] | None = None
        """Processes of companions, once somebody has asked for a log."""

    @cached_property
    def _path(self) -> str:
        """Where the tools are."""
        content = self.machine.read(f"{self.target.directory}/{RECORD}")
        return content.decode(errors="surrogateescape") if content else search_path(self.machine)

    def _ask(self, deadline: Deadline, *argv: str) -> tuple[int | None, str]:
        """Run a command; return its status and output."""
        return self.machine.capture(Spawn(argv, self._environment), deadline)

    @property
    def _environment(self) -> dict[str, str]:
        return {"PATH": self._path, **self.target.tags}

    def _shell(self, deadline: Deadline, text: str, *words: str) -> tuple[int | None, str]:
        """Run shell text with arguments."""
        return self._ask(deadline, self.machine.facts.shell, "-c", text, "sh", *words)

    def _tool(self, name: str) -> str:
        """Return the path of a tool; that of none is left to fail with its name."""
        candidates = (f"{directory}/{name}" for directory in self._path.split(":"))
        return next(filter(self.machine.exists, candidates), f"/usr/bin/{name}")

    def _succeed(self, deadline: Deadline, tool: str, *words: str) -> None:
        """Run a tool, which must succeed."""
        status, output = self._ask(deadline, self._tool(tool), *words)
        if status != 0:
            ending = "does not come to an end" if status is None else describe_status(status)
            raise MachineError(f"{tool} {ending}", details=f"{output[-OUTPUT_TAIL:]}\n{self._said()}".strip())

    def _said(self) -> str:
        """Return the end of what the supervision tree has written by itself."""
        return (self.machine.read(self._log) or b"").decode(errors="replace")[-OUTPUT_TAIL:].rstrip()

    def open(self, deadline: Deadline) -> None:
        """Start s6-svscan, compile the definitions meanwhile, and begin with all services down."""
        self.machine.write(f"{self.target.directory}/{RECORD}", search_path(self.machine))
        self.machine.link(interpreter_link(self.target), self._tool("execlineb"))
        command = Spawn((f"{self.target.directory}/{LAUNCHER}",), self._environment, self._log)
        pid = self.machine.spawn(command)
        database = self._compile(deadline)

        def look() -> str:
            if len((self.machine.read(scanner_file(self.target)) or b"").splitlines()) > 1:
                return ""
            if self.machine.ended([pid]):
                raise DeploymentError("s6-svscan ended at its start", details=self._said())
            return "it has not said so"

        try:
            wait_until(look, deadline, "wait for s6-svscan to be ready")
        except WaitTimeout as error:
            raise DeploymentError(error.brief, details=f"{error.details}\n{self._said()}") from error
        limit = milliseconds(deadline)
        scan = scan_directory(self.target)
        self._succeed(deadline, "s6-rc-init", "-b", "-t", limit, "-c", database, "-l", self._live, "--", scan)

    def _compile(self, deadline: Deadline) -> str:
        """Compile the definitions into a database that is not there yet, and return its path."""
        candidates = [f"{self.target.state.runtime_dir}/s6-rc-compiled-{number}" for number in (1, 2)]
        database, other = sorted(candidates, key=self.machine.exists)
        if self.machine.exists(database):
            raise MachineError(f"{database} and {other} are there already, and one of them is used")
        self._succeed(deadline, "s6-rc-compile", "--", database, self._sources)
        return database

    def close(self, deadline: Deadline) -> None:
        """Have s6-svscan end with its whole tree, and wait for that."""
        pid = self._scanner()
        if pid is None:
            return
        self.machine.signal(pid, signal.SIGTERM)
        self._await_end([pid], deadline)

    def _scanner(self) -> int | None:
        """Return the process of s6-svscan, if it runs and is the deployment's."""
        first = (self.machine.read(scanner_file(self.target)) or b"").partition(b"\n")[0]
        pid = pid_in(first)
        return pid if pid and not self.machine.ended([pid]) and self._is_ours(pid) else None

    def _is_ours(self, pid: int) -> bool:
        """Tell whether a process is one of the deployment's."""
        return all(self.machine.has_tag(pid, f"{name}={value}") for name, value in self.target.tags.items())

    def _await_end(self, pids: Iterable[int], deadline: Deadline) -> None:
        """Wait until processes have ended; the deadline is no error, who stops something looks afterwards."""
        running = set(pids)
        running -= self.machine.ended(running)
        for _ in deadline.pauses() if running else ():
            running -= self.machine.ended(running)
            if not running:
                return

    def refresh(self, old: Sequence[Unit], new: Sequence[Unit]) -> None:
        """Compile anew, and have the live state go over to that database; nobody who runs is restarted by it."""
        deadline = self.machine.deadline(UPDATE_SECONDS)
        for directory in definitions(old) - definitions(new):
            self.machine.remove(f"{self.target.directory}/{directory}")
        database = self._compile(deadline)
        self._succeed(deadline, "s6-rc-update", "-b", "-l", self._live, "--", database)
        number = int(database[-1])
        self.machine.remove(f"{database[:-1]}{3 - number}")

    def activate(self, units: Sequence[Unit], deadline: Deadline) -> dict[str, str]:
        """Start units by one command, and wait until s6-rc takes them for up: started, or ready if they say so.

        What has ended already is reported as it is by who waits for it.
        """
        names = [atom(service_name(unit.name)) for unit in units]
        up, along = self._survey(deadline, "-u", names)
        known = [unit for unit in units if atom(service_name(unit.name)) in up]
        self._companions = None
        self._stopped = {name: look for name, look in self._stopped.items() if name not in names}
        if known:
            # s6-rc takes those for up that have ended by themselves, or were stopped without it.
            statuses = self.status(known)
            ended = [atom(service_name(unit.name)) for unit in known if not statuses[unit.name].running]
            self._tell(START, ended, deadline)
        fresh = [name for name in names if name not in up]
        said = self._start(fresh, along - up, deadline) if fresh else ""
        return self._problems(units, said, is_over=not deadline.remaining) if said or known else {}

    def _start(self, names: Sequence[str], along: set[str], deadline: Deadline) -> str:
        """Start services that s6-rc takes for down; return what it says if that did not work out."""
        companions = {companion(name.removesuffix(atom(""))) for name in names} & along
        if not along - companions - set(names) - OWN:
            return self._change(deadline, "-u", names)
        self._tell(START, [*companions, *names], deadline)
        return ""

    def _tell(self, what: str, names: Sequence[str], deadline: Deadline) -> None:
        """Have services started or stopped without s6-rc, and wait for that."""
        longruns = [name for name in names if self._is_supervised(name)]
        oneshots = [name for name in names if name not in longruns]
        limit = self.machine.deadline(deadline.remaining + NOTICE_SECONDS)
        if longruns:
            self._shell(limit, TELL, self._live, milliseconds(deadline), what, *longruns)
        if oneshots:
            self._shell(limit, SCRIPTS, self._live, what[:2], *oneshots)

    def _is_supervised(self, name: str) -> bool:
        """Tell whether a service is a longrun."""
        return self.machine.exists(f"{self._live}/servicedirs/{name}")

    def _change(self, deadline: Deadline, way: str, names: Sequence[str]) -> str:
        """Have s6-rc change the state; return what it says when it has not done everything."""
        limit = self.machine.deadline(deadline.remaining + NOTICE_SECONDS)
        place, live = posixpath.split(self._live)
        words = ("-l", live, "-b", way, "-t", milliseconds(deadline), "change", *names)
        status, output = self._shell(limit, CHANGE, place, *words)
        if status not in NOT_ALL:
            ending = "does not come to an end" if status is None else describe_status(status)
            raise CommandFailed(f"s6-rc {ending}", details=output[-OUTPUT_TAIL:].rstrip())
        return (output.rstrip() or f"s6-rc {describe_status(status)}") if status else ""

    def _survey(self, deadline: Deadline, way: str, names: Sequence[str]) -> tuple[set[str], set[str]]:
        """Return what s6-rc takes for up, and everything that would change together with services."""
        status, output = self._shell(deadline, SURVEY, self._live, way, *names)
        if status != 0:
            raise MachineError("s6-rc does not know its services", details=output[-OUTPUT_TAIL:].rstrip())
        first, _, second = ("\n" + output).partition("\n\n")
        return set(first.split()), set(second.split())

    def _problems(self, units: Sequence[Unit], said: str, *, is_over: bool) -> dict[str, str]:
        """Return which units are not up; once time is over, those too that have not said that they are ready."""
        statuses = self.status(units)
        names = {unit.name: atom(service_name(unit.name)) for unit in units}
        up, _ = self._survey(self.machine.deadline(ASK_SECONDS), "-u", list(names.values()))
        return {
            unit.name: "\n".join(filter(None, (statuses[unit.name].text, said)))
            for unit in units
            if (is_over and names[unit.name] not in up)
            or not (statuses[unit.name].running or statuses[unit.name].has_ended)
        }

    def deactivate(self, units: Sequence[Unit], deadline: Deadline) -> None:
        """Stop units by one command, which ends when their processes have."""
        names = [atom(service_name(unit.name)) for unit in units]
        up, along = self._survey(deadline, "-d", names)
        if along & up <= set(names) <= up:
            self._change(deadline, "-D", names)
        else:
            self._tell(STOP, names, deadline)
        self._stopped |= {name: look for name, look in self._show(names).items() if look.pid is None}

    def reload(self, unit: Unit, deadline: Deadline) -> None:
        """Send SIGHUP, the usual request to read the configuration again."""
        name = atom(service_name(unit.name))
        if not self._is_supervised(name):
            self._reload_daemon(unit)
            return
        status, output = self._ask(deadline, self._tool("s6-svc"), "-h", "--", f"{self._live}/servicedirs/{name}")
        if status != 0:
            raise CommandFailed(f"{unit.name} was not reloaded", details=output[-OUTPUT_TAIL:])

    def _reload_daemon(self, unit: Unit) -> None:
        pid = self._own_daemon(unit)
        if pid is None:
            raise CommandFailed(f"{unit.name}: it does not run")
        self.machine.signal(pid, signal.SIGHUP)

    def status(self, units: Sequence[Unit]) -> dict[str, Status]:
        """Ask about all units at once, but those whose processes are known to run."""
        try:
            found = self._look_at(units)
        except MachineError as error:
            return {unit.name: Status(running=False, text=str(error)) for unit in units}
        return {unit.name: self._status(unit, found[unit.name]) for unit in units}

    def _status(self, unit: Unit, look: Look) -> Status:
        if not look.is_supervised:
            return self._status_of_oneshot(unit)
        if look.pid is not None:
            return Status(running=True, pid=self._daemon_pid(unit) or look.pid, text=f"up (pid {look.pid})")
        if not self.machine.size(f"{self._live}/servicedirs/{atom(service_name(unit.name))}/supervise/death_tally"):
            return Status(running=False, text="down, and not started yet")
        text = f"down: it {describe_status(look.exit_status or 0)}"
        return Status(running=False, has_ended=True, exit_status=look.exit_status, text=text)

    def _status_of_oneshot(self, unit: Unit) -> Status:
        """Return the status of a daemon that s6-rc has started itself, of which it knows no more than that it did."""
        if pid := self._own_daemon(unit):
            return Status(running=True, pid=pid, text=f"up (pid {pid})")
        name = atom(service_name(unit.name))
        up, _ = self._survey(self.machine.deadline(ASK_SECONDS), "-u", [name])
        text = "up for s6-rc, and its daemon does not run" if name in up else "down"
        return Status(running=False, has_ended=name in up, text=text)

    def _daemon_pid(self, unit: Unit) -> int | None:
        """Return the pid of the daemon behind a foreground proxy."""
        return self.process_named(unit, self.machine.read(unit.pid_file) or b"") if unit.pid_file else None

    def _own_daemon(self, unit: Unit) -> int | None:
        """Return the process that a PID file names, if it runs and is one of the deployment's."""
        pid = self._daemon_pid(unit)
        return pid if pid and not self.machine.ended([pid]) and self._is_ours(pid) else None

    def _look_at(self, units: Sequence[Unit]) -> dict[str, Look]:
        """Return what s6-supervise knows of each unit, once it has noticed the processes that have ended.

        A foreground proxy ends a moment after its daemon.
        """
        names = {unit.name: atom(service_name(unit.name)) for unit in units}
        living = self._living(names.values())
        found = {name: Look(pid=self._known[name]) for name in living}
        found |= self._show([name for name in names.values() if name not in living])
        for _ in self.machine.deadline(NOTICE_SECONDS).pauses():
            late = [unit for unit in units if self._is_late(unit, found[names[unit.name]])]
            if not late:
                break
            found |= self._show([names[unit.name] for unit in late])
        return {unit: found[name] for unit, name in names.items()}

    def _living(self, names: Iterable[str]) -> set[str]:
        """Return the services whose processes, as last seen, still run."""
        pids = {name: self._known[name] for name in names if name in self._known}
        ended = self.machine.ended(pids.values())
        return {name for name, pid in pids.items() if pid not in ended}

    def _is_late(self, unit: Unit, look: Look) -> bool:
        """Tell whether a process has ended, and s6-supervise has still to notice that, or to tidy up after it."""
        daemon = self._daemon_pid(unit) if look.pid else None
        return not look.is_settled or bool(self.machine.ended([pid for pid in (look.pid, daemon) if pid]))

    def _show(self, names: Sequence[str]) -> dict[str, Look]:
        """Ask about services by one command."""
        if not names:
            return {}
        status, output = self._shell(self.machine.deadline(ASK_SECONDS), SHOW, self._live, *names)
        if status != 0:
            raise MachineError("there is no live state of s6-rc", details=output[-OUTPUT_TAIL:].rstrip())
        found = dict(zip(names, looks(output), strict=True))
        self._known |= {name: look.pid for name, look in found.items() if look.pid}
        return found

    def exit_status(self, unit: Unit, pid: int) -> int | None:
        """Return how the main process has ended, of which s6-supervise is the parent."""
        try:
            look = self._stopped.get(atom(service_name(unit.name))) or self._look_at([unit])[unit.name]
        except MachineError:
            return None
        return look.exit_status if look.is_supervised else super().exit_status(unit, pid)

    def log_size(self, unit: Unit) -> int:
        """Return the number of bytes logged so far."""
        self._await_written(unit)
        return super().log_size(unit)

    def log(self, unit: Unit, start: int = 0) -> str:
        """Return what a unit has logged from byte ``start`` on."""
        self._await_written(unit)
        return super().log(unit, start)

    def _await_written(self, unit: Unit) -> None:
        """Wait until a companion has written what it was given.

        A process sleeps only when it waits for more: the kernel wakes it within the writer's call (proc(5), write(2)).
        """
        pid = self._find_companions().get(companion(service_name(unit.name)), 0)
        for _ in self.machine.deadline(WRITE_SECONDS).pauses() if self._is_busy(pid) else ():
            if not self._is_busy(pid):
                return

    def _is_busy(self, pid: int) -> bool:
        stat = (self.machine.read(f"/proc/{pid}/stat") or b"").rpartition(b")")[2].split()
        return bool(stat) and stat[0] in (b"R", b"D")

    def _find_companions(self) -> Mapping[str, int]:
        """Return the processes of all companions, by the names of their services; they are started with the units."""
        if self._companions is None:
            _, output = self._shell(self.machine.deadline(ASK_SECONDS), SHOW_COMPANIONS, self._live, companion(""))
            rows = (line.rpartition(" ") for line in output.splitlines())
            self._companions = {name: int(pid) for name, _, pid in rows if pid.isdigit()}
        return self._companions


def definitions(units: Iterable[Unit]) -> set[str]:
    """Return the directories of the services of units."""
    return {"/".join(file.path.split("/")[: SOURCES.count("/") + 2]) for unit in units for file in unit.files}


def milliseconds(deadline: Deadline) -> str:
    """Return what is left as the tools take it; for them, 0 means for ever."""
    return str(max(1, round(deadline.remaining * 1000)))
