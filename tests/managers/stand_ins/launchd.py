"""A launchd of the tests' own, ``DIRECTORY DOMAIN...``: strict, and only what the manual pages say.

Jobs are real processes. It is asked through a socket in its directory by the launchctl beside this file. Whatever the
driver must not do is refused and written into ``DIRECTORY/refused``, one line each: a subcommand or an option that
launchctl(1) does not have, a domain or a property list that launchd would not take, a key that launchd.plist(5) does
not have or a value of another type, and a start of what launchd would make wait, because it was started just before.
"""

from __future__ import annotations

import os
import plistlib
import pwd
import resource
import selectors
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

NO_SUCH_PROCESS, IO_ERROR, IN_PROGRESS, USAGE, CONFIG, NOT_FOUND = 3, 5, 36, 64, 78, 113
THROTTLE_SECONDS: Final = 10.0
USUAL_OPEN_FILES: Final = 256
PATH: Final = "/usr/bin:/bin:/usr/sbin:/sbin"

KEYS: Final[dict[str, type]] = {
    **dict.fromkeys(("Label", "StandardOutPath", "StandardErrorPath", "WorkingDirectory"), str),
    **dict.fromkeys(("UserName", "GroupName", "ProcessType", "Program"), str),
    **dict.fromkeys(("RunAtLoad", "KeepAlive", "AbandonProcessGroup", "InitGroups"), bool),
    **dict.fromkeys(("ExitTimeOut", "Umask", "Nice"), int),
    **dict.fromkeys(("ProgramArguments", "LimitLoadToSessionType"), list),
    **dict.fromkeys(("EnvironmentVariables", "SoftResourceLimits"), dict),
}
"""Those keys of launchd.plist(5) that the manager may write by itself."""


class Refusal(Exception):
    """Something that the driver must not do."""


class Failure(Exception):
    """Something that launchctl says did not work; an exit status and the words."""


@dataclass
class Job:
    """A job in a domain."""

    domain: str
    path: str
    facts: dict[str, Any]
    pid: int = 0
    runs: int = 0
    started: float = 0.0
    status: int | None = None
    is_leaving: bool = False
    kill_at: float | None = None

    @property
    def service(self) -> str:
        """What launchctl calls it."""
        return f"{self.domain}/{self.facts['Label']}"

    @property
    def program(self) -> str:
        """The program."""
        return str(self.facts["ProgramArguments"][0])


@dataclass
class Launchd:
    """All jobs; it adopts what is orphaned, as the first process of a system does."""

    domains: tuple[str, ...]
    jobs: dict[str, Job] = field(default_factory=dict)

    def answer(self, words: list[str]) -> tuple[int, str, str]:
        """Do what launchctl is told; return its exit status, output and errors."""
        if not words or words[0] not in SUBCOMMANDS:
            raise Refusal("is no subcommand")
        try:
            return 0, SUBCOMMANDS[words[0]](self, *words[1:]), ""
        except TypeError as error:
            raise Refusal(str(error)) from error
        except Failure as failure:
            status, text = failure.args
            return status, "", f"{text}\n"

    def bootstrap(self, domain: str, path: str) -> str:
        """Make a job of a property list."""
        self.expect_domain(domain)
        job = Job(domain, path, read_job(path))
        if job.service in self.jobs:
            raise Failure(IO_ERROR, "Bootstrap failed: 5: Input/output error")
        self.jobs[job.service] = job
        if job.facts.get("RunAtLoad") or job.facts.get("KeepAlive"):
            self.start(job)
        return ""

    def bootout(self, service: str) -> str:
        """Forget a job, and ask its process to end: not before that has."""
        job = self.jobs.get(self.expect_service(service))
        if job is None:
            raise Failure(NO_SUCH_PROCESS, "Boot-out failed: 3: No such process")
        if not job.pid:
            del self.jobs[service]
            return ""
        if not job.is_leaving:
            job.is_leaving = True
            job.kill_at = time.monotonic() + job.facts["ExitTimeOut"]
            os.kill(job.pid, signal.SIGTERM)
        raise Failure(IN_PROGRESS, "Boot-out failed: 36: Operation now in progress")

    def kickstart(self, service: str) -> str:
        """Start a job."""
        job = self.job(service)
        if job.pid:
            raise Refusal("starts what runs")
        if job.runs and time.monotonic() < job.started + THROTTLE_SECONDS:
            raise Refusal("would have to wait until ten seconds after the last start")
        self.start(job)
        return ""

    def kill(self, name: str, service: str) -> str:
        """Send a signal."""
        number = signal.Signals[name]
        job = self.job(service)
        if not job.pid:
            raise Failure(NO_SUCH_PROCESS, "No process to signal.")
        os.kill(job.pid, number)
        return ""

    def print(self, place: str) -> str:
        """Describe a domain or a job."""
        if place in self.domains:
            return "".join(describe_domain(place, [job for job in self.jobs.values() if job.domain == place]))
        if place.count("/") < 2 and place != "system" and not place.startswith("system/"):
            raise Failure(NOT_FOUND, f"Could not find domain for {place}")
        return "".join(describe(self.job(place)))

    def expect_domain(self, domain: str) -> None:
        """Refuse a domain that there is not."""
        if domain not in self.domains:
            raise Refusal(f"there is no domain {domain}")

    def expect_service(self, service: str) -> str:
        """Refuse what is no name of a service in a domain."""
        self.expect_domain(service.rpartition("/")[0])
        return service

    def job(self, service: str) -> Job:
        """Return a job."""
        if (job := self.jobs.get(self.expect_service(service))) is None:
            raise Failure(NOT_FOUND, f'Could not find service "{service}"')
        return job

    def start(self, job: Job) -> None:
        """Start a job's process."""
        job.runs, job.started, job.status = job.runs + 1, time.monotonic(), None
        job.pid = os.fork()
        if not job.pid:
            become(job.facts)

    def look_after(self) -> float | None:
        """Notice what has ended, and kill what has had its time; return how long there is nothing to do."""
        self.reap()
        now = time.monotonic()
        for job in self.jobs.values():
            if job.kill_at is not None and job.kill_at <= now:
                os.kill(job.pid, signal.SIGKILL)
                job.kill_at = None
        due = [job.kill_at for job in self.jobs.values() if job.kill_at is not None]
        return min(due) - now if due else None

    def reap(self) -> None:
        """Bury the dead; some of them were jobs' processes."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for job in [job for job in self.jobs.values() if job.pid == pid]:
                self.note_end(job, os.waitstatus_to_exitcode(status))

    def note_end(self, job: Job, status: int) -> None:
        """Keep in mind how a job's process has ended."""
        if not job.facts.get("AbandonProcessGroup"):
            kill_group(job.pid)
        job.pid, job.status, job.kill_at = 0, status, None
        if job.is_leaving:
            del self.jobs[job.service]

    def end(self) -> None:
        """End all jobs."""
        for job in self.jobs.values():
            if job.pid:
                os.kill(job.pid, signal.SIGKILL)


SUBCOMMANDS: Final[dict[str, Callable[..., str]]] = {
    name: getattr(Launchd, name) for name in ("bootstrap", "bootout", "kickstart", "kill", "print")
}


def kill_group(pid: int) -> None:
    """Kill what is left of a process group."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def read_job(path: str) -> dict[str, Any]:
    """Read a property list, and refuse one that launchd would not take."""
    facts = os.stat(path)
    if not os.path.isabs(path) or facts.st_uid != os.getuid() or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Refusal(f"{path} belongs to somebody else, or others can write it")
    with open(path, "rb") as file:
        job = plistlib.load(file)
    for key, value in job.items():
        if key not in KEYS or type(value) is not KEYS[key]:
            raise Refusal(f"{path}: {key} = {value!r} is no setting of a job")
    words = [*job["ProgramArguments"], *job["EnvironmentVariables"], *job["EnvironmentVariables"].values()]
    if not job["Label"] or not all(type(word) is str for word in words):
        raise Refusal(f"{path}: words of a program are strings")
    return dict(job)


def become(job: dict[str, Any]) -> NoReturn:
    """Turn this child into a job's program, as launchd.plist(5) says."""
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        if "Nice" in job:
            os.setpriority(os.PRIO_PROCESS, 0, job["Nice"])
        limits = {"NumberOfFiles": USUAL_OPEN_FILES} | job.get("SoftResourceLimits", {})
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limits["NumberOfFiles"], hard))
        if user := job.get("UserName"):
            account = pwd.getpwnam(user)
            os.initgroups(user, account.pw_gid)
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
        open_as(0, "/dev/null", os.O_RDONLY)
        os.umask(job.get("Umask", 0o022))
        for descriptor, key in ((1, "StandardOutPath"), (2, "StandardErrorPath")):
            open_as(descriptor, job.get(key, "/dev/null"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.closerange(3, 256)
        os.chdir(job.get("WorkingDirectory", "/"))
        own = {"PATH": PATH, "XPC_SERVICE_NAME": job["Label"], "XPC_FLAGS": "0x0"}
        os.execve(job["ProgramArguments"][0], job["ProgramArguments"], own | job["EnvironmentVariables"])  # noqa: S606 - a job
    finally:
        os._exit(CONFIG)


def open_as(number: int, path: str, flags: int) -> None:
    """Open a file under the number of a descriptor."""
    descriptor = os.open(path, flags, 0o644)
    os.dup2(descriptor, number)
    os.close(descriptor)


def describe(job: Job) -> Iterator[str]:
    """Yield the lines that are printed about a job."""
    yield f"{job.service} = {{\n\tactive count = {int(bool(job.pid))}\n\tpath = {job.path}\n\ttype = LaunchDaemon\n"
    yield f"\tstate = {'running' if job.pid else 'not running'}\n\n\tprogram = {job.program}\n\targuments = {{\n"
    yield from (f"\t\t{word}\n" for word in job.facts["ProgramArguments"])
    yield "\t}\n\n\tenvironment = {\n"
    yield from (f"\t\t{name} => {value}\n" for name, value in job.facts["EnvironmentVariables"].items())
    yield f"\t}}\n\n\tdomain = {job.domain}\n\tminimum runtime = 10\n\truns = {job.runs}\n"
    if job.pid:
        yield f"\tpid = {job.pid}\n\timmediate reason = non-ipc demand\n"
    yield from describe_end(job)
    yield "\n\tspawn type = interactive (4)\n\tproperties = {\n\t\tpid = 1\n\t\tstate = none of a job\n\t}\n}\n"


def describe_end(job: Job) -> Iterator[str]:
    """Yield the lines about how a job's last process ended."""
    if job.status is None:
        yield "\tlast exit code = (never exited)\n"
    elif job.status < 0:
        yield f"\tlast terminating signal = {signal.strsignal(-job.status)}: {-job.status}\n"
    else:
        yield f"\tlast exit code = {job.status}{': EX_CONFIG' if job.status == CONFIG else ''}\n"


def describe_domain(domain: str, jobs: list[Job]) -> Iterator[str]:
    """Yield the lines that are printed about a domain."""
    yield f"{domain} = {{\n\ttype = user\n\thandle = 0\n\n\tservices = {{\n"
    yield "\t\t       0      - \tcom.apple.org.pytest-nixproc.none\n"
    for job in jobs:
        yield f"\t\t{job.pid:8} {'-' if job.status is None else job.status:>6} \t{job.facts['Label']}\n"
    yield "\t}\n\n\tdisabled services = {\n\t}\n}\n"


def serve(directory: str, domains: tuple[str, ...]) -> None:
    """Answer until SIGTERM."""
    wakeup, signalled = socket.socketpair()
    for end in (wakeup, signalled):
        end.setblocking(False)  # noqa: FBT003 - its only parameter
    signal.set_wakeup_fd(signalled.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    told_to_end: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told_to_end.append(number))
    launchd = Launchd(domains)
    with selectors.DefaultSelector() as selector, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{directory}/socket")
        listener.listen(128)
        selector.register(listener, selectors.EVENT_READ)
        selector.register(wakeup, selectors.EVENT_READ)
        print("ready", flush=True)
        while not told_to_end:
            for key, _ in selector.select(launchd.look_after()):
                if key.fileobj is listener:
                    respond(launchd, listener, directory)
                else:
                    wakeup.recv(4096)
    launchd.end()


def respond(launchd: Launchd, listener: socket.socket, directory: str) -> None:
    """Answer one call."""
    connection, _ = listener.accept()
    with connection, connection.makefile("rw", encoding="utf-8") as stream:
        words = stream.readline().split("\0")[:-1]
        launchd.reap()
        try:
            answer = launchd.answer(words)
        except (Refusal, OSError, KeyError, plistlib.InvalidFileException) as error:
            with open(f"{directory}/refused", "a", encoding="utf-8") as file:
                file.write(f"launchctl {' '.join(words)}: {error!r}\n")
            answer = USAGE, "", f"refused: {error!r}\n"
        stream.write("\0".join(map(str, answer)))


if __name__ == "__main__":
    serve(sys.argv[1], tuple(sys.argv[2:]))
