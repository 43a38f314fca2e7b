"""The configuration that the supervisord generator makes, read back by supervisor's own parser."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_nixproc.errors import Unsupported
from pytest_nixproc.managers.supervisord import MANAGER, SOCKET_PATH_LIMIT, SupervisordGenerator
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Unit

if TYPE_CHECKING:
    from collections.abc import Callable

PLAIN = "/srv/a b/%(here)s,x=y:z$HOME[1]{2}~*?!&|<>()%%"
EMPTY = ProcessesModel({})


@pytest.fixture
def generate(target: Target) -> Callable[..., Unit]:
    """Return a function that generates one process."""

    def generate(**parameters: Any) -> Unit:
        process = create_managed_process(**{"name": "web", "process": "/bin/web"} | parameters)
        return MANAGER.unit("key", ProcessesModel({"key": Instance(process)}), target)

    return generate


def sections_of(text: str) -> dict[str, dict[str, str]]:
    """Parse a file the way supervisor does: comments off, then interpolation."""
    from supervisor.options import UnhosedConfigParser

    parser = UnhosedConfigParser()
    parser.read_string(text)
    expansions = {"here": "/srv/profile", "program_name": "web", "group_name": "web", "process_num": 0}
    return {
        section: {name: parser.saneget(section, name, expansions=expansions) for name in parser.options(section)}
        for section in parser.sections()
    }


def program_of(unit: Unit) -> dict[str, str]:
    """Return the settings of a unit's section."""
    ((name, settings),) = sections_of(unit.files[0].content).items()
    assert name == f"program:{unit.name}"
    return settings


def environment_of(settings: dict[str, str]) -> dict[str, str]:
    """Read the environment the way supervisor does."""
    from supervisor.datatypes import dict_of_key_value_pairs

    return dict(dict_of_key_value_pairs(settings["environment"]))


def command_of(settings: dict[str, str]) -> list[str]:
    """Return the command line of a program, behind the shell that takes supervisord's pipe from it."""
    words = shlex.split(settings["command"])
    assert words[:4] == ["/bin/sh", "-c", 'exec < /dev/null; exec "$@"', "sh"]
    return words[4:]


def test_plain_process_needs_no_script(generate: Callable[..., Unit]) -> None:
    """What the section can say, it says, in one file."""
    unit = generate(args=["-p", 80], environment={"A": "1"}, directory="/srv", umask="0027")
    settings = program_of(unit)
    assert [file.path for file in unit.files] == ["etc/supervisord.conf"]
    assert command_of(settings) == ["/bin/web", "-p", "80"]
    assert environment_of(settings) == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "A": "1",
        "NIXPROC_DEPLOYMENT": "/srv",
        "NIXPROC_INSTANCE": "key",
    }
    assert (settings["directory"], settings["umask"]) == ("/srv", "0027")
    assert (unit.name, unit.mode, unit.pid_file) == ("web", "foreground", None)


def test_plain_values_survive_supervisors_parser(generate: Callable[..., Unit]) -> None:
    """Blanks, percent signs and all that the section can hold arrive as they were given."""
    unit = generate(args=[PLAIN, ""], environment={"X": PLAIN, "E": ""}, directory=PLAIN)
    settings = program_of(unit)
    assert len(unit.files) == 1
    assert command_of(settings) == ["/bin/web", PLAIN, ""]
    environment = environment_of(settings)
    assert (environment["X"], environment["E"], settings["directory"]) == (PLAIN, "", PLAIN)


@pytest.mark.parametrize(
    "parameters",
    [
        {"args": ["it's"]},
        {"args": ["a\nb"]},
        {"args": ["a ;b"]},
        {"environment": {"X": '"'}},
        {"environment": {"X": "\\"}},
        {"environment": {"X": "ü"}},
        {"directory": "/a#b"},
        {"initialize": "true"},
        {"nice": 0},
    ],
)
def test_hostile_process_gets_a_script(generate: Callable[..., Unit], parameters: dict[str, Any]) -> None:
    """What the section cannot say is said by a script, which the section then runs with nothing around it."""
    unit = generate(**parameters)
    settings = program_of(unit)
    assert [(file.path, file.mode) for file in unit.files[1:]] == [("libexec/web", 0o700)]
    assert settings["command"] == '"/srv/profile/libexec/web"'
    assert not {"environment", "directory", "umask", "user"} & settings.keys()


def test_settings_of_every_program(generate: Callable[..., Unit]) -> None:
    """Programs start when we ask, are not restarted, count as started at once, and are given time to stop."""
    settings = program_of(generate())
    wanted = {"autostart": "false", "autorestart": "false", "startsecs": "0", "startretries": "0", "priority": "1"}
    assert settings | wanted == settings
    assert settings["stdout_logfile"] == "/srv/state/log/nixproc-web.log"
    assert int(settings["stopwaitsecs"]) > 5


def test_percent_in_the_log_file(generate: Callable[..., Unit]) -> None:
    """A percent sign in a name is no interpolation; supervisor interpolates the names of log files twice."""
    assert program_of(generate(instance_name="50%"))["stdout_logfile"] == "/srv/state/log/nixproc-50%%.log"


def test_daemon_runs_behind_the_proxy(target: Target) -> None:
    """A program that is a daemon only runs behind the proxy, which is told its PID file."""
    process = create_managed_process(name="web", daemon="/bin/webd", daemon_args=["-D", "a b"])
    unit = MANAGER.unit("key", ProcessesModel({"key": Instance(process)}), target)
    line = unit.files[1].content.splitlines()[-1]
    words = shlex.split(line.removeprefix("exec "))
    assert words[0] == target.facts.python
    paths = [target.facts.package_root, "/srv/state/run/web.pid", "/srv/state/run/.web.daemon"]
    assert words[-6:] == [*paths, "/bin/webd", "-D", "a b"]
    assert (unit.mode, unit.pid_file) == ("daemon", "/srv/state/run/web.pid")


@pytest.mark.parametrize(("disabled", "user"), [(True, None), (False, "web")])
def test_user(target: Target, disabled: bool, user: str | None) -> None:  # noqa: FBT001
    """The user is switched where that is allowed, and only there."""
    process = create_managed_process(name="web", process="/bin/web", user="web")
    told = replace(target, force_disable_user_change=disabled)
    unit = MANAGER.unit("key", ProcessesModel({"key": Instance(process)}), told)
    assert program_of(unit).get("user") == user


@pytest.mark.parametrize("nice", [None, 3])
def test_daemon_of_a_user(target: Target, nice: int | None) -> None:
    """The proxy of a daemon stays root, which may run any interpreter, and starts the daemon as its user."""
    process = create_managed_process(name="web", daemon="/bin/webd", user="web", nice=nice)
    told = replace(target, force_disable_user_change=False)
    unit = MANAGER.unit("key", ProcessesModel({"key": Instance(process)}), told)
    words = shlex.split(unit.files[1].content.splitlines()[-1].removeprefix("exec "))
    assert words[0] == target.facts.python
    level = ["/usr/bin/nice", "-n", "3"] if nice else []
    switch = ["/usr/bin/setpriv", "--reuid=web", "--regid=web", "--init-groups", "--"]
    assert words[words.index("/srv/state/run/.web.daemon") + 1 :] == [*level, *switch, "/bin/webd"]
    assert "user" not in program_of(unit)


@pytest.mark.parametrize(
    "override",
    [{"autorestart": "true", "startsecs": 3}, lambda parameters: parameters | {"autorestart": "true", "startsecs": 3}],
)
def test_overrides(generate: Callable[..., Unit], override: Any) -> None:
    """A mapping or a function changes the lines of the section, and the other lines stay."""
    settings = program_of(generate(overrides={"supervisord": override}))
    assert (settings["autorestart"], settings["startsecs"], settings["autostart"]) == ("true", "3", "false")


@pytest.mark.parametrize(
    ("override", "named", "remedy"),
    [
        ({"autorestrat": "true"}, "'autorestrat' is no parameter", "did you mean 'autorestart'?"),
        ({"autorestart": "maybe"}, "'autorestart' is 'maybe', which is not true or false, or unexpected", ""),
        ({"autorestart": "unexpectedx"}, "'autorestart' is 'unexpectedx'", "did you mean 'unexpected'?"),
        ({"numprocs": 2}, "'numprocs' is 2, and a deployment knows", "describe an instance for each process"),
        (
            {"process_name": "%(program_name)s_%(process_num)02d"},
            "'process_name' is '%(program_",
            "an instance for each",
        ),
        ({"stopsignal": "KILLME"}, "'stopsignal' is 'KILLME'", "did you mean 'KILL'?"),
        ({"priority": "high"}, "'priority' is 'high', which is not a whole number", ""),
        ({"umask": "9"}, "'umask' is '9', which is not octal digits", ""),
        ({"exitcodes": "0,256"}, "'exitcodes' is '0,256', which is not exit statuses", ""),
        ({"stdout_logfile_maxbytes": "1TB"}, "'stdout_logfile_maxbytes' is '1TB', which is not a number of bytes", ""),
        ({"directory": "%(heer)s"}, "'directory' is '%(heer)s', in which 'heer' cannot be expanded", "known are"),
        ({"directory": "50%"}, "'directory' is '50%', which cannot be expanded", "write '%%' for '%'"),
        ({"directory": {"a": "b"}}, "'directory' is {'a': 'b'}", ""),
        ({"command": None}, "'command' is None, which is not a command line", ""),
        ({"environment": 'A="1",B'}, "'environment' is 'A=\"1\",B', which is not variables", "write a mapping"),
        ({"environment": ["A=1"]}, "'environment' is ['A=1'], which is not variables", "write a mapping"),
        ({"environment": {"A-B": "1"}}, "'environment' has the name 'A-B'", "use letters"),
        ({"environment": {"A": "a\nb"}}, "'environment.A' is 'a\\nb', which cannot stand", "process's own environment"),
        ({"stopasgroup": True, "killasgroup": False}, "(stopasgroup) and not killed (killasgroup)", "killasgroup"),
    ],
)
def test_overrides_that_are_refused(
    generate: Callable[..., Unit], override: dict[str, Any], named: str, remedy: str
) -> None:
    """What supervisord would ignore, or not start with, is refused by name, with what was meant or is to be done."""
    with pytest.raises(Unsupported) as caught:
        generate(overrides={"supervisord": override})
    assert named in caught.value.brief
    assert remedy in caught.value.remedy


def test_overrides_as_supervisord_takes_them(generate: Callable[..., Unit]) -> None:
    """Values in all forms that supervisord reads are written as they are; a setting of no value is left out."""
    override = {
        "autorestart": True,
        "startsecs": 3,
        "startretries": "%(ENV_RETRIES)s",
        "exitcodes": "0, 2",
        "stopsignal": "int",
        "umask": "027",
        "numprocs": 1,
        "stdout_logfile": "%(here)s/%(program_name)s-%(process_num)02d.log",
        "stdout_logfile_maxbytes": "1MB",
        "stdout_syslog": "off",
        "redirect_stderr": None,
    }
    lines = generate(overrides={"supervisord": override}).files[0].content.splitlines()
    assert {f"{name}={value}" for name, value in override.items() if value is not None} <= set(lines)
    assert not [line for line in lines if line.startswith("redirect_stderr=")]


@pytest.mark.parametrize(
    "override",
    [
        {"environment": {"B": 2, "A": "3"}},
        lambda given: {**given, "environment": {**given["environment"], "B": "2", "A": "3"}},
    ],
)
@pytest.mark.parametrize("initialize", ["", "true"])
def test_variables(generate: Callable[..., Unit], override: Any, initialize: str) -> None:
    """A mapping of variables is merged with the process's, in a section as in a launch script."""
    given = {"environment": {"A": "1", "C": "4"}, "initialize": initialize}
    unit = generate(**given, overrides={"supervisord": override})
    if initialize:
        assert {"export A=3", "export B=2", "export C=4"} <= set(unit.files[1].content.splitlines())
        assert "environment" not in program_of(unit)
    else:
        variables = environment_of(program_of(unit))
        assert {name: variables[name] for name in "ABC"} == {"A": "3", "B": "2", "C": "4"}


def test_variables_as_text(generate: Callable[..., Unit]) -> None:
    """Text takes the place of all variables, as supervisord reads it."""
    settings = program_of(generate(overrides={"supervisord": {"environment": 'A="b c",D="%(here)s"'}}))
    assert environment_of(settings) == {"A": "b c", "D": "/srv/profile"}


def test_tags_cannot_be_overridden(generate: Callable[..., Unit]) -> None:
    """The last word about the tags is ours."""
    variables = {"NIXPROC_DEPLOYMENT": "other", "NIXPROC_INSTANCE": "other"}
    found = environment_of(program_of(generate(overrides={"supervisord": {"environment": variables}})))
    assert {name: found[name] for name in variables} == {"NIXPROC_DEPLOYMENT": "/srv", "NIXPROC_INSTANCE": "key"}


@pytest.mark.parametrize("value", ["a\nb", "ü", "a ;b", "a #b"])
def test_override_that_cannot_stand_in_a_line(generate: Callable[..., Unit], value: str) -> None:
    """A value that would not survive the file is refused, not written."""
    with pytest.raises(Unsupported, match="cannot stand in its configuration"):
        generate(overrides={"supervisord": {"stdout_logfile": value}})


@pytest.mark.parametrize("name", ["web app", "web:app", "web]app", "wéb", "web,app", "50%"])
def test_hostile_name_is_refused_or_survives(generate: Callable[..., Unit], name: str) -> None:
    """A name that supervisor would refuse is refused by us, with the name; any other is too, or survives."""
    from supervisor.datatypes import process_or_group_name

    try:
        unit = generate(name=name)
    except Unsupported as error:
        said = str(error)
    else:
        said = name
        assert process_or_group_name(name) == name
        assert list(sections_of(unit.files[0].content)) == [f"program:{name}"]
    assert name in said


def test_shared_configuration(target: Target) -> None:
    """The daemon has a private socket, no TCP port, and reads our files only."""
    (file,) = SupervisordGenerator().generate_shared(EMPTY, target)
    sections = sections_of(file.content)
    assert file.path == "etc/supervisord.conf"
    assert sections["unix_http_server"] == {"file": "/srv/state/run/supervisord.sock", "chmod": "0700"}
    assert "include" not in sections
    assert "inet_http_server" not in sections


def test_socket_path_has_a_limit(target: Target) -> None:
    """A state directory that is too deep for a socket is refused by its bytes; the last one that fits is not."""
    tail = len("/run/supervisord.sock")
    fits = f"/{'x' * (SOCKET_PATH_LIMIT - tail - 1)}"
    SupervisordGenerator().generate_shared(EMPTY, replace(target, state=StateDirs.under(fits)))
    with pytest.raises(Unsupported, match=r"its socket's path has 96 bytes, sockets allow 95") as caught:
        SupervisordGenerator().generate_shared(EMPTY, replace(target, state=StateDirs.under(f"{fits}x")))
    assert "--nixproc-state-root" in caught.value.remedy


@pytest.mark.parametrize("directory", ["/a%b", "/a[b]", "/a*", "/ü", "/a#b", "/it's"])
def test_place_that_cannot_be_written_down(target: Target, directory: str) -> None:
    """A place whose name would be read as something else is refused with the remedy."""
    for told in (replace(target, directory=directory), replace(target, state=StateDirs.under(directory))):
        with pytest.raises(Unsupported, match="cannot stand in its configuration") as caught:
            SupervisordGenerator().generate_shared(EMPTY, told)
        assert "--nixproc-state-root" in caught.value.remedy


@pytest.mark.parametrize(("programs", "limit"), [(48, "3"), (49, "260")])
def test_limit_of_descriptors(target: Target, programs: int, limit: str) -> None:
    """A limit is named only where the usual one is too low, because each child closes as many descriptors."""
    process = create_managed_process(name="web", process="/bin/web")
    model = ProcessesModel({f"web{number}": Instance(process) for number in range(programs)})
    told = replace(target, facts=replace(target.facts, open_files=256))
    (file,) = SupervisordGenerator().generate_shared(model, told)
    assert sections_of(file.content)["supervisord"]["minfds"] == limit


@pytest.mark.parametrize(
    ("override", "restarts"),
    [
        ({}, False),
        ({"autorestart": "true"}, True),
        ({"autorestart": True}, True),
        ({"autorestart": "unexpected"}, False),
    ],
)
def test_restarts(generate: Callable[..., Unit], override: dict[str, Any], *, restarts: bool) -> None:
    """The unit says whether supervisord starts the program again however it has ended."""
    assert generate(overrides={"supervisord": override}).restarts == restarts
