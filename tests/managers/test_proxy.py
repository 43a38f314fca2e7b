"""The foreground proxy, as a process of its own in front of real daemons, and of programs in a container's place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pytest_nixproc.machines.host import Host
from pytest_nixproc.machines.package import PACKAGE_ROOT
from pytest_nixproc.machines.process_table import descendants, is_alive, parents
from pytest_nixproc.machines.waiting import wait_until
from pytest_nixproc.managers.proxy import escort_argv, proxy_argv
from pytest_nixproc.testing.programs import models
from pytest_nixproc.values.commands import Spawn
from pytest_nixproc.values.pid_files import pid_in
from pytest_nixproc.values.tags import DEPLOYMENT
from tests.managers.daemon_programs import LEAVES_ITS_PLACE

Start = Callable[..., "Proxied"]

PYTHON = (models.INTERPRETER, *models.OPTIONS)


class Proxied:
    """A proxy, and the program behind it: a daemon, or without a PID file one in the foreground.

    With ``before``, words that run the proxy in a place of its own, it is their only child.
    """

    def __init__(
        self,
        place: str,
        machine: Host,
        argv: tuple[str, ...],
        environment: dict[str, str],
        *,
        before: tuple[str, ...] = (),
        is_daemon: bool = True,
    ) -> None:
        self.machine = machine
        self.pid_file = f"{place}/pid" if is_daemon else ""
        self.note = f"{place}/note" if is_daemon else ""
        self.log_file = f"{place}/log"
        self.before = before
        words = (*before, *proxy_argv(sys.executable, PACKAGE_ROOT, self.pid_file, self.note), *argv)
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                words,
                env={DEPLOYMENT: place, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=place,
            )

    @property
    def pid(self) -> int:
        """The proxy's own pid, once the program has shown that it runs."""
        return children_of(self.process.pid)[0] if self.before else self.process.pid

    def await_that(self, condition: Callable[[], object], what: str, seconds: float = 10) -> None:
        """Wait until something holds."""
        wait_until(
            lambda: "" if condition() else self.log() or "no log", self.machine.deadline(seconds), f"wait until {what}"
        )

    def noted(self) -> int | None:
        """Return the daemon that the proxy has noted; None while it knows none."""
        return pid_in(Path(self.note).read_bytes() if os.path.exists(self.note) else b"")

    def await_noted_below(self) -> None:
        """Wait until the noted daemon is below the proxy: one whose parent ends while it is looked for is not seen."""
        self.await_that(lambda: self.noted() in self.below(), "the daemon is below the proxy")

    def log(self) -> str:
        """Return what proxy and daemon have written."""
        return Path(self.log_file).read_text()

    def await_line(self, line: str) -> None:
        """Wait until the daemon has written a line."""
        self.await_that(lambda: line in self.log().splitlines(), f"the log has {line!r}")

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send the proxy a signal and return how it ended."""
        os.kill(self.pid, number)
        return self.process.wait(5)

    def destroy(self) -> None:
        """End everything, and see that it has ended."""
        left = [pid for pid in (*self.below(), self.process.pid) if is_alive(pid)]
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.await_that(lambda: not any(map(is_alive, left)), "everything has ended")

    def below(self) -> list[int]:
        """Return all processes below the proxy."""
        return descendants([self.process.pid], parents())


def children_of(pid: int) -> list[int]:
    """Return the children of a process, its own before the adopted, and those that nobody has buried among them."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def start(place: str, machine: Host) -> Iterator[Start]:
    """Return a function that starts a program of ours as a daemon behind a proxy; what is left below it is ended."""
    started: list[Proxied] = []

    def start(script: str, *words: str, **environment: str) -> Proxied:
        argv = (*PYTHON, f"{models.HERE}/{script}.py", *words, f"pid_file={place}/pid", "-D")
        environment |= {"PROBE_DUMP": f"{place}/dump", "PROBE_PID_FILE": f"{place}/pid"}
        started.append(Proxied(place, machine, argv, environment))
        return started[-1]

    yield start
    for proxied in started:
        proxied.destroy()


@pytest.fixture
def foreground(place: str, machine: Host) -> Iterator[Start]:
    """Return a function that starts a command in the foreground behind a proxy; what is left below it is ended."""
    started: list[Proxied] = []

    def start(*argv: str, before: tuple[str, ...] = ()) -> Proxied:
        environment = {"PROBE_DUMP": f"{place}/dump"}
        started.append(Proxied(place, machine, argv, environment, before=before, is_daemon=False))
        return started[-1]

    yield start
    for proxied in started:
        proxied.destroy()


@pytest.fixture(scope="module")
def namespace(need: Callable[[str], str]) -> tuple[str, ...]:
    """Return the words that make a command the first process of a PID namespace, as in a container."""
    words = (need("unshare"), "--pid", "--fork", "--mount-proc", "--kill-child", "--")
    if os.getuid() != 0:
        pytest.skip("only root can make a PID namespace of its own")
    tried = subprocess.run([*words, "/bin/sh", "-c", "test $$ = 1"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no PID namespace can be made here: {tried.stderr.strip()}")
    return words


@pytest.fixture
def probe(start: Start, place: str) -> Proxied:
    """Return a proxy in front of a probe that is up."""
    proxied = start("probe")
    proxied.await_that(lambda: os.path.exists(f"{place}/dump"), "the probe is up")
    return proxied


def daemon_of(place: str) -> int:
    """Return the probe's pid, as it knows it."""
    return int(json.loads(Path(f"{place}/dump").read_text())["pid"])


@contextmanager
def stranger() -> Iterator[int]:
    """Run a process that is none of the proxy's; it has to be alive at the end."""
    with subprocess.Popen([*PYTHON, "-c", "import signal; signal.pause()"]) as process:
        try:
            yield process.pid
            assert process.poll() is None, "a process that is none of the proxy's was touched"
        finally:
            process.kill()


def test_term_ends_the_daemon_and_then_the_proxy(probe: Proxied, place: str) -> None:
    """SIGTERM reaches the daemon, and the proxy ends with its status."""
    daemon = daemon_of(place)
    assert probe.end() == 0
    assert not is_alive(daemon)
    assert "ending\n" in probe.log()


def test_other_signals_are_passed_on(probe: Proxied) -> None:
    """SIGHUP and SIGUSR1 reach the daemon, each once, and the proxy goes on."""
    for number, line in (
        (signal.SIGHUP, "reloaded"),
        (signal.SIGUSR1, "line 1 on request"),
        (signal.SIGUSR1, "line 2 on request"),
    ):
        probe.process.send_signal(number)
        probe.await_line(line)
    assert probe.process.poll() is None
    assert probe.log().splitlines() == ["the probe is up", "reloaded", "line 1 on request", "line 2 on request"]


def test_status_of_the_daemon_is_the_proxys(probe: Proxied) -> None:
    """The proxy ends with the daemon's exit status."""
    assert probe.end(signal.SIGUSR2) == 3


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name
)
def test_signal_that_ended_the_daemon_ends_the_proxy(start: Start, place: str, number: signal.Signals) -> None:
    """When a signal has killed the daemon, the same one kills the proxy; and no core is left behind."""
    proxied = start("misbehaving", "dies", f"signal={number:d}")
    assert proxied.process.wait(5) == -number
    assert sorted(os.listdir(place)) == ["log", "note", "pid"]


def test_end_is_noticed_without_a_signal_to_the_proxy(probe: Proxied, place: str) -> None:
    """A daemon that somebody else kills ends the proxy, the same way."""
    os.kill(daemon_of(place), signal.SIGKILL)
    assert probe.process.wait(5) == -signal.SIGKILL


@pytest.mark.parametrize("kind", ["of the dead", "of a stranger", "no number", "empty"])
def test_stale_pid_file_is_not_believed(start: Start, place: str, kind: str) -> None:
    """What is in the PID file before the daemon writes it is nothing to the proxy."""
    dead = subprocess.Popen(["/bin/sh", "-c", ":"])
    dead.wait()
    with stranger() as pid:
        contents = {"of the dead": f"{dead.pid}\n", "of a stranger": f"{pid}\n", "no number": "none\n"}
        Path(f"{place}/pid").write_text(contents.get(kind, ""))
        proxied = start("probe")
        proxied.await_that(lambda: os.path.exists(f"{place}/dump"), "the probe is up")
        proxied.process.send_signal(signal.SIGUSR1)
        proxied.await_line("line 1 on request")
        daemon = daemon_of(place)
        assert proxied.end() == 0
        assert not is_alive(daemon)


def test_late_pid_file(start: Start) -> None:
    """A daemon may write its PID file after its starter has ended."""
    proxied = start("misbehaving", "late-pid-file", "delay=0.3")
    proxied.await_that(lambda: os.path.exists(proxied.pid_file), "the PID file is there")
    assert proxied.end() == 0


@pytest.mark.long
def test_very_late_pid_file(start: Start) -> None:
    """How late a PID file may come is not for the proxy to say: half a minute is not too late."""
    proxied = start("misbehaving", "late-pid-file", "delay=31")
    proxied.await_that(proxied.noted, "the daemon is known", 40)
    assert proxied.end() == 0


@pytest.mark.parametrize("written", [r"{}\n/var/lib\n5432\n", "{} 1", r"\n\n  {:012}\r\n", r"{}\0\0\0\0", "{}"])
def test_pid_file_with_more_than_a_number(start: Start, written: str) -> None:
    """The first word of the first line that has one is the daemon, which the note names alone."""
    proxied = start("misbehaving", "never-ready", f"written={written}")
    proxied.await_that(proxied.noted, "the daemon is known")
    proxied.await_noted_below()
    assert proxied.end() == 0


def test_pid_file_that_names_a_stranger_at_first(start: Start) -> None:
    """A process that the proxy has not started is not the daemon, and gets no signal, though it lives."""
    with stranger() as pid:
        proxied = start("misbehaving", "late-pid-file", f"first={pid}", "delay=0.3")
        proxied.await_that(proxied.noted, "the daemon is known")
        proxied.await_noted_below()
        assert proxied.end() == 0


def test_pid_file_that_names_a_process_on_the_way_at_first(place: str, machine: Host) -> None:
    """A process that has ended well is not the daemon while there are others: it may have made the daemon."""
    proxied = Proxied(place, machine, (*PYTHON, "-c", ON_THE_WAY, f"{place}/pid"), {})
    try:
        proxied.await_that(proxied.noted, "the daemon is known")
        proxied.await_noted_below()
        assert proxied.end() == -signal.SIGTERM
    finally:
        proxied.destroy()


def test_daemon_that_leaves_its_place_to_another(place: str, machine: Host) -> None:
    """What the PID file named first may live on for a while: when it has ended well, the proxy follows the file."""
    proxied = Proxied(place, machine, (*PYTHON, "-c", LEAVES_ITS_PLACE, f"{place}/pid"), {})
    try:
        proxied.await_that(proxied.noted, "the first one is known")
        first = proxied.noted()
        proxied.await_that(lambda: proxied.noted() not in (None, first), "the daemon is known")
        proxied.await_noted_below()
        assert proxied.end() == -signal.SIGTERM
    finally:
        proxied.destroy()


def test_daemon_that_ends_well_has_ended(place: str, machine: Host) -> None:
    """What a daemon leaves behind does not stand for it, unless the PID file says so."""
    proxied = Proxied(place, machine, (*PYTHON, "-c", LEAVES_A_CHILD, f"{place}/pid"), {})
    try:
        assert proxied.process.wait(5) == 0
        (child,) = machine.processes.tagged(f"{DEPLOYMENT}={place}")
        machine.processes.signal(child, signal.SIGKILL)
        assert not machine.processes.wait_ended([child], machine.deadline(5))
    finally:
        proxied.destroy()


def test_note_waits_for_the_end_of_the_starter(start: Start, place: str) -> None:
    """The note is empty while the starter runs, whatever an earlier one or the PID file says; then it has the pid."""
    Path(f"{place}/note").write_text("4711\n")
    proxied = start("misbehaving", "never-ready", "stays=0.3", f"left={place}/left")
    proxied.await_that(lambda: os.path.exists(proxied.pid_file), "the PID file is there")
    noted = proxied.noted()
    assert noted is None or os.path.exists(f"{place}/left")
    proxied.await_that(proxied.noted, "the daemon is known")
    assert os.path.exists(f"{place}/left")
    assert proxied.noted() == int(Path(proxied.pid_file).read_text())
    assert proxied.end() == 0


def test_starter_that_fails_after_all(start: Start) -> None:
    """When the starter fails though the daemon is there, that is ended, and the proxy ends as the starter did."""
    proxied = start("misbehaving", "never-ready", "leaves=9", "keeps_pid_file=1")
    assert proxied.process.wait(5) == 9
    assert not is_alive(int(Path(proxied.pid_file).read_text()))
    assert proxied.noted() is None


@pytest.mark.parametrize("is_plain", [True, False])
def test_note_of_an_escort(place: str, machine: Host, is_plain: bool) -> None:  # noqa: FBT001 - a parameter
    """The note has a number alone, which is what systemd reads, and is the PID file itself where that will do."""
    told = ("never-ready", f"written={{}}{'' if is_plain else ' more'}\\n", f"pid_file={place}/pid", "-D")
    words = escort_argv(sys.executable, PACKAGE_ROOT, f"{place}/pid", f"{place}/note")
    command = Spawn((*words, *PYTHON, f"{models.HERE}/misbehaving.py", *told), {DEPLOYMENT: place}, f"{place}/log")
    assert machine.processes.run([command], machine.deadline(10)) == [0], Path(f"{place}/log").read_text()
    content = Path(f"{place}/note").read_text()
    os.kill(int(content), signal.SIGKILL)
    assert content == f"{int(content)}\n"
    assert os.path.islink(f"{place}/note") == is_plain
    assert not machine.processes.wait_ended([int(content)], machine.deadline(5))


def test_escort_that_cannot_write_its_note(place: str, machine: Host) -> None:
    """An escort whose note cannot be written fails, and names it: systemd would wait for it for ever."""
    words = escort_argv(sys.executable, PACKAGE_ROOT, f"{place}/pid", f"{place}/nowhere/note")
    told = ("never-ready", f"pid_file={place}/pid", "-D")
    command = Spawn((*words, *PYTHON, f"{models.HERE}/misbehaving.py", *told), {DEPLOYMENT: place}, f"{place}/log")
    assert machine.processes.run([command], machine.deadline(10)) == [1]
    assert f"{place}/nowhere/note: No such file or directory" in Path(f"{place}/log").read_text()
    daemon = int(Path(f"{place}/pid").read_text())
    os.kill(daemon, signal.SIGKILL)
    assert not machine.processes.wait_ended([daemon], machine.deadline(5))


@pytest.mark.parametrize("behaviour", ["no-pid-file", "wrong-pid-file", "late-pid-file"])
def test_stop_before_the_pid_file(start: Start, behaviour: str) -> None:
    """A proxy that is told to end while it still waits for a PID file ends soon, and takes the daemon with it."""
    proxied = start("misbehaving", behaviour, "delay=60", "ready=1")
    proxied.await_line("ready")
    below = proxied.below()
    assert below
    assert proxied.end() != 0
    assert not any(map(is_alive, below))
    assert proxied.pid_file in proxied.log()


@pytest.mark.parametrize(("ending", "status"), [("status=9", 9), ("signal=11", -11)])
def test_starter_that_fails(start: Start, ending: str, status: int) -> None:
    """When the command that makes the daemon fails, the proxy ends the same way, at once."""
    proxied = start("misbehaving", "dies", ending, "early=1")
    assert proxied.process.wait(5) == status
    assert proxied.log() == "the disk is on fire\n"


@pytest.mark.parametrize("tidy", [True, False])
def test_daemon_that_dies_at_once(start: Start, tidy: bool) -> None:  # noqa: FBT001 - a parameter
    """The status of a daemon that dies as soon as it is there arrives, with its PID file removed or not."""
    proxied = start("misbehaving", "dies", "status=7", *([] if tidy else ["keeps_pid_file=1"]))
    assert proxied.process.wait(5) == 7


def test_program_that_is_not_there(place: str, machine: Host) -> None:
    """A program that does not exist ends the proxy with its path in the message."""
    proxied = Proxied(place, machine, (f"{place}/nowhere",), {})
    assert proxied.process.wait(5) == 1
    assert f"{place}/nowhere: No such file" in proxied.log()


def test_real_end_is_waited_for(start: Start) -> None:
    """After SIGTERM the proxy stays until the daemon has really ended, however long that takes."""
    proxied = start("misbehaving", "ends-slowly", "delay=0.4", "ready=1")
    proxied.await_line("ready")
    proxied.await_that(lambda: os.path.exists(proxied.pid_file), "the PID file is there")
    assert proxied.end() == 0
    assert proxied.log().endswith("ended after a while\n")


LEAVES_A_CHILD = """
import os, signal, sys, time
if os.fork():
    os._exit(0)
with open(sys.argv[1], "w") as file:
    print(os.getpid(), file=file)
if os.fork() == 0:
    signal.pause()
time.sleep(0.3)
"""

ON_THE_WAY = """
import os, signal, sys, time
def write(pid):
    with open(sys.argv[1], "w") as file:
        print(pid, file=file)
if os.fork():
    os._exit(0)
middle = os.getpid()
if os.fork():
    os._exit(0)
while os.path.exists(f"/proc/{middle}"):
    time.sleep(0.01)
write(middle)
time.sleep(0.2)
write(os.getpid())
signal.pause()
"""
"""A daemon whose PID file names the process between its starter and itself, and only later itself."""

ORPHANS = """
import os, signal
for _ in range(3):
    if not os.fork():
        if os.fork():
            os._exit(0)
        signal.pause()
    os.wait()
print("ready", flush=True)
signal.pause()
"""
"""A program that leaves three processes behind, and goes on; a signal ends each of them."""

ENDS = [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGPIPE]


def misbehaving(*words: str) -> tuple[str, ...]:
    """Return the command of a program that misbehaves."""
    return (*PYTHON, f"{models.HERE}/misbehaving.py", *words)


@pytest.mark.parametrize("status", [0, 1, 7, 127, 255])
def test_status_of_a_program_is_the_proxys(foreground: Start, status: int) -> None:
    """In front of a program in the foreground, the proxy ends with its exit status, and adds nothing to its output."""
    proxied = foreground("/bin/sh", "-c", f"echo done; exit {status}")
    assert proxied.process.wait(5) == status
    assert proxied.log() == "done\n"


@pytest.mark.parametrize("number", ENDS, ids=lambda n: n.name)
def test_signal_that_ended_a_program_ends_the_proxy(foreground: Start, place: str, number: signal.Signals) -> None:
    """When a signal has killed the program, the same one kills the proxy; and no core is left behind."""
    assert foreground(*misbehaving("dies", f"signal={number:d}")).process.wait(5) == -number
    assert os.listdir(place) == ["log"]


def test_signals_are_passed_on_to_a_program(foreground: Start, place: str) -> None:
    """A program in the foreground gets SIGHUP and SIGUSR1, each once, and SIGTERM ends it and then the proxy."""
    proxied = foreground(*PYTHON, f"{models.HERE}/probe.py")
    proxied.await_that(lambda: os.path.exists(f"{place}/dump"), "the probe is up")
    program = daemon_of(place)
    for number, line in (
        (signal.SIGHUP, "reloaded"),
        (signal.SIGUSR1, "line 1 on request"),
        (signal.SIGUSR1, "line 2 on request"),
    ):
        proxied.process.send_signal(number)
        proxied.await_line(line)
    assert proxied.end() == 0
    assert not is_alive(program)
    lines = ["the probe is up", "reloaded", "line 1 on request", "line 2 on request", "ending"]
    assert proxied.log().splitlines() == lines


def test_program_that_stays_is_waited_for(foreground: Start) -> None:
    """A program that takes its time to end, or does not end at all, keeps the proxy there."""
    proxied = foreground(*misbehaving("ends-slowly", "delay=0.4", "ready=1"))
    proxied.await_line("ready")
    assert proxied.end() == 0
    assert proxied.log().endswith("ended after a while\n")


@pytest.mark.parametrize("kind", ["absent", "not executable", "no format"])
def test_program_that_cannot_be_started(foreground: Start, place: str, kind: str) -> None:
    """A program that the system does not start ends the proxy with its path and the system's words."""
    if kind != "absent":
        Path(f"{place}/program").write_text("nonsense")
        Path(f"{place}/program").chmod(0o755 if kind == "no format" else 0o644)
    reasons = {"absent": "No such file or directory", "not executable": "Permission denied"}
    proxied = foreground(f"{place}/program")
    assert proxied.process.wait(5) == 1
    assert proxied.log() == f"foreground proxy: {place}/program: {reasons.get(kind, 'Exec format error')}\n"


def test_program_starts_with_the_usual_signals(foreground: Start) -> None:
    """What the proxy and Python do with signals is not handed down: the program has none blocked or ignored."""
    proxied = foreground("/bin/sh", "-c", 'while read -r line; do echo "$line"; done </proc/$$/status')
    assert proxied.process.wait(5) == 0
    status = dict(line.split(":", 1) for line in proxied.log().splitlines())
    # The signals past 31 are for the C library and for programs: nobody here has touched them.
    assert [int(status[name], 16) % (1 << 31) for name in ("SigBlk", "SigIgn")] == [0, 0]


def test_first_process_buries_orphans(foreground: Start, namespace: tuple[str, ...]) -> None:
    """What is left behind in a container becomes the proxy's: it is buried when it ends, and is no zombie."""
    proxied = foreground(*PYTHON, "-c", ORPHANS, before=namespace)
    proxied.await_line("ready")
    program, *orphans = children_of(proxied.pid)
    assert len(orphans) == 3
    for orphan in orphans:
        os.kill(orphan, signal.SIGKILL)
    proxied.await_that(lambda: children_of(proxied.pid) == [program], "orphans are buried")
    assert proxied.process.poll() is None


def test_everything_ends_with_the_program(foreground: Start, namespace: tuple[str, ...]) -> None:
    """Nothing of a container goes on when its program has ended, whatever that has left behind."""
    proxied = foreground(*PYTHON, "-c", ORPHANS, before=namespace)
    proxied.await_line("ready")
    below = proxied.below()
    assert len(below) == 5
    proxied.end()
    assert not any(map(is_alive, below))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1], ids=lambda n: n.name)
def test_signal_reaches_a_program_without_a_handler(
    foreground: Start, namespace: tuple[str, ...], number: signal.Signals
) -> None:
    """A signal that nobody handles ends a program in a container, which it would not if that were the first process."""
    program = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); print('ready', flush=True); signal.pause()"
    proxied = foreground(*PYTHON, "-c", program, before=namespace)
    proxied.await_line("ready")
    assert proxied.end(number) == 128 + number


@pytest.mark.parametrize("number", ENDS, ids=lambda n: n.name)
def test_first_process_reports_a_signal_by_its_status(
    foreground: Start, namespace: tuple[str, ...], number: signal.Signals
) -> None:
    """The first process of a container cannot be killed by its own signal: it ends as a shell would, with 128 more."""
    proxied = foreground(*misbehaving("dies", f"signal={number:d}"), before=namespace)
    assert proxied.process.wait(5) == 128 + number


def test_first_process_ends_with_the_status(foreground: Start, namespace: tuple[str, ...]) -> None:
    """A container ends with its program's status."""
    assert foreground("/bin/sh", "-c", "exit 7", before=namespace).process.wait(5) == 7


def test_daemon_in_a_container(place: str, machine: Host, namespace: tuple[str, ...]) -> None:
    """A daemon is found by the number that it has in its container, gets its signals, and ends the container."""
    environment = {"PROBE_DUMP": f"{place}/dump", "PROBE_PID_FILE": f"{place}/pid"}
    proxied = Proxied(place, machine, (*PYTHON, f"{models.HERE}/probe.py", "-D"), environment, before=namespace)
    try:
        proxied.await_that(lambda: os.path.exists(f"{place}/dump"), "the probe is up")
        assert daemon_of(place) not in proxied.below()
        os.kill(proxied.pid, signal.SIGHUP)
        proxied.await_line("reloaded")
        assert proxied.end() == 0
        assert "ending\n" in proxied.log()
    finally:
        proxied.destroy()
