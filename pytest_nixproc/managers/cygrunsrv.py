"""cygrunsrv: Windows services of Cygwin programs, installed for the time of a deployment.

The options, how ``--args`` is split, and what a service does with its program are those of cygrunsrv's README and
source (cygrunsrv.cc: ``eval_arglist``, ``service_main``). Services are the machine's, so their names begin with the
deployment's identity: what a crash has left is found by it, and removed.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from threading import RLock
from typing import Any, Final

from pytest_nixproc.errors import DeploymentError, Unsupported
from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.managers import kinds, shell
from pytest_nixproc.managers.api import Capabilities, Generator, Manager
from pytest_nixproc.managers.daemons import DaemonDriver
from pytest_nixproc.managers.launch import Launch
from pytest_nixproc.model import value_types
from pytest_nixproc.model.names import snake_case
from pytest_nixproc.model.value_types import ValueType
from pytest_nixproc.values.commands import OUTPUT_TAIL, Spawn, describe_failure
from pytest_nixproc.values.pid_files import described, pid_in
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import File, Status, Unit

LAUNCHERS: Final = "libexec"
PROGRAM: Final = "cygrunsrv"

PLAIN: Final = re.compile(r"[\x20-\x7e]*")
"""Text that the registry returns unchanged: it keeps text in the code page of the system, and lines are ours."""

NAME: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
LONGEST_NAME: Final = 200
"""The longest name of a service: its whole path in the registry has 259 characters at most (MAX_PATH)."""

MOST_DEPENDENCIES: Final = 16
"""The most dependencies of a service; more are left out: the deployment itself starts everything in order."""

ADMINISTRATORS: Final = 544
"""The group of who may install services: its relative identifier, which is its number in Cygwin."""

CALL_SECONDS: Final = 10.0
REMOVAL_SECONDS: Final = 30.0
STATUS_SECONDS: Final = 1.0
NOT_FOUND: Final = 127
"""The exit status of a shell for a program that is not there (POSIX.1 XCU 2.8.2): it has installed nothing."""

STOPPED: Final = "Stopped"
"""cygrunsrv's name for the state of a service that does not run."""

SIGNALLED: Final = 128
"""The number that is added to a signal's number in an exit status (POSIX.1 XCU 2.8.2)."""

SUPERVISION: Final = """\
# cygrunsrv tells neither which process it has started, nor how that has ended. Its signals reach this shell too.
if [ "${{1-}}" != become ]; then
    trap : HUP INT QUIT TERM USR1 USR2 WINCH
    echo "$$" > {shell_file} || exit 1
    exec 3>&2 2> /dev/null
    "$0" become 2>&3 3>&-
    status=$?
    echo "$status" > {status_file}
    exit "$status"
fi"""


class CygrunsrvGenerator(Generator):
    """The generator of the arguments that install a service, one a line, and of the service's launch script."""

    def generate(self, launch: Launch) -> Unit:
        """Return the arguments, with the dependencies' services."""
        refuse_names(launch)
        defaults = default_parameters(launch)
        parameters = defaults | launch.overridden(defaults, spelling=snake_case, known=defaults, kinds=KINDS)
        text = "".join(f"{word}\n" for word in arguments(launch, parameters))
        installation = File(parameters_file(launch.name), text)
        # The service's account runs it, which is another than ours.
        script = File(launcher(launch.name), launch_script(launch), 0o755)
        return launch.unit(installation, script, log_file=str(parameters["stdout"]), pid_file=launch.pid_file)


def service_name(name: str, target: Target) -> str:
    """Return the name of a process's service, which no other deployment uses."""
    return f"{prefix(target)}{name}"


def prefix(target: Target) -> str:
    """Return the prefix of the names of a deployment's services."""
    return f"nixproc-{target.identity}-"


def parameters_file(name: str) -> str:
    """Return the file that holds the arguments of an installation."""
    return f"{name}-cygrunsrvparams"


def status_file_of(name: str, target: Target) -> str:
    """Return the file in which a launch script notes how the program has ended."""
    return f"{target.state.runtime_dir}/.{name}.status"


def shell_file_of(name: str, target: Target) -> str:
    """Return the file in which a launch script notes the process that waits for the program's end."""
    return f"{target.state.runtime_dir}/.{name}.shell"


def refuse_names(launch: Launch) -> None:
    """Raise for service names that Windows refuses or does not distinguish, and for paths beyond printable ASCII."""
    target = launch.target
    name = service_name(launch.name, target)
    if not NAME.fullmatch(name) or "/" in name or "\\" in name or len(name) > LONGEST_NAME:
        what = f"services have names of printable ASCII without slashes, {LONGEST_NAME} characters at most: {name!r}"
        raise launch.refusal(what, "give the process another name")
    for other in (instance.pkg.name for instance in launch.model.values()):
        if other != launch.name and other.casefold() == launch.name.casefold():
            what = f"Windows does not tell its name from {other!r}: in those of services, case counts for nothing"
            raise launch.refusal(what, "give one of them another name")
    for path in (target.directory, target.state.state_dir):
        if not PLAIN.fullmatch(path):
            what = f"{path!r} is no path of printable ASCII"
            raise Unsupported("cygrunsrv", "the system", what, remedy="choose another --nixproc-state-root")


def default_parameters(launch: Launch) -> dict[str, Any]:
    """Return everything about a service that an override may change."""
    target, dependencies = launch.target, launch.dependencies[:MOST_DEPENDENCIES]
    return {
        "path": f"{target.directory}/{launcher(launch.name)}",
        "args": (),
        # The launch script outlives the program for a moment, and has to be known by then.
        "environment": {name: value for name, value in target.tags.items() if PLAIN.fullmatch(value)},
        "directory": "/",
        "display_name": service_name(launch.name, target),
        "description": launch.description,
        "type": "manual",
        "user": launch.user,
        "password": None,
        "dependencies": tuple(service_name(name, target) for name in dependencies),
        "stdin": None,
        "stdout": launch.log_file,
        "stderr": launch.log_file,
        "pid_file": None,
        "terminate_signal": launch.stop_signal,
        "terminate_on_shutdown": False,
    }


KINDS: Final[Mapping[str, ValueType]] = {
    "args": value_types.SCALARS,
    "environment": kinds.TEXTS,
    "type": kinds.one_of("auto", "manual"),
    "dependencies": value_types.SCALARS,
    "terminate_signal": kinds.SIGNAL,
    "terminate_on_shutdown": kinds.TRUTH,
    **dict.fromkeys(("path", "directory", "display_name", "description", "stdout"), value_types.SCALAR),
    **dict.fromkeys(("user", "password", "stdin", "stderr", "pid_file"), kinds.optional(value_types.SCALAR)),
}
"""The kinds of the parameters."""


def launcher(name: str) -> str:
    """Return the path of the launch script, below the deployment's directory."""
    return f"{LAUNCHERS}/{name}"


def launch_script(launch: Launch) -> str:
    """Return the launch script; the user is switched before it, by Windows.

    Every service has one: cygrunsrv itself knows neither umask nor nice nor anything to run before, goes on when it
    cannot enter a directory, adds to PATH, has a registry for variables that does not tell ``x`` from ``X``, and does
    not tell which process it has started.
    """
    files = {
        "shell_file": shell.quote(shell_file_of(launch.name, launch.target)),
        "status_file": shell.quote(status_file_of(launch.name, launch.target)),
    }
    lines = ["# shellcheck disable=SC1003,SC2016,SC3045", SUPERVISION.format(**files)]
    # A service gets the system's own limit.
    lines.append(f"ulimit -S -n {launch.target.facts.open_files}")
    if launch.mode == "foreground":
        lines.append(f'echo "$$" > {shell.quote(launch.pid_file)} || exit 1')
    return shell.launch_script(replace(launch, user=None), *lines, is_ours=False)


def joined_arguments(launch: Launch, words: Sequence[object]) -> str:
    """Return arguments as one text that cygrunsrv splits into them again; raises where it has no way to say one.

    It splits at blanks; a quote at the beginning of a word reaches to the next of its kind; nothing else is special.
    """
    quoted = []
    for word in words:
        text = str(word)
        if text and " " not in text and text[0] not in "'\"":
            quoted.append(text)
        elif quote := next((quote for quote in "\"'" if quote not in text), ""):
            quoted.append(f"{quote}{text}{quote}")
        else:
            what = f"its overrides give the argument {word!r}, and cygrunsrv has no quotes for both kinds of them"
            raise launch.refusal(what, "leave the arguments to the launch script")
    return " ".join(quoted)


def arguments(launch: Launch, parameters: Mapping[str, Any]) -> Iterator[str]:
    """Yield the arguments of an installation."""
    user = parameters["user"]
    if user is not None and parameters["password"] is None:
        what = f"Windows starts no service as {user!r} without a password"
        remedy = 'give it: overrides={"cygrunsrv": {"password": ...}}, empty for an account that has none'
        raise launch.refusal(what, remedy)
    parameters = {**parameters, "args": joined_arguments(launch, parameters["args"])}
    options = [
        ("install", service_name(launch.name, launch.target)),
        *((option, parameters[name]) for option, name in SINGLE.items() if parameters[name] not in (None, "")),
        *(("env", f"{name}={value}") for name, value in parameters["environment"].items()),
        *(("dep", name) for name in parameters["dependencies"]),
        *([("user", user), ("passwd", parameters["password"])] if user is not None else []),
    ]
    for option, value in options:
        yield f"--{option}"
        yield one_line(launch, option, str(value))
    if parameters["terminate_on_shutdown"]:
        yield "--shutdown"


SINGLE: Final = {
    "path": "path",
    "args": "args",
    "chdir": "directory",
    "disp": "display_name",
    "desc": "description",
    "type": "type",
    "stdin": "stdin",
    "stdout": "stdout",
    "stderr": "stderr",
    "pidfile": "pid_file",
    "termsig": "terminate_signal",
}
"""Options that stand once, and what they are made of."""


def one_line(launch: Launch, option: str, value: str) -> str:
    """Return an option's value as a line of ASCII; other characters are replaced in descriptions, else refused."""
    if option in ("desc", "disp"):
        return shell.comment(value).encode("ascii", "replace").decode()
    if not PLAIN.fullmatch(value):
        what = f"its --{option} is not printable ASCII in one line: {value!r}"
        raise launch.refusal(what, "choose another path or value")
    return value


class Calls:
    """Calls of cygrunsrv; each unit has a file for the output of calls about its service."""

    def __init__(self, machine: Machine, target: Target) -> None:
        self.machine = machine
        self.target = target

    def call(self, *words: str, output: str | None = None) -> Spawn:
        """Return a call of cygrunsrv, which is looked up like any program of the machine."""
        variables = {"PATH": self.machine.facts.path_variable, **self.target.tags}
        return Spawn((self.machine.facts.shell, "-c", 'exec "$@"', "sh", PROGRAM, *words), variables, output)

    def call_for(self, unit: Unit, *words: str) -> Spawn:
        """Return a call about the service of a unit."""
        return self.call(*words, output=self._output(unit))

    def _output(self, unit: Unit) -> str:
        return f"{self.target.state.runtime_dir}/.{unit.name}.said"

    def said(self, unit: Unit) -> str:
        """Return the output of the latest calls about a unit's service."""
        return (self.machine.files.read(self._output(unit)) or b"").decode(errors="replace").strip()

    def forget(self, unit: Unit) -> None:
        """Remove the output of calls about a unit's service."""
        self.machine.files.remove(self._output(unit))

    def run(self, calls: Mapping[Unit, Spawn], deadline: Deadline) -> dict[Unit, str]:
        """Run calls for units side by side; return error texts, by unit."""
        for unit in calls:
            self.forget(unit)
        statuses = self.machine.processes.run(list(calls.values()), deadline)
        return {
            unit: f"{describe_failure(call.argv[4:6], status)}\n{self.said(unit)[-OUTPUT_TAIL:]}"
            for (unit, call), status in zip(calls.items(), statuses, strict=True)
            if status != 0
        }


class PendingCalls:
    """Calls in the background, which wait until services run or have stopped.

    They are waited for, or ended, only where they would hinder the next step.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._starting: dict[str, int] = {}
        """Calls that wait for services to run, by unit."""
        self._stopping: list[int] = []
        """Calls that wait for services to stop."""

    def start(self, unit: Unit, call: Spawn) -> None:
        """Begin a call that starts the service of a unit."""
        self._starting[unit.name] = self.machine.processes.spawn(call)

    def stop(self, call: Spawn) -> None:
        """Begin a call that stops a service."""
        self._stopping.append(self.machine.processes.spawn(call))

    def starting(self, unit: Unit) -> int | None:
        """Return the call that has started the service of a unit."""
        return self._starting.get(unit.name)

    def await_stops(self, deadline: Deadline) -> None:
        """Wait for the calls that wait for services to stop."""
        self.machine.processes.wait_ended(self._stopping, deadline)

    def end(self, names: Iterable[str] | None = None) -> None:
        """End the calls that still wait for stops, or for starts of these units; the services are not touched.

        Without names, the starts of all units are meant.
        """
        names = list(self._starting) if names is None else names
        starting = [call for name in names if (call := self._starting.pop(name, None)) is not None]
        calls, self._stopping = [*starting, *self._stopping], []
        running = set(calls) - self.machine.processes.ended(calls)
        for pid in running:
            self.machine.processes.signal(pid, signal.SIGKILL)
        self.machine.processes.wait_ended(sorted(running), self.machine.deadline(CALL_SECONDS))


class Services:
    """The services of a deployment, among those of the machine."""

    def __init__(self, machine: Machine, target: Target, calls: Calls) -> None:
        self.machine = machine
        self.target = target
        self.calls = calls
        self._own_output = f"{target.state.log_dir}/cygrunsrv.log"
        self._installed: set[str] | None = None
        """Services that are known to be installed; None before anybody has looked."""

    def name(self, unit: Unit) -> str:
        """Return the service of a unit."""
        return service_name(unit.name, self.target)

    def names(self) -> list[str]:
        """Return the services that are installed."""
        status, output = self.machine.processes.capture(self.calls.call("--list"), self.machine.deadline(CALL_SECONDS))
        if status == NOT_FOUND:
            return []
        if status != 0:
            raise DeploymentError("cygrunsrv cannot list its services", details=output[-OUTPUT_TAIL:])
        return [name for name in output.splitlines() if name.startswith(prefix(self.target))]

    def install(self, units: Sequence[Unit], deadline: Deadline) -> dict[Unit, str]:
        """Install the services that are missing; return error texts, by unit."""
        if self._installed is None:
            self._installed = set(self.names())
        new = [unit for unit in units if self.name(unit) not in self._installed]
        problems = self.calls.run({unit: self.calls.call_for(unit, *self._words(unit)) for unit in new}, deadline)
        self._installed |= {self.name(unit) for unit in new if unit not in problems}
        return problems

    def _words(self, unit: Unit) -> list[str]:
        """Return the arguments of an installation, as they were generated."""
        content = self.machine.files.read(f"{self.target.directory}/{parameters_file(unit.name)}") or b""
        return content.decode().splitlines()

    def remove(self, names: Sequence[str]) -> None:
        """Remove services that have been stopped, side by side: nothing depends on their order any more."""
        self._installed = None
        if names:
            # After a crash, the directories may be gone.
            output = self._own_output if self.machine.files.exists(self.target.state.log_dir) else None
            calls = [self.calls.call("--remove", name, output=output) for name in names]
            statuses = self.machine.processes.run(calls, self.machine.deadline(REMOVAL_SECONDS))
            if left := [name for name, status in zip(names, statuses, strict=True) if status != 0]:
                said = (self.machine.files.read(self._own_output) or b"").decode(errors="replace")
                raise DeploymentError(f"cygrunsrv cannot remove {', '.join(left)}", details=said[-OUTPUT_TAIL:])

    def state(self, unit: Unit) -> str:
        """Return the state of a service, as cygrunsrv prints it."""
        query = self.calls.call("--query", self.name(unit))
        _, output = self.machine.processes.capture(query, self.machine.deadline(CALL_SECONDS))
        found = re.search(r"^Current State\s*: (.*)$", output, re.MULTILINE)
        return found[1] if found else output.strip()


class Notes:
    """The notes of launch scripts: the process that waits for the program's end, and how the program has ended."""

    def __init__(self, machine: Machine, target: Target) -> None:
        self.machine = machine
        self.target = target

    def forget(self, unit: Unit) -> None:
        """Remove the notes of a unit's launch script."""
        self.machine.files.remove(status_file_of(unit.name, self.target))
        self.machine.files.remove(shell_file_of(unit.name, self.target))

    def waiting(self, unit: Unit) -> int | None:
        """Return the process that waits for the program's end."""
        return pid_in(self.machine.files.read(shell_file_of(unit.name, self.target)) or b"")

    def status(self, unit: Unit) -> int | None:
        """Return how a program has ended: a shell adds 128 to a signal's number."""
        content = (self.machine.files.read(status_file_of(unit.name, self.target)) or b"").strip()
        return None if not content else int(content) if int(content) <= SIGNALLED else SIGNALLED - int(content)


class CygrunsrvDriver(DaemonDriver):
    """The driver that installs, starts, stops and removes services."""

    def __init__(self, machine: Machine, target: Target) -> None:
        super().__init__(machine, target)
        self._calls = Calls(machine, target)
        self._pending = PendingCalls(machine)
        self._services = Services(machine, target, self._calls)
        self._notes = Notes(machine, target)
        self._ending = RLock()
        """Held while services are stopped: one thread must not end the calls of another."""

    def remains(self) -> Sequence[str]:
        """Return the services that are installed."""
        return self._services.names()

    def close(self, deadline: Deadline) -> None:  # noqa: ARG002 - services outlive whoever gives up
        """Remove all services of the deployment, the last one first."""
        self._pending.end()
        self._services.remove(self._services.names()[::-1])

    def refresh(self, old: Sequence[Unit], new: Sequence[Unit]) -> None:
        """Remove the services of units that are gone, or to be installed anew."""
        gone = [self._services.name(unit) for unit in old if unit not in new]
        installed = set(self._services.names())
        self._services.remove([name for name in reversed(gone) if name in installed])

    def activate(self, units: Sequence[Unit], deadline: Deadline) -> dict[str, str]:
        """Install the services that are missing, and start those whose process does not run."""
        problems = self._services.install(units, deadline)
        statuses = self.status(units)
        for unit in units:
            if not statuses[unit.name].running and unit not in problems:
                self._start(unit)
        return {unit.name: text for unit, text in problems.items()}

    def _start(self, unit: Unit) -> None:
        """Request the start of a service, without waiting: cygrunsrv takes a second, and its answer is not needed."""
        self.records.forget(unit)
        self._notes.forget(unit)
        self._calls.forget(unit)
        self._pending.start(unit, self._calls.call_for(unit, "--start", self._services.name(unit)))
        self.records.begin(unit)

    def deactivate(self, units: Sequence[Unit], deadline: Deadline) -> None:
        """Stop services, and wait for the ends of their processes; calls that still run at the deadline are ended."""
        with self._ending:
            try:
                super().deactivate(units, deadline)
                self._pending.await_stops(deadline)
            finally:
                self._pending.end([unit.name for unit in units])

    def request_stop(self, units: Sequence[Unit], pids: Mapping[Unit, int], deadline: Deadline) -> None:  # noqa: ARG002 - services know their processes
        """Request that services stop, without waiting for it."""
        for unit in units:
            self._pending.stop(self._calls.call_for(unit, "--stop", self._services.name(unit)))

    def reload(self, unit: Unit, deadline: Deadline) -> None:  # noqa: ARG002 - it does not wait
        """Send the signal that asks to read the configuration again: cygrunsrv has no such request."""
        if pid := self.status([unit])[unit.name].pid:
            self.machine.processes.signal(pid, signal.Signals[f"SIG{unit.reload_signal}"])

    def exit_status(self, unit: Unit, pid: int) -> int | None:
        """Return how a process has ended, as the machine has seen it, or else as the launch script has noted it."""
        status = self.machine.processes.exit_status(pid)
        if status is None:
            # It is noted a moment after the end.
            self.machine.deadline(STATUS_SECONDS).until(lambda: self._notes.status(unit) is not None)
            status = self._notes.status(unit)
        return status

    def _without_pid(self, contents: Mapping[Unit, bytes | None]) -> dict[Unit, Status]:
        """Return the statuses of services whose processes are not known, from notes and from cygrunsrv."""
        return {unit: self._said_of(unit, content) for unit, content in contents.items()}

    def _said_of(self, unit: Unit, content: bytes | None) -> Status:
        if (status := self._notes.status(unit)) is not None:
            return Status(running=False, has_ended=True, exit_status=status, text="its program has ended")
        call = self._notes.waiting(unit) or self._pending.starting(unit)
        if call is not None and not self.machine.processes.ended([call]):
            return Status(running=False, text=f"it has been started, {unit.pid_file} names no process yet")
        state = self._services.state(unit)
        said = self._calls.said(unit)
        text = f"{state}, and {unit.pid_file} {described(content)}"
        if state != STOPPED:
            return Status(running=False, text=text)
        return Status(running=False, has_ended=True, text=f"{text}\n{said}".rstrip())


def unavailable_reason(machine: type[Machine]) -> str:  # noqa: ARG001 - no kind of machine brings another system
    """Return why services cannot be installed, with the remedy; an empty text if they can."""
    platform: str = sys.platform
    if platform != "cygwin":
        return f"cygrunsrv is for Cygwin, and this is {platform}: run the tests in Cygwin, on Windows"
    if not shutil.which(PROGRAM):
        return "cygrunsrv is not installed: add the package cygrunsrv with Cygwin's setup program"
    if ADMINISTRATORS not in os.getgroups():
        return "only administrators may install services: run the tests in an elevated terminal"
    return ""


CAPABILITIES: Final = Capabilities(
    prefers="foreground",
    platforms=("cygwin",),
    stops_groups=True,
    dysnomia_module="cygrunsrv-service",
    example_override={"terminate_signal": "INT"},
    note="Windows services of the deployment's own, removed with it; without a user and a password, they run as SYSTEM",
)


MANAGER: Final = Manager("cygrunsrv", CygrunsrvGenerator, CygrunsrvDriver, CAPABILITIES, unavailable_reason)


@hookimpl
def nixproc_managers() -> list[Manager]:
    """Return the manager of this module, for the registry."""
    return [MANAGER]
