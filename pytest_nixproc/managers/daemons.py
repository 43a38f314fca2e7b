"""Daemons that are known by their PID file, for managers that leave a program to itself once it has been started.

A shell function makes a daemon of any program, and writes the PID file of those that do not write one. A driver knows
the process again by a record of its pid and its start time, so that a PID file of an earlier process is not believed.
"""

from __future__ import annotations

import signal
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.managers import shell
from pytest_nixproc.managers.api import Driver, told_by
from pytest_nixproc.managers.launch import Launch
from pytest_nixproc.values.pid_files import pid_in
from pytest_nixproc.values.tags import INSTANCE
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Status, Unit
from pytest_nixproc.values.value import Value

HINT: Final = "\n(if the program stays in the foreground, give it as foreground_process instead of process)"

READ_PID: Final = r"""
# Sets $pid to the first word of the first line of file $1 that has one, if that is a number: some have more in them.
# Shells leave NUL out, and do not take the CR before a line's end for a blank.
read_pid() {
    pid=''
    { while read -r pid _ || [ -n "$pid" ]; do
        pid=${pid%[[:cntrl:]]}
        [ -z "$pid" ] || break
    done < "$1"; } 2> /dev/null
    case $pid in '' | *[!0-9]*) return 1 ;; esac
    # Leading zeros: neither kill nor /proc takes such a number for the same.
    pid=${pid#"${pid%%[!0]*}"}
    [ -n "$pid" ]
}"""
"""The shell function by which scripts read PID files, as :func:`~pytest_nixproc.values.pid_files.pid_in` does."""

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


REPLACED: Final = """\
    # A caller that knows how this script ends then spares the outer subshell: the program kills the script itself. What
    # the script would do afterwards is done before.
    # shellcheck disable=SC3013
    if {condition} && [ /proc/self -ef "/proc/$$" ]; then
        (
            cd -P /proc/self && [ "${{PWD##*/}}" != "$$" ] && echo "${{PWD##*/}}" > "$pid_file" && cd / &&
                become replace_starter "$record" "$$"
        ) < /dev/null
        status=$?
        rm -f "$pid_file"
        echo "$name: could not be started (status $status)" >&2
        return 1
    fi"""

REPLACE_STARTER: Final = """\
replace_starter() {
    : > "$1"
    kill -KILL "$2"
}"""

REPLACED_STATUS: Final = -signal.SIGKILL
"""How a script ends that a program has replaced."""


def record_of(name: str, target: Target) -> str:
    """Return the path of the record of the started process: its pid and start time, or nothing yet."""
    return f"{target.state.runtime_dir}/.{name}.started"


def functions(launch: Launch, own_variables: str, replaced_if: str = "") -> Iterator[str]:
    """Yield the lines of the shell function ``launch``: it runs ``initialize``, and then the program as a daemon.

    A program that stays in the foreground is put into the background. The script sets ``name``, ``program`` and
    ``pid_file`` before it calls the function. ``own_variables`` are those that it was given for itself, and that the
    program is not to see. ``replaced_if`` is a command of the shell that succeeds where the script has nothing else to
    do afterwards than to make its ``record``: there, a program that stays in the foreground ends the script.
    """
    yield "# Only called in a process of its own: the names below are the program's, not this script's."
    yield "enter() {"
    yield f"unset {own_variables}"
    yield from shell.surroundings(launch)
    yield "}"
    yield "# Does what its arguments say at the last moment before this process becomes the program."
    yield "become() {"
    yield f'    enter && {shell.working_directory(launch)} && "$@" && exec {shell.program(launch)}'
    yield "}"
    if launch.mode == "foreground" and replaced_if:
        yield REPLACE_STARTER
    yield "launch() {"
    if launch.initialize:
        yield f"    ( enter && {shell.initialization(launch)} ) < /dev/null {shell.or_report(launch, 'return 1')}"
    # Only now: it may be initialize that makes the program.
    yield '    [ -x "$program" ] || { echo "$name: $program is not installed" >&2; return 5; }'
    if launch.mode == "foreground" and replaced_if:
        yield REPLACED.format(condition=replaced_if)
    yield DAEMON if launch.mode == "daemon" else FOREGROUND
    yield '    echo "$name: could not be started (status $status)" >&2'
    yield "    return 1"
    yield "}"


class PidFileContents(Value):
    """The contents of a daemon's PID file and of our record of it."""

    record: bytes | None
    """The pid and the start time of the started process; empty before they are known, None without a record."""

    pid_file: bytes | None
    """Content of the PID file; None without one."""

    @property
    def named(self) -> int | None:
        """The process that the PID file names."""
        return pid_in(self.pid_file or b"")

    @property
    def pid(self) -> int | None:
        """The process that was started, as far as it is known."""
        return None if self.record is None else pid_in(self.record) or self.named

    def leads_to_none(self, ended: AbstractSet[int]) -> bool:
        """Tell whether a process was started, and neither the record nor the PID file names one that has not ended."""
        if self.record is None or pid_in(self.record):
            return False
        return self.named is None or self.named in ended


class PidRecords:
    """The files that identify running daemons: their PID files, and beside each a record of the started process."""

    def __init__(self, machine: Machine, target: Target) -> None:
        self.machine = machine
        self.target = target

    def begin(self, unit: Unit) -> None:
        """Record that a process may have been started, and that nobody has identified it yet."""
        self.machine.files.write(record_of(unit.name, self.target), "")

    def identify(self, unit: Unit) -> bool:
        """Complete the record of a started process whose pid was not known yet; without a PID file it stays unknown.

        Tells whether there is a record, which says that a process was started.
        """
        assert unit.pid_file is not None
        record = record_of(unit.name, self.target)
        content = self.machine.files.read(record)
        if content == b"" and (pid := pid_in(self.machine.files.read(unit.pid_file) or b"")):
            self.machine.files.write(record, self.identity(pid))
        return content is not None

    def replace(self, unit: Unit, pid: int) -> None:
        """Record another process of a unit."""
        self.machine.files.write(record_of(unit.name, self.target), self.identity(pid))

    def is_recorded(self, unit: Unit, pid: int) -> bool:
        """Tell whether a process is the very one that was started, and not a later one that reuses its pid."""
        record = self.machine.files.read(record_of(unit.name, self.target))
        return record is not None and record.decode(errors="replace") == self.identity(pid) != ""

    def identity(self, pid: int) -> str:
        """Return the text of a process's record; empty where the process cannot be identified."""
        started = self.machine.processes.start_time(pid)
        return f"{pid} {started}\n" if started else ""

    def forget(self, unit: Unit) -> None:
        """Remove the PID file and the record of a unit."""
        assert unit.pid_file is not None
        self.machine.files.remove(unit.pid_file)
        self.machine.files.remove(record_of(unit.name, self.target))

    def contents(self, unit: Unit) -> PidFileContents:
        """Return the contents of the PID file and the record."""
        assert unit.pid_file is not None
        return PidFileContents(
            self.machine.files.read(record_of(unit.name, self.target)), self.machine.files.read(unit.pid_file)
        )

    def perhaps_alive(self, units: Iterable[Unit]) -> set[Unit]:
        """Return the units that may still have a running process, out of units whose pid is not known."""
        tags = [f"{name}={value}" for name, value in self.target.tags.items()]
        strays = self.machine.processes.strays(tags[0]) if tags else []
        # Whoever sets its own title, as redis does, may have overwritten its environment, and is anybody's.
        if any(not self.machine.processes.has_tag(pid, tags[0]) for pid in strays):
            return set(units)
        return {
            unit
            for unit in units
            if any(self.machine.processes.has_tag(pid, f"{INSTANCE}={unit.key}") for pid in strays)
        }


class DaemonDriver(Driver):
    """The base of drivers that know processes by PID file and record, and see their ends themselves."""

    def __init__(self, machine: Machine, target: Target) -> None:
        super().__init__(machine, target)
        self.records = PidRecords(machine, target)

    @abstractmethod
    def request_stop(self, units: Sequence[Unit], pids: Mapping[Unit, int], deadline: Deadline) -> None:
        """Request that units stop, without waiting for their ends; ``pids`` are the processes of those that run."""

    def deactivate(self, units: Sequence[Unit], deadline: Deadline) -> None:
        """Request that all units stop, and wait for the ends of all their processes at once."""
        statuses = self.status(units)
        pids = {unit: status.pid for unit in units if (status := statuses[unit.name]).running and status.pid}
        self.request_stop(units, pids, deadline)
        running = self.machine.processes.wait_ended(pids.values(), deadline)
        for unit in units:
            if pids.get(unit) not in running:
                self.records.forget(unit)

    def status(self, units: Sequence[Unit]) -> dict[str, Status]:
        """Return the statuses of units, from their PID files, their records, and the ends of processes."""
        files = {unit: self.records.contents(unit) for unit in units}
        ended = self.machine.processes.ended([pid for file in files.values() if (pid := file.pid)])
        if ended:
            self.machine.processes.sync_exits()
            files |= {
                unit: self.records.contents(unit) for unit, file in files.items() if self._follow(unit, file, ended)
            }
        lost = {unit: file for unit, file in files.items() if file.leads_to_none(ended)}
        # The PID file may name a process that was on the way to the daemon. One that has failed was on its own.
        unknown = {
            unit: file.pid_file
            for unit, file in lost.items()
            if not (file.named and self.exit_status(unit, file.named))
        }
        found = self._without_pid(unknown) if unknown else {}
        return {unit.name: found.get(unit) or self._status(unit, file, ended) for unit, file in files.items()}

    def _follow(self, unit: Unit, files: PidFileContents, ended: AbstractSet[int]) -> bool:
        """Record the process of a unit that its PID file names in the place of one that has ended well; tell whether.

        What has written the file first may have been on the way from the starter to the daemon.
        """
        recorded, named = pid_in(files.record or b""), files.named
        if recorded is None or recorded not in ended or named in (None, recorded) or self.exit_status(unit, recorded):
            return False
        assert named is not None
        tags = {**self.target.tags, INSTANCE: unit.key}
        if not all(self.machine.processes.has_tag(named, f"{name}={value}") for name, value in tags.items()):
            return False
        self.records.replace(unit, named)
        return True

    def _status(self, unit: Unit, files: PidFileContents, ended: AbstractSet[int]) -> Status:
        pid, content = files.pid, files.pid_file
        if pid is None:
            return Status(running=False, text="not running")
        if pid not in ended:
            if files.named == pid:
                return Status(running=True, pid=pid, text=f"running, pid {pid}")
            return Status(running=False, text=f"pid {pid} runs, but {told_by(unit, content, has_ended=False)}")
        text = f"dead, {told_by(unit, content, has_ended=True)}"
        return Status(running=False, has_ended=True, pid=pid, exit_status=self.exit_status(unit, pid), text=text)

    def unmet(self, unit: Unit) -> str:
        """Return why a unit that already answers is not ready yet: what has no record has not left its starter.

        Of a program that the launch has put into the background, the status says as much.
        """
        if unit.mode != "daemon":
            return ""
        has_record = self.machine.files.exists(record_of(unit.name, self.target))
        return super().unmet(unit) if has_record else "it has not been started"

    def _without_pid(self, contents: Mapping[Unit, bytes | None]) -> dict[Unit, Status]:
        """Return the statuses of started daemons without a known pid: they have ended where no process may be theirs.

        ``contents`` are those of their PID files.
        """
        living = self.records.perhaps_alive(contents)
        found = {}
        for unit, content in contents.items():
            pid, has_ended = pid_in(content or b""), unit not in living
            exit_status = self.exit_status(unit, pid) if has_ended and pid else None
            text = told_by(unit, content, has_ended=True)
            found[unit] = Status(running=False, has_ended=has_ended, exit_status=exit_status, text=text)
        return found
