"""launchd: a job per instance, driven through launchctl.

Jobs are described by property lists (launchd.plist(5)) in the deployment's own directory. From there they are
bootstrapped into a domain (launchctl(1)), and booted out again: nothing is written where launchd would find it after a
reboot.
"""

from __future__ import annotations

import json
import plistlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote as percent_encoded

from pytest_nixproc.errors import CommandFailed, Fault, MachineError
from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.managers import kinds, shell
from pytest_nixproc.managers.api import (
    Capabilities,
    Driver,
    Generator,
    Manager,
    daemon_of,
)
from pytest_nixproc.managers.launch import Launch
from pytest_nixproc.managers.overriding import Overridden
from pytest_nixproc.model.names import TYPING_ERROR, nearest
from pytest_nixproc.model.value_types import ValueType
from pytest_nixproc.values.commands import OUTPUT_TAIL, Spawn, describe_status
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import SCRIPT, File, Status, Unit
from pytest_nixproc.values.value import Value

JOBS: Final = "Library/LaunchDaemons"
LAUNCHERS: Final = "libexec"
RECORD: Final = "launchd-domain"
LABEL: Final = "org.pytest-nixproc"
DEFAULT_UMASK: Final = "0022"
GRACE_OF_MANAGER: Final = 5
"""How long after its time is over a process is killed by launchd: by then it should have been killed by us."""

ASK_SECONDS: Final = 10.0
NOTICE_SECONDS: Final = 2.0
"""How long launchd may take to notice the end of a process, and a proxy that of its daemon."""

COMMAND: Final = "/bin/launchctl"

SESSIONS: Final = ("Aqua", "Background", "LoginWindow", "StandardIO", "System")
"""All kinds of sessions: a domain takes jobs of its own kind only, and jobs are for the first one by default."""

UNCARRIED: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
"""Characters that XML 1.0 (2.2, Characters) cannot hold, or that would break a line of launchctl's output."""

START: Final = 'launchctl bootstrap "$1" "$3" && launchctl kickstart "$1/$2"'
PRINT: Final = 'for service do launchctl print "$service" 2> /dev/null; done'


ACCOUNT: Final = ("UserName", "GroupName")
"""The settings that say who runs a job."""

SPAWN_FAILED: Final = "spawn failed"
"""The state of a job whose program could not be started, which has not ended then."""


def is_number(value: object) -> bool:
    """Tell whether a value is an integer of a property list."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_string(value: object) -> bool:
    """Tell whether a value is a string."""
    return isinstance(value, str)


def are_strings(value: object) -> bool:
    """Tell whether a value is an array of strings; launchd takes one alone for an array of it in places."""
    return is_string(value) or (isinstance(value, list | tuple) and all(map(is_string, value)))


INTEGER: Final = kinds.that("an integer", is_number)
STRING: Final = kinds.that("a string", is_string)
STRINGS: Final = kinds.that("an array of strings", are_strings)
DICTIONARY: Final = kinds.that("a dictionary", lambda value: isinstance(value, Mapping))
CONDITIONS: Final = kinds.that("True, False or a dictionary", lambda value: isinstance(value, bool | int | Mapping))
DICTIONARIES: Final = kinds.that(
    "a dictionary or an array of them", lambda value: isinstance(value, Mapping | list | tuple)
)
PATHS: Final = kinds.that("an array of strings", lambda value: are_strings(value) or isinstance(value, Mapping))
MASK: Final = kinds.written_as("an integer, or octal digits", "[0-9]+")

KEYS: Final[Mapping[str, ValueType]] = {
    name: kinds.optional(kind)
    for kind, names in (
        (STRING, "Label UserName GroupName Program BundleProgram RootDirectory WorkingDirectory POSIXSpawnType"),
        (STRING, "StandardInPath StandardOutPath StandardErrorPath"),
        (kinds.one_of("Background", "Standard", "Adaptive", "Interactive", "App", "SystemApp"), "ProcessType"),
        (STRINGS, "ProgramArguments LimitLoadToHosts LimitLoadFromHosts LimitLoadToSessionType WatchPaths"),
        (STRINGS, "AssociatedBundleIdentifiers"),
        (PATHS, "QueueDirectories"),
        (INTEGER, "TimeOut ExitTimeOut ThrottleInterval StartInterval Nice"),
        (MASK, "Umask"),
        (kinds.TRUTH, "Disabled EnableGlobbing EnableTransactions EnablePressuredExit OnDemand RunAtLoad InitGroups"),
        (kinds.TRUTH, "StartOnMount Debug WaitForDebugger AbandonProcessGroup LowPriorityIO LowPriorityBackgroundIO"),
        (kinds.TRUTH, "MaterializeDatalessFiles LaunchOnlyOnce SessionCreate LegacyTimers ServiceIPC"),
        (kinds.TRUTH, "HopefullyExitsFirst HopefullyExitsLast BeginTransactionAtShutdown"),
        (DICTIONARY, "inetdCompatibility LimitLoadToHardware LimitLoadFromHardware EnvironmentVariables Sockets"),
        (DICTIONARY, "SoftResourceLimits HardResourceLimits MachServices LaunchEvents UserEnvironmentVariables"),
        (CONDITIONS, "KeepAlive"),
        (DICTIONARIES, "StartCalendarInterval"),
    )
    for name in names.split()
}
"""The keys of launchd.plist(5), of all versions, and some that launchd knows without saying so."""

UNDOCUMENTED: Final = re.compile("[A-Z_].*")
"""How keys look that are for Apple's own jobs; there are more in each version, and they are left to launchd."""


class LaunchdGenerator(Generator):
    """The generator of a property list per instance."""

    def generate(self, launch: Launch) -> Unit:
        """Return the property list, with a launch script where the list cannot say it all."""
        refuse_place(launch)
        settings = None if launch.proxy else native_settings(launch)
        scripts: tuple[File, ...] = ()
        if settings is None:
            path = f"{LAUNCHERS}/{percent_encoded(launch.name, safe='')}"
            settings = scripted_settings(launch, f"{launch.target.directory}/{path}")
            # The nice level is the job's, and so may the user be.
            rest = replace(launch, nice=None, user=None if "UserName" in settings else launch.user)
            scripts = (File(path, shell.launch_script(rest), SCRIPT),)
        job = overridden(launch, common_settings(launch) | settings)
        if any(job.get(name) != settings.get(name) for name in ACCOUNT):
            user, group = (str(job.get(name) or "") for name in ("UserName", "GroupName"))
            scripts = tuple(shell.open_to_account(script, user, group, launch.target) for script in scripts)
        elif "UserName" in settings:
            scripts = tuple(shell.open_to_user(script, launch) for script in scripts)
        list_ = File(property_list(launch.target, launch.name), plistlib.dumps(job).decode())
        unit = launch.unit(list_, *scripts, log_file=str(job.get("StandardOutPath", "/dev/null")))
        return replace(unit, restarts=job.get("KeepAlive") is True)


def prefix(target: Target) -> str:
    """Return the prefix of a deployment's labels, which no other labels have."""
    return f"{LABEL}.{target.identity}."


def label(target: Target, name: str) -> str:
    """Return the label of a process's job, without a slash, as launchctl addresses jobs by ``DOMAIN/LABEL``."""
    return prefix(target) + percent_encoded(name, safe="", errors="surrogateescape")


def property_list(target: Target, name: str) -> str:
    """Return the path of a process's property list."""
    return f"{JOBS}/{label(target, name)}.plist"


def common_settings(launch: Launch) -> dict[str, Any]:
    """Return the settings that every job has: it is started and stopped by us alone, and not throttled by launchd."""
    return {
        "Label": label(launch.target, launch.name),
        "RunAtLoad": False,
        "KeepAlive": False,
        "StandardOutPath": launch.log_file,
        "StandardErrorPath": launch.log_file,
        "ExitTimeOut": launch.whole_stop_seconds + GRACE_OF_MANAGER,
        # What a program leaves behind is to be seen, not to be ended in silence.
        "AbandonProcessGroup": True,
        "ProcessType": "Interactive",
        "SoftResourceLimits": {"NumberOfFiles": launch.target.facts.open_files},
        **({} if launch.niceness is None else {"Nice": launch.niceness}),
        "LimitLoadToSessionType": list(SESSIONS),
    }


def native_settings(launch: Launch) -> dict[str, Any] | None:
    """Return the settings with which launchd starts the program itself; None where a launch script is needed."""
    environment = launch.environment
    values = (*launch.command.argv, *environment, *environment.values(), launch.directory or "")
    if launch.initialize or launch.limits or any(map(UNCARRIED.search, values)):
        return None
    return {
        "ProgramArguments": list(launch.command.argv),
        "EnvironmentVariables": environment,
        "WorkingDirectory": launch.directory or "/",
        "Umask": int(launch.umask or DEFAULT_UMASK, 8),
        **account_settings(launch),
    }


def scripted_settings(launch: Launch, script: str) -> dict[str, Any]:
    """Return the settings that have a launch script run: as the process's user, unless it does something as root."""
    needs_root = bool(launch.proxy or launch.initialize)
    return {
        "ProgramArguments": [script],
        "EnvironmentVariables": dict(launch.target.tags),
        **({} if needs_root else account_settings(launch)),
    }


def account_settings(launch: Launch) -> dict[str, Any]:
    """Return the settings that have a job run as the process's user, with all of its groups."""
    return {"UserName": launch.user, "GroupName": launch.group, "InitGroups": True} if launch.user else {}


def overridden(launch: Launch, job: dict[str, Any]) -> dict[str, Any]:
    """Return a job as its process overrides it; a setting of no value is left out."""
    changed = launch.overridden(job)
    faults: list[Fault] = []
    unknown = [name for name in changed if name not in KEYS and UNDOCUMENTED.fullmatch(name)]
    undocumented = [name for name in unknown if nearest(name, KEYS, TYPING_ERROR) is None]
    Overridden.compared(changed, job).read((*KEYS, *undocumented), KEYS, faults, noun="key of launchd.plist(5)")
    launch.refuse_overrides(faults)
    if changed.get("Label") != job["Label"]:
        raise launch.refusal("its overrides set 'Label', by which the deployment finds its jobs")
    found = {name: value for name, value in changed.items() if value is not None}
    for place, value in leaves(found):
        if not is_carried(value):
            raise launch.refusal(f"a property list cannot hold {place}")
    return found


def leaves(value: object, place: str = "") -> Iterator[tuple[str, object]]:
    """Yield all names and plain values of a structure, with descriptions; a name that is no text becomes None."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield f"the name {name!r} in {place or 'a job'}", name if isinstance(name, str) else None
            yield from leaves(item, f"{place}.{name}" if place else str(name))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from leaves(item, f"{place}[{number}]")
    else:
        yield f"{place} = {value!r}", value


def is_carried(value: object) -> bool:
    """Tell whether a property list can hold a plain value."""
    if isinstance(value, str):
        return not UNCARRIED.search(value)
    if isinstance(value, int):
        return -(2**63) <= value < 2**64
    return isinstance(value, float | bytes | datetime)


def refuse_place(launch: Launch) -> None:
    """Raise where the place of a deployment, or of a log, cannot be written into a property list."""
    for path in (launch.target.directory, *launch.target.tags.values(), launch.log_file):
        if UNCARRIED.search(path):
            remedy = "choose a --nixproc-state-root, and names, without control characters"
            raise launch.refusal(f"{path!r} cannot stand in a property list", remedy)


class JobState(Value):
    """The state of a job, as launchctl prints it."""

    state: str = ""
    """launchd's word for the state."""

    pid: int | None = None
    """Its process; None where none runs."""

    exit_status: int | None = None
    """How its last process ended: a status, or minus a signal's number; None where none has."""

    program: str = ""
    """The path of its program."""

    @property
    def text(self) -> str:
        """The state in words."""
        if self.pid:
            return f"{self.state}, pid {self.pid}"
        ending = "" if self.exit_status is None else f", {describe_status(self.exit_status)}"
        return f"{self.state}{ending}, program {self.program}"


def job_states(output: str) -> dict[str, JobState]:
    """Return the states of jobs, by their labels, from the output of ``launchctl print``.

    What is indented further is about parts of a job. Older systems do not print the domain before the label.
    """
    found: dict[str, dict[str, str]] = {}
    for line in output.splitlines():
        if match := re.fullmatch(r"(?:\S*/)?(\S+) = \{", line):
            found[match[1]] = {}
        elif found and (match := re.fullmatch(r"\t([^\t=]+) = (.*)", line)):
            found[next(reversed(found))].setdefault(match[1], match[2])
    return {name: job_state(facts) for name, facts in found.items()}


def job_state(facts: Mapping[str, str]) -> JobState:
    """Return the state that the lines about a job describe."""
    pid = facts.get("pid", "")
    return JobState(
        facts.get("state", "in no state"),
        int(pid) if pid.isdigit() else None,
        exit_status_of(facts),
        facts.get("program", "?"),
    )


def exit_status_of(facts: Mapping[str, str]) -> int | None:
    """Return how a job's last process ended: ``Killed: 9`` is a signal, ``78: EX_CONFIG`` a status."""
    if match := re.search(r"(\d+)$", facts.get("last terminating signal", "")):
        return -int(match[1])
    match = re.match(r"-?\d+", facts.get("last exit code", ""))
    return int(match[0]) if match else None


class Launchctl:
    """Calls of launchctl, and their output."""

    def __init__(self, machine: Machine, target: Target) -> None:
        self.machine = machine
        self.target = target

    def command(self, *words: str, output: str | None = None) -> Spawn:
        """Return a call of launchctl."""
        return Spawn((self.machine.files.which("launchctl") or COMMAND, *words), self._environment, output)

    def shell(self, text: str, *words: str, output: str | None = None) -> Spawn:
        """Return a command that runs shell text with arguments; the text calls launchctl."""
        return Spawn((self.machine.facts.shell, "-c", text, "sh", *words), self._environment, output)

    @property
    def _environment(self) -> dict[str, str]:
        return {"PATH": self.machine.facts.path_variable, **self.target.tags}

    def ask(self, deadline: Deadline, *words: str) -> tuple[int | None, str]:
        """Run launchctl; return its status and output."""
        return self.machine.processes.capture(self.command(*words), deadline)

    def labels(self, domain: str, deadline: Deadline) -> list[str]:
        """Return the labels of the deployment's jobs in a domain."""
        output = self.ask(deadline, "print", domain)[1]
        return sorted(set(re.findall(rf"(?<!\S){re.escape(prefix(self.target))}[\w.%~-]+", output)))

    def job_states(self, services: Sequence[str], deadline: Deadline) -> dict[str, JobState]:
        """Return the states of the jobs that launchd knows, by their labels."""
        return job_states(self.machine.processes.capture(self.shell(PRINT, *services), deadline)[1]) if services else {}


class Domain:
    """The domain of a deployment's jobs, which its directory has a record of."""

    def __init__(self, machine: Machine, target: Target, launchctl: Launchctl) -> None:
        self.machine = machine
        self.target = target
        self.launchctl = launchctl
        self._record = f"{target.directory}/{RECORD}"

    def candidates(self) -> list[str]:
        """Return the domains that jobs of the calling user may be in, the one to choose first."""
        uid = self.machine.facts.account.uid
        return [f"gui/{uid}", f"user/{uid}"] if uid else ["system"]

    def choose(self, deadline: Deadline) -> None:
        """Choose and record a domain: that of the user's session, else that of the user; root has a single one."""
        for domain in self.candidates():
            status, output = self.launchctl.ask(deadline, "print", domain)
            if status == 0:
                self.machine.files.write(self._record, json.dumps(domain))
                return
        raise MachineError(f"launchd has no domain for us: tried {', '.join(self.candidates())}", details=output)

    @property
    def is_chosen(self) -> bool:
        """Tell whether a domain is recorded."""
        return self.machine.files.read(self._record) is not None

    @cached_property
    def name(self) -> str:
        """The domain's name for launchctl."""
        content = self.machine.files.read(self._record)
        if content is None:
            raise MachineError(f"no launchd domain is known: {self._record} is missing")
        return str(json.loads(content))

    def service(self, unit: Unit) -> str:
        """Return the name of a unit's job for launchctl."""
        return f"{self.name}/{label(self.target, unit.name)}"

    def services(self, deadline: Deadline) -> list[str]:
        """Return the names of all jobs of the deployment that exist."""
        return [f"{self.name}/{name}" for name in self.launchctl.labels(self.name, deadline)]

    def loaded(self, services: Sequence[str], deadline: Deadline) -> list[str]:
        """Return the services that exist, by one question about the domain instead of many about services."""
        return sorted(set(self.services(deadline)).intersection(services))

    def boot_out(self, services: Sequence[str], pids: Iterable[int], deadline: Deadline) -> None:
        """Boot jobs out, and wait until launchd has ended and forgotten them; it may answer before that."""
        log = f"{self.target.state.log_dir}/launchctl.log"
        self.machine.processes.run(
            [self.launchctl.command("bootout", service, output=log) for service in services], deadline
        )
        if services and not self.machine.processes.wait_ended(pids, deadline):
            deadline.until(lambda: not self.loaded(services, deadline))


class Jobs:
    """The states of units' jobs; launchd is asked again when they may have changed."""

    def __init__(self, machine: Machine, target: Target, domain: Domain) -> None:
        self.machine = machine
        self.target = target
        self.domain = domain
        self._known: dict[str, JobState] = {}
        """The states that launchd has shown last; they hold for jobs whose processes still run."""

    def states_of(self, units: Sequence[Unit]) -> dict[str, JobState]:
        """Return the states of the units that launchd knows, once it has noticed which of them have ended."""
        jobs = {unit.name: state for unit in units if (state := self._known.get(unit.name)) is not None}
        all_run = len(jobs) == len(units) and all(state.pid for state in jobs.values())
        if not all_run or self._is_outdated(units, jobs):

            def has_noticed() -> bool:
                nonlocal jobs
                jobs = self._ask_about(units)
                return not self._is_outdated(units, jobs)

            self.machine.deadline(NOTICE_SECONDS).until(has_noticed)
            self.forget(units)
            self._known |= jobs
        return jobs

    def forget(self, units: Iterable[Unit]) -> None:
        """Forget the states of units, so that launchd is asked about them again."""
        for unit in units:
            self._known.pop(unit.name, None)

    def _ask_about(self, units: Sequence[Unit]) -> dict[str, JobState]:
        names = {label(self.target, unit.name): unit.name for unit in units}
        deadline, services = self.machine.deadline(ASK_SECONDS), list(map(self.domain.service, units))
        known = services if len(services) == 1 else self.domain.loaded(services, deadline)
        found = self.domain.launchctl.job_states(known, deadline)
        return {names[name]: state for name, state in found.items() if name in names}

    def _is_outdated(self, units: Sequence[Unit], jobs: Mapping[str, JobState]) -> bool:
        """Tell whether a process has ended of which launchd says that it runs, or the daemon behind it."""
        pids = [pid for unit in units if unit.name in jobs for pid in self.pids(unit, jobs[unit.name])]
        return bool(self.machine.processes.ended(pids))

    def pids(self, unit: Unit, state: JobState) -> list[int]:
        """Return the process of a job, and the daemon behind it if it is a proxy; none of a job that does not run."""
        daemon = daemon_of(unit, self.machine, self.target) if state.pid else None
        return [pid for pid in (state.pid, daemon) if pid]


class LaunchdDriver(Driver):
    """The driver that finds jobs by their labels, in the domain that the deployment's directory has a record of."""

    def __init__(self, machine: Machine, target: Target) -> None:
        super().__init__(machine, target)
        self._launchctl = Launchctl(machine, target)
        self._domain = Domain(machine, target, self._launchctl)
        self._jobs = Jobs(machine, target, self._domain)

    def open(self, deadline: Deadline) -> None:
        """Choose a domain."""
        self._domain.choose(deadline)

    def activate(self, units: Sequence[Unit], deadline: Deadline) -> dict[str, str]:
        """Bootstrap jobs and start them, side by side; those whose process has ended are booted out before.

        launchd would start them again no sooner than ten seconds after it had done so before.
        """
        jobs = self._jobs.states_of(units)
        idle = [unit for unit in units if not (unit.name in jobs and jobs[unit.name].pid)]
        self._domain.boot_out([self._domain.service(unit) for unit in idle if unit.name in jobs], (), deadline)
        commands = [self._start(unit) for unit in idle]
        for command in commands:
            self.machine.files.remove(str(command.output))
        results = self.machine.processes.run(commands, deadline)
        self._jobs.forget(idle)
        return {
            unit.name: self._problem(unit, command, status)
            for unit, command, status in zip(idle, commands, results, strict=True)
            if status != 0
        }

    def _start(self, unit: Unit) -> Spawn:
        path = f"{self.target.directory}/{property_list(self.target, unit.name)}"
        output = f"{self.target.state.runtime_dir}/.{unit.name}.launchctl"
        return self._launchctl.shell(START, self._domain.name, label(self.target, unit.name), path, output=output)

    def _problem(self, unit: Unit, command: Spawn, status: int | None) -> str:
        """Return the error text of a failed start: launchctl's output, and the state of the job."""
        said = (self.machine.files.read(str(command.output)) or b"").decode(errors="replace")[-OUTPUT_TAIL:].strip()
        ending = "still runs" if status is None else describe_status(status)
        return f"launchctl {ending}: {said or 'no word'}; launchd says: {self.status([unit])[unit.name].text}"

    def deactivate(self, units: Sequence[Unit], deadline: Deadline) -> None:
        """Boot jobs out, and see the ends of their processes by ourselves."""
        jobs = self._jobs.states_of(units)
        known = [unit for unit in units if unit.name in jobs]
        pids = {pid for unit in known for pid in self._jobs.pids(unit, jobs[unit.name])}
        # launchd itself sends SIGTERM, whatever a program is asked with.
        for unit in (asked := [unit for unit in known if unit.stop_signal != "TERM"]):
            self._launchctl.ask(deadline, "kill", f"SIG{unit.stop_signal}", self._domain.service(unit))
        ending = {pid for unit in asked for pid in self._jobs.pids(unit, jobs[unit.name])}
        self.machine.processes.wait_ended(ending, deadline)
        self._jobs.forget(known)
        self._domain.boot_out([self._domain.service(unit) for unit in known], pids, deadline)

    def close(self, deadline: Deadline) -> None:
        """Boot out all jobs of the deployment that are left."""
        if self._domain.is_chosen:
            self._domain.boot_out(self._domain.services(deadline), (), deadline)

    def remains(self) -> Sequence[str]:
        """Return the jobs of the deployment that are left in any domain which it may have used."""
        deadline = self.machine.deadline(ASK_SECONDS)
        domains = self._domain.candidates() if self.machine.files.which("launchctl") else []
        found = {domain: self._launchctl.labels(domain, deadline) for domain in domains}
        return [f"left of launchd: {domain}/{name}" for domain, names in found.items() for name in names]

    def strays(self, tag: str) -> list[int]:
        """Return all processes with a tag: the programs of jobs descend from launchd, not from us."""
        return self.machine.processes.tagged(tag)

    def reload(self, unit: Unit, deadline: Deadline) -> None:
        """Send the signal that asks to read the configuration again; a foreground proxy passes it on."""
        name = f"SIG{unit.reload_signal}"
        status, output = self._launchctl.ask(deadline, "kill", name, self._domain.service(unit))
        if status != 0:
            raise CommandFailed(f"{unit.name}: launchctl kill {name}: {output.strip()}")

    def status(self, units: Sequence[Unit]) -> dict[str, Status]:
        """Return the statuses of units; those that launchd does not know were not started, or are booted out."""
        jobs = self._jobs.states_of(units)
        return {unit.name: self._status(unit, jobs.get(unit.name)) for unit in units}

    def _status(self, unit: Unit, state: JobState | None) -> Status:
        if state is None:
            return Status(running=False, text="launchd does not know it")
        if state.pid:
            pid = daemon_of(unit, self.machine, self.target) or state.pid
            return Status(running=True, pid=pid, text=state.text)
        # launchd starts it again some seconds later, and shows until then how it has ended.
        has_ended = state.state == SPAWN_FAILED or (state.exit_status is not None and not unit.restarts)
        return Status(running=False, has_ended=has_ended, exit_status=state.exit_status, text=state.text)


def unavailable_reason(machine: type[Machine]) -> str:  # noqa: ARG001 - every machine here has this system's launchd
    """Return why launchd cannot be used here; an empty text on macOS."""
    return "" if sys.platform == "darwin" else f"launchd is part of macOS, and this is {sys.platform}"


CAPABILITIES: Final = Capabilities(
    prefers="foreground",
    platforms=("darwin",),
    dysnomia_module="launchd-daemon",
    example_override={"KeepAlive": True},
    note="jobs are not restarted unless overrides say so (KeepAlive); daemons run behind a foreground proxy",
)


MANAGER: Final = Manager("launchd", LaunchdGenerator, LaunchdDriver, CAPABILITIES, unavailable_reason)


@hookimpl
def nixproc_managers() -> list[Manager]:
    """Return the manager of this module, for the registry."""
    return [MANAGER]
