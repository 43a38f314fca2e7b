"""How the sysvinit driver runs scripts, and what it looks up for them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_nixproc.managers.daemons import REPLACED_STATUS, record_of
from pytest_nixproc.managers.sysvinit import MANAGER, REQUEST_EACH, SysvinitDriver
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.testing.fake_machine import FakeMachine, FakeProcess
from pytest_nixproc.values.commands import Spawn
from pytest_nixproc.values.tags import INSTANCE
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Status, Unit

SECONDS = 10.0


class Scripts:
    """A machine on which one script of a unit does what the real ones do; ``calls`` are its arguments."""

    def __init__(self, target: Target) -> None:
        process = create_managed_process(name="web", foreground_process="/bin/web")
        self.unit: Unit = MANAGER.unit("web", ProcessesModel({"web": Instance(process)}), target)
        self.machine = FakeMachine()
        self.driver = SysvinitDriver(self.machine, target)
        self.record = record_of("web", target)
        self.pid_file = str(self.unit.pid_file)
        self.exit_status = 0
        self.calls: list[tuple[str, ...]] = []
        self.script = f"{target.directory}/etc/rc.d/init.d/web"
        self.machine.processes.program(self.script, self._run)
        self.machine.processes.program(self.machine.facts.shell, self._request_each)

    def _run(self, machine: FakeMachine, script: FakeProcess) -> None:
        _, *words = script.command.argv
        self.calls.append(tuple(words))
        getattr(self, words[0].replace("-", "_"))(*words[1:])
        machine.processes.end(script.pid, self.exit_status)

    def _request_each(self, machine: FakeMachine, shell: FakeProcess) -> None:
        script, pid, log = shell.command.argv[4:]
        assert (shell.command.argv[2], script, log) == (REQUEST_EACH, self.script, self.unit.log_file)
        self.calls.append(("request-stop", pid))
        self.request_stop(pid)
        machine.processes.end(shell.pid)

    def start(self, *_: str) -> None:
        """Start the program, and write its pid."""
        self.machine.files.write(self.pid_file, f"{self.machine.processes.spawn(Spawn(('/bin/web',)))}\n")
        self.machine.files.write(self.record, "")

    def request_stop(self, *_: str) -> None:
        """End the program."""
        self.machine.processes.end(self.pid)

    @property
    def pid(self) -> int:
        """What the PID file says."""
        return int(self.machine.files.contents[self.pid_file])

    def status(self) -> Status:
        """Ask the driver about the unit."""
        return self.driver.status([self.unit])[self.unit.name]

    def activate(self) -> None:
        """Have the driver start the unit."""
        assert self.driver.activate([self.unit], self.machine.deadline(SECONDS)) == {}

    def deactivate(self) -> None:
        """Have the driver stop the unit."""
        self.driver.deactivate([self.unit], self.machine.deadline(SECONDS))


@pytest.fixture
def scripts(target: Target) -> Scripts:
    """Return a machine with one script."""
    return Scripts(target)


def test_record_is_completed(scripts: Scripts) -> None:
    """The driver writes down which process a script has started, so that the script need not look it up."""
    scripts.machine.clock.advance(3)
    scripts.activate()
    assert scripts.calls == [("start", "unidentified")]
    assert scripts.machine.files.contents[scripts.record] == f"{scripts.pid} 3.00\n".encode()


def test_script_that_was_replaced_has_started_its_program(scripts: Scripts) -> None:
    """That a script was killed is no failure where the record says that it has started its program before."""
    scripts.exit_status = REPLACED_STATUS
    scripts.activate()
    assert scripts.status().running


def test_script_that_was_killed_has_failed(scripts: Scripts) -> None:
    """Without a record, a script that was killed has started nothing; with one, any other status is a failure, too."""
    deadline = scripts.machine.deadline(SECONDS)
    scripts.exit_status = 1
    assert "web" in scripts.driver.activate([scripts.unit], deadline)
    scripts.machine.files.remove(scripts.record)
    scripts.exit_status, scripts.start = REPLACED_STATUS, lambda *_: None  # type: ignore[method-assign]
    problems = scripts.driver.activate([scripts.unit], deadline)
    assert "was killed by signal 9" in problems["web"]


def test_record_of_a_late_pid_file_stays_open(scripts: Scripts) -> None:
    """Where there is no PID file yet, nothing is written about the process."""
    scripts.start = lambda *_: scripts.machine.files.write(scripts.record, "")  # type: ignore[method-assign]
    scripts.activate()
    assert scripts.machine.files.contents[scripts.record] == b""


def test_record_of_a_script_that_has_looked_is_kept(scripts: Scripts) -> None:
    """What a script has written by itself is not written again."""
    scripts.activate()
    scripts.machine.files.write(scripts.record, f"{scripts.pid} 1.00\n")
    scripts.start = lambda *_: None  # type: ignore[method-assign]
    scripts.activate()
    assert scripts.machine.files.contents[scripts.record] == f"{scripts.pid} 1.00\n".encode()


def test_script_is_told_the_process(scripts: Scripts) -> None:
    """A process that the record identifies is named to the script, and forgotten when it has ended."""
    scripts.activate()
    scripts.deactivate()
    assert scripts.calls[1:] == [("request-stop", str(scripts_pid(scripts)))]
    assert scripts.record not in scripts.machine.files.contents
    assert scripts.pid_file not in scripts.machine.files.contents


def scripts_pid(scripts: Scripts) -> int:
    """Return the pid of the only program that was started."""
    (pid,) = (pid for pid, process in scripts.machine.processes.by_pid.items() if process.command.argv == ("/bin/web",))
    return pid


def test_later_process_with_the_pid_is_not_named(scripts: Scripts) -> None:
    """A process that started at another time than the recorded one is not named: the script is to look for itself."""
    scripts.activate()
    scripts.machine.files.write(scripts.record, f"{scripts.pid} 7.00\n")
    scripts.deactivate()
    assert scripts.calls[1:] == [("request-stop",)]


def test_process_that_cannot_be_identified_is_not_named(scripts: Scripts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine does not know start times, scripts look for themselves."""
    monkeypatch.setattr(scripts.machine.processes, "start_time", lambda _: "")
    scripts.activate()
    assert scripts.machine.files.contents[scripts.record] == b""
    scripts.deactivate()
    assert scripts.calls[1:] == [("request-stop",)]


def test_process_on_the_way_to_the_daemon_is_not_taken_for_it(scripts: Scripts, target: Target) -> None:
    """A PID file that names a process which has ended well says nothing about the daemon while one may be there."""
    passing = scripts.machine.processes.spawn(Spawn(("/bin/web",)))
    scripts.machine.processes.end(passing)
    daemon = scripts.machine.processes.spawn(Spawn(("/bin/web",), {**target.tags, INSTANCE: "web"}))
    scripts.machine.files.write(scripts.record, "")
    scripts.machine.files.write(scripts.pid_file, f"{passing}\n")
    status = scripts.status()
    said = f"PID file {scripts.pid_file} holds '{passing}', and that process has ended"
    assert (status.running, status.has_ended, status.text) == (False, False, said)
    assert scripts.driver.unmet(replace(scripts.unit, mode="daemon")) == said
    scripts.machine.processes.end(daemon)
    assert scripts.status() == replace(status, has_ended=True, exit_status=0)


def test_daemon_that_has_failed_is_known_by_its_pid_file(scripts: Scripts, target: Target) -> None:
    """A daemon that has failed before anybody has recorded it has ended, whatever it has left behind."""
    scripts.activate()
    scripts.machine.files.write(scripts.record, "")
    scripts.machine.processes.spawn(Spawn(("/bin/web",), {**target.tags, INSTANCE: "web"}))
    scripts.machine.processes.end(scripts.pid, 7)
    assert (scripts.status().has_ended, scripts.status().exit_status) == (True, 7)


def test_daemon_is_not_ready_before_its_script_has_ended(scripts: Scripts) -> None:
    """A PID file alone does not tell that the starter has ended; the record that comes then does."""
    scripts.activate()
    daemon = replace(scripts.unit, mode="daemon")
    scripts.machine.files.remove(scripts.record)
    assert scripts.driver.unmet(daemon) == "it has not been started"
    assert scripts.status().text == "not running"
    scripts.machine.files.write(scripts.record, "")
    assert scripts.driver.unmet(daemon) == ""


@pytest.mark.parametrize(
    ("status", "tags", "is_followed"),
    [(0, {INSTANCE: "web"}, True), (7, {INSTANCE: "web"}, False), (0, {INSTANCE: "other"}, False), (0, {}, False)],
)
def test_pid_file_is_followed(
    scripts: Scripts, target: Target, status: int, tags: dict[str, str], *, is_followed: bool
) -> None:
    """What a daemon that has ended well has left its place to is the daemon, if it is the instance's, and no other."""
    scripts.activate()
    first = scripts.pid
    second = scripts.machine.processes.spawn(Spawn(("/bin/web",), {**(target.tags if tags else {}), **tags}))
    scripts.machine.files.write(scripts.pid_file, f"{second}\n")
    assert not scripts.status().running, "nobody takes the place of what runs"
    scripts.machine.processes.end(first, status)
    assert scripts.status().running == is_followed
    if is_followed:
        assert scripts.status().pid == second
        assert scripts.driver.records.is_recorded(scripts.unit, second)
