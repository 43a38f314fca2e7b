"""The generated scripts, run by hand the way that init and people run them, under dash.

What shells may read or do differently is tried under every POSIX shell at hand: the whole life of a program, which
uses all of a script's lines, quoting, special variables, ``set -e``, subshells, numbers that are none, signals of what
is put into the background, and pauses.

Exit statuses are those of the Linux Standard Base 5.0, chapter "Init Script Actions".
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pytest_nixproc.errors import ModelError
from pytest_nixproc.machines.host import Host
from pytest_nixproc.machines.process_table import is_alive
from pytest_nixproc.machines.waiting import wait_until
from pytest_nixproc.managers.daemons import READ_PID, REPLACED_STATUS, record_of
from pytest_nixproc.managers.sysvinit import MANAGER, REQUEST_EACH, UNIDENTIFIED
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.testing.conformance import HOSTILE, HOSTILE_FILE_NAME, HOSTILE_NAMES, SPECIAL_NAMES
from pytest_nixproc.testing.programs import models
from pytest_nixproc.testing.programs.models import misbehaving, probe
from pytest_nixproc.values.pid_files import pid_in
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.tags import DEPLOYMENT
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Mode

Build = Callable[[StateDirs], Instance]
Need = Callable[[str], str]

DEAD, USAGE, NOT_RUNNING, NOT_INSTALLED, NOT_RUNNING_TO_RELOAD = 1, 2, 3, 5, 7

SHELLS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "dash": ("dash", "sh", ()),
    "bash-as-sh": ("bash", "sh", ()),
    "bash-posix": ("bash", "bash", ("--posix",)),
    "busybox": ("busybox", "sh", ()),
}
"""The shells: the program, the name that it is called by, and its options."""

in_both_modes = pytest.mark.parametrize("mode", ["foreground", "daemon"])
in_every_shell = pytest.mark.parametrize("shell", SHELLS, indirect=True)
in_every_shell_and_mode = pytest.mark.parametrize(
    ("shell", "mode"), [*((name, "foreground") for name in SHELLS), ("dash", "daemon")], indirect=["shell"]
)
"""The shells do not differ by mode: the lines of one mode alone are few, and test_hostile_values has them all run."""


@dataclass(frozen=True)
class Script:
    """A generated script in its place, and the shell that runs it."""

    command: tuple[str, ...]
    path: str
    pid_file: str
    log_file: str
    record: str
    dump: str
    machine: Host
    tags: Mapping[str, str]

    def __call__(self, *activity: str) -> int:
        """Run the script; return its exit status."""
        return self.run(*activity).returncode

    def run(self, *activity: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the script as init does: with little in its environment, nothing to read, and its own output."""
        variables = {"PATH": self.machine.facts.path_variable, **self.tags, **environment}
        argv = [*self.command, self.path, *activity]
        # Into files: a daemon would hold a pipe open, and so do programs that init starts.
        with open(f"{self.path}.out", "w+", encoding="utf-8", errors="surrogateescape") as output:
            status = subprocess.run(
                argv, env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=20, check=False
            ).returncode
            output.seek(0)
            return subprocess.CompletedProcess(argv, status, output.read())

    def start(self) -> int:
        """Start the probe, wait until it is up, and return its pid."""
        assert self("start") == 0, self.log
        self.await_that(lambda: os.path.exists(self.dump), "the probe is up")
        return int(self.dumped["pid"])

    @property
    def pid(self) -> int:
        """What the PID file says."""
        return int(Path(self.pid_file).read_text())

    @property
    def dumped(self) -> dict[str, Any]:
        """What the probe was given."""
        dumped: dict[str, Any] = json.loads(Path(self.dump).read_text())
        return dumped

    @property
    def log(self) -> str:
        """What script and program have logged."""
        return Path(self.log_file).read_text()

    def await_that(self, condition: Callable[[], object], what: str) -> None:
        """Wait until something holds."""
        wait_until(lambda: "" if condition() else "not yet", self.machine.deadline(10), f"wait until {what}")


Make = Callable[..., Script]


@pytest.fixture
def shell(request: pytest.FixtureRequest, place: str, need: Need) -> tuple[str, ...]:
    """Return the command of a shell, by the name that decides how it behaves; dash, where that is no matter."""
    program, name, options = SHELLS[getattr(request, "param", "dash")]
    os.mkdir(f"{place}/bin")
    os.symlink(need(program), f"{place}/bin/{name}")
    return (f"{place}/bin/{name}", *options)


@pytest.fixture
def make(place: str, machine: Host) -> Make:
    """Return a function that generates an instance's script for a shell, and puts it in its place."""

    def make(
        build: Build, command: tuple[str, ...], *, stop_seconds: float = 5, with_proc: bool = True, **facts: Any
    ) -> Script:
        state, tags = StateDirs.under(f"{place}/var"), {DEPLOYMENT: place}
        for directory in state.all():
            os.makedirs(directory, exist_ok=True)
        facts = {"shell": command[0], **facts}
        target = Target(
            state, f"{place}/etc", facts=replace(machine.facts, **facts), tags=tags, stop_seconds=stop_seconds
        )
        model = ProcessesModel({"it": build(state)})
        unit = MANAGER.unit("it", model, target)
        (file,) = unit.files
        path = f"{place}/it.script"
        content = file.content if with_proc else file.content.replace("/proc/self", "/nowhere")
        Path(path).write_bytes(os.fsencode(content))
        os.chmod(path, file.mode)
        assert unit.pid_file is not None
        files = (path, unit.pid_file, unit.log_file, record_of(unit.name, target), models.dump_of(state, "it"))
        return Script(command, *files, machine, tags)

    return make


@contextmanager
def stranger() -> Iterator[int]:
    """Run a process that is none of the script's; it has to be alive at the end."""
    with subprocess.Popen([models.INTERPRETER, "-I", "-S", "-c", "import signal; signal.pause()"]) as process:
        try:
            yield process.pid
            assert process.poll() is None, "a process that is none of the script's was touched"
        finally:
            process.kill()


CONTENTS = [
    *(b"12", b" 0012 \n", b"12\n/var/lib\n5432\n", b"12 13\n", b"12\tweb\n", b"12\r\n", b"\n \n\r\n12\r\n", b"12\n\0"),
    *(
        b"12".ljust(16, b"\0"),
        b"",
        b"\n",
        b"0\n",
        b"-1\n",
        b"web 12\n",
        b"web\n12\n",
        b"12a\n",
        b"*\n",
        b"$(echo 12)\n",
    ),
]
"""What may stand in a PID file."""


@in_every_shell
def test_pid_files_are_read_alike(shell: tuple[str, ...], place: str) -> None:
    """Scripts and drivers find the same process in a PID file, whatever else stands in it."""
    found = []
    for content in CONTENTS:
        Path(f"{place}/pid").write_bytes(content)
        argv = [*shell, "-c", f'{READ_PID}\nread_pid "$1" && echo "$pid"', "sh", f"{place}/pid"]
        found.append(subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip())
    assert dict(zip(CONTENTS, found, strict=True)) == {content: str(pid_in(content) or "") for content in CONTENTS}


@in_every_shell_and_mode
def test_life(make: Make, shell: tuple[str, ...], mode: Mode) -> None:
    """Every activity has the exit status that the LSB asks for, in every state, and does what it says."""
    script = make(lambda state: probe("it", state, mode), shell)
    assert script("status") == NOT_RUNNING
    assert script("stop") == 0
    assert script("reload") == NOT_RUNNING_TO_RELOAD
    assert script("try-restart") == 0
    assert script("status") == NOT_RUNNING
    first = script.start()
    assert script.pid == first
    assert script("status") == 0
    assert (script("start"), script.pid) == (0, first)
    assert script("reload") == 0
    script.await_that(lambda: "reloaded\n" in script.log, "SIGHUP has arrived")
    assert script("force-reload") == 0
    assert script("restart") == 0
    assert not is_alive(first)
    script.await_that(lambda: os.path.exists(script.dump), "the probe is up again")
    second = script.pid
    assert second != first
    assert script("try-restart") == 0
    assert not is_alive(second)
    script.await_that(lambda: os.path.exists(script.dump), "the probe is up once more")
    third = script.pid
    assert script("stop") == 0
    assert not is_alive(third)
    assert script("status") == NOT_RUNNING
    assert script("stop") == 0
    assert not os.path.exists(script.pid_file)


@in_both_modes
def test_crash(make: Make, shell: tuple[str, ...], mode: Mode) -> None:
    """A program that was killed is dead with a PID file, is no hindrance to a start, and to a stop neither."""
    script = make(lambda state: probe("it", state, mode), shell)
    first = script.start()
    os.kill(first, signal.SIGKILL)
    script.await_that(lambda: not is_alive(first), "it is dead")
    assert script("status") == DEAD
    assert script("reload") == NOT_RUNNING_TO_RELOAD
    os.unlink(script.dump)
    second = script.start()
    assert second != first
    os.kill(second, signal.SIGKILL)
    script.await_that(lambda: not is_alive(second), "it is dead again")
    assert script("stop") == 0
    assert script("status") == NOT_RUNNING


@in_every_shell_and_mode
def test_pid_file_of_somebody_else(make: Make, shell: tuple[str, ...], mode: Mode) -> None:
    """A PID file that the script's own start did not lead to is believed by no activity."""
    script = make(lambda state: probe("it", state, mode), shell)
    with stranger() as pid:
        for text in (f"{pid}\n", "no number\n", "", "12x\n", "\n"):
            assert_is_not_believed(script, text)


def assert_is_not_believed(script: Script, text: str) -> None:
    """Try every activity with this text in the PID file, before and after a start."""
    for activity, status in (("status", DEAD), ("reload", NOT_RUNNING_TO_RELOAD), ("stop", 0), ("try-restart", 0)):
        Path(script.pid_file).write_text(text)
        assert (text, activity, script(activity)) == (text, activity, status)
    Path(script.pid_file).write_text(text)
    started = script.start()
    assert (text, script.pid, script("status")) == (text, started, 0)
    Path(script.pid_file).write_text(text)
    assert (text, script("status")) == (text, DEAD)
    Path(script.pid_file).write_text(f"{started}\n")
    assert script("stop") == 0
    assert not is_alive(started)


@in_every_shell_and_mode
def test_stop_escalates(make: Make, shell: tuple[str, ...], mode: Mode) -> None:
    """A program that ignores SIGTERM is killed after its time, which the script says."""
    options = {"ready": 1}
    script = make(lambda state: misbehaving("it", state, mode, "ignores-term", options=options), shell, stop_seconds=1)
    assert script("start") == 0
    script.await_that(lambda: "ready\n" in script.log, "it is up")
    pid = script.pid
    result = script.run("stop")
    assert result.returncode == 0
    assert f"it: process {pid} did not stop within 1 s, killing it" in result.stdout
    assert not is_alive(pid)
    assert script("status") == NOT_RUNNING


@in_both_modes
def test_stop_waits(make: Make, shell: tuple[str, ...], mode: Mode) -> None:
    """A stop has come to its end when the program has."""
    options = {"ready": 1, "delay": 0.4}
    script = make(lambda state: misbehaving("it", state, mode, "ends-slowly", options=options), shell)
    assert script("start") == 0
    script.await_that(lambda: "ready\n" in script.log, "it is up")
    assert script("stop") == 0
    assert script.log.endswith("ended after a while\n")


@in_every_shell_and_mode
def test_signals_are_at_their_default(make: Make, shell: tuple[str, ...], mode: Mode) -> None:
    """A program that a script puts into the background ignores neither SIGINT nor SIGQUIT, and says nothing of it."""
    script = make(lambda state: probe("it", state, mode), shell)
    pid = script.start()
    mask = re.search(r"^SigIgn:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    log = script.log
    assert script("stop") == 0
    assert mask is not None
    ignored = {number for number in range(1, 32) if int(mask[1], 16) >> (number - 1) & 1}
    assert ignored <= {signal.SIGPIPE, signal.SIGXFSZ}, "an interpreter ignores these two by itself"
    assert "illed" not in log


@in_both_modes
def test_caller_that_identifies_the_process(make: Make, shell: tuple[str, ...], mode: Mode) -> None:
    """A start can leave the record to the caller, and a request to stop can be told the process."""
    script = make(lambda state: probe("it", state, mode), shell)
    assert script("start", UNIDENTIFIED) == (0 if mode == "daemon" else REPLACED_STATUS)
    assert Path(script.record).read_text() == ""
    script.await_that(lambda: os.path.exists(script.dump), "the probe is up")
    started = script.pid
    with stranger() as pid:
        Path(script.record).write_text(f"{pid} 1\n")
        assert script("request-stop") == 0
        assert is_alive(started)
        assert script("request-stop", str(started)) == 0
    script.await_that(lambda: not is_alive(started), "it has ended")
    Path(script.record).write_text("")
    assert script("stop") == 0


@in_every_shell
def test_program_that_replaces_its_script(make: Make, shell: tuple[str, ...]) -> None:
    """The record is there before the script ends; the program heeds all signals, and has what is its own."""
    variables = {"record": "theirs", "added": "theirs", "pid_file": "theirs"}
    script = make(lambda state: probe("it", state, environment=variables), shell)
    assert script("start", UNIDENTIFIED) == REPLACED_STATUS
    assert Path(script.record).read_text() == ""
    script.await_that(lambda: os.path.exists(script.dump), "the probe is up")
    assert script.pid == script.dumped["pid"]
    entries = [bytes.fromhex(entry).decode(errors="replace") for entry in script.dumped["environment"]]
    assert {f"{name}={value}" for name, value in variables.items()} <= set(entries)
    assert script("start", UNIDENTIFIED) == 0, "it runs already"
    mask = re.search(r"^SigIgn:\s*(\w+)$", Path(f"/proc/{script.pid}/status").read_text(), re.MULTILINE)
    assert mask is not None
    assert not int(mask[1], 16) & (1 << (signal.SIGINT - 1) | 1 << (signal.SIGQUIT - 1))
    assert "illed" not in script.log
    assert script("stop") == 0


@in_every_shell
def test_program_that_cannot_replace_its_script(make: Make, shell: tuple[str, ...]) -> None:
    """A start that fails before the program has its place ends by itself, with its status, and leaves nothing."""
    script = make(lambda state: probe("it", state, directory="/nonexistent"), shell)
    assert script("start", UNIDENTIFIED) == 1
    assert "it: could not be started (status " in script.log
    assert not os.path.exists(script.pid_file)
    assert not os.path.exists(script.record)


@pytest.mark.parametrize(
    "override",
    [
        {"instructions": {"start": {"activity": "", "instruction": 'start_process; echo after >> "$log_file"'}}},
        {"global_instructions": "trap 'echo after >> \"$log_file\"' EXIT"},
    ],
    ids=lambda override: next(iter(override)),
)
def test_script_that_has_more_to_do_is_not_replaced(
    make: Make, shell: tuple[str, ...], override: dict[str, object]
) -> None:
    """What overrides have a script do after the start is done."""
    script = make(lambda state: probe("it", state, overrides={"sysvinit": override}), shell)
    assert script("start", UNIDENTIFIED) == 0
    assert "after\n" in script.log
    assert script("stop") == 0


@in_every_shell
def test_one_shell_asks_all(make: Make, shell: tuple[str, ...], tmp_path: Path) -> None:
    """One shell has many scripts ask for a stop; what is missing of one, or closed, disturbs none of the others."""
    script = make(lambda state: probe("it", state), shell)
    pid = script.start()
    log = str(tmp_path / f"a {HOSTILE_FILE_NAME}")
    given = [
        (str(tmp_path / "no such script"), str(pid), log),
        (script.path, str(pid), str(tmp_path / "no such directory" / "log")),
        (script.path, "999999999", log),
        (script.path, str(pid), log),
    ]
    words = [word for three in given for word in three]
    done = subprocess.run([*shell, "-c", REQUEST_EACH, "sh", *words], env={}, check=False, timeout=20)
    assert done.returncode == 0
    script.await_that(lambda: not is_alive(pid), "it has ended")
    assert Path(log).read_text() == ""


@in_every_shell
def test_directory_that_is_missing(make: Make, shell: tuple[str, ...]) -> None:
    """A program that cannot be brought into its surroundings makes the start fail, and leaves no PID file."""
    script = make(lambda state: probe("it", state, directory="/nowhere"), shell)
    assert script("start") == 1
    assert "/nowhere" in script.log
    assert "it: could not be started (status " in script.log
    assert not os.path.exists(script.pid_file)
    assert script("status") == NOT_RUNNING


@in_every_shell_and_mode
def test_failing_start(make: Make, shell: tuple[str, ...], mode: Mode) -> None:
    """A failing ``initialize`` makes the start fail, with the reason in the log, and the program is not started."""
    text = "echo of no use\n(exit 42)\necho too far"
    script = make(lambda state: probe("it", state, mode, initialize=text), shell)
    assert script("start") == 1
    assert script.log == "of no use\nit: initialize failed (status 42)\n"
    assert script("status") == NOT_RUNNING
    assert not os.path.exists(script.dump)


def test_failing_daemon(make: Make, shell: tuple[str, ...]) -> None:
    """A daemon whose starter fails makes the start fail, with the status in the log."""
    options = {"early": 1, "status": 9}
    script = make(lambda state: misbehaving("it", state, "daemon", "dies", options=options), shell)
    assert script("start") == 1
    assert "the disk is on fire\n" in script.log
    assert "status 9" in script.log
    assert script("status") == NOT_RUNNING


@in_both_modes
def test_program_that_is_not_installed(make: Make, shell: tuple[str, ...], mode: Mode) -> None:
    """Without the program, a start has the status for that, and its log names it."""
    path = "/nowhere/it's"
    own: dict[str, Any] = {{"foreground": "foreground_process", "daemon": "daemon"}[mode]: path}
    script = make(lambda _: Instance(create_managed_process(name="it", **own)), shell)
    assert script("start") == NOT_INSTALLED
    assert f"{path} is not installed" in script.log
    assert script("status") == NOT_RUNNING


def test_usage(make: Make, shell: tuple[str, ...]) -> None:
    """An unknown activity, or none, has the status for that, and the activities are named."""
    script = make(lambda state: probe("it", state), shell)
    for words in ((), ("unknown",), ("",), ("*",), ("-h",)):
        result = script.run(*words)
        assert result.returncode == USAGE
        assert "{start|stop|request-stop|reload|force-reload|restart|try-restart|status}" in result.stdout


@in_both_modes
@pytest.mark.parametrize(
    ("shell", "with_proc"), [*((name, True) for name in SHELLS), ("dash", False)], indirect=["shell"]
)
def test_hostile_values(make: Make, shell: tuple[str, ...], place: str, mode: Mode, with_proc: bool) -> None:  # noqa: FBT001
    """Arguments, variables, directory, umask and nice level arrive byte for byte under every shell."""
    directory = f"{place}/{HOSTILE_FILE_NAME}"
    os.mkdir(directory)
    variables = {f"HOSTILE_{number}": value for number, value in enumerate(HOSTILE)}
    variables |= {name: f"{name} 'of' \"%(x)s\" $HOME" for name in HOSTILE_NAMES if name != "LANG"}
    given: dict[str, Any] = {"environment": variables, "directory": directory, "umask": "0027", "nice": 5}
    given["initialize"] = 'test "$HOSTILE_5" = "\'" && : "it\'s fine"'
    script = make(lambda state: probe("it", state, mode, *HOSTILE, **given), shell, with_proc=with_proc)
    script.start()
    found = script.dumped
    assert script("stop") == 0
    arguments = [bytes.fromhex(word) for word in found["arguments"]]
    environment = dict(bytes.fromhex(entry).split(b"=", 1) for entry in found["environment"])
    expected = [*HOSTILE, *(["-D"] if mode == "daemon" else [])]
    assert arguments[4:] == [os.fsencode(word) for word in expected]
    received = {name: environment.get(os.fsencode(name)) for name in variables}
    assert received == {name: os.fsencode(value) for name, value in variables.items()}
    assert bytes.fromhex(found["directory"]) == os.fsencode(directory)
    assert (found["umask"], found["nice"]) == (0o027, os.getpriority(os.PRIO_PROCESS, 0) + 5)


@in_every_shell
def test_special_variables(make: Make, shell: tuple[str, ...]) -> None:
    """A variable that some shell treats specially arrives as given under every shell, or no model may have it."""

    def build(*names: str) -> Build:
        return lambda state: probe("it", state, environment=dict.fromkeys(names, "7 of 9"))

    def is_allowed(name: str) -> bool:
        try:
            make(build(name), shell)
        except ModelError:
            return False
        return True

    names = [name for name in SPECIAL_NAMES if is_allowed(name)]
    assert names
    script = make(build(*names), shell)
    script.start()
    entries = [bytes.fromhex(entry) for entry in script.dumped["environment"]]
    assert script("stop") == 0
    found = [entry for entry in entries if entry.partition(b"=")[0].decode(errors="replace") in names]
    assert sorted(found) == sorted(f"{name}=7 of 9".encode() for name in names)


@in_both_modes
def test_callers_environment_is_no_matter(make: Make, shell: tuple[str, ...], mode: Mode) -> None:
    """Variables of the caller that have the names of the script's own do not change what it does."""
    script = make(lambda state: probe("it", state, mode), shell)
    hostile = dict.fromkeys(("pid", "name", "pid_file", "program", "stat", "known", "naps", "record", "started"), "x y")
    assert script.run("start", **hostile).returncode == 0
    script.await_that(lambda: os.path.exists(script.dump), "the probe is up")
    assert script.run("status", **hostile).returncode == 0
    assert script.run("stop", **hostile).returncode == 0
    assert script.run("status", **hostile).returncode == NOT_RUNNING


def test_messages(make: Make, shell: tuple[str, ...]) -> None:
    """Activities say what they do, unless they are told to be silent; the description is text, whatever it holds."""
    description = 'it\'s "50%" `id` $HOME \\n'
    script = make(lambda state: probe("it", state, description=description), shell)
    assert script.run("stop").stdout == f"Stopping {description}\n"
    assert script.run("stop", VERBOSE="no").stdout == ""


def test_header(make: Make, shell: tuple[str, ...]) -> None:
    """The LSB header stands in comment lines of its own, whatever the description holds."""
    description = "two\nlines ### END INIT INFO\nrm -rf nothing"
    script = make(lambda state: probe("it", state, description=description), shell)
    text = Path(script.path).read_text()
    assert text.startswith(f"#!{shell[0]}\n")
    block = text.partition("\n### BEGIN INIT INFO\n")[2].partition("\n### END INIT INFO\n")[0].splitlines()
    fields = [re.fullmatch(r"# ([A-Z][A-Za-z-]+):(?: (.*))?", line) for line in block]
    assert all(fields)
    names = [field[1] for field in fields if field]
    assert names[:5] == ["Provides", "Required-Start", "Required-Stop", "Default-Start", "Default-Stop"]


def hostile_instances(state: StateDirs) -> Iterator[Instance]:
    """Yield instances whose scripts use everything that scripts can hold."""
    given: dict[str, Any] = {
        "environment": {f"HOSTILE_{number}": value for number, value in enumerate(HOSTILE)},
        "initialize": "echo 'it is time'\ncd /",
        "description": 'it\'s "50%"',
        "directory": "/a b",
        "path": ["/pa'th"],
        "umask": "0027",
        "nice": 5,
    }
    for mode in ("foreground", "daemon"):
        yield probe("it", state, mode, *HOSTILE, **given)
        yield probe("it", state, mode)


def hostile_scripts(make: Make, shell: tuple[str, ...]) -> Iterator[str]:
    """Yield the paths of these instances' scripts, one after the other at the same place."""
    for number in range(4):
        yield make(lambda state, number=number: list(hostile_instances(state))[number], shell).path


def test_shellcheck(make: Make, shell: tuple[str, ...], need: Need) -> None:
    """Scripts are clean under shellcheck, read as POSIX shell."""
    for path in hostile_scripts(make, shell):
        checked = subprocess.run(
            [need("shellcheck"), "-s", "sh", "-f", "gcc", path], capture_output=True, text=True, check=False
        )
        assert (checked.stdout, checked.returncode) == ("", 0)


@in_every_shell
def test_syntax(make: Make, shell: tuple[str, ...]) -> None:
    """Every shell reads every script without a word."""
    for path in hostile_scripts(make, shell):
        read = subprocess.run([*shell, "-n", path], capture_output=True, text=True, check=False)
        assert (read.stdout, read.stderr, read.returncode) == ("", "", 0)
