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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from pytest_nixproc.errors import DeploymentError, Unsupported
from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.machines.api import OUTPUT_TAIL, Machine, Spawn, describe_failure
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.managers import shell
from pytest_nixproc.managers.api import (
    Capabilities,
    File,
    Generator,
    Manager,
    Status,
    Target,
    Unit,
    apply_override,
    ask_known,
    refuse_unsupported,
)
from pytest_nixproc.managers.daemons import DaemonDriver, first_number, record_of
from pytest_nixproc.managers.proxy import proxy_argv
from pytest_nixproc.model.names import snake_case
from pytest_nixproc.model.process import Command, ManagedProcess, Mode
from pytest_nixproc.model.system import ProcessesModel

LAUNCHERS: Final = "libexec"
PROGRAM: Final = "cygrunsrv"

PLAIN: Final = re.compile(r"[\x20-\x7e]*")
"""What the registry returns as it was given: it keeps text in the code page of the system, and lines are ours."""

NAME: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
LONGEST_NAME: Final = 200
"""Of a service: its key in the registry, with what stands before and below it, has 259 characters (MAX_PATH)."""

MOST_DEPENDENCIES: Final = 16
"""More are left out: the deployment itself starts everything in order."""

ADMINISTRATORS: Final = 544
"""The group of who may install services: its relative identifier, which is its number in Cygwin."""

CALL_SECONDS: Final = 10.0
REMOVAL_SECONDS: Final = 30.0
STATUS_SECONDS: Final = 1.0
NOT_FOUND: Final = 127
"""The exit status of a shell for a program that is not there (POSIX.1 XCU 2.8.2): it has installed nothing."""

STOPPED: Final = "Stopped"
"""What cygrunsrv calls the state of a service that does not run."""

SIGNALLED: Final = 128
"""What is added to a signal's number in an exit status (POSIX.1 XCU 2.8.2)."""

SUPERVISION: Final = """\
# cygrunsrv tells neither which process it has started, nor how that has ended. Its signals reach this shell too.
if [ "${{1-}}" != become ]; then
    trap : HUP INT QUIT TERM
    echo "$$" > {shell_file} || exit 1
    exec 3>&2 2> /dev/null
    "$0" become 2>&3 3>&-
    status=$?
    echo "$status" > {status_file}
    exit "$status"
fi"""


class CygrunsrvGenerator(Generator):
    """The arguments that install a service, one a line; and a launch script for what cygrunsrv does not do."""

    def generate(self, key: str, model: ProcessesModel, target: Target) -> Unit:
        """Return the arguments, with the dependencies' services."""
        process = model[key].pkg
        refuse_unsupported("cygrunsrv", process, CAPABILITIES)
        refuse_names(process, model, target)
        dependencies = [service_name(model[name].pkg.name, target) for name in model.dependencies[key]]
        mode, command = process.command_for("foreground")
        defaults = default_parameters(process, target, dependencies[:MOST_DEPENDENCIES])
        parameters = apply_override("cygrunsrv", process, defaults, spelling=snake_case)
        ask_known(parameters, defaults, "cygrunsrv", process)
        text = "".join(f"{word}\n" for word in arguments(process, parameters, target))
        installation = File(parameters_file(process.name), text, 0o600 if parameters["password"] else 0o644)
        script = File(launcher(process.name), launch_script(key, process, mode, command, target), 0o755)
        return Unit(
            name=process.name,
            mode=mode,
            log_file=str(parameters["stdout"]),
            pid_file=target.pid_file(process),
            files=(installation, script),
            key=key,
        )


def service_name(name: str, target: Target) -> str:
    """Return the name of a service, unlike that of any other deployment's."""
    return f"{prefix(target)}{name}"


def prefix(target: Target) -> str:
    """Return how the names of a deployment's services begin."""
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


def refuse_names(process: ManagedProcess, model: ProcessesModel, target: Target) -> None:
    """Raise for names of services that Windows would not have, or take for one; and for a place that it cannot name."""
    name = service_name(process.name, target)
    if not NAME.fullmatch(name) or "/" in name or "\\" in name or len(name) > LONGEST_NAME:
        what = f"services have names of printable ASCII without slashes, {LONGEST_NAME} characters at most: {name!r}"
        raise Unsupported("cygrunsrv", process.name, what, remedy="give the process another name")
    for other in (instance.pkg.name for instance in model.values()):
        if other != process.name and other.casefold() == process.name.casefold():
            what = f"Windows does not tell its name from {other!r}: in those of services, case counts for nothing"
            raise Unsupported("cygrunsrv", process.name, what, remedy="give one of them another name")
    for path in (target.directory, target.state.state_dir):
        if not PLAIN.fullmatch(path):
            what = f"{path!r} is no path of printable ASCII"
            raise Unsupported("cygrunsrv", "the system", what, remedy="choose another --nixproc-state-root")


def default_parameters(process: ManagedProcess, target: Target, dependencies: Sequence[str] = ()) -> dict[str, Any]:
    """Return everything about a service that an override may change."""
    log_file = target.log_file(process)
    return {
        "path": f"{target.directory}/{launcher(process.name)}",
        "args": (),
        # The launch script outlives the program for a moment, and has to be known by then.
        "environment": {name: value for name, value in target.tags.items() if PLAIN.fullmatch(value)},
        "directory": "/",
        "display_name": service_name(process.name, target),
        "description": process.description,
        "type": "manual",
        "user": target.user_of(process),
        "password": None,
        "dependencies": tuple(dependencies),
        "stdin": None,
        "stdout": log_file,
        "stderr": log_file,
        "pid_file": None,
        "terminate_signal": "TERM",
        "terminate_on_shutdown": False,
    }


def launcher(name: str) -> str:
    """Return the launch script."""
    return f"{LAUNCHERS}/{name}"


def launch_script(key: str, process: ManagedProcess, mode: Mode, command: Command, target: Target) -> str:
    """Return the launch script; the user is switched before it, by Windows.

    Every service has one: cygrunsrv itself knows neither umask nor nice nor anything to run before, goes on when it
    cannot enter a directory, adds to PATH, has a registry for variables that does not tell ``x`` from ``X``, and does
    not tell which process it has started.
    """
    pid_file = target.pid_file(process)
    proxy: tuple[str, ...] = ()
    files = {
        "shell_file": shell.quote(shell_file_of(process.name, target)),
        "status_file": shell.quote(status_file_of(process.name, target)),
    }
    lines = ["# shellcheck disable=SC1003,SC2016", SUPERVISION.format(**files)]
    if mode == "daemon":
        proxy = proxy_argv(target.facts.python, target.facts.package_root, pid_file)
    else:
        lines.append(f'echo "$$" > {shell.quote(pid_file)} || exit 1')
    return shell.launch_script(replace(process, user=None), command, target, key, *lines, proxy=proxy)


def joined_arguments(process: ManagedProcess, words: Sequence[object]) -> str:
    """Return arguments as one text that cygrunsrv splits into them again; raises where it has no way to say one.

    It splits at blanks; a quote at the beginning of a word reaches to the next of its kind; nothing else is special.
    """
    quoted = [quoted_argument(str(word)) for word in words]
    for word, text in zip(words, quoted, strict=True):
        if text is None:
            what = f"its overrides give the argument {word!r}, and cygrunsrv has no quotes for both kinds of them"
            raise Unsupported("cygrunsrv", process.name, what, remedy="leave the arguments to the launch script")
    return " ".join(filter(None, quoted))


def quoted_argument(word: str) -> str | None:
    """Return one argument, in quotes where it needs them."""
    if word and " " not in word and word[0] not in "'\"":
        return word
    return next((f"{quote}{word}{quote}" for quote in "\"'" if quote not in word), None)


def arguments(process: ManagedProcess, parameters: Mapping[str, Any], target: Target) -> Iterator[str]:
    """Yield the arguments of an installation."""
    user = parameters["user"]
    if user is not None and parameters["password"] is None:
        what = f"Windows starts no service as {user!r} without a password"
        remedy = 'give it: overrides={"cygrunsrv": {"password": ...}}, empty for an account that has none'
        raise Unsupported("cygrunsrv", process.name, what, remedy=remedy)
    parameters = {**parameters, "args": joined_arguments(process, parameters["args"])}
    options = [
        ("install", service_name(process.name, target)),
        *((option, parameters[name]) for option, name in SINGLE.items() if parameters[name] not in (None, "")),
        *(("env", f"{name}={value}") for name, value in parameters["environment"].items()),
        *(("dep", name) for name in parameters["dependencies"]),
        *([("user", user), ("passwd", parameters["password"])] if user is not None else []),
    ]
    for option, value in options:
        yield f"--{option}"
        yield one_line(process, option, str(value))
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


def one_line(process: ManagedProcess, option: str, value: str) -> str:
    """Return a value as it can be installed; texts for people lose what cannot be kept."""
    if option in ("desc", "disp"):
        return shell.comment(value).encode("ascii", "replace").decode()
    if not PLAIN.fullmatch(value):
        what = f"its --{option} is not printable ASCII in one line: {value!r}"
        raise Unsupported("cygrunsrv", process.name, what, remedy="choose another path or value")
    return value


class CygrunsrvDriver(DaemonDriver):
    """Installs, starts, stops and removes services."""

    def __init__(self, machine: Machine, target: Target) -> None:
        super().__init__(machine, target)
        self._own_output = f"{target.state.log_dir}/cygrunsrv.log"
        self._installed: set[str] | None = None
        """Services that are known to be installed; None before anybody has looked."""
        self._starting: dict[str, int] = {}
        """Calls that wait for services to run, by unit."""
        self._stopping: list[int] = []
        """Calls that wait for services to stop."""

    def _call(self, *words: str, output: str | None = None) -> Spawn:
        """Return a call of cygrunsrv, which is looked up like any program of the machine."""
        variables = {"PATH": self.machine.path_variable, **self.target.tags}
        return Spawn((self.machine.facts.shell, "-c", 'exec "$@"', "sh", PROGRAM, *words), variables, output)

    def _call_for(self, unit: Unit, *words: str) -> Spawn:
        return self._call(*words, output=self._said(unit))

    def _said(self, unit: Unit) -> str:
        return f"{self.target.state.runtime_dir}/.{unit.name}.said"

    def _run(self, calls: Mapping[Unit, Spawn], deadline: Deadline) -> dict[Unit, str]:
        """Run calls for units side by side; return what went wrong."""
        for unit in calls:
            self.machine.remove(self._said(unit))
        statuses = self.machine.run(list(calls.values()), deadline)
        failed = {
            unit: (call, status) for (unit, call), status in zip(calls.items(), statuses, strict=True) if status != 0
        }
        return {unit: self._problem(unit, call, status) for unit, (call, status) in failed.items()}

    def _problem(self, unit: Unit, call: Spawn, status: int | None) -> str:
        said = (self.machine.read(self._said(unit)) or b"").decode(errors="replace").strip()
        return f"{describe_failure(call.argv[4:6], status)}\n{said[-OUTPUT_TAIL:]}"

    def _service(self, unit: Unit) -> str:
        return service_name(unit.name, self.target)

    def remains(self) -> Sequence[str]:
        """Return the services that are installed."""
        status, output = self.machine.capture(self._call("--list"), self.machine.deadline(CALL_SECONDS))
        if status == NOT_FOUND:
            return ()
        if status != 0:
            raise DeploymentError("cygrunsrv cannot list its services", details=output[-OUTPUT_TAIL:])
        return [name for name in output.splitlines() if name.startswith(prefix(self.target))]

    def close(self, deadline: Deadline) -> None:  # noqa: ARG002 - services outlive whoever gives up
        """Remove all services of the deployment, the last one first."""
        self._end_calls()
        self._remove(list(reversed(self.remains())))

    def refresh(self, old: Sequence[Unit], new: Sequence[Unit]) -> None:
        """Remove the services of units that are gone, or to be installed anew."""
        gone = [self._service(unit) for unit in old if unit not in new]
        installed = set(self.remains())
        self._remove([name for name in reversed(gone) if name in installed])

    def _remove(self, names: Sequence[str]) -> None:
        """Remove services that have been stopped, side by side: nothing depends on their order any more."""
        self._installed = None
        if names:
            # After a crash, the directories may be gone.
            output = self._own_output if self.machine.exists(self.target.state.log_dir) else None
            calls = [self._call("--remove", name, output=output) for name in names]
            statuses = self.machine.run(calls, self.machine.deadline(REMOVAL_SECONDS))
            if left := [name for name, status in zip(names, statuses, strict=True) if status != 0]:
                said = (self.machine.read(self._own_output) or b"").decode(errors="replace")
                raise DeploymentError(f"cygrunsrv cannot remove {', '.join(left)}", details=said[-OUTPUT_TAIL:])

    def activate(self, units: Sequence[Unit], deadline: Deadline) -> dict[str, str]:
        """Install the services that are not yet, and start those whose process does not run."""
        if self._installed is None:
            self._installed = set(self.remains())
        new = [unit for unit in units if self._service(unit) not in self._installed]
        problems = self._run({unit: self._call_for(unit, *self._words(unit)) for unit in new}, deadline)
        self._installed |= {self._service(unit) for unit in new if unit not in problems}
        statuses = self.status(units)
        for unit in units:
            if not statuses[unit.name].running and unit not in problems:
                self._start(unit)
        return {unit.name: text for unit, text in problems.items()}

    def _words(self, unit: Unit) -> list[str]:
        """Return the arguments of an installation, as they were generated."""
        content = self.machine.read(f"{self.target.directory}/{parameters_file(unit.name)}") or b""
        return content.decode().splitlines()

    def _start(self, unit: Unit) -> None:
        """Call for a service to be started, without waiting: cygrunsrv takes a second, and its word is not needed."""
        self.forget(unit)
        self.machine.remove(status_file_of(unit.name, self.target))
        self.machine.remove(shell_file_of(unit.name, self.target))
        self.machine.remove(self._said(unit))
        self._starting[unit.name] = self.machine.spawn(self._call_for(unit, "--start", self._service(unit)))
        self.machine.write(record_of(unit.name, self.target), "")

    def deactivate(self, units: Sequence[Unit], deadline: Deadline) -> None:
        """Have services stopped, and see the ends of their processes; what is still called at the deadline is ended."""
        try:
            super().deactivate(units, deadline)
            self._await_calls(self._stopping, deadline)
        finally:
            self._end_calls()

    def _await_calls(self, calls: Sequence[int], deadline: Deadline) -> None:
        running = set(calls)
        for _ in deadline.pauses() if running else ():
            running -= self.machine.ended(running)
            if not running:
                break

    def _end_calls(self) -> None:
        """End the calls that still wait; what they wait for is not touched by it."""
        calls = [*self._starting.values(), *self._stopping]
        running = set(calls) - self.machine.ended(calls)
        for pid in running:
            self.machine.signal(pid, signal.SIGKILL)
        self._await_calls(sorted(running), self.machine.deadline(CALL_SECONDS))
        self._starting, self._stopping = {}, []

    def request_stop(self, units: Sequence[Unit], pids: Mapping[Unit, int], deadline: Deadline) -> None:  # noqa: ARG002 - services know their processes
        """Call for services to be stopped, without waiting for it."""
        for unit in units:
            call = self._call_for(unit, "--stop", self._service(unit))
            self._stopping.append(self.machine.spawn(call))

    def reload(self, unit: Unit, deadline: Deadline) -> None:  # noqa: ARG002 - it does not wait
        """Send SIGHUP, the usual request to read the configuration again: cygrunsrv has none."""
        if pid := self.status([unit])[unit.name].pid:
            self.machine.signal(pid, signal.SIGHUP)

    def exit_status(self, unit: Unit, pid: int) -> int | None:
        """Return what the machine has seen, else what the launch script has noted."""
        status = self.machine.exit_status(pid)
        return self._noted(unit) if status is None else status

    def _noted(self, unit: Unit) -> int | None:
        """Wait for the note, which is written a moment after the end."""
        for _ in self.machine.deadline(STATUS_SECONDS).pauses():
            if (status := self._note(unit)) is not None:
                return status
        return None

    def _note(self, unit: Unit) -> int | None:
        """Return what a launch script has noted: a shell adds 128 to a signal's number."""
        content = (self.machine.read(status_file_of(unit.name, self.target)) or b"").strip()
        return None if not content else int(content) if int(content) <= SIGNALLED else SIGNALLED - int(content)

    def _without_pid(self, unit: Unit, content: bytes | None) -> Status:
        """Return what cygrunsrv says of a service whose process is not known."""
        if (status := self._note(unit)) is not None:
            return Status(running=False, has_ended=True, exit_status=status, text="its program has ended")
        waiting = first_number(self.machine.read(shell_file_of(unit.name, self.target)) or b"")
        call = waiting or self._starting.get(unit.name)
        if call is not None and not self.machine.ended([call]):
            return Status(running=False, text=f"it has been started, {unit.pid_file} names no process yet")
        state = self._state(unit)
        said = (self.machine.read(self._said(unit)) or b"").decode(errors="replace").strip()
        text = f"{state}, and {unit.pid_file} {'does not exist' if content is None else f'holds {content[:20]!r}'}"
        if state != STOPPED:
            return Status(running=False, text=text)
        return Status(running=False, has_ended=True, text=f"{text}\n{said}".rstrip())

    def _state(self, unit: Unit) -> str:
        """Ask how a service is."""
        query = self._call("--query", self._service(unit))
        _, output = self.machine.capture(query, self.machine.deadline(CALL_SECONDS))
        found = re.search(r"^Current State\s*: (.*)$", output, re.MULTILINE)
        return found[1] if found else output.strip()


def obstacle(machine: type[Machine]) -> str:  # noqa: ARG001 - no kind of machine brings another system
    """Tell whether services can be installed."""
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
    note="Windows services of the deployment's own, removed with it; without a user and a password, they run as SYSTEM",
)


@hookimpl
def nixproc_managers() -> list[Manager]:
    """Offer this manager."""
    return [Manager("cygrunsrv", CygrunsrvGenerator, CygrunsrvDriver, CAPABILITIES, obstacle)]
