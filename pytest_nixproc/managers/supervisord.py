"""supervisord: one private daemon per deployment, driven through its XML-RPC interface.

Its socket lies in the state directory with mode 0700; there is no TCP port, and no configuration but ours is read.
The configuration's syntax is that of supervisord.org/configuration.html, as supervisor 4 really parses it.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from typing import Any, Final, cast
from urllib.parse import quote as percent_encoded
from xmlrpc import client

from pytest_nixproc.errors import CommandFailed, DeploymentError, MachineError, Unsupported, WaitTimeout
from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.machines.api import OUTPUT_TAIL, Machine, Spawn
from pytest_nixproc.machines.waiting import Deadline, wait_until
from pytest_nixproc.managers import shell
from pytest_nixproc.managers.api import (
    Capabilities,
    Driver,
    File,
    Generator,
    Manager,
    Status,
    Target,
    Unit,
    apply_override,
    refuse_unsupported,
)
from pytest_nixproc.managers.proxy import proxy_argv
from pytest_nixproc.model.process import Command, ManagedProcess
from pytest_nixproc.model.system import ProcessesModel

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
"""What survives supervisord's layers (INI comments, interpolation, own quoting, shlex) inside double quotes."""


class SupervisordGenerator(Generator):
    """One program section per instance, and the daemon's own configuration."""

    def generate(self, key: str, model: ProcessesModel, target: Target) -> Unit:
        """Return the program section, with a launch script where the section cannot say it all."""
        process = model[key].pkg
        refuse_unsupported("supervisord", process, CAPABILITIES)
        refuse_name(process)
        mode, command = process.command_for("foreground")
        proxy: tuple[str, ...] = ()
        if mode == "daemon":
            proxy = proxy_argv(target.facts.python, target.facts.package_root, target.pid_file(process))
        scripts: tuple[File, ...] = ()
        # A proxy stays who supervisord is: as the process's user, it might not be allowed to run the interpreter.
        settings = None if proxy else program_settings(key, process, command, target)
        if settings is None:
            # Percent-encoded, a name needs no quoting that supervisord does not understand.
            path = f"{LAUNCHERS}/{percent_encoded(process.name, safe='')}"
            script = File(path, shell.launch_script(process, command, target, key, proxy=proxy), 0o755)
            scripts = (script,)
            settings = {"command": quoted(f"{target.directory}/{script.path}")}
        parameters = apply_override("supervisord", process, common_settings(key, model, target) | settings)
        section = [f"[program:{process.name}]", *(f"{name}={plain(value)}" for name, value in parameters.items())]
        return Unit(
            name=process.name,
            mode=mode,
            log_file=target.log_file(process),
            pid_file=target.pid_file(process) if mode == "daemon" else None,
            files=(File(CONFIGURATION, "\n".join(section) + "\n\n"), *scripts),
        )

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
    """Return the limit that supervisord raises its own to if that is lower.

    Every forked child closes as many, one by one, though Python has marked all of them to be closed by exec (PEP 446):
    hundreds of calls for each program, so no limit is named where the usual one will do.
    """
    needed = OWN_DESCRIPTORS + DESCRIPTORS_PER_PROGRAM * programs
    return needed if needed > allowed else STANDARD_DESCRIPTORS


def common_settings(key: str, model: ProcessesModel, target: Target) -> dict[str, Any]:
    """Return the settings that every program has: started and stopped by us alone, ready when it says so."""
    return {
        "priority": model.level(key) + 1,
        "autostart": "false",
        "autorestart": "false",
        "startsecs": 0,
        "startretries": 0,
        "stopwaitsecs": max(1, round(target.stop_seconds)) + GRACE_OF_MANAGER,
        "killasgroup": "true",
        "redirect_stderr": "true",
        "stdout_logfile": escaped(escaped(target.log_file(model[key].pkg))),
        "stdout_logfile_maxbytes": 0,
    }


def program_settings(key: str, process: ManagedProcess, command: Command, target: Target) -> dict[str, Any] | None:
    """Return what surrounds the program as settings of the section; None where a launch script is needed."""
    environment = target.environment(process, key)
    user = target.user_of(process)
    values = (*command.argv, *environment.values(), process.directory or "", user or "")
    if process.initialize or process.nice is not None or not all(PLAIN.fullmatch(value) for value in values):
        return None
    settings = {
        "command": " ".join(quoted(word) for word in command.argv),
        "environment": ",".join(f"{name}={quoted(value)}" for name, value in environment.items()),
        "directory": process.directory and escaped(process.directory),
        "umask": process.umask,
        "user": user and escaped(user),
    }
    return {name: value for name, value in settings.items() if value is not None}


def quoted(value: str) -> str:
    """Return a plain value as one word: in double quotes, and ``%`` doubled against interpolation."""
    return f'"{escaped(value)}"'


def escaped(value: str) -> str:
    """Return a value that is interpolated once; names of log files are interpolated twice."""
    return value.replace("%", "%%")


def refuse_name(process: ManagedProcess) -> None:
    """Raise for a name that supervisor refuses (supervisor.datatypes.process_or_group_name)."""
    if re.search("[ :]", process.name):
        what = "its programs' names hold neither blanks nor colons"
        raise Unsupported("supervisord", process.name, what, remedy="give the process another name")


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
    """XML-RPC over a Unix socket, and one connection for all requests."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def make_connection(self, host: Any) -> HTTPConnection:
        """Return the connection; the base class closes the one that it finds here."""
        connection = self._connection[1] or UnixConnection(self.path)
        self._connection = host, connection
        return connection


class SupervisordDriver(Driver):
    """Starts a private supervisord, and asks it for everything else."""

    def __init__(self, machine: Machine, target: Target) -> None:
        super().__init__(machine, target)
        self._reported_log = f"{target.state.log_dir}/supervisord.log"
        self._own_output = f"{target.state.log_dir}/supervisord.out"
        self._pid: int | None = None
        """supervisord itself, if it was started by us."""
        self._started: set[str] = set()
        """Programs that supervisord can be mistaken about, because we have started them before."""
        self._known: dict[str, dict[str, Any]] = {}
        """What supervisord has said last; it holds for programs whose processes still run."""

    @cached_property
    def _server(self) -> client.ServerProxy:
        return client.ServerProxy("http://localhost", transport=UnixTransport(socket_path(self.target)))

    def open(self, deadline: Deadline) -> None:
        """Start supervisord and wait for its socket."""
        configuration = f"{self.target.directory}/{CONFIGURATION}"
        argv = (self.machine.facts.python, "-X", "utf8", "-m", "supervisor.supervisord", "-n", "-c", configuration)
        environment = {"PATH": self.machine.path_variable, **self.target.tags}
        pid = self.machine.spawn(Spawn(argv, environment, self._own_output))

        def look() -> str:
            problem = self.machine.connection_problem(socket_path(self.target))
            if problem and self.machine.ended([pid]):
                raise DeploymentError("supervisord ended at its start", details=self._said())
            if problem:
                self._refuse_to_hang()
            return problem

        try:
            wait_until(look, deadline, "wait for supervisord's socket")
        except WaitTimeout as error:
            raise DeploymentError(error.brief, details=f"{error.details}\n{self._said()}") from error
        self._pid = pid

    def _refuse_to_hang(self) -> None:
        """Raise when supervisord tries for ever to make its socket, which it does for whatever reason it fails.

        It takes the failure for a stale socket; in a new directory there can be none.
        """
        if b"Unlinking stale socket" in (self.machine.read(self._own_output) or b""):
            self.machine.write(f"{socket_path(self.target)}.try", "")
            raise DeploymentError("supervisord cannot make its socket", details=f"in {self.target.state.runtime_dir}")

    def _said(self) -> str:
        """Return the end of what supervisord has written and logged by itself."""
        contents = (self.machine.read(path) or b"" for path in (self._own_output, self._reported_log))
        return "\n".join(content.decode(errors="replace")[-OUTPUT_TAIL:].rstrip() for content in contents)

    def close(self, deadline: Deadline) -> None:
        """Shut supervisord down and wait for its end."""
        with suppress(OSError, HTTPException, client.Error), self._server:
            pid = self._server.supervisor.getPID()
            self._server.supervisor.shutdown()
            self._await_end([int(str(pid))], deadline)

    def _await_end(self, pids: Sequence[int], deadline: Deadline) -> None:
        """Wait until processes have ended; the deadline is no error, who stops something looks afterwards."""
        running = set(pids) - self.machine.ended(pids)
        for _ in deadline.pauses() if running else ():
            running -= self.machine.ended(running)
            if not running:
                return

    def refresh(self, old: Sequence[Unit], new: Sequence[Unit]) -> None:
        """Have the configuration read again; changed programs are removed and added."""
        self._server.supervisor.reloadConfig()
        self._ask_all("removeProcessGroup", [unit for unit in old if unit not in new])
        self._ask_all("addProcessGroup", [unit for unit in new if unit not in old])

    def _ask_all(self, method: str, units: Sequence[Unit], *arguments: object) -> dict[str, str]:
        """Call a method once for each unit, in one request; return the faults, by unit."""
        requests = client.MultiCall(self._server)
        for unit in units:
            getattr(requests.supervisor, method)(unit.name, *arguments)
        self._known = {}
        try:
            results: list[Any] = list(requests().results)
        except (OSError, HTTPException, client.Error) as error:
            raise MachineError(f"supervisord does not answer: {error}") from error
        return {
            unit.name: str(result["faultString"])
            for unit, result in zip(units, results, strict=True)
            if isinstance(result, Mapping) and "faultString" in result
        }

    def activate(self, units: Sequence[Unit], deadline: Deadline) -> dict[str, str]:  # noqa: ARG002 - it does not wait
        """Start programs, all in one request; supervisord's own timer of readiness is switched off.

        What runs already is no problem, and what has ended already is reported as it is by who waits for it.
        """
        names = {unit.name for unit in units}
        if self._started & names or self._pid is None:
            self._entries(units)
        self._started |= names
        problems = self._ask_all("startProcess", units, False)  # noqa: FBT003 - XML-RPC has no names
        statuses = self.status(units) if problems else {}
        seen = {name for name, status in statuses.items() if status.running or status.exit_status is not None}
        return {name: text for name, text in problems.items() if name not in seen}

    def deactivate(self, units: Sequence[Unit], deadline: Deadline) -> None:
        """Stop programs, all in one request, and see their end by ourselves: supervisord looks once a second."""
        entries = self._entries(units)
        pids = [int(entries[unit.name]["pid"]) for unit in units]
        self._ask_all("stopProcess", units, False)  # noqa: FBT003 - XML-RPC has no names
        self._await_end([pid for pid in pids if pid], deadline)

    def reload(self, unit: Unit, deadline: Deadline) -> None:  # noqa: ARG002 - it does not wait
        """Send SIGHUP, the usual request to read the configuration again."""
        if problem := self._ask_all("signalProcess", [unit], "HUP").get(unit.name):
            raise CommandFailed(f"{unit.name}: {problem}")

    def status(self, units: Sequence[Unit]) -> dict[str, Status]:
        """Ask for all programs at once."""
        try:
            known = self._entries(units)
        except MachineError as error:
            return {unit.name: Status(running=False, text=str(error)) for unit in units}
        return {unit.name: self._status(unit, known[unit.name]) for unit in units}

    def _entries(self, units: Sequence[Unit]) -> dict[str, dict[str, Any]]:
        """Return what supervisord knows of each program, once it has noticed those that have ended.

        It looks for them when it is woken, by a request too, but after the answer; and a proxy ends a moment after its
        daemon. Before it has noticed, it would not start a program again, and not say so.
        """
        entries = self._known if self._is_up_to_date(units) else self._ask_for_entries()
        for _ in self.machine.deadline(NOTICE_SECONDS).pauses():
            pids = {unit: int(entries[unit.name]["pid"]) for unit in units}
            daemons = [self._daemon_pid(unit) for unit, pid in pids.items() if pid]
            if not self.machine.ended([pid for pid in (*pids.values(), *daemons) if pid]):
                break
            entries = self._ask_for_entries()
        return entries

    def _is_up_to_date(self, units: Sequence[Unit]) -> bool:
        """Tell whether supervisord lives, and has named a process of each unit; who asks looks whether those live."""
        seen = all(self._known.get(unit.name, {}).get("pid") for unit in units)
        return seen and self._pid is not None and not self.machine.ended([self._pid])

    def _ask_for_entries(self) -> dict[str, dict[str, Any]]:
        try:
            entries = cast("list[dict[str, Any]]", self._server.supervisor.getAllProcessInfo())
        except (OSError, HTTPException, client.Error) as error:
            raise MachineError(f"supervisord does not answer: {error}") from error
        self._known = {str(entry["name"]): entry for entry in entries}
        return self._known

    def _status(self, unit: Unit, entry: Mapping[str, Any]) -> Status:
        text = f"{entry['statename']} {entry['spawnerr'] or entry['description']}".strip()
        if pid := int(entry["pid"]):
            return Status(running=True, pid=self._daemon_pid(unit) or pid, text=text)
        exit_status = self._exit_status(unit, entry) if entry["statename"] == "EXITED" else None
        has_ended = entry["statename"] in ("EXITED", "FATAL", "BACKOFF") or bool(entry["stop"])
        return Status(running=False, has_ended=has_ended, exit_status=exit_status, text=text)

    def _daemon_pid(self, unit: Unit) -> int | None:
        """Return the pid of the daemon behind a foreground proxy."""
        return self.process_named(unit, self.machine.read(unit.pid_file) or b"") if unit.pid_file else None

    def _exit_status(self, unit: Unit, entry: Mapping[str, Any]) -> int:
        """Return the exit status; supervisord keeps -1 for any signal, and names the signal in its log only."""
        status = int(entry["exitstatus"])
        log = (self.machine.read(self._reported_log) or b"").decode(errors="replace")
        reported = re.findall(rf"exited: {re.escape(unit.name)} \(terminated by (SIG\w+)", log)
        return -signal_number(reported[-1]) if status == -1 and reported else status


def signal_number(name: str) -> int:
    """Return the number of a signal's name."""
    import signal

    return int(signal.Signals[name])


def obstacle(machine: type[Machine]) -> str:  # noqa: ARG001 - machines have this environment's software
    """Tell whether supervisor is installed."""
    return "" if find_spec("supervisor") else "supervisor is not installed: pip install supervisor"


CAPABILITIES: Final = Capabilities(
    prefers="foreground",
    dysnomia_module="supervisord-program",
    note="programs are not restarted unless overrides say so (autorestart); daemons run behind a foreground proxy",
)


@hookimpl
def nixproc_managers() -> list[Manager]:
    """Offer this manager."""
    return [Manager("supervisord", SupervisordGenerator, SupervisordDriver, CAPABILITIES, obstacle)]
