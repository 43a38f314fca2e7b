"""A managed process: precedence of its parameters, and the paths that follow from them."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_nixproc.model.process import ManagedProcess, create_managed_process, read_managed_process
from pytest_nixproc.values.commands import Command
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.target import Target

WEB: dict[str, Any] = {"name": "web", "process": "/bin/web"}


def faults_of(process: ManagedProcess) -> list[str]:
    """Return the faults as text."""
    return [str(fault) for fault in process.faults]


@pytest.mark.parametrize(
    ("parameters", "foreground", "daemon"),
    [
        ({}, (), ()),
        ({"args": ["a"]}, ("a",), ("a",)),
        ({"args": ["a"], "foreground_process_extra_args": ["f"], "daemon_extra_args": ["d"]}, ("a", "f"), ("a", "d")),
        ({"args": ["a"], "daemon_extra_args": ["d"], "daemon_args": ["-D"]}, ("a",), ("-D",)),
        (
            {"args": ["a"], "foreground_process_extra_args": ["f"], "foreground_process_args": ["-F"]},
            ("-F",),
            ("a",),
        ),
        ({"args": ["a"], "daemon_args": [], "foreground_process_args": []}, (), ()),
    ],
)
def test_arguments_of_both_modes(
    parameters: dict[str, Any], foreground: tuple[str, ...], daemon: tuple[str, ...]
) -> None:
    """Extra arguments follow the common ones; all arguments of a mode, even none, discard both."""
    process = create_managed_process(**WEB, **parameters)
    assert process.foreground_command == Command("/bin/web", foreground)
    assert process.daemon_command == Command("/bin/web", daemon)


@pytest.mark.parametrize(
    ("programs", "foreground", "daemon"),
    [
        ({"process": "/p"}, "/p", "/p"),
        ({"process": "/p", "foreground_process": "/f"}, "/f", "/p"),
        ({"process": "/p", "daemon": "/d"}, "/p", "/d"),
        ({"process": "/p", "foreground_process": "/f", "daemon": "/d"}, "/f", "/d"),
        ({"foreground_process": "/f"}, "/f", None),
        ({"daemon": "/d"}, None, "/d"),
    ],
)
def test_programs_of_both_modes(programs: dict[str, str], foreground: str | None, daemon: str | None) -> None:
    """A mode's own program beats the common one; a mode without any program is not there."""
    process = create_managed_process(name="web", **programs)  # type: ignore[arg-type]
    assert (process.foreground_command and process.foreground_command.program) == foreground
    assert (process.daemon_command and process.daemon_command.program) == daemon


@pytest.mark.parametrize(
    ("programs", "preferred", "chosen"),
    [
        ({"process": "/p"}, "foreground", ("foreground", Command("/p"))),
        ({"process": "/p"}, "daemon", ("daemon", Command("/p"))),
        ({"foreground_process": "/f"}, "daemon", ("foreground", Command("/f"))),
        ({"daemon": "/d"}, "foreground", ("daemon", Command("/d"))),
        ({"foreground_process": "/f", "daemon": "/d"}, "daemon", ("daemon", Command("/d"))),
        ({"foreground_process": "/f", "daemon": "/d"}, "foreground", ("foreground", Command("/f"))),
    ],
)
def test_manager_gets_the_mode_it_prefers(programs: dict[str, str], preferred: Any, chosen: object) -> None:
    """A manager gets the mode that it prefers where there is one, else the other."""
    assert create_managed_process(name="web", **programs).command_for(preferred) == chosen  # type: ignore[arg-type]


def test_argv_begins_with_the_program() -> None:
    """The words of a command are the program and its arguments."""
    assert Command("/p", ("a", "")).argv == ("/p", "a", "")


@pytest.mark.parametrize(
    ("parameters", "path"),
    [
        ({}, "/srv/state/run/web.pid"),
        ({"instance_name": "web1"}, "/srv/state/run/web1.pid"),
        ({"instance_name": "web1", "user": "web"}, "/srv/state/tmp/web1.pid"),
        ({"user": "web"}, "/srv/state/tmp/web.pid"),
        ({"pid_file": "/x.pid", "instance_name": "web1", "user": "web"}, "/x.pid"),
    ],
)
def test_pid_file(state: StateDirs, parameters: dict[str, Any], path: str) -> None:
    """An explicit PID file counts; else it is named by the instance, and lies where its declared user may write."""
    assert create_managed_process(**WEB, **parameters).pid_file_at(Target(state, "/srv/profile")) == path


@pytest.mark.parametrize(
    ("parameters", "disabled", "path"),
    [
        ({}, False, "/srv/state/log/nixproc-web.log"),
        ({"instance_name": "web1"}, True, "/srv/state/log/nixproc-web1.log"),
        ({"user": "web"}, False, "/srv/state/tmp/nixproc-web.log"),
        ({"user": "web"}, True, "/srv/state/log/nixproc-web.log"),
    ],
)
def test_log_file(state: StateDirs, parameters: dict[str, Any], disabled: bool, path: str) -> None:  # noqa: FBT001
    """The log lies where the user that really runs the process may write."""
    process = create_managed_process(**WEB, **parameters)
    target = Target(state, "/srv/profile", force_disable_user_change=disabled)
    assert process.log_file_at(target) == path


def test_defaults_follow_the_name() -> None:
    """The name is the instance's name by default, and the description the name."""
    process = create_managed_process(instance_name="web1", process="/bin/web")
    assert (process.name, process.description, process.faults) == ("web1", "web1", ())
    assert create_managed_process(**WEB, instance_name="web1").name == "web"


def test_both_spellings_are_the_same_parameter() -> None:
    """Parameters in camelCase are read like those in snake_case."""
    process = read_managed_process({"instanceName": "web", "foregroundProcess": "/f", "pidFile": "/x.pid"})
    assert process.faults == ()
    assert (process.name, process.foreground_process, process.pid_file) == ("web", "/f", "/x.pid")


@pytest.mark.parametrize(
    ("parameters", "faults"),
    [
        (
            {},
            [
                "name: is missing, and so is instance_name",
                "process: is missing, and so are foreground_process and daemon",
            ],
        ),
        ({"process": "/bin/web"}, ["name: is missing, and so is instance_name"]),
        ({"name": "web"}, ["process: is missing, and so are foreground_process and daemon"]),
        ({"name": "web", "process": ""}, ["process: is missing, and so are foreground_process and daemon"]),
        (WEB | {"pidfile": "/x"}, ["pidfile: is no parameter of a managed process (did you mean 'pid_file'?)"]),
        (WEB | {"zzz": 1}, ["zzz: is no parameter of a managed process"]),
        (WEB | {1: "x"}, ["1: is no parameter of a managed process"]),
    ],
)
def test_faults_of_the_process_as_a_whole(parameters: dict[str, object], faults: list[str]) -> None:
    """What is missing or unknown is a fault, with a suggestion where there is a similar name."""
    assert faults_of(read_managed_process(parameters)) == faults


def test_what_is_faulty_is_not_missing_too() -> None:
    """A name or program that was given and refused is not reported as missing as well."""
    paths = [fault.path for fault in create_managed_process(name="a/b", process="web").faults]
    assert paths == ["name", "process"]


def test_faults_keep_the_users_spelling() -> None:
    """A fault names the parameter the way in which the user wrote it."""
    process = read_managed_process(WEB | {"daemonArgs": ["a", None], "umask": 18})
    assert [fault.path for fault in process.faults] == ["daemonArgs[1]", "umask"]


def test_none_is_the_default() -> None:
    """None for any parameter is as if it had not been given."""
    nothing: dict[str, Any] = dict.fromkeys(ManagedProcess.PARAMETERS)
    assert vars(create_managed_process(**nothing | WEB)) == vars(create_managed_process(**WEB))


def test_process_is_frozen_and_itself() -> None:
    """A process cannot be changed, and is equal to itself only."""
    process = create_managed_process(**WEB)
    with pytest.raises(AttributeError):
        process.name = "other"  # type: ignore[misc]
    assert process != create_managed_process(**WEB)
    assert repr(process) == "<ManagedProcess 'web'>"
