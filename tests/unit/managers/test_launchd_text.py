"""Property lists: read back as launchd would, by the Python library and, where it is installed, by another one."""

from __future__ import annotations

import plistlib
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_nixproc.errors import Unsupported
from pytest_nixproc.managers.launchd import MANAGER
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Unit

LISTS = sorted((Path(__file__).parents[1] / "golden" / "launchd").rglob("*.plist"))
PLAIN = "a b'c\"d%e$f\\g;h#i`jäö€日*?[x]{y}~!&|<>()]]>&amp;"


def unit_of(target: Target, **parameters: Any) -> Unit:
    """Return the job of one process."""
    process = create_managed_process(**{"name": "web", "process": "/bin/web"} | parameters)
    return MANAGER.unit("key", ProcessesModel({"key": Instance(process)}), target)


def job_of(unit: Unit) -> dict[str, Any]:
    """Read the property list of a unit."""
    return dict(plistlib.loads(unit.files[0].content.encode()))


def script_of(unit: Unit) -> str:
    """Return the launch script of a unit."""
    (script,) = unit.files[1:]
    assert (script.path, script.mode) == ("libexec/web", 0o700)
    assert job_of(unit)["ProgramArguments"] == ["/srv/profile/libexec/web"]
    return script.content


def test_settings_of_every_job(target: Target) -> None:
    """A job starts when we ask, is not restarted, not slowed down, and killed by us before launchd would."""
    job = job_of(unit_of(target))
    wanted = {"RunAtLoad": False, "KeepAlive": False, "AbandonProcessGroup": True, "ProcessType": "Interactive"}
    assert job | wanted == job
    assert job["ExitTimeOut"] > target.stop_seconds
    assert job["StandardOutPath"] == job["StandardErrorPath"] == "/srv/state/log/nixproc-web.log"
    assert "Background" in job["LimitLoadToSessionType"]


def test_plain_process_needs_no_script(target: Target) -> None:
    """What the list can say, it says, with the types that launchd asks for."""
    unit = unit_of(target, args=["-p", 80], environment={"A": "1"}, directory="/srv", umask="0027", nice=-3)
    job = job_of(unit)
    assert len(unit.files) == 1
    assert job["ProgramArguments"] == ["/bin/web", "-p", "80"]
    assert job["EnvironmentVariables"] == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "A": "1",
        "NIXPROC_DEPLOYMENT": "/srv",
        "NIXPROC_INSTANCE": "key",
    }
    assert (job["WorkingDirectory"], job["Umask"], job["Nice"]) == ("/srv", 0o027, -3)
    assert (unit.name, unit.mode, unit.pid_file) == ("web", "foreground", None)


def test_values_survive(target: Target) -> None:
    """Whatever a list can hold arrives as it was given."""
    unit = unit_of(target, args=[PLAIN, ""], environment={"X": PLAIN, "E": ""}, directory=f"/{PLAIN}")
    job = job_of(unit)
    assert len(unit.files) == 1
    assert job["ProgramArguments"] == ["/bin/web", PLAIN, ""]
    assert (job["EnvironmentVariables"]["X"], job["EnvironmentVariables"]["E"]) == (PLAIN, "")
    assert job["WorkingDirectory"] == f"/{PLAIN}"


@pytest.mark.parametrize("value", ["two\nlines", "a\tb", "\r", "\x01", "\x7f", "\udcff", "\uffff", "\ufdd0"])
@pytest.mark.parametrize("place", ["args", "environment", "directory"])
def test_what_a_list_cannot_hold(target: Target, place: str, value: str) -> None:
    """A value that XML has no text for, or that launchctl would print as several lines, goes into a script."""
    given = {"args": [value], "environment": {"X": value}, "directory": f"/{value}"}[place]
    unit = unit_of(target, **{place: given})
    assert value in script_of(unit)
    assert value not in unit.files[0].content


@pytest.mark.parametrize(("daemon", "initialize"), [(False, "true"), (True, None), (True, "true")])
def test_user_of_what_needs_root(target: Target, daemon: bool, initialize: str | None) -> None:  # noqa: FBT001
    """What prepares the state, and a proxy, run as root: then it is the script that switches to the user."""
    told = replace(target, force_disable_user_change=False)
    program = {"process": None, "daemon": "/bin/webd"} if daemon else {}
    unit = unit_of(told, user="web", initialize=initialize, **program)
    assert "UserName" not in job_of(unit)
    assert "--reuid=web" in script_of(unit)


@pytest.mark.parametrize("args", [[], ["two\nlines"]])
def test_user(target: Target, args: list[str]) -> None:
    """Else launchd switches to the user, with its groups, before a script too, which its group alone can read."""
    told = replace(target, force_disable_user_change=False)
    unit = unit_of(told, user="web", args=args)
    job = job_of(unit)
    assert [(file.mode, file.group) for file in unit.files[1:]] == ([(0o750, "web")] if args else [])
    assert (job["UserName"], job["GroupName"], job["InitGroups"]) == ("web", "web", True)
    assert not any("--reuid" in file.content for file in unit.files)


def test_script_of_an_account_that_is_overridden(target: Target) -> None:
    """A script can be read by the group that its job has with overrides, and by nobody else."""
    told = replace(target, force_disable_user_change=False)
    unit = unit_of(told, user="web", args=["two\nlines"], overrides={"launchd": {"UserName": "other"}})
    assert [(file.mode, file.group) for file in unit.files[1:]] == [(0o750, "web")]


def test_user_is_not_switched(target: Target) -> None:
    """Where users are not to be changed, none is named."""
    assert "UserName" not in job_of(unit_of(target, user="web"))


@pytest.mark.parametrize("name", ["a b", "*", "$HOME", "naïve", "a/b".replace("/", ":"), "50%"])
def test_label(target: Target, name: str) -> None:
    """A label belongs to the deployment, and is one plain word whatever the process is called."""
    unit = unit_of(target, name=name)
    label = job_of(unit)["Label"]
    assert label.startswith("org.pytest-nixproc.deployment.")
    assert label.isascii()
    assert not set(label) & set(" /*$:")
    assert unit.files[0].path == f"Library/LaunchDaemons/{label}.plist"


@pytest.mark.parametrize(
    "override",
    [{"KeepAlive": {"Crashed": True}, "ProcessType": None}, lambda job: job | {"KeepAlive": {"Crashed": True}}],
)
def test_overrides(target: Target, override: Any) -> None:
    """A mapping or a function changes keys of the list, with values of any type."""
    job = job_of(unit_of(target, overrides={"launchd": override}))
    assert job["KeepAlive"] == {"Crashed": True}
    assert job["RunAtLoad"] is False
    assert ("ProcessType" in job) is callable(override)


def test_keys_without_documentation(target: Target) -> None:
    """A key that is like none of launchd.plist(5) may be one of Apple's own, and is left to launchd."""
    override = {"_AdditionalProperties": {"a": 1}, "SandboxProfile": "x", "Umask": "022", "QueueDirectories": "/a"}
    assert override.items() <= job_of(unit_of(target, overrides={"launchd": override})).items()


def test_log_file_that_is_overridden(target: Target) -> None:
    """The log is where the list says."""
    unit = unit_of(target, overrides={"launchd": {"StandardOutPath": "/srv/out"}})
    assert unit.log_file == "/srv/out"


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ({"Label": "mine"}, "'Label'"),
        ({"path": ["/opt"]}, r"'path' is no key of launchd.plist\(5\)"),
        ({"KeepAliev": True}, r"'KeepAliev' is no key of launchd.plist\(5\)\nfix: did you mean 'KeepAlive'\?"),
        ({"RunAtLoad": "yes"}, "'RunAtLoad' is 'yes', which is not True or False"),
        ({"ProcessType": "Batch"}, "'ProcessType' is 'Batch', which is not one of Background"),
        ({"ExitTimeOut": "5"}, "'ExitTimeOut' is '5', which is not an integer"),
        ({"WatchPaths": [1]}, r"'WatchPaths' is \[1\], which is not an array of strings"),
        ({"EnvironmentVariables": "A=1"}, "'EnvironmentVariables' is 'A=1', which is not a dictionary"),
        ({"EnvironmentVariables": {"X": "a\nb"}}, r"EnvironmentVariables\.X = 'a\\nb'"),
        ({"Sockets": {"a\0b": {}}}, r"the name 'a\\x00b' in Sockets"),
        ({"LaunchEvents": {"x": ["/a", object]}}, r"LaunchEvents\.x\[1\] = <class"),
        ({"Nice": 2**64}, "Nice = 18446744073709551616"),
        ({"QueueDirectories": {1: "a"}}, "the name 1 in QueueDirectories"),
    ],
)
def test_refused_overrides(target: Target, override: dict[str, Any], named: str) -> None:
    """What a list cannot hold, and a label that the deployment would not find, are refused by their place."""
    with pytest.raises(Unsupported, match=named) as caught:
        unit_of(target, overrides={"launchd": override})
    assert caught.value.brief.startswith("launchd cannot deploy 'web': ")


@pytest.mark.parametrize("directory", ["/a\nb", "/a\udcff"])
def test_place_that_cannot_be_written_down(target: Target, directory: str) -> None:
    """A place whose name cannot stand in a list is refused with the remedy."""
    with pytest.raises(Unsupported, match="cannot stand in a property list") as caught:
        unit_of(replace(target, directory=directory))
    assert "--nixproc-state-root" in caught.value.remedy


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.relative_to(path.parents[4]).parts[0])
def test_another_reader_agrees(path: Path) -> None:
    """What was generated is read by libplist as by Python: converted to its binary form, it is the same."""
    plistutil = shutil.which("plistutil")
    if plistutil is None:
        pytest.skip("plistutil is not installed")
    converted = subprocess.run([plistutil, "-i", path, "-o", "/dev/stdout"], capture_output=True, check=True).stdout
    assert converted.startswith(b"bplist")
    assert plistlib.loads(converted) == plistlib.loads(path.read_bytes())


@pytest.mark.parametrize(
    ("override", "restarts"),
    [({}, False), ({"KeepAlive": True}, True), ({"KeepAlive": {"SuccessfulExit": False}}, False)],
)
def test_restarts(target: Target, override: dict[str, Any], *, restarts: bool) -> None:
    """The unit says whether launchd starts the program again however it has ended."""
    assert unit_of(target, overrides={"launchd": override}).restarts == restarts
