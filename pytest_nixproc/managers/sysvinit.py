"""sysvinit: self-contained ``/etc/init.d`` scripts, run the way that init runs them.

Header and exit statuses are those of the Linux Standard Base 5.0, chapters "Init Scripts" and "Comment Conventions for
Init Scripts". The scripts need a POSIX shell and nothing else, and are the same for dash, bash and busybox ash.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from pytest_nixproc.errors import Fault
from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.managers import kinds, shell
from pytest_nixproc.managers.api import Capabilities, Generator, Manager
from pytest_nixproc.managers.daemons import HINT, READ_PID, REPLACED_STATUS, DaemonDriver, functions, record_of
from pytest_nixproc.managers.launch import Launch
from pytest_nixproc.model import value_types
from pytest_nixproc.model.names import snake_case
from pytest_nixproc.model.value_types import ValueType
from pytest_nixproc.values.commands import Command, Spawn, describe_failure
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Link, Mode, Unit

SCRIPTS: Final = "etc/rc.d/init.d"
RUNLEVELS: Final = tuple(range(7))
DEFAULT_RUNLEVELS: Final = (3,)
HIGHEST_SEQUENCE: Final = 99

ACTIVITIES: Final = {
    "start": {"activity": "Starting", "instruction": "start_process"},
    "stop": {"activity": "Stopping", "instruction": "stop_process"},
    "request-stop": {"activity": "Stopping", "instruction": "request_stop"},
    "reload": {"activity": "Reloading", "instruction": "reload_process"},
    "force-reload": {"activity": "Reloading", "instruction": "reload_process"},
    "restart": {"activity": "Restarting", "instruction": "stop_process && start_process"},
    "try-restart": {"activity": "Restarting", "instruction": "find_process || exit 0; stop_process && start_process"},
    "status": {"activity": "", "instruction": "status_of_process"},
}

UNIDENTIFIED: Final = "unidentified"
"""Second argument of ``start``: the script leaves it to its caller to write the record."""

ADDED: Final = """
# What a caller adds that looks after the processes by itself: to "start", that it writes the record; to "request-stop",
# the pid of the process, which it has identified. Shells read /proc byte by byte: it takes longer than all the rest.
added=${2-}"""

REQUEST_STOP: Final = """\
# Such a caller needs nothing of what follows, and the shell has not read it yet; with more arguments, a function has it
# read by the caller's own shell.
case "${1-} $added" in
    "request-stop "?*)
        kill "-$stop_signal" "$added" 2> /dev/null
        status=$?
        [ $# = 2 ] || return
        exit "$status"
        ;;
esac"""

FIRST_START: Final = f"""\
# Nor does it need more than this where nothing has been started before.
if [ "${{1-}} $added" = "start {UNIDENTIFIED}" ] && [ ! -e "$record" ] && [ ! -e "$pid_file" ]; then
    launch >> "$log_file" 2>&1 && : > "$record"
    exit
fi"""

REQUEST_EACH: Final = """\
request() {
    [ ! -r "$3" ] || { . "$3"; } >> "$4" 2>&1
}
while [ $# -gt 0 ]; do
    request request-stop "$2" "$1" "$3"
    shift 3
done"""
"""Has each script that is given, with a pid and a log, ask its process to stop, all of them in one process."""

REQUESTERS: Final = 4
"""How many shells do so side by side."""

FUNCTIONS: Final = r"""
# Tells whether process $1 runs, a zombie does not; sets $started, which identifies it together with its pid.
is_running() {
    started=
    if [ -d /proc/self ]; then
        { read -r stat < "/proc/$1/stat"; } 2> /dev/null || return 1
        # Behind the command, in parentheses, stand the state and, 19 fields later, the start time: proc(5).
        # shellcheck disable=SC2086
        set -- ${stat##*) }
        started=${20-}
        case ${1-} in Z* | X*) return 1 ;; esac
    else
        started=unknown
        kill -0 "$1" 2> /dev/null
    fi
}

# Sets $pid to the process that the PID file names, if it runs and is the one that was started: the record holds both,
# or nothing, when the PID file came later than the end of the start.
find_process() {
    pid='' known=''
    [ -e "$record" ] || return 1
    read_pid "$pid_file" || return 1
    is_running "$pid" || return 1
    { read -r known < "$record"; } 2> /dev/null
    [ -n "$known" ] || { known="$pid $started"; echo "$known" > "$record"; }
    [ "$known" = "$pid $started" ]
}

# Waits until process $1 does not run, for $2 seconds at most.
await_end() {
    naps=0
    while is_running "$1"; do
        [ "$naps" -lt $(($2 * 50)) ] || return 1
        sleep 0.02 2> /dev/null || { sleep 1; naps=$((naps + 49)); }
        naps=$((naps + 1))
    done
}

forget_process() {
    if [ -e "$pid_file" ] || [ -e "$record" ]; then
        rm -f "$pid_file" "$record"
    fi
}

start_process() {
    ! find_process || return 0
    forget_process
    launch >> "$log_file" 2>&1 || return
    : > "$record"
    [ "$added" = unidentified ] || find_process
    return 0
}

# Asks the process to stop, and leaves it to the caller to see its end, and to forget it.
request_stop() {
    find_process || return 0
    kill "-$stop_signal" "$pid" 2> /dev/null
}

stop_process() {
    find_process || { forget_process; return 0; }
    kill "-$stop_signal" "$pid" 2> /dev/null || return 1
    if ! await_end "$pid" "$stop_seconds"; then
        echo "$name: process $pid did not stop within $stop_seconds s, killing it" >&2
        kill -KILL "$pid" 2> /dev/null
        await_end "$pid" 5 || { echo "$name: process $pid cannot be killed" >&2; return 1; }
    fi
    forget_process
}

reload_process() {
    find_process || { echo "$name: is not running" >&2; return 7; }
    kill "-$reload_signal" "$pid"
}

status_of_process() {
    if find_process; then echo "$name: is running, pid $pid"; return 0; fi
    if [ -e "$pid_file" ]; then echo "$name: is dead, but its PID file exists"; return 1; fi
    echo "$name: is not running"
    return 3
}
"""


class SysvinitGenerator(Generator):
    """The generator of a script per instance, and of its links into the runlevels."""

    def generate(self, launch: Launch) -> Unit:
        """Return the script and the links; levels of dependencies become sequence numbers."""
        if launch.level > HIGHEST_SEQUENCE:
            what = f"its dependencies go {launch.level} levels deep, sequence numbers have two digits (0 to 99)"
            raise launch.refusal(what, "shorten the chain of dependencies")
        defaults = default_parameters(launch)
        parameters = defaults | launch.overridden(defaults, spelling=snake_case, known=defaults, kinds=KINDS)
        launch = as_overridden(launch, parameters)
        text = "\n".join(script(launch, parameters)) + "\n"
        links = runlevel_links(launch.name, launch.level, parameters)
        scripts, program = {f"{SCRIPTS}/{launch.name}": text}, launch.command.program
        return launch.unit(scripts=scripts, links=links, pid_file=launch.pid_file, program=program)


def default_parameters(launch: Launch) -> dict[str, Any]:
    """Return everything about a script that an override may change."""
    return {
        "description": launch.description,
        "process": launch.command.program,
        "args": launch.command.args,
        "process_is_daemon": launch.mode == "daemon",
        "runlevels": (),
        "default_start": None,
        "default_stop": None,
        "activities": {},
        "instructions": ACTIVITIES,
        "remove_activities": (),
        "global_instructions": "",
        "reload_signal": launch.reload_signal,
        "stop_signal": launch.stop_signal,
        "stop_seconds": launch.whole_stop_seconds,
        "enable_daemon_output_logging": True,
    }


def read_runlevels(value: object, path: str, faults: list[Fault]) -> tuple[object, ...]:
    """Read the runlevels that a script is linked into: numbers, or letters such as S."""
    found = value if isinstance(value, list | tuple) else (value,)
    if isinstance(value, Mapping) or not all(re.fullmatch("[0-9A-Za-z]", str(level)) for level in found):
        faults.append(Fault(path, f"is {value!r}, which is not a list of runlevels", "write it like [3, 4, 5]"))
    return tuple(int(level) if str(level).isdigit() else level for level in found)


def are_instructions(value: object) -> bool:
    """Tell whether a value has an instruction for each activity, and maybe what is said of it."""
    return isinstance(value, Mapping) and all(
        isinstance(told, Mapping) and "instruction" in told and told.keys() <= {"activity", "instruction"}
        for told in value.values()
    )


RUNLEVELS_OF_LINKS: Final = ValueType("list of runlevels", read_runlevels)
KINDS: Final[Mapping[str, ValueType]] = {
    "description": value_types.SCALAR,
    "process": value_types.PATH,
    "args": value_types.SCALARS,
    "process_is_daemon": kinds.TRUTH,
    "runlevels": RUNLEVELS_OF_LINKS,
    "default_start": kinds.optional(RUNLEVELS_OF_LINKS),
    "default_stop": kinds.optional(RUNLEVELS_OF_LINKS),
    "activities": kinds.TEXTS,
    "instructions": kinds.that("a mapping of activities, each with its 'instruction'", are_instructions),
    "remove_activities": value_types.SCALARS,
    "global_instructions": value_types.TEXT,
    "reload_signal": kinds.SIGNAL,
    "stop_signal": kinds.SIGNAL,
    "stop_seconds": kinds.SECONDS,
    "enable_daemon_output_logging": kinds.TRUTH,
}
"""The kinds of the parameters."""


def as_overridden(launch: Launch, parameters: Mapping[str, Any]) -> Launch:
    """Return the launch with its overrides: they can change the program, and whether it goes into the background."""
    command = Command(parameters["process"], tuple(parameters["args"]))
    mode: Mode = "daemon" if parameters["process_is_daemon"] else "foreground"
    return launch if (command, mode) == (launch.command, launch.mode) else replace(launch, command=command, mode=mode)


def runlevel_links(name: str, sequence: int, parameters: Mapping[str, Any]) -> Iterator[Link]:
    """Yield the links that start the script in its runlevels, and, if any are given, those that stop it in others."""
    given = tuple(parameters["default_start"] or parameters["runlevels"])
    start = given or DEFAULT_RUNLEVELS
    others = [level for level in RUNLEVELS if level not in start] if given else []
    stop = others if parameters["default_stop"] is None else parameters["default_stop"]
    for level in start:
        yield Link(f"etc/rc.d/rc{level}.d/S{sequence:02}{name}", f"../init.d/{name}")
    for level in stop:
        yield Link(f"etc/rc.d/rc{level}.d/K{HIGHEST_SEQUENCE - sequence:02}{name}", f"../init.d/{name}")


def script(launch: Launch, parameters: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a script."""
    yield f"#!{launch.target.facts.shell}"
    # Values stand in single quotes: what looks like an expansion or an escape in them is none.
    yield "# shellcheck disable=SC2016,SC1003"
    yield from header(launch, parameters)
    yield f"name={shell.quote(launch.name)}"
    yield f"program={shell.quote(launch.command.program)}"
    yield f"pid_file={shell.quote(launch.pid_file)}"
    yield f"record={shell.quote(record_of(launch.name, launch.target))}"
    log_file = launch.log_file if parameters["enable_daemon_output_logging"] else "/dev/null"
    yield f"log_file={shell.quote(log_file)}"
    yield f"stop_signal={signal_name(parameters['stop_signal'])}"
    yield f"reload_signal={signal_name(parameters['reload_signal'])}"
    yield f"stop_seconds={int(float(parameters['stop_seconds']))}"
    yield ADDED
    instructions = instructions_of(parameters)
    if is_usual(parameters, instructions, "request-stop"):
        yield REQUEST_STOP
    is_start_usual = is_usual(parameters, instructions, "start")
    yield from functions(launch, "VERBOSE", f'[ "$added" = {UNIDENTIFIED} ]' if is_start_usual else "")
    if is_start_usual:
        yield FIRST_START
    yield READ_PID
    yield FUNCTIONS
    if parameters["global_instructions"]:
        yield str(parameters["global_instructions"])
    yield from choice(instructions, parameters["description"])


def header(launch: Launch, parameters: Mapping[str, Any]) -> Iterator[str]:
    """Yield the LSB comment block."""
    start = parameters["default_start"] or parameters["runlevels"] or DEFAULT_RUNLEVELS
    others = [level for level in RUNLEVELS if level not in start]
    stop = others if parameters["default_stop"] is None else parameters["default_stop"]
    fields = {
        "Provides": launch.name,
        "Required-Start": " ".join(launch.dependencies),
        "Required-Stop": " ".join(launch.dependencies),
        "Default-Start": " ".join(map(str, start)),
        "Default-Stop": " ".join(map(str, stop)),
        "Short-Description": shell.comment(parameters["description"]),
    }
    yield "### BEGIN INIT INFO"
    for field, value in fields.items():
        yield f"# {field}: {value}".rstrip()
    yield "### END INIT INFO"


def instructions_of(parameters: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the message and the shell text of each activity."""
    instructions = parameters["instructions"] | {}
    for name, text in parameters["activities"].items():
        instructions[name] = {"activity": "", "instruction": text}
    if instructions["stop"]["instruction"] != ACTIVITIES["stop"]["instruction"]:
        # What stops a process in a way of its own is not done by halves.
        instructions["request-stop"] = instructions["stop"]
    return {name: text for name, text in instructions.items() if name not in parameters["remove_activities"]}


def is_usual(parameters: Mapping[str, Any], instructions: Mapping[str, Mapping[str, str]], activity: str) -> bool:
    """Tell whether a script does for an activity what it does without overrides, and no more."""
    return instructions.get(activity) == ACTIVITIES[activity] and not parameters["global_instructions"]


def choice(instructions: Mapping[str, Mapping[str, str]], description: str) -> Iterator[str]:
    """Yield the dispatch on the script's argument."""
    yield "case ${1-} in"
    for name, told in instructions.items():
        yield f"    {name})"
        if message := told.get("activity"):
            line = shell.quote(f"{message} {description}")
            yield f"        [ \"${{VERBOSE-yes}}\" = no ] || printf '%s\\n' {line}"
        yield f"        {told['instruction']}"
        yield "        ;;"
    yield "    *)"
    yield f'        echo "usage: $0 {{{"|".join(instructions)}}}" >&2'
    yield "        exit 2"
    yield "        ;;"
    yield "esac"


def signal_name(value: object) -> str:
    """Return a signal as ``kill -NAME`` takes it."""
    return shell.quote(str(value).removeprefix("-").removeprefix("SIG"))


class InitScripts:
    """The scripts of a deployment, and their runs; their output goes to the units' logs."""

    def __init__(self, machine: Machine, target: Target) -> None:
        self.machine = machine
        self.target = target

    def command(self, unit: Unit, *words: str) -> Spawn:
        """Return the command that runs a unit's script."""
        return Spawn((self._path(unit), *words), self._environment, unit.log_file)

    def requests(self, pids: Mapping[Unit, int]) -> Iterator[Spawn]:
        """Yield commands that ask identified processes to stop, many of them by one shell.

        A few shells go through all the scripts, but for those with a way of their own: to start one for each takes
        longer than all that it does.
        """
        usual = {unit for unit in pids if any(REQUEST_STOP in file.content for file in unit.files)}
        yield from (self.command(unit, "request-stop", str(pid)) for unit, pid in pids.items() if unit not in usual)
        words = [(self._path(unit), str(pid), unit.log_file) for unit, pid in pids.items() if unit in usual]
        for lot in filter(None, (words[number::REQUESTERS] for number in range(REQUESTERS))):
            argv = (self.machine.facts.shell, "-c", REQUEST_EACH, "sh", *(word for three in lot for word in three))
            yield Spawn(argv, self._environment)

    def _path(self, unit: Unit) -> str:
        return f"{self.target.directory}/{SCRIPTS}/{unit.name}"

    @property
    def _environment(self) -> dict[str, str]:
        return {"PATH": self.machine.facts.path_variable, "VERBOSE": "no", **self.target.tags}


class SysvinitDriver(DaemonDriver):
    """The driver that runs the scripts."""

    def __init__(self, machine: Machine, target: Target) -> None:
        super().__init__(machine, target)
        self._scripts = InitScripts(machine, target)

    def activate(self, units: Sequence[Unit], deadline: Deadline) -> dict[str, str]:
        """Run the scripts side by side with ``start``."""
        commands = [self._scripts.command(unit, "start", UNIDENTIFIED) for unit in units]
        statuses = self.machine.processes.run(commands, deadline)
        started = {unit for unit in units if self.records.identify(unit)}
        return {
            unit.name: f"its script {describe_failure(command.argv, status)}{HINT if status is None else ''}"
            for unit, command, status in zip(units, commands, statuses, strict=True)
            if status != 0 and not (status == REPLACED_STATUS and unit in started)
        }

    def request_stop(self, units: Sequence[Unit], pids: Mapping[Unit, int], deadline: Deadline) -> None:
        """Run the scripts with ``request-stop``.

        Scripts that wait, with a command each time that they look again, would take the time that programs need to end.
        """
        known = {unit: pid for unit, pid in pids.items() if self.records.is_recorded(unit, pid)}
        others = [self._scripts.command(unit, "request-stop") for unit in units if unit not in known]
        self.machine.processes.run([*others, *self._scripts.requests(known)], deadline)

    def reload(self, unit: Unit, deadline: Deadline) -> None:
        """Run the script with ``reload``."""
        self.succeed(unit, self._scripts.command(unit, "reload"), deadline)


CAPABILITIES: Final = Capabilities(
    prefers="daemon",
    dysnomia_module="sysvinit-script",
    example_override={"stop_signal": "QUIT"},
    note="needs a POSIX shell only; without /proc or job control, daemonised programs ignore SIGINT and SIGQUIT",
)


MANAGER: Final = Manager("sysvinit", SysvinitGenerator, SysvinitDriver, CAPABILITIES)


@hookimpl
def nixproc_managers() -> list[Manager]:
    """Return the manager of this module, for the registry."""
    return [MANAGER]
