"""supervisord: one private daemon per deployment, driven through its XML-RPC interface.

Its socket lies in the state directory with mode 0700; there is no TCP port, and no configuration but ours is read.
The configuration's syntax is that of supervisord.org/configuration.html, as supervisor 4 really parses it.
"""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from threading import RLock
from typing import Any, Final, cast
from urllib.parse import quote as percent_encoded
from xmlrpc import client

from pytest_nixproc.errors import CommandFailed, DeploymentError, MachineError, Unsupported, WaitTimeout
from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.waiting import Deadline, wait_until
from pytest_nixproc.managers import shell
from pytest_nixproc.managers.api import (
    Capabilities,
    Driver,
    Generator,
    Manager,
    daemon_of,
)
from pytest_nixproc.managers.launch import Launch
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.commands import OUTPUT_TAIL, Spawn
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import SCRIPT, File, Status, Unit

CONFIGURATION: Final = "etc/supervisord.conf"
LAUNCHERS: Final = "libexec"
SOCKET_PATH_LIMIT: Final = 103 - len(".4194304")
"""Bytes of a Unix socket's path, less the final NUL (unix(7); macOS has the smaller limit of 104).

supervisord appends its pid at first, and renames the socket then.
"""

RPC_SECONDS: Final = 30.0
DESCRIPTORS_PER_PROGRAM: Final = 4
OWN_DESCRIPTORS: Final = 64
STANDARD_DESCRIPTORS: Final = 3
GRACE_OF_MANAGER: Final = 5
NOTICE_SECONDS: Final = 2.0

PLAIN: Final = re.compile(r"[A-Za-z0-9 _./,:=+@()\[\]{}<>|&*?!^~$%-]*")
"""Text that survives supervisord's layers (INI comments, interpolation, own quoting, shlex) inside double quotes."""


class SupervisordGenerator(Generator):
    """The generator of a program section per instance, and of supervisord's own configuration."""

    def generate(self, launch: Launch) -> Unit:
        """Return the program section, with a launch script where the section cannot say it all."""
        refuse_name(launch)
        scripts: tuple[File, ...] = ()
        # A proxy stays who supervisord is: as the process's user, it might not be allowed to run the interpreter.
        settings = None if launch.proxy else program_settings(launch)
        if settings is None:
            # Percent-encoded, a name needs no quoting that supervisord does not understand.
            path = f"{LAUNCHERS}/{percent_encoded(launch.name, safe='')}"
            scripts = (File(path, shell.launch_script(launch), SCRIPT),)
            settings = {"command": quoted(f"{launch.target.directory}/{path}")}
        parameters = launch.overridden(common_settings(launch) | settings)
        section = [f"[program:{launch.name}]", *(f"{name}={plain(value)}" for name, value in parameters.items())]
        return launch.unit(File(CONFIGURATION, "\n".join(section) + "\n\n"), *scripts)

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
        lines = []
        for section, values in settings.items():
            lines += [f"[{section}]", *(f"{name}={plain(value)}" for name, value in values.items()), ""]
        return (File(CONFIGURATION, "\n".join(lines)),)


def least_descriptors(programs: int, allowed: int) -> int:
    """Return the limit of descriptors for supervisord, which raises its own to that if it is lower.

    Every forked child closes as many, one by one, though Python has marked all of them to be closed by exec (PEP 446):
    hundreds of calls for each program, so no limit is named where the usual one will do.
    """
    needed = OWN_DESCRIPTORS + DESCRIPTORS_PER_PROGRAM * programs
    return needed if needed > allowed else STANDARD_DESCRIPTORS


def common_settings(launch: Launch) -> dict[str, Any]:
    """Return the settings that every program has: started and stopped by us alone, ready when it says so."""
    return {
        "priority": launch.level + 1,
        "autostart": "false",
        "autorestart": "false",
        "startsecs": 0,
        "startretries": 0,
        "stopwaitsecs": launch.whole_stop_seconds + GRACE_OF_MANAGER,
        "killasgroup": "true",
        "redirect_stderr": "true",
        "stdout_logfile": escaped(escaped(launch.log_file)),
        "stdout_logfile_maxbytes": 0,
    }


def program_settings(launch: Launch) -> dict[str, Any] | None:
    """Return the settings with which supervisord starts the program itself; None where a launch script is needed."""
    values = (*launch.command.argv, *launch.environment.values(), launch.directory or "", launch.user or "")
    if launch.initialize or launch.nice is not None or not all(PLAIN.fullmatch(value) for value in values):
        return None
    settings = {
        "command": " ".join(quoted(word) for word in launch.command.argv),
        "environment": ",".join(f"{name}={quoted(value)}" for name, value in launch.environment.items()),
        "directory": launch.directory and escaped(launch.directory),
        "umask": launch.umask,
        "user": launch.user and escaped(launch.user),
    }
    return {name: value for name, value in settings.items() if value is not None}


def quoted(value: str) -> str:
    """Return a plain value as one word: in double quotes, and ``%`` doubled against interpolation."""
    return f'"{escaped(value)}"'


def escaped(value: str) -> str:
    """Return a value that is interpolated once; names of log files are interpolated twice."""
    return value.replace("%", "%%")


def refuse_name(launch: Launch) -> None:
    """Raise for a name that supervisor refuses (supervisor.datatypes.process_or_group_name)."""
    if re.search("[ :]", launch.name):
        raise launch.refusal("its programs' names hold neither blanks nor colons", "give the process another name")


def plain(value: object) -> str:
    """Return a setting's value if it stands in one line of the file and survives being read."""
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


class UnixConnection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=RPC_SECONDS)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class UnixTransport(client.Transport):
    """XML-RPC over a Unix socket, and one connection for all requests, one after another, of any thread."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self._in_use = RLock()

    def request(self, *arguments: Any, **options: Any) -> Any:
        """Send a request and return the answer; an interrupt in between leaves no half of it to the next one."""
        with self._in_use:
            try:
                return super().request(*arguments, **options)
            except BaseException:
                self.close()
                raise

    def make_connection(self, host: Any) -> HTTPConnection:
        """Return the connection; the base class closes the one that it finds here."""
        connection = self._connection[1] or UnixConnection(self.path)
        self._connection = host, connection
        return connection


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
        argv = (self.machine.facts.python, "-X", "utf8", "-m", "supervisor.supervisord", "-n", "-c", configuration)
        environment = {"PATH": self.machine.facts.path_variable, **self.target.tags}
        pid = self.machine.processes.spawn(Spawn(argv, environment, self._output))

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
        """supervisord's last information; it holds for programs whose processes still run."""

    @cached_property
    def _server(self) -> client.ServerProxy:
        return client.ServerProxy("http://localhost", transport=UnixTransport(socket_path(self.target)))

    def shut_down(self, deadline: Deadline) -> None:
        """Shut supervisord down, and wait for its end; one that does not answer has ended."""
        with suppress(OSError, HTTPException, client.Error), self._server:
            pid = self._server.supervisor.getPID()
            self._server.supervisor.shutdown()
            self.machine.processes.wait_ended([int(str(pid))], deadline)

    def reload_configuration(self) -> None:
        """Make supervisord read its configuration again, which changes no program yet."""
        self._server.supervisor.reloadConfig()

    def ask_all(self, method: str, units: Sequence[Unit], *arguments: object) -> dict[str, str]:
        """Call a method once for each unit, in one request; return the faults, by unit."""
        requests = client.MultiCall(self._server)
        for unit in units:
            getattr(requests.supervisor, method)(unit.name, *arguments)
        self.known = {}
        try:
            results: list[Any] = list(requests().results)
        except (OSError, HTTPException, client.Error) as error:
            raise MachineError(f"supervisord does not answer: {error}") from error
        return {
            unit.name: str(result["faultString"])
            for unit, result in zip(units, results, strict=True)
            if isinstance(result, Mapping) and "faultString" in result
        }

    def entries(self) -> dict[str, dict[str, Any]]:
        """Return supervisord's information about each program, by its name."""
        try:
            entries = cast("list[dict[str, Any]]", self._server.supervisor.getAllProcessInfo())
        except (OSError, HTTPException, client.Error) as error:
            raise MachineError(f"supervisord does not answer: {error}") from error
        known = self.known = {str(entry["name"]): entry for entry in entries}
        return known


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

    def activate(self, units: Sequence[Unit], deadline: Deadline) -> dict[str, str]:  # noqa: ARG002 - it does not wait
        """Start programs, all in one request; supervisord's own timer of readiness is switched off.

        What runs already is no problem, and what has ended already is reported as it is by who waits for it.
        """
        names = {unit.name for unit in units}
        if self._started & names or self._daemon.pid is None:
            self._entries(units)
        self._started |= names
        problems = self._interface.ask_all("startProcess", units, False)  # noqa: FBT003 - XML-RPC has no names
        statuses = self.status(units) if problems else {}
        seen = {name for name, status in statuses.items() if status.running or status.exit_status is not None}
        return {name: text for name, text in problems.items() if name not in seen}

    def deactivate(self, units: Sequence[Unit], deadline: Deadline) -> None:
        """Stop programs, all in one request, and see their end by ourselves: supervisord looks once a second."""
        entries = self._entries(units)
        pids = [int(entries[unit.name]["pid"]) for unit in units]
        self._interface.ask_all("stopProcess", units, False)  # noqa: FBT003 - XML-RPC has no names
        self.machine.processes.wait_ended([pid for pid in pids if pid], deadline)

    def reload(self, unit: Unit, deadline: Deadline) -> None:  # noqa: ARG002 - it does not wait
        """Send SIGHUP, the usual request to read the configuration again."""
        if problem := self._interface.ask_all("signalProcess", [unit], "HUP").get(unit.name):
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
            entries = self._interface.entries()

        def has_noticed() -> bool:
            nonlocal entries
            pids = {unit: int(entries[unit.name]["pid"]) for unit in units}
            daemons = [daemon_of(unit, self.machine) for unit, pid in pids.items() if pid]
            if not self.machine.processes.ended([pid for pid in (*pids.values(), *daemons) if pid]):
                return True
            entries = self._interface.entries()
            return False

        self.machine.deadline(NOTICE_SECONDS).until(has_noticed)
        return entries

    def _status(self, unit: Unit, entry: Mapping[str, Any]) -> Status:
        text = f"{entry['statename']} {entry['spawnerr'] or entry['description']}".strip()
        if pid := int(entry["pid"]):
            return Status(running=True, pid=daemon_of(unit, self.machine) or pid, text=text)
        exit_status = self._daemon.exit_status(entry) if entry["statename"] == "EXITED" else None
        has_ended = entry["statename"] in ("EXITED", "FATAL", "BACKOFF") or bool(entry["stop"])
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
    note="programs are not restarted unless overrides say so (autorestart); daemons run behind a foreground proxy",
)


MANAGER: Final = Manager("supervisord", SupervisordGenerator, SupervisordDriver, CAPABILITIES, unavailable_reason)


@hookimpl
def nixproc_managers() -> list[Manager]:
    """Return the manager of this module, for the registry."""
    return [MANAGER]
