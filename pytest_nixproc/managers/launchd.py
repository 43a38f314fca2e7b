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
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote as percent_encoded

from pytest_nixproc.errors import CommandFailed, MachineError, Unsupported
from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.machines.api import OUTPUT_TAIL, Machine, Spawn, describe_status
from pytest_nixproc.machines.waiting import Deadline
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
)
from pytest_nixproc.managers.proxy import proxy_argv
from pytest_nixproc.model.process import Command, ManagedProcess
from pytest_nixproc.model.system import ProcessesModel

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
"""What XML 1.0 (2.2, Characters) has no text for, or would not be one line of what launchctl prints."""

START: Final = 'launchctl bootstrap "$1" "$3" && launchctl kickstart "$1/$2"'
PRINT: Final = 'for service do launchctl print "$service" 2> /dev/null; done'


SPAWN_FAILED: Final = "spawn failed"
"""The state of a job whose program could not be started, which has not ended then."""


class LaunchdGenerator(Generator):
    """One property list per instance."""

    def generate(self, key: str, model: ProcessesModel, target: Target) -> Unit:
        """Return the property list, with a launch script where the list cannot say it all."""
        process = model[key].pkg
        mode, command = process.command_for("foreground")
        refuse_place(process, target)
        proxy: tuple[str, ...] = ()
        if mode == "daemon":
            proxy = proxy_argv(target.facts.python, target.facts.package_root, target.pid_file(process))
        settings = None if proxy else native_settings(key, process, command, target)
        scripts: tuple[File, ...] = ()
        if settings is None:
            path = f"{LAUNCHERS}/{percent_encoded(process.name, safe='')}"
            settings = scripted_settings(process, f"{target.directory}/{path}", target, is_proxied=bool(proxy))
            inner = replace(target, force_disable_user_change=True) if "UserName" in settings else target
            scripts = (File(path, shell.launch_script(process, command, inner, key, proxy=proxy), 0o755),)
        job = overridden(process, common_settings(process, target) | settings)
        return Unit(
            name=process.name,
            mode=mode,
            log_file=str(job.get("StandardOutPath", "/dev/null")),
            pid_file=target.pid_file(process) if mode == "daemon" else None,
            files=(File(property_list(target, process.name), plistlib.dumps(job).decode()), *scripts),
            key=key,
        )


def prefix(target: Target) -> str:
    """Return how the labels of a deployment begin, and no others."""
    return f"{LABEL}.{target.identity}."


def label(target: Target, name: str) -> str:
    """Return the label of a process's job; it is a part of what launchctl is told, after a slash."""
    return prefix(target) + percent_encoded(name, safe="", errors="surrogateescape")


def property_list(target: Target, name: str) -> str:
    """Return the path of a process's property list."""
    return f"{JOBS}/{label(target, name)}.plist"


def common_settings(process: ManagedProcess, target: Target) -> dict[str, Any]:
    """Return the settings that every job has: started and stopped by us alone, and not slowed down."""
    log_file = target.log_file(process)
    return {
        "Label": label(target, process.name),
        "RunAtLoad": False,
        "KeepAlive": False,
        "StandardOutPath": log_file,
        "StandardErrorPath": log_file,
        "ExitTimeOut": max(1, round(target.stop_seconds)) + GRACE_OF_MANAGER,
        # What a program leaves behind is to be seen, not to be ended in silence.
        "AbandonProcessGroup": True,
        "ProcessType": "Interactive",
        "LimitLoadToSessionType": list(SESSIONS),
    }


def native_settings(key: str, process: ManagedProcess, command: Command, target: Target) -> dict[str, Any] | None:
    """Return the program and what surrounds it as settings; None where a launch script is needed."""
    environment = target.environment(process, key)
    values = (*command.argv, *environment, *environment.values(), process.directory or "")
    if process.initialize or any(map(UNCARRIED.search, values)):
        return None
    return {
        "ProgramArguments": list(command.argv),
        "EnvironmentVariables": environment,
        "WorkingDirectory": process.directory or "/",
        "Umask": int(process.umask or DEFAULT_UMASK, 8),
        **({} if process.nice is None else {"Nice": process.nice}),
        **account_settings(process, target),
    }


def scripted_settings(process: ManagedProcess, script: str, target: Target, *, is_proxied: bool) -> dict[str, Any]:
    """Return the settings that have a launch script run: as the process's user, unless it does something as root."""
    needs_root = is_proxied or bool(process.initialize)
    return {
        "ProgramArguments": [script],
        "EnvironmentVariables": dict(target.tags),
        **({} if needs_root else account_settings(process, target)),
    }


def account_settings(process: ManagedProcess, target: Target) -> dict[str, Any]:
    """Return the settings that have a job run as the process's user, with all of its groups."""
    user = target.user_of(process)
    if user is None:
        return {}
    return {"UserName": user, "GroupName": shell.primary_group(process, user, target), "InitGroups": True}


def overridden(process: ManagedProcess, job: dict[str, Any]) -> dict[str, Any]:
    """Return a job as its process overrides it; a setting of no value is left out."""
    changed = apply_override("launchd", process, job)
    if changed.get("Label") != job["Label"]:
        raise Unsupported("launchd", process.name, "its overrides set 'Label', by which the deployment finds its jobs")
    found = {name: value for name, value in changed.items() if value is not None}
    for place, value in leaves(found):
        if not is_carried(value):
            raise Unsupported("launchd", process.name, f"a property list cannot hold {place}")
    return found


def leaves(value: object, place: str = "") -> Iterator[tuple[str, object]]:
    """Yield all names and plain values of a structure, in words and as they are; what is no name is None."""
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


def refuse_place(process: ManagedProcess, target: Target) -> None:
    """Raise where the place of a deployment, or of a log, cannot be written into a property list."""
    for path in (target.directory, *target.tags.values(), target.log_file(process)):
        if UNCARRIED.search(path):
            what = f"{path!r} cannot stand in a property list"
            remedy = "choose a --nixproc-state-root, and names, without control characters"
            raise Unsupported("launchd", process.name, what, remedy=remedy)


@dataclass(frozen=True)
class Look:
    """What launchctl prints about a job: its state, its process, and how the last one ended."""

    state: str = ""
    pid: int | None = None
    exit_status: int | None = None
    program: str = ""

    @property
    def text(self) -> str:
        """What it says, for people."""
        if self.pid:
            return f"{self.state}, pid {self.pid}"
        ending = "" if self.exit_status is None else f", {describe_status(self.exit_status)}"
        return f"{self.state}{ending}, program {self.program}"


def looks(output: str) -> dict[str, Look]:
    """Read what ``launchctl print`` has printed of jobs, by their labels.

    What is indented further is about parts of a job. Older systems do not print the domain before the label.
    """
    found: dict[str, dict[str, str]] = {}
    for line in output.splitlines():
        if match := re.fullmatch(r"(?:\S*/)?(\S+) = \{", line):
            found[match[1]] = {}
        elif found and (match := re.fullmatch(r"\t([^\t=]+) = (.*)", line)):
            found[next(reversed(found))].setdefault(match[1], match[2])
    return {name: look(facts) for name, facts in found.items()}


def look(facts: Mapping[str, str]) -> Look:
    """Return what the lines about a job say."""
    pid = facts.get("pid", "")
    return Look(
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


class LaunchdDriver(Driver):
    """Finds jobs by their labels, in the domain that the deployment's directory has a record of."""

    def __init__(self, machine: Machine, target: Target) -> None:
        super().__init__(machine, target)
        self._known: dict[str, Look] = {}
        """What launchd has said last; it holds for jobs whose processes still run."""

    @cached_property
    def _domain(self) -> str:
        content = self.machine.read(f"{self.target.directory}/{RECORD}")
        if content is None:
            raise MachineError(f"no launchd domain is known: {self.target.directory}/{RECORD} is missing")
        return str(json.loads(content))

    def _domains(self) -> list[str]:
        """Return the domains that jobs of the calling user may be in, the one to choose first."""
        uid = self.machine.facts.account.uid
        return [f"gui/{uid}", f"user/{uid}"] if uid else ["system"]

    def open(self, deadline: Deadline) -> None:
        """Choose a domain: that of the user's session where somebody is logged in, else of the user; root has one."""
        for domain in self._domains():
            status, output = self._ask(deadline, "print", domain)
            if status == 0:
                self.machine.write(f"{self.target.directory}/{RECORD}", json.dumps(domain))
                return
        raise MachineError(f"launchd has no domain for us: tried {', '.join(self._domains())}", details=output)

    def _ask(self, deadline: Deadline, *words: str) -> tuple[int | None, str]:
        """Run launchctl; return its status and output."""
        return self.machine.capture(self._command(*words), deadline)

    def _command(self, *words: str, output: str | None = None) -> Spawn:
        return Spawn((self.machine.which("launchctl") or COMMAND, *words), self._environment, output)

    def _shell(self, text: str, *words: str, output: str | None = None) -> Spawn:
        return Spawn((self.machine.facts.shell, "-c", text, "sh", *words), self._environment, output)

    @property
    def _environment(self) -> dict[str, str]:
        return {"PATH": self.machine.path_variable, **self.target.tags}

    def _service(self, unit: Unit) -> str:
        return f"{self._domain}/{label(self.target, unit.name)}"

    def activate(self, units: Sequence[Unit], deadline: Deadline) -> dict[str, str]:
        """Bootstrap jobs and start them, side by side; those whose process has ended are booted out before.

        launchd would start them again no sooner than ten seconds after it had done so before.
        """
        jobs = self._look_at(units)
        idle = [unit for unit in units if not (unit.name in jobs and jobs[unit.name].pid)]
        self._boot_out([self._service(unit) for unit in idle if unit.name in jobs], (), deadline)
        commands = [self._start(unit) for unit in idle]
        for command in commands:
            self.machine.remove(str(command.output))
        results = self.machine.run(commands, deadline)
        self._forget(idle)
        return {
            unit.name: self._problem(unit, command, status)
            for unit, command, status in zip(idle, commands, results, strict=True)
            if status != 0
        }

    def _start(self, unit: Unit) -> Spawn:
        path = f"{self.target.directory}/{property_list(self.target, unit.name)}"
        output = f"{self.target.state.runtime_dir}/.{unit.name}.launchctl"
        return self._shell(START, self._domain, label(self.target, unit.name), path, output=output)

    def _problem(self, unit: Unit, command: Spawn, status: int | None) -> str:
        """Say what launchctl said, and what launchd knows of the job."""
        said = (self.machine.read(str(command.output)) or b"").decode(errors="replace")[-OUTPUT_TAIL:].strip()
        ending = "still runs" if status is None else describe_status(status)
        return f"launchctl {ending}: {said or 'no word'}; launchd says: {self.status([unit])[unit.name].text}"

    def deactivate(self, units: Sequence[Unit], deadline: Deadline) -> None:
        """Boot jobs out, and see the ends of their processes by ourselves."""
        jobs = self._look_at(units)
        known = [unit for unit in units if unit.name in jobs]
        pids = {pid for unit in known for pid in self._pids(unit, jobs[unit.name])}
        self._forget(known)
        self._boot_out([self._service(unit) for unit in known], pids, deadline)

    def _boot_out(self, services: Sequence[str], pids: Iterable[int], deadline: Deadline) -> None:
        """Have launchd end and forget jobs, and wait until it has; it may answer before."""
        log = f"{self.target.state.log_dir}/launchctl.log"
        self.machine.run([self._command("bootout", service, output=log) for service in services], deadline)
        running = set(pids)
        for _ in deadline.pauses() if services else ():
            running -= self.machine.ended(running)
            if not running and not self._loaded(services, deadline):
                break

    def _loaded(self, services: Sequence[str], deadline: Deadline) -> list[str]:
        """Return those services that there are; one question about the domain stands for many about services."""
        names = self._labels(self._domain, deadline)
        return sorted({f"{self._domain}/{name}" for name in names}.intersection(services))

    def _print(self, services: Sequence[str], deadline: Deadline) -> dict[str, Look]:
        """Return what launchd says of those jobs that it knows, by their labels."""
        return looks(self.machine.capture(self._shell(PRINT, *services), deadline)[1]) if services else {}

    def _look_at(self, units: Sequence[Unit]) -> dict[str, Look]:
        """Return what launchd says of those units that it knows, once it has noticed which of them have ended."""
        jobs = {unit.name: self._known[unit.name] for unit in units if unit.name in self._known}
        if len(jobs) < len(units) or not self._is_live(units, jobs):
            for _ in self.machine.deadline(NOTICE_SECONDS).pauses():
                jobs = self._ask_about(units)
                if not self._is_outdated(units, jobs):
                    break
            self._forget(units)
            self._known |= jobs
        return jobs

    def _forget(self, units: Iterable[Unit]) -> None:
        """Have launchd asked about units when they are looked at next."""
        for unit in units:
            self._known.pop(unit.name, None)

    def _ask_about(self, units: Sequence[Unit]) -> dict[str, Look]:
        names = {label(self.target, unit.name): unit.name for unit in units}
        deadline, services = self.machine.deadline(ASK_SECONDS), list(map(self._service, units))
        found = self._print(services if len(services) == 1 else self._loaded(services, deadline), deadline)
        return {names[name]: look for name, look in found.items() if name in names}

    def _is_live(self, units: Sequence[Unit], jobs: Mapping[str, Look]) -> bool:
        """Tell whether all units run, by what is known of them."""
        return all(jobs[unit.name].pid for unit in units) and not self._is_outdated(units, jobs)

    def _is_outdated(self, units: Sequence[Unit], jobs: Mapping[str, Look]) -> bool:
        """Tell whether a process has ended of which launchd says that it runs, or the daemon behind it."""
        pids = [pid for unit in units if unit.name in jobs for pid in self._pids(unit, jobs[unit.name])]
        return bool(self.machine.ended(pids))

    def _pids(self, unit: Unit, look: Look) -> list[int]:
        """Return the process of a job, and the daemon behind it if it is a proxy; none of a job that does not run."""
        daemon = self._daemon_pid(unit) if look.pid else None
        return [pid for pid in (look.pid, daemon) if pid]

    def close(self, deadline: Deadline) -> None:
        """Boot out what is left of the deployment."""
        if self.machine.read(f"{self.target.directory}/{RECORD}") is not None:
            services = [f"{self._domain}/{name}" for name in self._labels(self._domain, deadline)]
            self._boot_out(services, (), deadline)

    def _labels(self, domain: str, deadline: Deadline) -> list[str]:
        """Return the labels of the deployment that a domain has."""
        output = self._ask(deadline, "print", domain)[1]
        return sorted(set(re.findall(rf"(?<!\S){re.escape(prefix(self.target))}[\w.%~-]+", output)))

    def remains(self) -> Sequence[str]:
        """Return the jobs of the deployment that are left in any domain which it may have used."""
        deadline = self.machine.deadline(ASK_SECONDS)
        domains = self._domains() if self.machine.which("launchctl") else []
        return [f"left of launchd: {domain}/{name}" for domain in domains for name in self._labels(domain, deadline)]

    def strays(self, tag: str) -> list[int]:
        """Return all processes with a tag: what launchd has started descends from launchd."""
        return self.machine.tagged(tag)

    def reload(self, unit: Unit, deadline: Deadline) -> None:
        """Send SIGHUP; a foreground proxy passes it on."""
        status, output = self._ask(deadline, "kill", "SIGHUP", self._service(unit))
        if status != 0:
            raise CommandFailed(f"{unit.name}: launchctl kill SIGHUP: {output.strip()}")

    def status(self, units: Sequence[Unit]) -> dict[str, Status]:
        """Ask for all units in one go; those that launchd does not know were not started, or are booted out."""
        jobs = self._look_at(units)
        return {unit.name: self._status(unit, jobs.get(unit.name)) for unit in units}

    def _status(self, unit: Unit, look: Look | None) -> Status:
        if look is None:
            return Status(running=False, text="launchd does not know it")
        if look.pid:
            return Status(running=True, pid=self._daemon_pid(unit) or look.pid, text=look.text)
        has_ended = look.exit_status is not None or look.state == SPAWN_FAILED
        return Status(running=False, has_ended=has_ended, exit_status=look.exit_status, text=look.text)

    def _daemon_pid(self, unit: Unit) -> int | None:
        """Return the pid of the daemon behind a foreground proxy."""
        return self.process_named(unit, self.machine.read(unit.pid_file) or b"") if unit.pid_file else None


def obstacle(machine: type[Machine]) -> str:  # noqa: ARG001 - every machine here has this system's launchd
    """Tell whether this is where launchd is."""
    return "" if sys.platform == "darwin" else f"launchd is part of macOS, and this is {sys.platform}"


CAPABILITIES: Final = Capabilities(
    prefers="foreground",
    platforms=("darwin",),
    dysnomia_module="launchd-daemon",
    note="jobs are not restarted unless overrides say so (KeepAlive); daemons run behind a foreground proxy",
)


@hookimpl
def nixproc_managers() -> list[Manager]:
    """Offer this manager."""
    return [Manager("launchd", LaunchdGenerator, LaunchdDriver, CAPABILITIES, obstacle)]
