"""The installations of services that the cygrunsrv generator makes."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest

from pytest_nixproc.errors import Unsupported
from pytest_nixproc.machines.host import Host
from pytest_nixproc.managers.cygrunsrv import MANAGER, MOST_DEPENDENCIES, joined_arguments, unavailable_reason
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Unit


def generate(target: Target, override: Any = None, **parameters: Any) -> Unit:
    """Return the unit of one process, with an override for cygrunsrv."""
    overrides = {"cygrunsrv": override} if override is not None else {}
    given = {"name": "web", "process": "/bin/web", **parameters}
    process = create_managed_process(overrides=overrides, **given)
    return MANAGER.unit("web", ProcessesModel({"web": Instance(process)}), target)


def options(unit: Unit) -> dict[str, list[str]]:
    """Return the options of an installation, each with its values."""
    found: dict[str, list[str]] = {}
    words = iter(unit.files[0].content.splitlines())
    for word in words:
        found.setdefault(word, []).append("" if word == "--shutdown" else next(words))
    return found


def test_installation(target: Target) -> None:
    """A service runs the launch script, is started by hand only, and logs where all managers do."""
    unit = generate(target, args=["it's"], description="Web\nserver", directory="/a b")
    log_file = "/srv/state/log/nixproc-web.log"
    assert options(unit) == {
        "--install": ["nixproc-deployment-web"],
        "--path": ["/srv/profile/libexec/web"],
        "--chdir": ["/"],
        "--disp": ["nixproc-deployment-web"],
        "--desc": ["Web server"],
        "--type": ["manual"],
        "--stdout": [log_file],
        "--stderr": [log_file],
        "--termsig": ["TERM"],
        "--env": ["NIXPROC_DEPLOYMENT=/srv"],
    }
    assert "cd -- '/a b' || exit 1\nexec /bin/web 'it'\"'\"'s'\n" in unit.files[1].content


def test_dependencies(target: Target) -> None:
    """Dependencies are told by the names of their services, as many as cygrunsrv takes."""
    names = [f"db{number}" for number in range(20)]
    processes = {name: Instance(create_managed_process(name=name, process="/x")) for name in names}
    web = create_managed_process(name="web", process="/x", dependencies=names)
    unit = MANAGER.unit("web", ProcessesModel({"web": Instance(web), **processes}), target)
    told = options(unit)["--dep"]
    assert len(told) == MOST_DEPENDENCIES == len(set(told))
    assert set(told) <= {f"nixproc-deployment-{name}" for name in names}


def test_daemon_runs_behind_a_proxy(target: Target) -> None:
    """What can only be a daemon has a proxy, which cygrunsrv takes for the program."""
    unit = generate(target, process=None, daemon="/bin/web", user="www")
    assert unit.mode == "daemon"
    assert "pytest_nixproc.managers.proxy" in unit.files[1].content
    assert unit.files[1].content.endswith(" /srv/state/tmp/web.pid /srv/state/run/.web.daemon /bin/web\n")
    assert "--pidfile" not in options(unit)


def test_user_needs_a_password(target: Target) -> None:
    """Windows starts a service as a user with the password alone; it is for nobody else to read."""
    privileged = replace(target, force_disable_user_change=False)
    with pytest.raises(Unsupported, match="no service as 'www' without a password"):
        generate(privileged, user="www")
    unit = generate(privileged, {"password": "s'ecret"}, user="www")
    assert (options(unit)["--user"], options(unit)["--passwd"]) == (["www"], ["s'ecret"])
    assert unit.files[0].mode == 0o600
    assert "setpriv" not in unit.files[1].content
    assert "--user" not in options(generate(target, user="www"))


def test_overrides(target: Target) -> None:
    """Overrides, in either spelling, become options; with a PID file, cygrunsrv can find a daemon by itself."""
    override = {
        "path": "/bin/webd",
        "args": ["-D", "a b"],
        "pidFile": "/run/web.pid",
        "environment": {"X": "1 2"},
        "terminate_signal": "INT",
        "terminateOnShutdown": True,
        "type": "auto",
        "stdin": "/dev/zero",
        "displayName": "Wéb",
    }
    found = options(generate(target, override))
    assert found["--path"] == ["/bin/webd"]
    assert found["--args"] == ['-D "a b"']
    assert found["--pidfile"] == ["/run/web.pid"]
    assert found["--env"] == ["NIXPROC_DEPLOYMENT=/srv", "X=1 2"]
    assert found["--termsig"] == ["INT"]
    assert found["--shutdown"] == [""]
    assert found["--type"] == ["auto"]
    assert found["--stdin"] == ["/dev/zero"]
    assert found["--disp"] == ["W?b"]


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ({"args": ["'\" x"]}, "no quotes for both kinds"),
        ({"stdout": "/a\nb"}, "--stdout is not printable ASCII in one line"),
        ({"environment": {"X": "ä"}}, "--env is not printable ASCII"),
        ({"terminateSignal": "TREM"}, "'terminateSignal' is 'TREM', which is not the name or number of a signal"),
        ({"type": "manualx"}, "'type' is 'manualx', which is not one of auto, manual\nfix: did you mean 'manual'?"),
        ({"args": "-D"}, "'args' is '-D', which is not a list"),
        ({"environment": ["A=1"]}, r"'environment' is \['A=1'\], which is not a mapping of texts"),
        ({"stopSignal": "TERM"}, "'stopSignal' is no parameter"),
    ],
)
def test_overrides_that_are_refused(target: Target, override: dict[str, Any], named: str) -> None:
    """What cygrunsrv could not be told is refused by name."""
    with pytest.raises(Unsupported, match=named):
        generate(target, override)


@pytest.mark.parametrize("name", ["naïve", "a\\b", "x" * 200, "blank "])
def test_names_that_windows_would_not_have(target: Target, name: str) -> None:
    """Names of services are printable ASCII, have no slashes, and an end."""
    with pytest.raises(Unsupported, match="services have names of printable ASCII"):
        generate(target, name=name)


def test_names_that_differ_by_case_alone(target: Target) -> None:
    """Windows would take them for one."""
    model = ProcessesModel({name: Instance(create_managed_process(name=name, process="/x")) for name in ("web", "Web")})
    with pytest.raises(Unsupported, match="'Web'"):
        MANAGER.unit("web", model, target)


def test_place_that_cannot_be_told(target: Target) -> None:
    """Paths of a deployment are printable ASCII."""
    with pytest.raises(Unsupported, match="nixproc-state-root"):
        generate(replace(target, state=StateDirs.under("/naïve")))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], ""),
        (["a", "-b"], "a -b"),
        (["a b", ""], '"a b" ""'),
        (['say "hi"'], "'say \"hi\"'"),
        (["it's"], "it's"),
        (["'x"], '"\'x"'),
        (["tab\there"], "tab\there"),
    ],
)
def test_arguments_are_quoted_where_they_need_it(target: Target, words: list[str], text: str) -> None:
    """A word is in quotes when it has blanks, is empty, or begins with one."""
    assert (
        joined_arguments(
            MANAGER.launch(
                "x", ProcessesModel({"x": Instance(create_managed_process(name="x", process="/x"))}), target
            ),
            words,
        )
        == text
    )


def test_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason says what is missing, and how to get it."""
    monkeypatch.setattr("sys.platform", "linux")
    assert unavailable_reason(Host) == "cygrunsrv is for Cygwin, and this is linux: run the tests in Cygwin, on Windows"
    monkeypatch.setattr("sys.platform", "cygwin")
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert "add the package cygrunsrv" in unavailable_reason(Host)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(os, "getgroups", lambda: [197121])
    assert "only administrators" in unavailable_reason(Host)
    monkeypatch.setattr(os, "getgroups", lambda: [544, 197121])
    assert unavailable_reason(Host) == ""
