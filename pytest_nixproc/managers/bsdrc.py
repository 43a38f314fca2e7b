"""bsdrc: FreeBSD's rc.d scripts, run by their paths with the ``one`` commands; nothing is written below ``/etc``.

What rc.subr reads, and how often it evaluates and splits what it has read, is that of rc.subr(8) and of FreeBSD's own
``/etc/rc.subr``; the comment block is that of rcorder(8).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from os.path import exists
from typing import Any, Final

from pytest_nixproc.errors import CommandFailed, Unsupported
from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.managers import kinds, shell
from pytest_nixproc.managers.api import (
    Capabilities,
    Generator,
    Manager,
)
from pytest_nixproc.managers.daemons import HINT, READ_PID, DaemonDriver, record_of
from pytest_nixproc.managers.launch import Launch
from pytest_nixproc.model import value_types
from pytest_nixproc.model.names import did_you_mean, snake_case
from pytest_nixproc.model.value_types import ValueType
from pytest_nixproc.values.commands import Command, Spawn, describe_failure
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import SCRIPT, File, Unit
from pytest_nixproc.values.value import Value

SCRIPTS: Final = "etc/rc.d"
LAUNCHERS: Final = "libexec"

PLAIN: Final = re.compile(r"[A-Za-z0-9_./:=,@%+-]*")
"""Text that stays one word in all that rc.subr puts around a command: ``eval``, ``sh -c "…"``, ``su -c '…'``."""

IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
BUILT_IN: Final = frozenset(
    {"start", "stop", "restart", "status", "poll", "rcvar"}
    | {"enable", "disable", "delete", "enabled", "describe", "extracommands"}
)
"""Commands that scripts have without naming them in ``extra_commands`` (rc.subr(8), run_rc_command)."""

LISTS: Final = (
    *("required_files", "required_dirs", "required_vars", "required_modules", "provides", "requires", "keywords"),
)
"""Parameters that are lists of words."""

SINGLE: Final = ("procname", "command_interpreter", "env_file", "fib", "login_class", "oom_protect", "rcvar")
"""Parameters that are one word, or none."""

HOOKS: Final = ("pre", "implementation", "post")
NO_WAIT: Final = "NIXPROC_NO_WAIT"
"""Set in the environment of a script's ``stop`` by who sees the process's end, and forgets it, by himself."""

FUNCTIONS: Final = r"""
# rc.subr finds a process by what ps(1) calls it, and scripts go by their interpreter's name, others by a title of their
# own. This one is known by its PID and its start time: the record holds both, or nothing until the PID file is there.
find_process() {
    pid='' known=''
    [ -e "$record" ] || return 1
    read_pid "$process_pidfile" || return 1
    # shellcheck disable=SC2046
    set -- $(LC_ALL=C TZ=UTC ps -o lstart= -p "$pid")
    [ $# -gt 0 ] || return 1
    { read -r known < "$record"; } 2> /dev/null
    [ -n "$known" ] || { known="$pid $*"; echo "$known" > "$record"; }
    [ "$known" = "$pid $*" ]
}

forget_process() {
    rm -f "$process_pidfile" "$record"
}

# rc.subr waits for ever.
wait_for_pids() {
    [ -z "${NIXPROC_NO_WAIT-}" ] || return 0
    pwait -t "$stop_seconds" "$@" 2> /dev/null || [ $? -ne 124 ] || {
        echo "$name: did not stop within $stop_seconds s, killing it" >&2
        kill -KILL "$@"
        pwait -t 5 "$@" 2> /dev/null
    }
}
"""

OWN_SEARCH: Final = """
check_pidfile() {
    ! find_process || echo "$pid"
}
"""

NO_LIMITS: Final = """
# Nobody but root can have the limits of a login class, which rc.subr asks for in any case: limits -C CLASS COMMAND...
limits() {
    shift 2
    "$@"
}
"""

AWAIT_PID_FILE: Final = """\
    # The launch script writes it, before it becomes the program.
    naps=0
    while [ ! -s "$process_pidfile" ] && [ "$naps" -lt 100 ]; do
        sleep 0.02
        naps=$((naps + 1))
    done"""

RUN: Final = """\
case $rc_arg in
    *start) echo "$name: $rc_arg failed (status ${_return:-1})" >> "$log_file" ;;
esac
exit 1"""


class RcSystem(Value):
    """The paths of the system's files that scripts use."""

    rc_subr: str = "/etc/rc.subr"
    """The shell functions that scripts read."""

    daemon: str = "/usr/sbin/daemon"
    """The program that detaches a foreground program."""


class BsdrcGenerator(Generator):
    """The generator of a script per instance, and of a launch script where rc.subr cannot start the program itself."""

    def __init__(self, system: RcSystem | None = None) -> None:
        self.system = system or RcSystem()

    def generate(self, launch: Launch) -> Unit:
        """Return the script, which requires those of the dependencies."""
        name = unique_identifier(launch)
        defaults = default_parameters(launch)
        parameters = defaults | launch.overridden(defaults, spelling=snake_case, known=defaults, kinds=KINDS)
        refuse_unfit(launch, parameters)
        launch = as_overridden(launch, parameters)
        writer = Writer(launch, name, parameters, self.system)
        lines = writer.script([*map(identifier, launch.dependencies), *map(str, parameters["requires"])])
        script = File(f"{SCRIPTS}/{name}", "\n".join(lines) + "\n", SCRIPT)
        return launch.unit(script, *writer.launch_script(), pid_file=launch.pid_file)


def identifier(name: str) -> str:
    """Return a name as an identifier of the shell: ``-`` and ``.`` become ``_``, other bytes hexadecimal digits."""
    escaped = (
        chr(byte) if re.match(rb"[A-Za-z0-9_]", bytes([byte])) else "_" if byte in b"-." else f"_{byte:02x}"
        for byte in name.encode(errors="surrogateescape")
    )
    text = "".join(escaped)
    return f"_{text}" if text[:1].isdigit() else text


def unique_identifier(launch: Launch) -> str:
    """Return the identifier of a process; raises for two that would have the same."""
    own = identifier(launch.name)
    for other in (instance.pkg.name for instance in launch.model.values()):
        if other != launch.name and identifier(other) == own:
            what = f"rc.subr makes shell variables of names, and those of {launch.name!r} and {other!r} are all {own}_*"
            raise launch.refusal(what, "give one of them another name")
    return own


def are_hooks(value: object) -> bool:
    """Tell whether a value has mappings of texts for commands."""
    return isinstance(value, Mapping) and all(kinds.are_texts(hooks) for hooks in value.values())


def default_parameters(launch: Launch) -> dict[str, Any]:
    """Return everything about a script that an override may change."""
    return {
        "description": launch.description,
        "command": launch.command.program,
        "command_args": launch.command.args,
        "command_is_daemon": launch.mode == "daemon",
        "command_interpreter": None,
        "procname": None,
        "rcvar": "enable",
        "rcvars_defaults": {},
        "enable_daemon_output_logging": True,
        "reload_signal": launch.reload_signal,
        "stop_signal": launch.stop_signal,
        "stop_seconds": launch.whole_stop_seconds,
        "env_file": None,
        "fib": None,
        "limits": None,
        "login_class": None,
        "oom_protect": None,
        "required_files": (),
        "required_dirs": (),
        "required_vars": (),
        "required_modules": (),
        "commands": {},
        "flexible_parameters": False,
        "provides": (),
        "requires": (),
        "keywords": (),
    }


KINDS: Final[Mapping[str, ValueType]] = {
    "description": value_types.SCALAR,
    "command": value_types.SCALAR,
    "command_args": value_types.SCALARS,
    "rcvars_defaults": kinds.TEXTS,
    "reload_signal": kinds.SIGNAL,
    "stop_signal": kinds.SIGNAL,
    "stop_seconds": kinds.SECONDS,
    "commands": kinds.that("a mapping of commands, each with texts of its hooks", are_hooks),
    **dict.fromkeys(("command_is_daemon", "enable_daemon_output_logging", "flexible_parameters"), kinds.TRUTH),
    **dict.fromkeys((*SINGLE, "limits"), kinds.optional(value_types.SCALAR)),
    "fib": kinds.optional(kinds.COUNT),
    **dict.fromkeys(LISTS, value_types.SCALARS),
}
"""The kinds of the parameters."""


def as_overridden(launch: Launch, parameters: Mapping[str, Any]) -> Launch:
    """Return the launch with its overrides: they can change the program, and whether it goes into the background."""
    command = Command(parameters["command"], tuple(parameters["command_args"]))
    return replace(launch, command=command, mode="daemon" if parameters["command_is_daemon"] else "foreground")


def refuse_unfit(launch: Launch, parameters: Mapping[str, Any]) -> None:
    """Raise for overrides that rc.subr or rcorder(8) would split or evaluate."""
    words = [(name, value) for name in LISTS for value in parameters[name]]
    words += [(name, str(parameters[name])) for name in SINGLE if parameters[name] is not None]
    for name, value in words:
        if not value or not PLAIN.fullmatch(value.replace("~", "-") if name == "required_modules" else value):
            raise unfit(launch, name, value, "rc.subr splits and evaluates it: use letters, digits and _./:=,@%+-")
    for name in (*parameters["commands"], *parameters["rcvars_defaults"]):
        if not IDENTIFIER.fullmatch(name):
            raise unfit(launch, "commands or rcvars_defaults", name, "it becomes a part of a shell variable's name")
    for name, hooks in parameters["commands"].items():
        for hook in hooks.keys() - set(HOOKS):
            raise unfit(launch, f"commands.{name}", hook, did_you_mean(hook, HOOKS) or f"known are {', '.join(HOOKS)}")


def unfit(launch: Launch, name: str, value: str, why: str) -> Unsupported:
    """Return the error about one override."""
    return launch.refusal(f"its overrides give {name} {value!r}", why)


def is_plain(*values: str) -> bool:
    """Tell whether rc.subr leaves values unchanged; an empty word is lost."""
    return all(value and PLAIN.fullmatch(value) for value in values)


class Writer(Value):
    """The writer of one process's script."""

    launch: Launch
    name: str
    parameters: Mapping[str, Any]
    system: RcSystem

    @property
    def log_file(self) -> str:
        """The file that output goes to."""
        return self.launch.log_file if self.parameters["enable_daemon_output_logging"] else "/dev/null"

    @property
    def is_native(self) -> bool:
        """Tell whether rc.subr's variables can express a daemon and its environment without a launch script."""
        launch = self.launch
        words = (*launch.command.argv, launch.directory or "/", self.log_file)
        # rc.subr puts variables on the command line of env(1), which everybody can read; a model's may be secret.
        is_bare = not (launch.process.environment or launch.limits)
        return launch.mode == "daemon" and is_plain(*words) and is_bare

    @property
    def launcher(self) -> str:
        """The launch script, in the directory of the deployment."""
        return f"{LAUNCHERS}/{self.name}"

    def launch_script(self) -> Iterator[File]:
        """Yield the script that execs the program, where rc.subr cannot start the program itself."""
        if self.is_native:
            return
        # What is left to rc.subr: it runs initialize as root, and is nice and another user before it comes to this.
        rest = replace(self.launch, initialize="", nice=None, user=None)
        first = ["# shellcheck disable=SC1003,SC2016", f"exec >> {shell.quote(self.log_file)} 2>&1 < /dev/null"]
        if self.launch.mode == "foreground":
            first.append(f'echo "$$" > {shell.quote(self.launch.pid_file)} || exit 1')
        text = shell.launch_script(rest, *first, is_proxied=False)
        yield shell.open_to_user(File(self.launcher, text, SCRIPT), self.launch)

    def script(self, requires: Sequence[str]) -> Iterator[str]:
        """Yield the lines of the script."""
        yield f"#!{self.launch.target.facts.shell}"
        yield from self.header(requires)
        # Variables and functions are for rc.subr to use; values stand in single quotes, where nothing is expanded.
        yield "# shellcheck disable=SC1003,SC1091,SC2016,SC2034,SC2154,SC2317"
        yield f"\n. {shell.quote(self.system.rc_subr)}\n"
        yield from self.settings()
        yield READ_PID
        yield FUNCTIONS
        if self.parameters["procname"] is None:
            yield OWN_SEARCH
        if self.launch.target.force_disable_user_change and not self.parameters["limits"]:
            yield NO_LIMITS
        yield from self.hooks()
        given = '"$@"' if self.parameters["flexible_parameters"] else '"${1-}"'
        yield f"\nrun_rc_command {given} && exit"
        yield RUN

    def header(self, requires: Sequence[str]) -> Iterator[str]:
        """Yield the comment block for rcorder(8)."""
        blocks = {
            "PROVIDE": map(str, self.parameters["provides"] or [self.name]),
            "REQUIRE": requires,
            "KEYWORD": map(str, self.parameters["keywords"]),
        }
        for name, words in blocks.items():
            if text := " ".join(words):
                yield f"# {name}: {text}"

    def settings(self) -> Iterator[str]:
        """Yield the variables of rc.subr, and our own."""
        given = self.parameters
        yield f"name={self.name}"
        yield f"desc={shell.quote(given['description'])}"
        yield from self.rc_variables()
        yield from (f"{name}={shell.quote(value)}" for name, value in self.start_settings().items())
        yield f"pidfile={shell.quote(shell.quote(self.launch.pid_file))}"
        for name, default in (("stop_signal", "TERM"), ("reload_signal", "HUP")):
            signal = str(given[name]).removeprefix("-").removeprefix("SIG")
            if signal != default:
                yield f"sig_{name.removesuffix('_signal')}={shell.quote(signal)}"
        extra = [name for name in given["commands"] if name not in BUILT_IN | {"reload"}]
        yield f"extra_commands={shell.quote(' '.join(['reload', *extra]))}"
        for name in ("required_files", "required_dirs", "required_vars", "required_modules"):
            if given[name]:
                yield f"{name}={shell.quote(' '.join(map(str, given[name])))}"
        for name in ("procname", "command_interpreter"):
            if given[name] is not None:
                yield f"{name}={shell.quote(str(given[name]))}"
        yield from self.own_settings()

    def rc_variables(self) -> Iterator[str]:
        """Yield the variables that a script usually reads from rc.conf(5).

        The machine's own is not read: it may hold variables for a program of the same name.
        """
        defaults = {name: str(value) for name, value in self.parameters["rcvars_defaults"].items()}
        if (rcvar := self.parameters["rcvar"]) is not None:
            yield f"rcvar={self.name}_{rcvar}"
            defaults = {rcvar: "YES"} | defaults
        for name, value in defaults.items():
            yield f"{self.name}_{name}={shell.quote(value)}"

    def start_settings(self) -> dict[str, str]:
        """Return the variables that make up the command line; rc.subr evaluates them again."""
        user, given = self.launch.user, self.parameters
        if user is not None and not is_plain(user):
            raise self.launch.refusal(f"its user is {user!r}, and rc.subr evaluates the name")
        settings = self.command_settings()
        settings |= {
            f"{self.name}_nice": self.launch.nice,
            f"{self.name}_user": user,
            f"{self.name}_env_file": given["env_file"],
            f"{self.name}_fib": given["fib"],
            f"{self.name}_limits": given["limits"],
            f"{self.name}_login_class": given["login_class"],
            f"{self.name}_oomprotect": given["oom_protect"],
        }
        return {name: str(value) for name, value in settings.items() if value is not None}

    def command_settings(self) -> dict[str, object]:
        """Return the variables that start the program itself with its environment, or else its launch script.

        The launch script has a relative path, which is plain wherever the deployment lies.
        """
        if not self.is_native and self.launch.mode == "daemon":
            return {"command": self.launcher}
        if not self.is_native:
            return {"command": self.system.daemon, "command_args": self.launcher}
        command, environment = self.launch.command, self.launch.environment
        return {
            "command": command.program,
            "command_args": " ".join((*command.args, f">> {self.log_file} 2>&1 < /dev/null")),
            f"{self.name}_env": " ".join(f"{name}={value}" for name, value in environment.items()),
            f"{self.name}_chdir": self.launch.directory or "/",
        }

    def own_settings(self) -> Iterator[str]:
        """Yield the variables of the script's own functions, and the settings that the process inherits."""
        yield f"record={shell.quote(record_of(self.launch.name, self.launch.target))}"
        yield f"process_pidfile={shell.quote(self.launch.pid_file)}"
        yield f"log_file={shell.quote(self.log_file)}"
        yield f"stop_seconds={int(float(self.parameters['stop_seconds']))}"
        yield f"umask {self.launch.umask or '0022'}"
        if not self.is_native:
            yield f"cd -- {shell.quote(self.launch.target.directory)} || exit 1"

    def hooks(self) -> Iterator[str]:
        """Yield the functions that rc.subr calls before, instead of and after its commands, with their variables."""
        own = {
            ("start", "pre"): ["    forget_process", *self.initialization()],
            ("start", "post"): [
                '    : > "$record"',
                *([AWAIT_PID_FILE] if self.launch.mode == "foreground" else []),
                "    find_process",
            ],
            ("stop", "post"): [f'    [ -n "${{{NO_WAIT}-}}" ] || forget_process'],
        }
        names = dict.fromkeys(["start", "stop", *self.parameters["commands"]])
        for command in names:
            for hook in HOOKS:
                given = self.parameters["commands"].get(command, {}).get(hook, "")
                if lines := [*own.get((command, hook), []), *([str(given)] if given else [])]:
                    yield from self.function(command, hook, lines, is_own=not given)

    def function(self, command: str, hook: str, lines: Sequence[str], *, is_own: bool) -> Iterator[str]:
        """Yield one function, and the variable by which rc.subr finds it."""
        function = f"{self.name}_{'' if hook == 'implementation' else hook}{command}"
        variable = {"pre": "precmd", "implementation": "cmd", "post": "postcmd"}[hook]
        yield f"\n{command}_{variable}={function}"
        yield f"{function}() {{"
        yield from lines
        if is_own:
            yield "    return 0"
        yield "}"

    def initialization(self) -> Iterator[str]:
        """Yield the lines that run ``initialize`` with the program's umask and variables, before the user switch."""
        if self.launch.initialize:
            yield "    {"
            yield "        ("
            yield from shell.surroundings(self.launch)
            yield f"            {shell.initialization(self.launch)}"
            yield f"        ) {shell.or_report(self.launch, 'return 1')}"
            yield '    } >> "$log_file" 2>&1 < /dev/null'


class RcScripts:
    """The scripts of a deployment, and their runs; the messages of rc.subr are kept apart from the programs' logs."""

    def __init__(self, machine: Machine, target: Target) -> None:
        self.machine = machine
        self.target = target

    def run(self, word: str, units: Sequence[Unit], deadline: Deadline, **environment: str) -> dict[Unit, str]:
        """Run the scripts of units side by side; return error texts, by unit."""
        variables = {"PATH": self.machine.facts.path_variable, **self.target.tags, **environment}
        commands = {unit: Spawn((self._path(unit), word), variables, self._said(unit)) for unit in units}
        for unit in commands:
            self.machine.files.remove(self._said(unit))
        statuses = self.machine.processes.run(list(commands.values()), deadline)
        return {
            unit: self._problem(unit, describe_failure(command.argv, status) + (HINT if status is None else ""))
            for (unit, command), status in zip(commands.items(), statuses, strict=True)
            if status != 0
        }

    def _path(self, unit: Unit) -> str:
        return f"{self.target.directory}/{SCRIPTS}/{identifier(unit.name)}"

    def _said(self, unit: Unit) -> str:
        return f"{self.target.state.runtime_dir}/.{unit.name}.said"

    def _problem(self, unit: Unit, failure: str) -> str:
        said = (self.machine.files.read(self._said(unit)) or b"").decode(errors="replace").rstrip()
        return f"its script {failure}\n{said}"


class BsdrcDriver(DaemonDriver):
    """The driver that runs the scripts."""

    def __init__(self, machine: Machine, target: Target) -> None:
        super().__init__(machine, target)
        self._scripts = RcScripts(machine, target)

    def activate(self, units: Sequence[Unit], deadline: Deadline) -> dict[str, str]:
        """Run the scripts of the units that do not run yet, with ``onestart``."""
        statuses = self.status(units)
        idle = [unit for unit in units if not statuses[unit.name].running]
        return {unit.name: problem for unit, problem in self._scripts.run("onestart", idle, deadline).items()}

    def request_stop(self, units: Sequence[Unit], pids: Mapping[Unit, int], deadline: Deadline) -> None:  # noqa: ARG002 - scripts identify processes in their own way
        """Run the scripts with ``onestop``, but without their waiting: the driver waits itself."""
        self._scripts.run("onestop", units, deadline, **{NO_WAIT: "1"})

    def reload(self, unit: Unit, deadline: Deadline) -> None:
        """Run the script with ``onereload``."""
        for problem in self._scripts.run("onereload", [unit], deadline).values():
            raise CommandFailed(f"{unit.name}: {problem}")


def unavailable_reason(machine: type[Machine]) -> str:  # noqa: ARG001 - no kind of machine brings another system
    """Return why the scripts cannot be run here, with the remedy; an empty text on FreeBSD."""
    if sys.platform.startswith("freebsd") and exists(RcSystem.rc_subr):
        return ""
    return f"it needs FreeBSD's {RcSystem.rc_subr}, and this is {sys.platform}: run the tests on FreeBSD"


CAPABILITIES: Final = Capabilities(
    prefers="daemon",
    platforms=("freebsd",),
    dysnomia_module="bsdrc-script",
    example_override={"stop_signal": "QUIT"},
    note="rc.d scripts, run by their paths; neither the machine's rc.conf nor anything else below /etc takes part",
)


MANAGER: Final = Manager("bsdrc", BsdrcGenerator, BsdrcDriver, CAPABILITIES, unavailable_reason, identifier)


@hookimpl
def nixproc_managers() -> list[Manager]:
    """Return the manager of this module, for the registry."""
    return [MANAGER]
