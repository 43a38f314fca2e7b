"""Shell text."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import pytest

from pytest_nixproc.managers import shell
from pytest_nixproc.managers.launch import Launch, launch_of
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.commands import RUN_TEXT
from pytest_nixproc.values.machine import Account, Accounts
from pytest_nixproc.values.target import Target

RUN_MKDIR = (
    f"NIXPROC_TEXT='mkdir x' /bin/sh -ec {shlex.quote(RUN_TEXT)} web || "
    f"{{ echo 'web: initialize failed' \"(status $?)\" >&2; exit 1; }}"
)
"""The line that runs ``initialize``; its text is in no argument."""


@pytest.mark.parametrize("value", ["", "plain", "a b", "it's", '"', "$HOME `x` \\", "a\nb", "%s", "-n", "ü\udcff"])
def test_quoted_word_is_one_word(value: str) -> None:
    """Whatever a value holds, the shell reads it as one word with just that value."""
    assert shlex.split(shell.quote(value)) == [value]
    assert shlex.split(shell.words([value, value])) == [value, value]


def test_comment_stays_in_its_line() -> None:
    """Text in a comment cannot end it."""
    assert shell.comment("a\r\nb\0\x1bc\x7f") == "a b c "


def script(target: Target, **parameters: Any) -> list[str]:
    """Return the lines of a launch script."""
    return shell.launch_script(launch(target, **parameters)).splitlines()


def launch(target: Target, **parameters: Any) -> Launch:
    """Return how a program is run by a manager that wants it in the foreground."""
    process = create_managed_process(name="web", process="/bin/web", args=["-x"], **parameters)
    return launch_of("any", "foreground", "key", ProcessesModel({"key": Instance(process)}), target)


def test_launch_script(target: Target) -> None:
    """A launch script sets umask and environment, enters the root directory and becomes the program."""
    assert script(target, environment={"A": "it's"}) == [
        "#!/bin/sh",
        "umask 0022",
        "export PATH=/usr/local/bin:/usr/bin:/bin",
        "export A='it'\"'\"'s'",
        "export NIXPROC_DEPLOYMENT=/srv",
        "export NIXPROC_INSTANCE=key",
        "cd -- / || exit 1",
        "exec /bin/web -x",
    ]


@pytest.mark.parametrize(
    ("parameters", "line"),
    [
        ({"umask": "0077"}, "umask 0077"),
        ({"directory": "/a b"}, "cd -- '/a b' || exit 1"),
        ({"nice": -5}, "exec /usr/bin/nice -n -5 /bin/web -x"),
        ({"path": ["/opt/x"]}, "export PATH=/opt/x/bin:/usr/local/bin:/usr/bin:/bin"),
        ({"path": ["/opt/x"], "environment": {"PATH": "/only"}}, "export PATH=/only"),
        ({"initialize": "mkdir x"}, RUN_MKDIR),
    ],
)
def test_surroundings(target: Target, parameters: dict[str, Any], line: str) -> None:
    """Each parameter that surrounds a program has its line."""
    assert line in script(target, **parameters)


def test_initialize_comes_before_directory_and_program(target: Target) -> None:
    """``initialize`` sees the environment, and may make the directory that the program starts in."""
    lines = script(target, initialize="mkdir /new", directory="/new", nice=1, environment={"A": "1"})
    heads = ["export A", "NIXPROC_TEXT=", "cd -- /new", "exec /usr/bin/nice"]
    places = [next(number for number, line in enumerate(lines) if line.startswith(head)) for head in heads]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("credentials", "group"),
    [({}, "web"), ({"users": {"web": {}}}, "web"), ({"users": {"web": {"group": "staff"}}}, "staff")],
)
def test_user_is_switched_with_its_group(target: Target, credentials: dict[str, Any], group: str) -> None:
    """Where users may be changed, the program gets its user and group, after niceness, which needs rights."""
    parameters: dict[str, Any] = {"user": "web", "nice": -5, "credentials": credentials}
    switching = replace(target, force_disable_user_change=False)
    setpriv = f"/usr/bin/setpriv --reuid=web --regid={group} --init-groups --"
    assert script(switching, **parameters)[-1] == f"exec /usr/bin/nice -n -5 {setpriv} /bin/web -x"
    assert script(target, **parameters)[-1] == "exec /usr/bin/nice -n -5 /bin/web -x"


def test_existing_user_keeps_its_group(target: Target) -> None:
    """A user that the machine has gets the group that it has there, whatever the model says."""
    known = Accounts({"web": Account("web", 900, "www-data", 33)})
    switching = replace(target, force_disable_user_change=False, accounts=known)
    words = shell.switching(launch(switching, user="web"))
    assert words[1:3] == ("--reuid=web", "--regid=www-data")


def test_switch_without_setpriv(target: Target) -> None:
    """Where setpriv is not, an interpreter switches to the user, and then becomes the program."""
    told = replace(target, force_disable_user_change=False, facts=replace(target.facts, setpriv=""))
    words = shlex.split(shell.program(launch(told, user="web")))
    assert words[0] == target.facts.python
    assert words[-5:] == [shell.SWITCH, "web", "web", "/bin/web", "-x"]
