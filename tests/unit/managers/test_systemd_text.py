"""The units that the systemd generator makes: what they say, and what they leave to a script or refuse."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pytest_nixproc.errors import Unsupported
from pytest_nixproc.managers.overriding import merged
from pytest_nixproc.managers.systemd import MANAGER
from pytest_nixproc.managers.systemd.directives import DIRECTIVES, KINDS, section_of
from pytest_nixproc.managers.systemd.generator import SOCKET_PATH_LIMIT, SystemdGenerator
from pytest_nixproc.managers.systemd.syntax import command_line, escaped, text_value, word
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.machine import UserEntry
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Unit

EMPTY = ProcessesModel({})
NATIVE = "a b'c\"d%e$f\\g;h#i`j\nk\täö€*?[x]{y}~!&|<>()"


@pytest.fixture
def generate(target: Target) -> Callable[..., Unit]:
    """Return a function that generates one process; ``attributes`` are its instance's."""

    def generate(attributes: dict[str, Any] | None = None, at: Target = target, **parameters: Any) -> Unit:
        process = create_managed_process(**{"name": "web", "process": "/bin/web"} | parameters)
        model = ProcessesModel({"key": Instance(process, **attributes or {})})
        return MANAGER.unit("key", model, at)

    return generate


def directives(unit: Unit) -> dict[str, list[str]]:
    """Return the directives of a unit, each with all of its values."""
    found: dict[str, list[str]] = {}
    for line in unit.files[0].content.splitlines():
        name, is_one, value = line.partition("=")
        if is_one:
            found.setdefault(name, []).append(value)
    return found


def test_plain_process_needs_no_script(generate: Callable[..., Unit]) -> None:
    """What a unit can say, it says."""
    unit = generate(args=["-p", 80], environment={"A": "1"}, directory="/srv", umask="0027", nice=3)
    found = directives(unit)
    assert [file.path for file in unit.files] == ["etc/systemd/system/nixproc-deployment-web.service"]
    assert found["ExecStart"] == ["/bin/web -p 80"]
    assert found["Environment"] == [
        "PATH=/usr/local/bin:/usr/bin:/bin",
        "A=1",
        "NIXPROC_DEPLOYMENT=/srv",
        "NIXPROC_INSTANCE=key",
    ]
    assert (found["WorkingDirectory"], found["UMask"], found["Nice"]) == (["/srv"], ["0027"], ["3"])
    assert (unit.name, unit.mode, unit.pid_file) == ("web", "foreground", None)


def test_values_are_quoted(generate: Callable[..., Unit]) -> None:
    """Everything but other control characters and bytes that are no UTF-8 stands in the unit."""
    unit = generate(args=[NATIVE, "", ";"], environment={"X": NATIVE}, directory="/a b'c\"d%e$f;h")
    quoted = "a b'c\\\"d%%e$f\\\\g;h#i`j\\nk\\täö€*?[x]{y}~!&|<>()"
    found = directives(unit)
    assert len(unit.files) == 1
    assert found["ExecStart"] == [f'/bin/web "{quoted.replace("$", "$$")}" "" ";"']
    assert f'"X={quoted}"' in found["Environment"]
    assert found["WorkingDirectory"] == ["/a b'c\"d%%e$f;h"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"args": ["\x01"]},
        {"args": ["\udcff"]},
        {"args": ["\ufffe"]},
        {"environment": {"X": "\r"}},
        {"environment": {"X": "\x7f"}},
        {"directory": "/a\nb"},
        {"directory": "/a "},
        {"directory": "/a\\"},
        {"directory": "/a/../b"},
        {"directory": "/made", "initialize": "mkdir -p /made"},
        {"process": "/bin/it's"},
        {"process": "/bin/$HOME"},
        {"process": "/bin//web"},
    ],
)
def test_other_process_gets_a_script(generate: Callable[..., Unit], parameters: dict[str, Any]) -> None:
    """What a unit cannot say is said by a script, and only by it; limits and the user stay the unit's."""
    unit = generate(nice=5, **parameters)
    scripts = {file.path: file for file in unit.files[1:]}
    found = directives(unit)
    assert found["ExecStart"] == ["/bin/sh /srv/profile/libexec/web.start"]
    assert found["WorkingDirectory"] == ["/"]
    assert found["Nice"] == ["5"]
    assert scripts["libexec/web.start"].mode == 0o700
    assert "nice" not in scripts["libexec/web.start"].content


def scripts_of(unit: Unit) -> dict[str, tuple[int, str]]:
    """Return who can read the scripts of a unit."""
    return {file.path.rpartition(".")[2]: (file.mode, file.group) for file in unit.files[1:]}


def test_script_can_be_read_by_who_runs_it(generate: Callable[..., Unit], target: Target) -> None:
    """The group of the process's user can read the script that the user runs; nobody else can, whom an override names.

    Who a dynamic user will be is not known.
    """
    facts = replace(target.facts, users=(UserEntry("other", 77, 78),))
    at = replace(target, force_disable_user_change=False, facts=facts)
    options = {"args": ["\udcff"], "initialize": "true"}
    credentials = {"users": {"web": {"group": "staff"}}}
    found = scripts_of(generate(at=at, credentials=credentials, user="web", **options))
    assert found == {"start": (0o750, "staff"), "initialize": (0o700, "")}
    for user, override, expected in (
        ("web", {"User": "other"}, (0o750, "web")),
        (None, {"User": "other"}, (0o750, "78")),
        (None, {"User": "77"}, (0o750, "78")),
        (None, {"User": "other", "Group": "more"}, (0o750, "more")),
        (None, {"User": "unknown"}, (0o700, "")),
        (None, {"DynamicUser": "yes"}, (0o755, "")),
    ):
        found = scripts_of(generate(at=at, user=user, overrides={"systemd": {"Service": override}}, **options))
        assert found == {"start": expected, "initialize": expected}
    assert scripts_of(generate(**options)) == {"start": (0o700, ""), "initialize": (0o700, "")}


def test_initialize_runs_before_and_with_privileges(generate: Callable[..., Unit], target: Target) -> None:
    """``initialize`` is a command before the program; where a user is switched to, it keeps the privileges."""
    credentials = {"users": {"web": {"group": "staff"}}}
    options = {"user": "web", "credentials": credentials, "initialize": "true"}
    without = directives(generate(**options))
    found = directives(generate(at=replace(target, force_disable_user_change=False), **options))
    assert without["ExecStartPre"] == ["/bin/sh /srv/profile/libexec/web.initialize"]
    assert "User" not in without
    assert found["ExecStartPre"] == ["+/bin/sh /srv/profile/libexec/web.initialize"]
    assert (found["User"], found["Group"]) == (["web"], ["staff"])


def test_daemon_is_found_by_the_note_of_its_escort(generate: Callable[..., Unit]) -> None:
    """A program that can only be a daemon is a forking service with an escort, which writes what systemd reads."""
    unit = generate(process=None, daemon="/bin/named", pid_file="/srv/a b/50%.pid")
    found = directives(unit)
    assert found["Type"] == ["forking"]
    assert found["PIDFile"] == ["/srv/state/tmp/.web.daemon"]
    words = '/usr/lib/python3/dist-packages "/srv/a b/50%%.pid" /srv/state/tmp/.web.daemon /bin/named'
    assert found["ExecStart"][0].endswith(words)
    assert unit.pid_file == "/srv/a b/50%.pid"


def test_dependencies_are_required_and_ordered(target: Target) -> None:
    """Dependencies are named by their units; what is in a name is escaped as in all units' names."""
    base = create_managed_process(name="it's-base.1", process="/bin/base")
    top = create_managed_process(name="top", process="/bin/top", dependencies=[base])
    model = ProcessesModel({"base": Instance(base), "top": Instance(top)})
    found = directives(MANAGER.unit("top", model, target))
    assert found["Requires"] == found["After"] == [r"nixproc-deployment-it\x27s\x2dbase.1.service"]


def test_time_to_stop(generate: Callable[..., Unit]) -> None:
    """The limit of a stop is the deployment's, or the instance's own."""
    assert directives(generate())["TimeoutStopSec"] == ["5.000"]
    assert directives(generate(attributes={"stop_timeout": 0.5}))["TimeoutStopSec"] == ["0.500"]


def test_overrides(generate: Callable[..., Unit]) -> None:
    """A mapping changes and adds directives by section; a list repeats one; a function gets all sections."""
    service = {"Restart": "always", "Environment": "MINE=1", "ExecStartPost": ["/bin/a", "/bin/b"], "Nice": 7}
    found = directives(generate(overrides={"systemd": {"Service": service, "Unit": {"Wants": "x.service"}}}))
    assert (found["Restart"], found["Wants"]) == (["always"], ["x.service"])
    assert (found["ExecStartPost"], found["Nice"]) == (["/bin/a", "/bin/b"], ["7"])
    assert found["Environment"] == ["MINE=1", "NIXPROC_DEPLOYMENT=/srv", "NIXPROC_INSTANCE=key"]

    def without_umask(sections: dict[str, Any]) -> dict[str, Any]:
        del sections["Service"]["UMask"]
        return sections | {"X-Mine": {"Key": True}}

    found = directives(generate(overrides={"systemd": without_umask}))
    assert "UMask" not in found
    assert found["Key"] == ["true"]


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ({"Restart": "always"}, "'Restart', which is no section of a service\nfix: write it into 'Service'"),
        ({"Timer": {"OnBootSec": 1}}, "'Timer', which is no section"),
        ({"Service": {"Restart": "no\nExecStart=/bin/other"}}, "Service.Restart"),
        ({"Service": {"Restart": None}}, "Service.Restart to None"),
        ({"Service": {"A=B": "c"}}, "Service.A=B"),
        ({"Service": {"Restart": "no\\"}}, "Service.Restart"),
        ({"Unit": {"Wants": ["a", "b\rc"]}}, "Unit.Wants"),
        ({"Service": {"ExecStart": dict}}, "Service.ExecStart to <class 'dict'>"),
        ({"Service": {"LogExtraFields": {"A": "1"}}}, "Service.LogExtraFields to {'A': '1'}"),
        ({"Service": "Restart=always"}, "'Service' is 'Restart=always', which is not a mapping of directives"),
    ],
)
def test_overrides_that_are_no_directives(generate: Callable[..., Unit], override: dict[str, Any], named: str) -> None:
    """What would not be one line of a section is refused by its name."""
    with pytest.raises(Unsupported, match="^systemd cannot deploy 'web'.*" + re.escape(named)):
        generate(overrides={"systemd": override})


@pytest.mark.parametrize(
    ("section", "override", "named", "remedy"),
    [
        ("Service", {"Restrat": "always"}, "'Service.Restrat' is no directive", "did you mean 'Restart'?"),
        ("Service", {"restart": "always"}, "'Service.restart' is no directive", "did you mean 'Restart'?"),
        ("Install", {"WantedBye": "x"}, "'Install.WantedBye' is no directive", "did you mean 'WantedBy'?"),
        ("Service", {"Wants": "x.service"}, "'Service.Wants' is no directive of that section", "write it into 'Unit'"),
        ("Service", {"Restart": "alwayz"}, "'Service.Restart' is 'alwayz', which is not one of no", "'always'?"),
        ("Service", {"Type": "simpel"}, "'Service.Type' is 'simpel'", "did you mean 'simple'?"),
        ("Service", {"KillSignal": "SIGTREM"}, "'Service.KillSignal' is 'SIGTREM'", "did you mean 'SIGTERM'?"),
        ("Service", {"RemainAfterExit": "maybe"}, "is 'maybe', which is not yes or no", ""),
        ("Service", {"RestartSec": "soon"}, "is 'soon', which is not a time span", ""),
        ("Service", {"RestartSec": "5 parsecs"}, "is '5 parsecs', which is not a time span", ""),
        ("Service", {"UMask": "9"}, "is '9', which is not octal digits", ""),
        ("Service", {"Nice": 20}, "is 20, which is not a whole number from -20 to 19", ""),
        ("Service", {"Type": ["exec", "simpel"]}, "'Service.Type' is 'simpel'", "did you mean 'simple'?"),
        ("Service", {"StandardOutput": "/var/log/x"}, "is '/var/log/x', which is not socket, fd:NAME", ""),
        ("Unit", {"FailureAction": "reboot-now"}, "'Unit.FailureAction' is 'reboot-now'", "reboot"),
        ("Servicex", {}, "'Servicex', which is no section", "did you mean 'Service'?"),
    ],
)
@pytest.mark.parametrize("is_function", [False, True])
def test_overrides_that_systemd_would_ignore(
    generate: Callable[..., Unit],
    section: str,
    override: dict[str, Any],
    named: str,
    remedy: str,
    *,
    is_function: bool,
) -> None:
    """What systemd would not know is refused by section and name, with what was meant."""
    changes = {section: override}
    with pytest.raises(Unsupported) as caught:
        generate(overrides={"systemd": (lambda given: merged(given, changes)) if is_function else changes})
    assert named in caught.value.brief
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("RestartSec", ["5", 5, 0.5, "1min 20s", "1h30m", "100ms", "infinity", "2 weeks", "1.5 s", ""]),
        ("RemainAfterExit", [True, "Yes", "off", 1]),
        ("Type", ["notify-reload", ["", "exec"]]),
        ("KillSignal", ["SIGINT", "INT", 2, "RTMIN+3"]),
        ("StandardOutput", ["journal", "file:/x", "append:%h/x", "fd:name", "socket"]),
        ("UMask", ["0027", "27"]),
        ("ProtectSystem", ["strict", True, "full"]),
        ("StartLimitBurst", [5, "0x10"]),
        ("ExecStart", ["/bin/other %n"]),
        ("X-Own", ["anything"]),
        ("MemoryTHP", ["anything"]),
        ("BlockIOWeight", ["500"]),
    ],
)
def test_overrides_that_systemd_knows(generate: Callable[..., Unit], name: str, values: list[Any]) -> None:
    """Directives of all versions, and values in all forms that systemd reads, are written as they are."""
    for value in values:
        found = directives(generate(overrides={"systemd": {"Service": {name: value}}}))
        items = value if isinstance(value, list) else [value]
        assert found[name] == [str(item).lower() if isinstance(item, bool) else str(item) for item in items]


def test_generated_directives_are_known(generate: Callable[..., Unit]) -> None:
    """What a unit has by itself is what an override may have, so that functions can return it."""
    unit = generate(process=None, daemon="/bin/webd", nice=3, initialize="true", dependencies=[])
    sections: dict[str, list[str]] = {}
    for line in unit.files[0].content.splitlines():
        if line.startswith("["):
            sections[line[1:-1]] = []
        elif line:
            sections[next(reversed(sections))].append(line.partition("=")[0])
    assert {section: set(names) - DIRECTIVES[section] for section, names in sections.items()} == {
        section: set() for section in sections
    }


def test_kinds_are_of_directives() -> None:
    """Each directive whose values are looked at is one."""
    assert [name for name in KINDS if section_of(name) is None] == []


@pytest.mark.parametrize("output", ["journal", "journal+console"])
def test_output_to_the_journal(generate: Callable[..., Unit], output: str) -> None:
    """Where an override sends the output to the journal, the log is what a command shows."""
    unit = generate(overrides={"systemd": {"Service": {"StandardOutput": output}}})
    name = "nixproc-deployment-web.service"
    expected = f"journalctl --quiet --output=cat --all _SYSTEMD_UNIT={name} + _SYSTEMD_USER_UNIT={name}"
    assert unit.log_file == expected
    assert directives(unit)["StandardOutput"] == [output]


def test_tags_cannot_be_overridden(generate: Callable[..., Unit]) -> None:
    """The last word about the tags is ours."""
    unit = generate(
        environment={"NIXPROC_DEPLOYMENT": "model's"},
        overrides={"systemd": {"Service": {"Environment": ["NIXPROC_DEPLOYMENT=other", "NIXPROC_INSTANCE=other"]}}},
    )
    assert directives(unit)["Environment"][-2:] == ["NIXPROC_DEPLOYMENT=/srv", "NIXPROC_INSTANCE=key"]


def test_variables_of_an_own_systemd(generate: Callable[..., Unit]) -> None:
    """What is told to systemd is not passed on, unless a model gives it itself."""
    unit = generate(environment={"SYSTEMD_UNIT_PATH": "/mine"})
    assert directives(unit)["UnsetEnvironment"] == ["SYSTEMD_GENERATOR_PATH SYSTEMD_ENVIRONMENT_GENERATOR_PATH"]


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"name": "ü" * 40}, "255 bytes"),
        ({"instance_name": "\udcff"}, "nixproc-\\udcff.log"),
    ],
)
def test_names_that_no_unit_can_have(generate: Callable[..., Unit], parameters: dict[str, Any], named: str) -> None:
    """A name or a path that cannot stand in a unit is refused."""
    with pytest.raises(Unsupported, match=re.escape(named)):
        generate(**parameters)


@pytest.mark.parametrize("root", ["/a\nb", "/a:b", "/\udcff", "/x/" + "y" * SOCKET_PATH_LIMIT])
def test_places_that_systemd_cannot_use(target: Target, root: str) -> None:
    """A state root that cannot be in a search path, or is too long for a socket, is refused with the path."""
    place = replace(target, directory=f"{root}/profile", state=StateDirs.under(f"{root}/var"))
    with pytest.raises(Unsupported) as caught:
        SystemdGenerator().generate_shared(EMPTY, place)
    assert repr(root)[1:-1] in str(caught.value)
    assert "--nixproc-state-root" in caught.value.remedy


@pytest.mark.parametrize(
    ("text", "expected"),
    # As printed by systemd-escape 252.
    [
        ("a-b", r"a\x2db"),
        (".a.b", r"\x2ea.b"),
        ("a_b", "a_b"),
        ("a b", r"a\x20b"),
        ("ü", r"\xc3\xbc"),
        ("a\\b", r"a\x5cb"),
        ("\udcff", r"\xff"),
    ],
)
def test_escaped_names(text: str, expected: str) -> None:
    """Names are escaped as systemd does, and colons too."""
    assert escaped("a:b") == r"a\x3ab"
    assert escaped(text) == expected


def test_words() -> None:
    """Words that mean themselves are bare, others are quoted; a command line's variables are none."""
    assert [word(value) for value in ("a", "", "a b", "%i", "-x=1")] == ["a", '""', '"a b"', '"%%i"', "-x=1"]
    assert command_line(["/bin/a", "$x", "${y}"]) == '/bin/a "$$x" "$${y}"'


def test_text_for_people_stays_in_its_line() -> None:
    """A description loses what would end or join lines, and specifiers."""
    assert text_value("a\nb\t 50% \x01\\ \\") == "a b 50%% ?"
