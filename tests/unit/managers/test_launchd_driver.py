"""What the launchd driver makes of launchctl's output, and where it job_states for its jobs."""

from __future__ import annotations

import textwrap
from dataclasses import replace

import pytest

from pytest_nixproc.errors import CommandFailed, MachineError
from pytest_nixproc.managers.launchd import MANAGER, JobState, LaunchdDriver, job_states, unavailable_reason
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.testing.fake_machine import FakeMachine, FakeProcess
from pytest_nixproc.values.machine import Account, Facts
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Status, Unit

SECONDS = 10.0
LAUNCHCTL = "/bin/launchctl"
WEB = "org.pytest-nixproc.deployment.web"


def printed(*lines: str, service: str = f"gui/501/{WEB}") -> str:
    """Return what is printed about a job, with some lines of its own."""
    inner = "".join(f"\t{line}\n" for line in lines)
    return (
        f"{service} = {{\n\tactive count = 1\n\tpath = /srv/web.plist\n\ttype = LaunchAgent\n{inner}"
        "\n\tprogram = /bin/web\n\targuments = {\n\t\t/bin/web\n\t\tpid = 1\n\t}\n"
        "\n\tproperties = {\n\t\tstate = none of a job\n\t}\n}\n"
    )


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["state = running", "pid = 7", "last exit code = (never exited)"], JobState("running", 7, None, "/bin/web")),
        (["state = not running", "last exit code = (never exited)"], JobState("not running", None, None, "/bin/web")),
        (["state = not running", "last exit code = 3"], JobState("not running", None, 3, "/bin/web")),
        (["state = not running", "last exit code = 78: EX_CONFIG"], JobState("not running", None, 78, "/bin/web")),
        (["state = waiting", "last terminating signal = Killed: 9"], JobState("waiting", None, -9, "/bin/web")),
        (
            ["state = not running", "last exit code = 0", "last terminating signal = User defined signal 2: 12"],
            JobState("not running", None, -12, "/bin/web"),
        ),
        (["last exit reason = none"], JobState("in no state", None, None, "/bin/web")),
    ],
)
def test_job_states(lines: list[str], expected: JobState) -> None:
    """A job's state, process and end are read from its own lines, whatever stands in those about its parts."""
    assert job_states(printed(*lines)) == {WEB: expected}


def test_looks_at_several() -> None:
    """Jobs are told apart; older systems print a label without its domain, and none is printed of what is not there."""
    output = printed("state = running", "pid = 7") + printed("state = exited", service="org.other")
    assert job_states(output) == {
        WEB: JobState("running", 7, None, "/bin/web"),
        "org.other": JobState("exited", program="/bin/web"),
    }
    assert job_states("") == {}


def test_look_in_words() -> None:
    """What people read has what led to it: the program, and how it ended."""
    assert JobState("running", 7, None, "/bin/web").text == "running, pid 7"
    assert JobState("not running", None, 3, "/bin/web").text == "not running, ended with status 3, program /bin/web"


class Mac:
    """A machine with one job, and a launchctl that answers what it is told to, by subcommand."""

    def __init__(self, target: Target, uid: int = 501) -> None:
        self.target = target
        process = create_managed_process(name="web", foreground_process="/bin/web")
        self.unit: Unit = MANAGER.unit("web", ProcessesModel({"web": Instance(process)}), target)
        self.machine = FakeMachine(replace(Facts(), account=Account("me", uid, "us", uid)))
        self.machine.files.write(LAUNCHCTL, "")
        self.machine.processes.program(LAUNCHCTL, self._answer)
        self.machine.processes.program(self.machine.facts.shell, self._shell)
        self.calls: list[tuple[str, ...]] = []
        self.domains = {f"gui/{uid}"} if uid else {"system"}
        self.listed = ""
        self.about_the_job = ""
        self.start = 0, ""

    @property
    def driver(self) -> LaunchdDriver:
        """A driver made anew."""
        return LaunchdDriver(self.machine, self.target)

    def _answer(self, machine: FakeMachine, process: FakeProcess) -> None:
        verb, *words = process.command.argv[1:]
        self.calls.append((verb, *words))
        status = 0 if words[-1] in self.domains else 113
        machine.files.write(str(process.command.output), self.listed if status == 0 else "Could not find it\n")
        machine.processes.end(process.pid, status)

    def _shell(self, machine: FakeMachine, process: FakeProcess) -> None:
        is_start = "bootstrap" in process.command.argv[2]
        status, output = self.start if is_start else (0, self.about_the_job)
        machine.files.write(str(process.command.output), output)
        machine.processes.end(process.pid, status)

    def open(self) -> LaunchdDriver:
        """Return an opened driver."""
        driver = self.driver
        driver.open(self.machine.deadline(SECONDS))
        return driver


@pytest.fixture
def mac(target: Target) -> Mac:
    """Return a machine on which an ordinary user is logged in."""
    return Mac(target)


def domain_of(mac: Mac) -> bytes:
    """Return the domain that is on record."""
    return mac.machine.files.contents["/srv/profile/launchd-domain"].strip(b'"')


def test_domain_of_a_session(mac: Mac) -> None:
    """Who is logged in has a session."""
    mac.open()
    assert domain_of(mac) == b"gui/501"
    assert mac.calls == [("print", "gui/501")]


def test_domain_without_a_session(mac: Mac) -> None:
    """Who is not has a domain all the same."""
    mac.domains = {"user/501"}
    mac.open()
    assert domain_of(mac) == b"user/501"


def test_domain_of_root(target: Target) -> None:
    """Root has the system's."""
    mac = Mac(target, uid=0)
    mac.open()
    assert domain_of(mac) == b"system"
    assert mac.calls == [("print", "system")]


def test_no_domain(mac: Mac) -> None:
    """Without any, the error has what was tried, and what launchctl said."""
    mac.domains = set()
    with pytest.raises(MachineError, match="tried gui/501, user/501") as caught:
        mac.open()
    assert "Could not find it" in str(caught.value)


def test_driver_without_a_record(mac: Mac) -> None:
    """Nothing is asked of a domain that nobody has chosen; the end of what never began is harmless."""
    with pytest.raises(MachineError, match="launchd-domain is missing"):
        mac.driver.status([mac.unit])
    mac.driver.close(mac.machine.deadline(SECONDS))
    assert mac.calls == []


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["state = not running", "last exit code = (never exited)"], Status(running=False)),
        (["state = not running", "last exit code = 3"], Status(running=False, has_ended=True, exit_status=3)),
        (["state = spawn failed", "last exit code = (never exited)"], Status(running=False, has_ended=True)),
    ],
)
def test_status(mac: Mac, lines: list[str], expected: Status) -> None:
    """What has not been started has not ended, and what could not be started has."""
    driver = mac.open()
    mac.about_the_job = printed(*lines)
    assert replace(driver.status([mac.unit])["web"], text="") == expected


def test_job_that_launchd_starts_again(mac: Mac) -> None:
    """A job that is kept alive has not ended between two of its runs, unless it cannot be started."""
    driver = mac.open()
    unit = replace(mac.unit, restarts=True)
    mac.about_the_job = printed("state = not running", "last exit code = 3")
    assert not driver.status([unit])["web"].has_ended
    mac.about_the_job = printed("state = spawn failed", "last exit code = 3")
    assert driver.status([unit])["web"].has_ended


def test_failed_start_has_launchds_words(mac: Mac) -> None:
    """A start that launchctl refuses is a problem with what it said."""
    driver = mac.open()
    mac.start = 5, "Bootstrap failed: 5: Input/output error\n"
    problems = driver.activate([mac.unit], mac.machine.deadline(SECONDS))
    said = "Bootstrap failed: 5: Input/output error"
    assert problems == {
        "web": f"launchctl ended with status 5: {said}; launchd says: launchd does not know it",
    }


def test_failed_reload_has_launchds_words(mac: Mac) -> None:
    """A signal that cannot be sent is an error with what launchctl said."""
    with pytest.raises(CommandFailed, match="web: launchctl kill SIGHUP: Could not find it"):
        mac.open().reload(mac.unit, mac.machine.deadline(SECONDS))
    assert mac.calls[-1] == ("kill", "SIGHUP", f"gui/501/{WEB}")


def test_what_remains(mac: Mac) -> None:
    """Jobs of the deployment are found in each domain, without its directory; those of others are let be."""
    mac.domains = {"gui/501", "user/501"}
    mac.listed = textwrap.dedent(f"""\
        gui/501 = {{
        \tservices = {{
        \t\t       0      - \torg.pytest-nixproc.deployment2.web
        \t\t     512      - \tcom.apple.{WEB}x
        \t\t     513      - \t{WEB}
        \t\t       0      3 \torg.pytest-nixproc.deployment.a%20b
        \t}}
        """)
    names = ["a%20b", "web"]
    assert mac.driver.remains() == [
        f"left of launchd: {domain}/org.pytest-nixproc.deployment.{name}"
        for domain in ("gui/501", "user/501")
        for name in names
    ]


def test_nothing_remains_where_there_is_no_launchd(mac: Mac) -> None:
    """Elsewhere nothing is asked, and nothing is left."""
    del mac.machine.files.contents[LAUNCHCTL]
    assert mac.driver.remains() == []


def test_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where launchd is not, the reason says what it belongs to and what this is; on macOS there is none."""
    monkeypatch.setattr("sys.platform", "linux")
    assert unavailable_reason(FakeMachine) == "launchd is part of macOS, and this is linux"
    monkeypatch.setattr("sys.platform", "darwin")
    assert unavailable_reason(FakeMachine) == ""
