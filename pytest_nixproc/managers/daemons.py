"""Daemons that are known by their PID file, for managers that leave a program to itself once it has been started.

A shell function makes a daemon of any program, and writes the PID file of those that do not write one. A driver knows
the process again by a record of its pid and its start time, so that a PID file of an earlier process is not believed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.managers import shell
from pytest_nixproc.managers.api import Driver, Status, Target, Unit, pid_in
from pytest_nixproc.model.process import Command, ManagedProcess, Mode

HINT: Final = "\n(if the program stays in the foreground, give it as foreground_process instead of process)"

DAEMON: Final = """\
    ( become : ) < /dev/null && return
    status=$?"""

FOREGROUND: Final = """\
    # A background command of a shell without job control ignores SIGINT and SIGQUIT for good (POSIX.1 XCU 2.12). So
    # this is none: the inner subshell, which becomes the program, kills the outer one, which would wait for its end.
    # POSIX has no variable for their pids, but a directory that is named so; and -ef since 2024, shells long before.
    # shellcheck disable=SC3013
    if [ /proc/self -ef "/proc/$$" ]; then
        { (
            cd -P /proc/self || exit
            set -- "${PWD##*/}"
            ( cd -P /proc/self && [ "${PWD##*/}" != "$1" ] && echo "${PWD##*/}" > "$pid_file" && cd / &&
                become kill -KILL "$1" ) < /dev/null 2>&1
            exit
        ); status=$?; } 2> /dev/null
        [ "$status" != 137 ] || return 0
        rm -f "$pid_file"
    else
        set -m 2> /dev/null
        ( become : ) < /dev/null &
        echo "$!" > "$pid_file" && return
        status=1
    fi"""


def record_of(name: str, target: Target) -> str:
    """Return the file that says which process was started: pid and start time, or nothing yet."""
    return f"{target.state.runtime_dir}/.{name}.started"


def launch(
    key: str, process: ManagedProcess, command: Command, mode: Mode, target: Target, own_variables: str
) -> Iterator[str]:
    """Yield the function that runs ``initialize`` and then the program, as a daemon in any case.

    The script sets ``name`` and ``pid_file`` before it calls the function, ``launch``. ``own_variables`` are those that
    it was given for itself, and that the program is not to see.
    """
    yield "# Only called in a process of its own: the names below are the program's, not this script's."
    yield "enter() {"
    yield f"unset {own_variables}"
    yield from shell.surroundings(process, target.environment(process, key))
    yield "}"
    yield "# Does what its arguments say at the last moment before this process becomes the program."
    yield "become() {"
    yield f'    enter && {shell.working_directory(process)} && "$@" && exec {shell.program(command, process, target)}'
    yield "}"
    yield "launch() {"
    if process.initialize:
        yield f"    ( enter && exec {shell.initialization(process, target)} ) {shell.or_report(process, 'return 1')}"
    yield DAEMON if mode == "daemon" else FOREGROUND
    yield '    echo "$name: could not be started (status $status)" >&2'
    yield "    return 1"
    yield "}"


@dataclass(frozen=True)
class Traces:
    """What a start and the program have left behind: the contents of their files, None for a missing one."""

    record: bytes | None
    pid_file: bytes | None

    @property
    def named(self) -> int | None:
        """The process that the PID file names."""
        return first_number(self.pid_file or b"")

    @property
    def pid(self) -> int | None:
        """The process that was started, as far as it is known."""
        return None if self.record is None else first_number(self.record) or self.named


def first_number(content: bytes) -> int | None:
    """Return the process that a PID file or a record begins with."""
    return pid_in((content.split() or [b""])[0])


class DaemonDriver(Driver):
    """Knows processes by PID file and record, and sees their ends by itself; how they are started is left open."""

    @abstractmethod
    def request_stop(self, units: Sequence[Unit], pids: Mapping[Unit, int], deadline: Deadline) -> None:
        """Have units asked to stop, without waiting for their ends; ``pids`` are the processes of those that run."""

    def deactivate(self, units: Sequence[Unit], deadline: Deadline) -> None:
        """Have all processes asked to stop, and see their ends in one look at all of them."""
        statuses = self.status(units)
        pids = {unit: status.pid for unit in units if (status := statuses[unit.name]).running and status.pid}
        self.request_stop(units, pids, deadline)
        running = set(pids.values()) - self.machine.ended(pids.values())
        for _ in deadline.pauses() if running else ():
            running -= self.machine.ended(running)
            if not running:
                break
        for unit in units:
            if pids.get(unit) not in running:
                self.forget(unit)

    def identify(self, unit: Unit) -> None:
        """Complete the record of a process that its start has left unidentified; one without PID file stays so."""
        assert unit.pid_file is not None
        record = record_of(unit.name, self.target)
        if self.machine.read(record) == b"" and (pid := first_number(self.machine.read(unit.pid_file) or b"")):
            self.machine.write(record, self.identity(pid))

    def is_recorded(self, unit: Unit, pid: int) -> bool:
        """Tell whether a process is the very one that was started, and not a later one with its pid."""
        record = self.machine.read(record_of(unit.name, self.target))
        return record is not None and record.decode(errors="replace") == self.identity(pid) != ""

    def identity(self, pid: int) -> str:
        """Return what a record holds about a process; empty where it cannot be identified."""
        started = self.machine.start_time(pid)
        return f"{pid} {started}\n" if started else ""

    def forget(self, unit: Unit) -> None:
        """Remove what says that a process runs."""
        assert unit.pid_file is not None
        self.machine.remove(unit.pid_file)
        self.machine.remove(record_of(unit.name, self.target))

    def status(self, units: Sequence[Unit]) -> dict[str, Status]:
        """Look at PID files, and at what the machine knows about the end of processes."""
        traces = {unit: self._traces(unit) for unit in units}
        ended = self.machine.ended([pid for trace in traces.values() if (pid := trace.pid)])
        if ended:
            self.machine.catch_up()
        return {unit.name: self._status(unit, trace, ended) for unit, trace in traces.items()}

    def _traces(self, unit: Unit) -> Traces:
        assert unit.pid_file is not None
        return Traces(self.machine.read(record_of(unit.name, self.target)), self.machine.read(unit.pid_file))

    def _status(self, unit: Unit, trace: Traces, ended: AbstractSet[int]) -> Status:
        pid, content = trace.pid, trace.pid_file
        if trace.record is None:
            return Status(running=False, text="not running")
        if pid is None:
            return self._without_pid(unit, content)
        if pid not in ended:
            running = trace.named == pid
            text = f"running, pid {pid}" if running else f"pid {pid} runs, but {unit.pid_file} holds {content!r}"
            return Status(running=running, pid=pid if running else None, text=text)
        text = f"dead, PID file {unit.pid_file} {'is gone' if content is None else 'exists'}"
        return Status(running=False, has_ended=True, pid=pid, exit_status=self.exit_status(unit, pid), text=text)

    def _without_pid(self, unit: Unit, content: bytes | None) -> Status:
        """Return the status of a daemon that has been started and is known by no pid: alive if any process of it is."""
        tags = [f"{name}={value}" for name, value in self.target.tags.items()]
        strays = self.machine.strays(tags[0]) if tags else []
        mine = f"NIXPROC_INSTANCE={unit.key}"
        # Whoever sets its own title, as redis does, may have overwritten its environment, and is anybody's.
        alive = any(self.machine.has_tag(pid, mine) or not self.machine.has_tag(pid, tags[0]) for pid in strays)
        text = f"PID file {unit.pid_file} {'does not exist' if content is None else f'holds {content[:20]!r}'}"
        return Status(running=False, has_ended=not alive, text=text)
