"""supervisord: one private daemon per deployment, driven through its XML-RPC interface.

Its socket lies in the state directory with mode 0700; there is no TCP port, and no configuration but ours is read.
The configuration's syntax is that of supervisord.org/configuration.html, as supervisor 4 really parses it.
"""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from http.client import HTTPException
from importlib.util import find_spec
from typing import Any, Final, TypeVar, cast
from urllib.parse import quote as percent_encoded
from xmlrpc import client

from pytest_nixproc.errors import CommandFailed, DeploymentError, Fault, MachineError, Unsupported, WaitTimeout
from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.waiting import Deadline, wait_until
from pytest_nixproc.managers import kinds, shell
from pytest_nixproc.managers.api import (
    Capabilities,
    Driver,
    Generator,
    Manager,
    daemon_of,
)
from pytest_nixproc.managers.launch import Launch
from pytest_nixproc.managers.unix_rpc import ANSWER_SECONDS, Connections
from pytest_nixproc.model import value_types
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.model.value_types import ValueType
from pytest_nixproc.values.commands import OUTPUT_TAIL, Spawn
from pytest_nixproc.values.tags import INSTANCE
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import SCRIPT, File, Status, Unit

Result = TypeVar("Result")

MODULE: Final = "supervisor.supervisord"
CONFIGURATION: Final = "etc/supervisord.conf"
LAUNCHERS: Final = "libexec"
SOCKET_PATH_LIMIT: Final = 103 - len(".4194304")
"""Bytes of a Unix socket's path, less the final NUL (unix(7); macOS has the smaller limit of 104).

supervisord appends its pid at first, and renames the socket then.
"""

DESCRIPTORS_PER_PROGRAM: Final = 4
OWN_DESCRIPTORS: Final = 64
STANDARD_DESCRIPTORS: Final = 3
GRACE_OF_MANAGER: Final = 5
NOTICE_SECONDS: Final = 2.0
HIGHEST_STATUS: Final = 255
FEW: Final = 10
"""Of so many programs at most, supervisord is asked for each by its name, and not for all that it has."""

RUN: Final = 'exec "$@"'

PLAIN: Final = re.compile(r"[A-Za-z0-9 _./,:=+@()\[\]{}<>|&*?!^~$%-]*")
"""Text that survives supervisord's layers (INI comments, interpolation, own quoting, shlex) inside double quotes."""


TRUE: Final = ("yes", "true", "on", "1")
FALSE: Final = ("no", "false", "off", "0")

EXPANDED: Final = frozenset({"here", "program_name", "host_node_name", "group_name", "process_num", "numprocs"})
"""The names that supervisord expands in settings, with ``ENV_NAME`` for each of its variables."""


NUMBERED: Final = ("process_num", "numprocs")
"""Those of them that stand for numbers."""


class Expansions(dict[str, str | int]):
    """What supervisord expands: the names that it knows, whatever they stand for."""

    def __missing__(self, name: str) -> str | int:
        if name in EXPANDED or name.startswith("ENV_"):
            return 0 if name in NUMBERED else ""
        raise KeyError(name)


def expandable(kind: ValueType) -> ValueType:
    """Return the kind of a setting that supervisord expands first; what it comes to is not known before."""

    def read(value: object, path: str, faults: list[Fault]) -> object:
        if not isinstance(value, str) or "%" not in value:
            return kind.read(value, path, faults)
        try:
            expanded = value % Expansions()
        except KeyError as error:
            remedy = f"known are {', '.join(sorted(EXPANDED))} and ENV_NAME; '%%' stands for '%'"
            faults.append(Fault(path, f"is {value!r}, in which {error} cannot be expanded", remedy))
        except (TypeError, ValueError):
            faults.append(Fault(path, f"is {value!r}, which cannot be expanded", "write '%%' for '%'"))
        else:
            if "%(" not in value:
                kind.read(expanded, path, faults)
        return value

    return ValueType(kind.title, read)


def read_variables(value: object, path: str, faults: list[Fault]) -> object:
    """Read variables: a mapping, or text as supervisord splits it (supervisor.datatypes.dict_of_key_value_pairs)."""
    if isinstance(value, Mapping):
        return value_types.ENVIRONMENT.read(value, path, faults)
    try:
        lexer = shlex.shlex(str(value))
        lexer.wordchars += "/.+-():"
        words = list(lexer)
    except ValueError:
        words = ["unbalanced"]
    if not isinstance(value, str) or len(words) % 4 not in (0, 3) or any(word != "=" for word in words[1::4]):
        remedy = 'write a mapping, which is merged with the process\'s variables, or NAME="VALUE",... in their place'
        faults.append(Fault(path, f"is {value!r}, which is not variables", remedy))
    return value


def read_single(value: object, path: str, faults: list[Fault]) -> object:
    """Read the number of a program's processes, or their name: there is one, of the program's name."""
    if str(value) not in ("1", "%(program_name)s"):
        problem = f"is {value!r}, and a deployment knows a program as one process of the program's name"
        faults.append(Fault(path, problem, "describe an instance for each process"))
    return value


def is_size(value: object) -> bool:
    """Tell whether a value is a number of bytes (supervisor.datatypes.byte_size)."""
    return bool(re.fullmatch(r"(?i)[0-9]+\s*(kb|mb|gb)?", str(value)))


def are_exit_codes(value: object) -> bool:
    """Tell whether a value is a list of exit statuses (supervisor.datatypes.list_of_exitcodes)."""
    codes = str(value).split(",") if str(value) else []
    return all(re.fullmatch(r"\s*[0-9]+\s*", code) and int(code) <= HIGHEST_STATUS for code in codes)


BOOLEAN: Final = kinds.written_as("true or false", f"(?i){'|'.join((*TRUE, *FALSE))}", "true", "false")
SIZE: Final = kinds.that("a number of bytes, with KB, MB or GB", is_size)
VARIABLES: Final = ValueType('a mapping of variables, or NAME="VALUE",...', read_variables)
SINGLE: Final = ValueType("that of a single process", read_single)

SETTINGS: Final[Mapping[str, ValueType]] = {
    "command": expandable(kinds.written_as("a command line", ".+")),
    "environment": expandable(VARIABLES),
    "process_name": kinds.optional(SINGLE),
    "numprocs": kinds.optional(SINGLE),
    **{
        name: kinds.optional(expandable(kind))
        for names, kind in {
            ("numprocs_start", "priority", "startsecs", "startretries", "stopwaitsecs"): kinds.WHOLE_NUMBER,
            ("stdout_logfile_backups", "stderr_logfile_backups"): kinds.WHOLE_NUMBER,
            ("autostart", "redirect_stderr", "stopasgroup", "killasgroup"): BOOLEAN,
            ("stdout_events_enabled", "stderr_events_enabled", "stdout_syslog", "stderr_syslog"): BOOLEAN,
            ("autorestart",): kinds.one_of("unexpected", or_else=BOOLEAN),
            ("exitcodes",): kinds.that("exit statuses, separated by commas", are_exit_codes),
            ("stopsignal",): kinds.SIGNAL,
            ("umask",): kinds.written_as("octal digits", "[0-7]+"),
            ("stdout_logfile_maxbytes", "stderr_logfile_maxbytes"): SIZE,
            ("stdout_capture_maxbytes", "stderr_capture_maxbytes"): SIZE,
            ("stdout_logfile", "stderr_logfile", "directory", "user", "serverurl"): kinds.TEXT,
        }.items()
        for name in names
    },
}
"""The settings of a program section, each with what supervisor 4 takes for it ("[program:x] Section Settings")."""


class SupervisordGenerator(Generator):
    """The generator of a program section per instance, and of supervisord's own configuration."""

    def generate(self, launch: Launch) -> Unit:
        """Return the program section, with a launch script where the section cannot say it all."""
        refuse_name(launch)
        # A proxy stays who supervisord is: as the process's user, it might not be allowed to run the interpreter.
        native = None if launch.proxy else program_settings(launch)
        # Percent-encoded, a name needs no quoting that supervisord does not understand.
        path = f"{LAUNCHERS}/{percent_encoded(launch.name, safe='')}"
        settings = native or {
            "command": quoted(f"{launch.target.directory}/{path}"),
            "environment": launch.environment,
        }
        parameters = overridden(launch, common_settings(launch) | settings)
        scripts: tuple[File, ...] = ()
        if native is None:
            variables = parameters["environment"]
            if isinstance(variables, Mapping):
                # The script sets them, which can hold any value.
                launch = replace(launch, environment=variables)
                del parameters["environment"]
            scripts = (File(path, shell.launch_script(launch, *own_resources(launch)), SCRIPT),)
        section = [f"[program:{launch.name}]", *(f"{name}={value}" for name, value in lines(launch, parameters))]
        program = launch.program if parameters.get("command") == settings["command"] else ""
        unit = launch.unit(File(CONFIGURATION, "\n".join(section) + "\n\n"), *scripts, program=program)
        return replace(unit, restarts=is_on(parameters.get("autorestart", "")))

    def generate_shared(self, model: ProcessesModel, target: Target) -> tuple[File, ...]:
        """Return the daemon's configuration."""
        refuse_directory(target)
        settings: dict[str, dict[str, Any]] = {
            "unix_http_server": {"file": socket_path(target), "chmod": "0700"},
            "rpcinterface:supervisor": {
                "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
            },
            "supervisord": {
                "logfile": f"{target.state.log_dir}/supervisord.log",
                "pidfile": f"{target.state.runtime_dir}/supervisord.pid",
                "childlogdir": target.state.log_dir,
                "logfile_maxbytes": 0,
                "loglevel": "warn",
                "minfds": least_descriptors(len(model), target.facts.open_files),
            },
        }
        text = []
        for section, values in settings.items():
            text += [f"[{section}]", *(f"{name}={plain(value)}" for name, value in values.items()), ""]
        return (File(CONFIGURATION, "\n".join(text)),)


def least_descriptors(programs: int, allowed: int) -> int:
    """Return ``minfds`` for supervisord: the limit of file descriptors, to which it raises a lower limit of its own.

    Every forked child closes as many, one by one, though Python has marked all of them to be closed by exec (PEP 446):
    hundreds of calls for each program, so no limit is named where the usual one will do.
    """
    needed = OWN_DESCRIPTORS + DESCRIPTORS_PER_PROGRAM * programs
    return needed if needed > allowed else STANDARD_DESCRIPTORS


def common_settings(launch: Launch) -> dict[str, Any]:
    """Return the settings of every program: started and stopped by us alone, and counted as running at once."""
    return {
        "priority": launch.level + 1,
        "autostart": "false",
        "autorestart": "false",
        "startsecs": 0,
        "startretries": 0,
        "stopwaitsecs": launch.whole_stop_seconds + GRACE_OF_MANAGER,
        **({} if launch.stop_signal == "TERM" else {"stopsignal": launch.stop_signal}),
        "killasgroup": "true",
        "redirect_stderr": "true",
        "stdout_logfile": escaped(escaped(launch.log_file)),
        "stdout_logfile_maxbytes": 0,
    }


def own_resources(launch: Launch) -> tuple[str, ...]:
    """Return the commands of a shell that take from a program what supervisord's programs have of it.

    It gives them a pipe that never ends as their standard input, and its own limit of descriptors; no setting helps.
    """
    allowed = launch.target.facts.open_files
    is_raised = least_descriptors(len(launch.model), allowed) > allowed
    return ("exec < /dev/null", *([f"ulimit -S -n {allowed}"] if is_raised else ()))


def program_settings(launch: Launch) -> dict[str, Any] | None:
    """Return the settings that say all about a program; None where a launch script is needed."""
    values = (*launch.command.argv, *launch.environment.values(), launch.directory or "", launch.user or "")
    is_more = launch.initialize or launch.limits or launch.nice is not None
    if is_more or not all(PLAIN.fullmatch(value) for value in values):
        return None
    become = f"'{'; '.join((*own_resources(launch), RUN))}'"
    command = (quoted(launch.target.facts.shell), "-c", become, "sh", *map(quoted, launch.command.argv))
    settings = {
        "command": " ".join(command),
        "environment": launch.environment,
        "directory": launch.directory and escaped(launch.directory),
        "umask": launch.umask,
        "user": launch.user and escaped(launch.user),
    }
    return {name: value for name, value in settings.items() if value is not None}


def overridden(launch: Launch, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a program as its process overrides them; a setting of no value is left out."""
    changed = launch.overridden(settings, known=SETTINGS, kinds=SETTINGS)
    found = {name: value for name, value in changed.items() if value is not None}
    if is_on(found.get("stopasgroup", "")) and not is_on(found.get("killasgroup", "true")):
        what = "its overrides have groups stopped (stopasgroup) and not killed (killasgroup), which supervisord refuses"
        raise launch.refusal(what, "leave killasgroup at true")
    if isinstance(found["environment"], Mapping):
        # The last word about the tags is ours.
        marks = {name: launch.environment[name] for name in (*launch.target.tags, INSTANCE)}
        found["environment"] = {**found["environment"], **marks}
    return found


def is_on(value: object) -> bool:
    """Tell whether a setting that can be true or false is true (supervisor.datatypes.boolean)."""
    return str(value).lower() in TRUE


def lines(launch: Launch, settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the settings of a program as its section has them."""
    for name, value in settings.items():
        yield name, plain(variables(launch, value) if isinstance(value, Mapping) else value)


def variables(launch: Launch, environment: Mapping[str, str]) -> str:
    """Return variables as a setting has them; raises for values of overrides that would not survive it."""
    for name, value in environment.items():
        if not PLAIN.fullmatch(value):
            what = f"its override 'environment.{name}' is {value!r}, which cannot stand in its configuration"
            raise launch.refusal(what, "give it to the process's own environment")
    return ",".join(f"{name}={quoted(value)}" for name, value in environment.items())


def quoted(value: str) -> str:
    """Return a plain value as one word: in double quotes, and ``%`` doubled against interpolation."""
    return f'"{escaped(value)}"'


def escaped(value: str) -> str:
    """Return a value with ``%`` escaped for one interpolation; supervisord interpolates names of log files twice."""
    return value.replace("%", "%%")


def refuse_name(launch: Launch) -> None:
    """Raise for a name that supervisor refuses (supervisor.datatypes.process_or_group_name)."""
    if re.search("[ :]", launch.name):
        raise launch.refusal("its programs' names hold neither blanks nor colons", "give the process another name")


def plain(value: object) -> str:
    """Return a setting's value as text if it fits in one line and is read back unchanged; else raise an error."""
    text = str(value)
    if re.search(r"[\n\r]|[^\x20-\x7e]|\s[;#]", text):
        what = f"{text!r} cannot stand in its configuration, which has ASCII lines without ' ;' and ' #'"
        raise Unsupported("supervisord", "the system", what, remedy="choose another path or setting")
    return text


def refuse_directory(target: Target) -> None:
    """Raise where the place of a deployment cannot be written into supervisord's configuration."""
    for path in (target.directory, target.state.state_dir):
        if not PLAIN.fullmatch(path) or re.search(r"[%*?\[\]]", path):
            what = f"{path!r} cannot stand in its configuration"
            remedy = "choose a --nixproc-state-root of letters, digits, '-', '_', '.' and blanks"
            raise Unsupported("supervisord", "the system", what, remedy=remedy)


def socket_path(target: Target) -> str:
    """Return the path of the control socket, if it is short enough for one."""
    path = f"{target.state.runtime_dir}/supervisord.sock"
    if len(path.encode()) > SOCKET_PATH_LIMIT:
        what = f"its socket's path has {len(path.encode())} bytes, sockets allow {SOCKET_PATH_LIMIT}: {path}"
        raise Unsupported("supervisord", "the system", what, remedy="choose a shorter --nixproc-state-root")
    return path


def interpreter(machine: Machine) -> tuple[str, ...]:
    """Return the words by which the interpreter of supervisord is executed."""
    return (machine.facts.python, "-P", "-X", "utf8")


def warm_up(machine: Machine) -> None:
    """Have supervisord's modules imported, which takes most of its start."""
    machine.lifecycle.warm_up(interpreter(machine), MODULE)


class Daemon:
    """The supervisord process of a deployment, and its own output and log."""

    def __init__(self, machine: Machine, target: Target) -> None:
        self.machine = machine
        self.target = target
        self._log = f"{target.state.log_dir}/supervisord.log"
        self._output = f"{target.state.log_dir}/supervisord.out"
        self.pid: int | None = None
        """Its process, if it was started by us."""

    def start(self, deadline: Deadline) -> None:
        """Start supervisord and wait for its socket."""
        configuration = f"{self.target.directory}/{CONFIGURATION}"
        argv = (*interpreter(self.machine), "-m", MODULE, "-n", "-c", configuration)
        environment = {"PATH": self.machine.facts.path_variable, **self.target.tags}
        # It would make its log for everybody to read.
        self.machine.files.write(self._log, "", 0o600)
        pid = self.machine.processes.spawn(Spawn(argv, environment, self._output, is_forked=True))

        def look() -> str:
            problem = self.machine.network.connection_problem(socket_path(self.target))
            if problem and self.machine.processes.ended([pid]):
                raise DeploymentError("supervisord ended at its start", details=self._said())
            if problem:
                self._refuse_to_hang()
            return problem

        try:
            wait_until(look, deadline, "wait for supervisord's socket")
        except WaitTimeout as error:
            raise DeploymentError(error.brief, details=f"{error.details}\n{self._said()}") from error
        self.pid = pid

    def _refuse_to_hang(self) -> None:
        """Raise when supervisord tries for ever to make its socket, as it does after any failure.

        It takes the failure for a stale socket; in a new directory there can be none.
        """
        if b"Unlinking stale socket" in (self.machine.files.read(self._output) or b""):
            self.machine.files.write(f"{socket_path(self.target)}.try", "")
            raise DeploymentError("supervisord cannot make its socket", details=f"in {self.target.state.runtime_dir}")

    def _said(self) -> str:
        """Return the end of supervisord's own output and log."""
        contents = (self.machine.files.read(path) or b"" for path in (self._output, self._log))
        return "\n".join(content.decode(errors="replace")[-OUTPUT_TAIL:].rstrip() for content in contents)

    def exit_status(self, entry: Mapping[str, Any]) -> int:
        """Return the exit status; supervisord keeps -1 for any signal, and names the signal in its log only."""
        status = int(entry["exitstatus"])
        log = (self.machine.files.read(self._log) or b"").decode(errors="replace")
        reported = re.findall(rf"exited: {re.escape(entry['name'])} \(terminated by (SIG\w+)", log)
        return -signal.Signals[reported[-1]] if status == -1 and reported else status

    def has_killed(self, name: str, pid: int) -> bool:
        """Tell whether supervisord has killed a program's process that did not stop: it says so in its log alone."""
        return f"killing '{name}' ({pid}) with SIGKILL".encode() in (self.machine.files.read(self._log) or b"")


class Interface:
    """supervisord's XML-RPC interface."""

    def __init__(self, machine: Machine, target: Target) -> None:
        self.machine = machine
        self.target = target
        self.known: dict[str, dict[str, Any]] = {}
        """supervisord's last information; it holds for programs whose processes still run.

        It is never changed, but replaced: other threads may be reading it.
        """

        self._deadlines: list[Deadline] = []
        """Those of the operations that are going on."""

    @cached_property
    def _connections(self) -> Connections:
        return Connections(socket_path(self.target))

    @contextmanager
    def within(self, deadline: Deadline) -> Iterator[None]:
        """Let answers take as long as an operation may for the time of a ``with`` block: it keeps supervisord busy."""
        self._deadlines.append(deadline)
        try:
            yield
        finally:
            self._deadlines.remove(deadline)

    def _ask(self, request: Callable[[client.ServerProxy], Result]) -> Result:
        limits = [deadline.remaining for deadline in list(self._deadlines)]
        try:
            return self._connections.ask(request, max([ANSWER_SECONDS, *limits]))
        except (OSError, HTTPException, client.Error) as error:
            raise MachineError(f"supervisord does not answer: {error}") from error

    def shut_down(self, deadline: Deadline) -> None:
        """Shut supervisord down, and wait for its end; one that does not answer has ended."""
        with suppress(MachineError):
            pid = self._ask(lambda server: int(str(server.supervisor.getPID())))
            self._ask(lambda server: server.supervisor.shutdown())
            self.machine.processes.wait_ended([pid], deadline)
        self._connections.close()

    def reload_configuration(self) -> None:
        """Make supervisord read its configuration again, which changes no program yet."""
        self._ask(lambda server: server.supervisor.reloadConfig())

    def ask_all(self, method: str, units: Sequence[Unit], *arguments: object) -> dict[str, str]:
        """Call a method that changes something once for each unit, in one request; return the faults, by unit."""
        names = {unit.name for unit in units}
        self.known = {name: entry for name, entry in self.known.items() if name not in names}
        results = self._each(method, units, *arguments)
        return {name: str(result["faultString"]) for name, result in results.items() if is_fault(result)}

    def _each(self, method: str, units: Sequence[Unit], *arguments: object) -> dict[str, Any]:
        """Call a method once for each unit, in one request; return the results, by unit."""

        def request(server: client.ServerProxy) -> list[Any]:
            requests = client.MultiCall(server)
            for unit in units:
                getattr(requests.supervisor, method)(unit.name, *arguments)
            return list(requests().results)

        return {unit.name: result for unit, result in zip(units, self._ask(request), strict=True)}

    def entries(self, units: Sequence[Unit]) -> dict[str, dict[str, Any]]:
        """Return supervisord's information about programs, by their names; about some others, it may be an older one.

        It writes each entry for as long as it takes to start a program, so that a few are asked for by their names.
        """
        if len(units) <= FEW:
            results = self._each("getProcessInfo", units)
            found = {name: result for name, result in results.items() if not is_fault(result)}
        else:
            entries = self._ask(lambda server: cast("list[dict[str, Any]]", server.supervisor.getAllProcessInfo()))
            found = {str(entry["name"]): entry for entry in entries}
        known = self.known = {**self.known, **found}
        return known


def is_fault(result: object) -> bool:
    """Tell whether what a call of several has come to is an error."""
    return isinstance(result, Mapping) and "faultString" in result


class SupervisordDriver(Driver):
    """The driver that starts a private supervisord, and asks it for everything else."""

    def __init__(self, machine: Machine, target: Target) -> None:
        super().__init__(machine, target)
        self._daemon = Daemon(machine, target)
        self._interface = Interface(machine, target)
        self._started: set[str] = set()
        """Programs that supervisord can be mistaken about, because we have started them before."""

    def open(self, deadline: Deadline) -> None:
        """Start supervisord and wait for its socket."""
        self._daemon.start(deadline)

    def close(self, deadline: Deadline) -> None:
        """Shut supervisord down and wait for its end."""
        self._interface.shut_down(deadline)

    def refresh(self, old: Sequence[Unit], new: Sequence[Unit]) -> None:
        """Make supervisord read its configuration again; changed programs are removed and added."""
        self._interface.reload_configuration()
        self._interface.ask_all("removeProcessGroup", [unit for unit in old if unit not in new])
        self._interface.ask_all("addProcessGroup", [unit for unit in new if unit not in old])

    def activate(self, units: Sequence[Unit], deadline: Deadline) -> dict[str, str]:
        """Start programs, all in one request; supervisord's own timer of readiness is switched off.

        What runs already is no problem, and what has ended already is reported as it is by who waits for it.
        """
        names = {unit.name for unit in units}
        if self._started & names or self._daemon.pid is None:
            self._entries(units)
        self._started |= names
        with self._interface.within(deadline):
            problems = self._interface.ask_all("startProcess", units, False)  # noqa: FBT003 - XML-RPC has no names
        statuses = self.status(units) if problems else {}
        seen = {name for name, status in statuses.items() if status.running or status.exit_status is not None}
        return {name: text for name, text in problems.items() if name not in seen}

    def deactivate(self, units: Sequence[Unit], deadline: Deadline) -> None:
        """Stop programs in one request, and watch for their exits ourselves: supervisord polls only once a second."""
        entries = self._entries(units)
        pids = [int(entries[unit.name]["pid"]) for unit in units]
        with self._interface.within(deadline):
            self._interface.ask_all("stopProcess", units, False)  # noqa: FBT003 - XML-RPC has no names
            self.machine.processes.wait_ended([pid for pid in pids if pid], deadline)

    def reload(self, unit: Unit, deadline: Deadline) -> None:  # noqa: ARG002 - it does not wait
        """Send the signal that asks to read the configuration again."""
        if problem := self._interface.ask_all("signalProcess", [unit], unit.reload_signal).get(unit.name):
            raise CommandFailed(f"{unit.name}: {problem}")

    def status(self, units: Sequence[Unit]) -> dict[str, Status]:
        """Return the statuses of units, by one request for all programs."""
        try:
            known = self._entries(units)
        except MachineError as error:
            return {unit.name: Status(running=False, text=str(error)) for unit in units}
        return {unit.name: self._status(unit, known[unit.name]) for unit in units}

    def _entries(self, units: Sequence[Unit]) -> dict[str, dict[str, Any]]:
        """Return supervisord's information about each program, once it has noticed those that have ended.

        It looks for them when it is woken, by a request too, but after the answer; and a proxy ends a moment after its
        daemon. Before it has noticed, it would not start a program again, and not say so.
        """
        entries = self._interface.known
        all_run = all(entries.get(unit.name, {}).get("pid") for unit in units)
        # Whether the processes are still alive is seen below.
        if not all_run or self._daemon.pid is None or self.machine.processes.ended([self._daemon.pid]):
            entries = self._interface.entries(units)

        def has_noticed() -> bool:
            nonlocal entries
            pids = {unit: int(entries[unit.name]["pid"]) for unit in units}
            daemons = [daemon_of(unit, self.machine, self.target) for unit, pid in pids.items() if pid]
            if not self.machine.processes.ended([pid for pid in (*pids.values(), *daemons) if pid]):
                return True
            entries = self._interface.entries(units)
            return False

        self.machine.deadline(NOTICE_SECONDS).until(has_noticed)
        return entries

    def _status(self, unit: Unit, entry: Mapping[str, Any]) -> Status:
        # The rest of the description is how long it has run, when supervisord was asked last.
        described = entry["description"].partition(", uptime")[0]
        text = f"{entry['statename']} {entry['spawnerr'] or described}".strip()
        if pid := int(entry["pid"]):
            return Status(running=True, pid=daemon_of(unit, self.machine, self.target) or pid, text=text)
        exit_status = self._daemon.exit_status(entry) if entry["statename"] == "EXITED" else None
        is_over = entry["statename"] in ("EXITED", "FATAL", "BACKOFF") or bool(entry["stop"])
        # supervisord starts it again within a second, and does not say so before.
        has_ended = is_over and not (entry["statename"] in ("EXITED", "BACKOFF") and unit.restarts)
        return Status(running=False, has_ended=has_ended, exit_status=exit_status, text=text)

    def exit_status(self, unit: Unit, pid: int) -> int | None:
        """Return how a process has ended that the machine has seen, or that supervisord has killed."""
        return -signal.SIGKILL if self._daemon.has_killed(unit.name, pid) else super().exit_status(unit, pid)


def unavailable_reason(machine: type[Machine]) -> str:  # noqa: ARG001 - machines have this environment's software
    """Return how to install supervisor where it is missing; an empty text where it is installed."""
    return "" if find_spec("supervisor") else "supervisor is not installed: pip install supervisor"


CAPABILITIES: Final = Capabilities(
    prefers="foreground",
    dysnomia_module="supervisord-program",
    example_override={"autorestart": "true"},
    note="programs are not restarted unless overrides say so (autorestart); daemons run behind a foreground proxy",
)


MANAGER: Final = Manager(
    "supervisord", SupervisordGenerator, SupervisordDriver, CAPABILITIES, unavailable_reason, warm_up=warm_up
)


@hookimpl
def nixproc_managers() -> list[Manager]:
    """Return the manager of this module, for the registry."""
    return [MANAGER]
