"""The rc.d scripts that the bsdrc generator makes."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from pytest_nixproc.errors import Unsupported
from pytest_nixproc.machines.host import Host
from pytest_nixproc.managers.bsdrc import MANAGER, BsdrcGenerator, RcSystem, identifier, unavailable_reason
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Unit


def generate(target: Target, override: Any = None, **parameters: Any) -> Unit:
    """Return the unit of one process, with an override for bsdrc."""
    overrides = {"bsdrc": override} if override is not None else {}
    given = {"name": "web", "daemon": "/bin/web", **parameters}
    process = create_managed_process(overrides=overrides, **given)
    return MANAGER.unit("web", ProcessesModel({"web": Instance(process)}), target)


def script(unit: Unit) -> str:
    """Return the text of the rc.d script."""
    return unit.files[0].content


def setting(unit: Unit, name: str) -> str | None:
    """Return what a variable is set to, as it is written; None when it is not set."""
    found = re.search(rf"^{name}=(.*)$", script(unit), re.MULTILINE)
    return found[1] if found else None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("web", "web"),
        ("web-1.local", "web_1_local"),
        ("1st", "_1st"),
        ("a b", "a_20b"),
        ("naïve", "na_c3_afve"),
        ("$HOME", "_24HOME"),
        ("a_b", "a_b"),
        ("x\udcff", "x_ff"),
    ],
)
def test_names_become_identifiers(name: str, expected: str) -> None:
    """Names of variables come of names, whatever these hold."""
    assert identifier(name) == expected


def test_names_that_become_the_same_are_refused(target: Target) -> None:
    """Two processes whose variables would be the same are refused, by both names."""
    model = ProcessesModel(
        {name: Instance(create_managed_process(name=name, process="/x")) for name in ("web-1", "web.1")}
    )
    with pytest.raises(Unsupported, match=r"'web-1' and 'web\.1' are all web_1_\*"):
        MANAGER.unit("web-1", model, target)


def test_plain_daemon_is_rc_subrs_alone(target: Target) -> None:
    """A daemon with plain values needs no launch script: variables say everything."""
    unit = generate(target, daemon_args=["-D", "a=b"], directory="/srv", nice=3, umask="0077")
    assert len(unit.files) == 1
    assert setting(unit, "command") == "/bin/web"
    assert setting(unit, "command_args") == "'-D a=b >> /srv/state/log/nixproc-web.log 2>&1 < /dev/null'"
    assert setting(unit, "web_chdir") == "/srv"
    assert setting(unit, "web_nice") == "3"
    assert " NIXPROC_INSTANCE=" in (setting(unit, "web_env") or "")
    assert "\numask 0077\n" in script(unit)
    assert unit.mode == "daemon"


@pytest.mark.parametrize(
    "parameters",
    [
        {"daemon_args": ["a b"]},
        {"daemon_args": [""]},
        {"daemon_args": ["$x"]},
        {"environment": {"A": "it's"}},
        {"environment": {"PASSWORD": "plain"}},
        {"directory": "/a b"},
        {"daemon": "/a*"},
    ],
)
def test_what_rc_subr_would_split_or_show(target: Target, parameters: dict[str, Any]) -> None:
    """Anything else goes into a launch script, and so do variables, which would be on the command line of env.

    The script's own path is plain; what rc.subr is told stays so.
    """
    unit = generate(target, **parameters)
    assert setting(unit, "command") == "libexec/web"
    assert [setting(unit, name) for name in ("command_args", "web_env", "web_chdir")] == [None, None, None]
    assert [file.path for file in unit.files] == ["etc/rc.d/web", "libexec/web"]


def test_foreground_program_is_detached_by_daemon(target: Target) -> None:
    """A program that stays in the foreground is started by daemon(8); it keeps its PID, which the script writes."""
    unit = generate(target, daemon=None, foreground_process="/bin/web")
    assert setting(unit, "command") == "/usr/sbin/daemon"
    assert setting(unit, "command_args") == "libexec/web"
    assert 'echo "$$" > /srv/state/run/web.pid || exit 1\n' in unit.files[1].content
    assert unit.files[1].content.endswith("\nexec /bin/web\n")
    assert unit.mode == "foreground"


def test_initialize_is_not_the_launch_scripts(target: Target) -> None:
    """``initialize`` and the niceness are rc.subr's to see to, since only it does so before the user is switched."""
    unit = generate(target, daemon=None, foreground_process="/bin/web", initialize="touch /x", nice=5)
    assert "touch" not in unit.files[1].content
    assert "nice" not in unit.files[1].content
    assert "touch /x" in script(unit)


def test_user(target: Target) -> None:
    """Users are switched by rc.subr, which asks for limits then; in the profile without users, for none."""
    switched = generate(replace(target, force_disable_user_change=False), user="www")
    assert setting(switched, "web_user") == "www"
    scripted = generate(replace(target, force_disable_user_change=False), user="www", daemon_args=["a b"])
    assert [(file.mode, file.group) for file in scripted.files] == [(0o700, ""), (0o750, "www")]
    assert "limits() {" not in script(switched)
    kept = generate(target, user="www")
    assert setting(kept, "web_user") is None
    assert "limits() {" in script(kept)
    with pytest.raises(Unsupported, match="its user is 'a b'"):
        generate(replace(target, force_disable_user_change=False), user="a b")


def test_order_for_rcorder(target: Target) -> None:
    """Each script provides its name, and requires those of its dependencies."""
    base = create_managed_process(name="data-base", process="/db")
    web = create_managed_process(name="web", process="/web", dependencies=[base])
    model = ProcessesModel({"web": Instance(web), "db": Instance(base)})
    heads = {key: script(MANAGER.unit(key, model, target)).splitlines()[1:3] for key in model}
    assert heads["web"] == ["# PROVIDE: web", "# REQUIRE: data_base"]
    assert heads["db"][0] == "# PROVIDE: data_base"
    assert not heads["db"][1].startswith("# REQUIRE")


def test_overrides(target: Target) -> None:
    """Overrides, in either spelling, become the variables of rc.subr."""
    override = {
        "stopSignal": "SIGQUIT",
        "reload_signal": "-USR1",
        "fib": 2,
        "limits": "-n 64",
        "loginClass": "www",
        "oomProtect": "YES",
        "env_file": "/etc/web.env",
        "requiredFiles": ["/etc/web.conf"],
        "required_dirs": ["/srv"],
        "required_vars": ["web_custom"],
        "rcvarsDefaults": {"custom": "YES"},
        "provides": ["web", "http"],
        "requires": ["NETWORKING"],
        "keywords": ["shutdown"],
        "procname": "nginx:",
        "command_interpreter": "/usr/bin/perl",
        "commands": {"check": {"implementation": "web_is_well"}, "start": {"pre": "mkdir /x", "post": "echo up"}},
    }
    unit = generate(target, override)
    found = {
        name: setting(unit, name)
        for name in (
            *("sig_stop", "sig_reload", "web_fib", "web_limits", "web_login_class", "web_oomprotect", "web_env_file"),
            *("required_files", "required_dirs", "required_vars", "web_custom", "procname", "command_interpreter"),
            *("extra_commands", "check_cmd", "start_precmd", "start_postcmd"),
        )
    }
    assert found == {
        "sig_stop": "QUIT",
        "sig_reload": "USR1",
        "web_fib": "2",
        "web_limits": "'-n 64'",
        "web_login_class": "www",
        "web_oomprotect": "YES",
        "web_env_file": "/etc/web.env",
        "required_files": "/etc/web.conf",
        "required_dirs": "/srv",
        "required_vars": "web_custom",
        "web_custom": "YES",
        "procname": "nginx:",
        "command_interpreter": "/usr/bin/perl",
        "extra_commands": "'reload check'",
        "check_cmd": "web_check",
        "start_precmd": "web_prestart",
        "start_postcmd": "web_poststart",
    }
    assert script(unit).splitlines()[1:4] == ["# PROVIDE: web http", "# REQUIRE: NETWORKING", "# KEYWORD: shutdown"]
    assert "web_check() {\nweb_is_well\n}" in script(unit)
    assert "\ncheck_pidfile() {" not in script(unit)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ({"required_files": ["/a b"]}, "required_files '/a b'"),
        ({"provides": ["x\ny"]}, "provides"),
        ({"procname": "$(id)"}, r"procname '\$\(id\)'"),
        ({"env_file": ""}, "env_file ''"),
        ({"commands": {"a-b": {}}}, "'a-b'"),
        ({"commands": {"start": {"during": "x"}}}, "during"),
        ({"rcvars_defaults": {"a b": 1}}, "'a b'"),
        ({"commands": {"start": {"prae": "x"}}}, "prae"),
        ({"commands": {"start": "x"}}, "'commands' is .*which is not a mapping of commands"),
        ({"commandArgs": "-D"}, "'commandArgs' is '-D', which is not a list"),
        ({"stopSignal": "TREM"}, "'stopSignal' is 'TREM', which is not the name or number of a signal"),
        ({"stop_seconds": "soon"}, "'stop_seconds' is 'soon', which is not a number of seconds"),
        ({"requires": "NETWORKING"}, "'requires' is 'NETWORKING', which is not a list"),
        ({"fib": "two"}, "'fib' is 'two', which is not a whole number"),
        ({"stopsignal": "TERM"}, "'stopsignal' is no parameter"),
    ],
)
def test_overrides_that_are_refused(target: Target, override: dict[str, Any], named: str) -> None:
    """What rc.subr would split, evaluate, or not know, is refused by name."""
    with pytest.raises(Unsupported, match=named):
        generate(target, override)


def test_place_of_rc_subr(target: Target) -> None:
    """Scripts read rc.subr where it is said to be, by a path with anything in it."""
    process = create_managed_process(name="web", process="/x")
    generator = BsdrcGenerator(RcSystem(rc_subr="/a b/rc.subr"))
    unit = generator.generate(MANAGER.launch("web", ProcessesModel({"web": Instance(process)}), target))
    assert "\n. '/a b/rc.subr'\n" in script(unit)


def test_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere than on FreeBSD, the reason says what is missing, and where it is not."""
    monkeypatch.setattr("sys.platform", "linux")
    assert unavailable_reason(Host) == "it needs FreeBSD's /etc/rc.subr, and this is linux: run the tests on FreeBSD"
    monkeypatch.setattr("sys.platform", "freebsd14")
    monkeypatch.setattr("pytest_nixproc.managers.bsdrc.exists", lambda path: path == "/etc/rc.subr")
    assert unavailable_reason(Host) == ""
