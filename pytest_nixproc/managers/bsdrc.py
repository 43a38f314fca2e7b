"""bsdrc: FreeBSD's rc.d scripts, run by their paths with the ``one`` commands; nothing is written below ``/etc``.

What rc.subr reads, and how often it evaluates and splits what it has read, is that of rc.subr(8) and of FreeBSD's own
``/etc/rc.subr``; the comment block is that of rcorder(8).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os.path import exists
from typing import Any, Final

from pytest_nixproc.errors import CommandFailed, Unsupported
from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.machines.api import Machine, Spawn, describe_failure
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.managers import shell
from pytest_nixproc.managers.api import (
    Capabilities,
    File,
    Generator,
    Manager,
    Target,
    Unit,
    apply_override,
    ask_known,
    refuse_unsupported,
)
from pytest_nixproc.managers.daemons import HINT, DaemonDriver, record_of
from pytest_nixproc.model.names import snake_case
from pytest_nixproc.model.process import Command, ManagedProcess, Mode
from pytest_nixproc.model.system import ProcessesModel

SCRIPTS: Final = "etc/rc.d"
LAUNCHERS: Final = "libexec"

PLAIN: Final = re.compile(r"[A-Za-z0-9_./:=,@%+-]*")
"""What stays one word through everything that rc.subr puts around a command: ``eval``, ``sh -c "…"``, ``su -c '…'``."""

IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
BUILT_IN: Final = frozenset(
    {"start", "stop", "restart", "status", "poll", "rcvar"}
    | {"enable", "disable", "delete", "enabled", "describe", "extracommands"}
)
"""Commands that scripts have without naming them in ``extra_commands`` (rc.subr(8), run_rc_command)."""

HOOKS: Final = ("pre", "implementation", "post")
NO_WAIT: Final = "NIXPROC_NO_WAIT"
"""Set in the environment of a script's ``stop`` by who sees the process's end, and forgets it, by himself."""

FUNCTIONS: Final = r"""
# rc.subr finds a process by what ps(1) calls it, and scripts go by their interpreter's name, others by a title of their
# own. This one is known by its PID and its start time: the record holds both, or nothing until the PID file is there.
find_process() {
    pid='' known=''
    [ -e "$record" ] || return 1
    { read -r pid < "$process_pidfile"; } 2> /dev/null || [ -n "$pid" ] || return 1
    case $pid in '' | *[!0-9]*) return 1 ;; esac
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


@dataclass(frozen=True)
class System:
    """Where the system has what scripts are made of: the functions that they read, and the program that detaches."""

    rc_subr: str = "/etc/rc.subr"
    daemon: str = "/usr/sbin/daemon"


class BsdrcGenerator(Generator):
    """One script per instance; and a launch script for what rc.subr cannot carry, or only a program can do."""

    def __init__(self, system: System | None = None) -> None:
        self.system = system or System()

    def generate(self, key: str, model: ProcessesModel, target: Target) -> Unit:
        """Return the script, which requires those of the dependencies."""
        process = model[key].pkg
        refuse_unsupported("bsdrc", process, CAPABILITIES)
        name = unique_identifier(process, model)
        defaults = default_parameters(process, target)
        parameters = apply_override("bsdrc", process, defaults, spelling=snake_case)
        ask_known(parameters, defaults, "bsdrc", process)
        refuse_unfit(process, parameters)
        requires = [identifier(model[dependency].pkg.name) for dependency in model.dependencies[key]]
        writer = Writer(key, name, process, parameters, target, self.system)
        lines = writer.script([*requires, *map(str, parameters["requires"])])
        return Unit(
            name=process.name,
            mode=writer.mode,
            log_file=target.log_file(process),
            pid_file=target.pid_file(process),
            files=(File(f"{SCRIPTS}/{name}", "\n".join(lines) + "\n", 0o755), *writer.launch_script()),
            key=key,
        )


def identifier(name: str) -> str:
    """Return a name as one of the shell's: ``-`` and ``.`` become ``_``, other bytes their hexadecimal digits."""
    escaped = (
        chr(byte) if re.match(rb"[A-Za-z0-9_]", bytes([byte])) else "_" if byte in b"-." else f"_{byte:02x}"
        for byte in name.encode(errors="surrogateescape")
    )
    text = "".join(escaped)
    return f"_{text}" if text[:1].isdigit() else text


def unique_identifier(process: ManagedProcess, model: ProcessesModel) -> str:
    """Return the identifier of a process; raises for two that would have the same."""
    own = identifier(process.name)
    for other in (instance.pkg.name for instance in model.values()):
        if other != process.name and identifier(other) == own:
            what = (
                f"rc.subr makes shell variables of names, and those of {process.name!r} and {other!r} are all {own}_*"
            )
            raise Unsupported("bsdrc", process.name, what, remedy="give one of them another name")
    return own


def default_parameters(process: ManagedProcess, target: Target) -> dict[str, Any]:
    """Return everything about a script that an override may change."""
    mode, command = process.command_for("daemon")
    return {
        "description": process.description,
        "command": command.program,
        "command_args": command.args,
        "command_is_daemon": mode == "daemon",
        "command_interpreter": None,
        "procname": None,
        "rcvar": "enable",
        "rcvars_defaults": {},
        "enable_daemon_output_logging": True,
        "reload_signal": "HUP",
        "stop_signal": "TERM",
        "stop_seconds": max(1, round(target.stop_seconds)),
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


def refuse_unfit(process: ManagedProcess, parameters: Mapping[str, Any]) -> None:
    """Raise for overrides that rc.subr or rcorder(8) would split or evaluate."""
    lists = ("required_files", "required_dirs", "required_vars", "required_modules", "provides", "requires", "keywords")
    words = [(name, str(value)) for name in lists for value in parameters[name]]
    single = ("procname", "command_interpreter", "env_file", "fib", "login_class", "oom_protect", "rcvar")
    words += [(name, str(parameters[name])) for name in single if parameters[name] is not None]
    for name, value in words:
        if not value or not PLAIN.fullmatch(value.replace("~", "-") if name == "required_modules" else value):
            raise unfit(process, name, value, "rc.subr splits and evaluates it: use letters, digits and _./:=,@%+-")
    for name in (*parameters["commands"], *parameters["rcvars_defaults"]):
        if not IDENTIFIER.fullmatch(name):
            raise unfit(process, "commands or rcvars_defaults", name, "it becomes a part of a shell variable's name")
    for name, hooks in parameters["commands"].items():
        for hook in hooks.keys() - set(HOOKS):
            raise unfit(process, f"commands.{name}", hook, f"known are {', '.join(HOOKS)}")


def unfit(process: ManagedProcess, name: str, value: str, why: str) -> Unsupported:
    """Return the error about one override."""
    return Unsupported("bsdrc", process.name, f"its overrides give {name} {value!r}", remedy=why)


def is_plain(*values: str) -> bool:
    """Tell whether values survive rc.subr as they are; an empty word does not."""
    return all(value and PLAIN.fullmatch(value) for value in values)


@dataclass(frozen=True)
class Writer:
    """Writes the script of one process."""

    key: str
    name: str
    process: ManagedProcess
    parameters: Mapping[str, Any]
    target: Target
    system: System

    @property
    def mode(self) -> Mode:
        """What the script starts."""
        return "daemon" if self.parameters["command_is_daemon"] else "foreground"

    @property
    def command(self) -> Command:
        """The program and its arguments."""
        return Command(str(self.parameters["command"]), tuple(map(str, self.parameters["command_args"])))

    @property
    def log_file(self) -> str:
        """Where output goes."""
        return self.target.log_file(self.process) if self.parameters["enable_daemon_output_logging"] else "/dev/null"

    @property
    def is_native(self) -> bool:
        """Tell whether variables of rc.subr can say everything that surrounds the program."""
        values = self.target.environment(self.process, self.key).values()
        words = (*self.command.argv, self.process.directory or "/", self.log_file)
        return self.mode == "daemon" and is_plain(*words) and all(PLAIN.fullmatch(value) for value in values)

    @property
    def launcher(self) -> str:
        """The launch script, in the directory of the deployment."""
        return f"{LAUNCHERS}/{self.name}"

    def launch_script(self) -> Iterator[File]:
        """Yield the script that becomes the program, where rc.subr cannot start that itself."""
        if self.is_native:
            return
        # What is left to rc.subr: it runs initialize as root, and is nice and another user before it comes to this.
        rest = replace(self.process, initialize="", nice=None, user=None)
        first = ["# shellcheck disable=SC1003,SC2016", f"exec >> {shell.quote(self.log_file)} 2>&1 < /dev/null"]
        if self.mode == "foreground":
            first.append(f'echo "$$" > {shell.quote(self.target.pid_file(self.process))} || exit 1')
        yield File(self.launcher, shell.launch_script(rest, self.command, self.target, self.key, *first), 0o755)

    def script(self, requires: Sequence[str]) -> Iterator[str]:
        """Yield the lines of the script."""
        yield f"#!{self.target.facts.shell}"
        yield from self.header(requires)
        # Variables and functions are for rc.subr to use; values stand in single quotes, where nothing is expanded.
        yield "# shellcheck disable=SC1003,SC1091,SC2016,SC2034,SC2154,SC2317"
        yield f"\n. {shell.quote(self.system.rc_subr)}\n"
        yield from self.settings()
        yield FUNCTIONS
        if self.parameters["procname"] is None:
            yield OWN_SEARCH
        if self.target.force_disable_user_change and not self.parameters["limits"]:
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
        yield f"pidfile={shell.quote(shell.quote(self.target.pid_file(self.process)))}"
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
        """Yield what other scripts find in rc.conf(5).

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
        process, given = self.process, self.parameters
        user = self.target.user_of(process)
        if user is not None and not is_plain(user):
            raise Unsupported("bsdrc", process.name, f"its user is {user!r}, and rc.subr evaluates the name")
        settings: dict[str, object] = self.native_start() if self.is_native else self.launched_start()
        settings |= {
            f"{self.name}_nice": process.nice,
            f"{self.name}_user": user,
            f"{self.name}_env_file": given["env_file"],
            f"{self.name}_fib": given["fib"],
            f"{self.name}_limits": given["limits"],
            f"{self.name}_login_class": given["login_class"],
            f"{self.name}_oomprotect": given["oom_protect"],
        }
        return {name: str(value) for name, value in settings.items() if value is not None}

    def native_start(self) -> dict[str, object]:
        """Return a daemon's command line and surroundings as rc.subr knows them."""
        environment = self.target.environment(self.process, self.key)
        return {
            "command": self.command.program,
            "command_args": " ".join((*self.command.args, f">> {self.log_file} 2>&1 < /dev/null")),
            f"{self.name}_env": " ".join(f"{name}={value}" for name, value in environment.items()),
            f"{self.name}_chdir": self.process.directory or "/",
        }

    def launched_start(self) -> dict[str, object]:
        """Return the launch script as command: a relative path, which is plain wherever the deployment lies."""
        if self.mode == "daemon":
            return {"command": self.launcher}
        return {"command": self.system.daemon, "command_args": self.launcher}

    def own_settings(self) -> Iterator[str]:
        """Yield what this script's own functions use, and what the process inherits of the script."""
        yield f"record={shell.quote(record_of(self.process.name, self.target))}"
        yield f"process_pidfile={shell.quote(self.target.pid_file(self.process))}"
        yield f"log_file={shell.quote(self.log_file)}"
        yield f"stop_seconds={int(self.parameters['stop_seconds'])}"
        yield f"umask {self.process.umask or '0022'}"
        if not self.is_native:
            yield f"cd -- {shell.quote(self.target.directory)} || exit 1"

    def hooks(self) -> Iterator[str]:
        """Yield the functions that rc.subr calls before, for and after its commands, and their names for it."""
        own = {
            ("start", "pre"): ["    forget_process", *self.initialization()],
            ("start", "post"): [
                '    : > "$record"',
                *([AWAIT_PID_FILE] if self.mode == "foreground" else []),
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
        """Yield the lines that run ``initialize``, with the program's surroundings, before the user is switched."""
        if self.process.initialize:
            yield "    {"
            yield "        ("
            yield from shell.surroundings(self.process, self.target.environment(self.process, self.key))
            yield f"            exec {shell.initialization(self.process, self.target)}"
            yield f"        ) {shell.or_report(self.process, 'return 1')}"
            yield '    } >> "$log_file" 2>&1 < /dev/null'


class BsdrcDriver(DaemonDriver):
    """Runs the scripts."""

    def _command(self, unit: Unit, word: str, **environment: str) -> Spawn:
        """Return a script run; rc.subr talks, and what it says is none of the program's log."""
        variables = {"PATH": self.machine.path_variable, **self.target.tags, **environment}
        return Spawn((f"{self.target.directory}/{SCRIPTS}/{identifier(unit.name)}", word), variables, self._said(unit))

    def _said(self, unit: Unit) -> str:
        return f"{self.target.state.runtime_dir}/.{unit.name}.said"

    def _run(self, commands: Mapping[Unit, Spawn], deadline: Deadline) -> dict[Unit, str]:
        """Run scripts side by side; return what went wrong."""
        for unit in commands:
            self.machine.remove(self._said(unit))
        statuses = self.machine.run(list(commands.values()), deadline)
        return {
            unit: self._problem(unit, describe_failure(command.argv, status) + (HINT if status is None else ""))
            for (unit, command), status in zip(commands.items(), statuses, strict=True)
            if status != 0
        }

    def _problem(self, unit: Unit, failure: str) -> str:
        said = (self.machine.read(self._said(unit)) or b"").decode(errors="replace").rstrip()
        return f"its script {failure}\n{said}"

    def activate(self, units: Sequence[Unit], deadline: Deadline) -> dict[str, str]:
        """Run the scripts of what does not run yet with ``onestart``."""
        statuses = self.status(units)
        commands = {unit: self._command(unit, "onestart") for unit in units if not statuses[unit.name].running}
        return {unit.name: problem for unit, problem in self._run(commands, deadline).items()}

    def request_stop(self, units: Sequence[Unit], pids: Mapping[Unit, int], deadline: Deadline) -> None:  # noqa: ARG002 - scripts identify processes in their own way
        """Run the scripts with ``onestop``, without the wait that is our own."""
        self._run({unit: self._command(unit, "onestop", **{NO_WAIT: "1"}) for unit in units}, deadline)

    def reload(self, unit: Unit, deadline: Deadline) -> None:
        """Run the script with ``onereload``."""
        for problem in self._run({unit: self._command(unit, "onereload")}, deadline).values():
            raise CommandFailed(f"{unit.name}: {problem}")


def obstacle(machine: type[Machine]) -> str:  # noqa: ARG001 - no kind of machine brings another system
    """Tell whether this is FreeBSD."""
    if sys.platform.startswith("freebsd") and exists(System.rc_subr):
        return ""
    return f"it needs FreeBSD's {System.rc_subr}, and this is {sys.platform}: run the tests on FreeBSD"


CAPABILITIES: Final = Capabilities(
    prefers="daemon",
    platforms=("freebsd",),
    dysnomia_module="bsdrc-script",
    note="rc.d scripts, run by their paths; neither the machine's rc.conf nor anything else below /etc takes part",
)


@hookimpl
def nixproc_managers() -> list[Manager]:
    """Offer this manager."""
    return [Manager("bsdrc", BsdrcGenerator, BsdrcDriver, CAPABILITIES, obstacle, identifier)]
