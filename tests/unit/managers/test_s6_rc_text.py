"""The definitions that the s6-rc generator makes: what their scripts say, and that s6-rc-compile would take them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import pytest

from pytest_nixproc.errors import Unsupported
from pytest_nixproc.managers.s6_rc import MANAGER
from pytest_nixproc.managers.s6_rc.generator import LAUNCHER, SOCKET_PATH_LIMIT, SOURCES, S6RcGenerator
from pytest_nixproc.managers.s6_rc.parameters import PARAMETERS
from pytest_nixproc.managers.s6_rc.service_state import ServiceState, service_states
from pytest_nixproc.managers.s6_rc.syntax import NAME_BYTES, quote, service_name, words
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import SCRIPT, Unit

EMPTY = ProcessesModel({})
FILES: Final = {
    "bundle": {"contents.d/"},
    "oneshot": {"up", "down", "dependencies.d/", "flag-essential", "timeout-up", "timeout-down"},
    "longrun": {
        *("run", "finish", "notification-fd", "timeout-kill", "timeout-finish", "max-death-tally", "down-signal"),
        *("data/", "env/", "producer-for", "consumer-for", "pipeline-name"),
        *("dependencies.d/", "flag-essential", "timeout-up", "timeout-down"),
    },
}
"""What a definition can hold besides its type ("Source format" of s6-rc-compile)."""

SWITCHES: Final = ("flag_essential", "auto_generate_log_service")
"""The parameters that are on or off, whatever is given for them."""

AWKWARD: Final = (
    "web",
    "web-srv",
    "web-log",
    "default",
    "s6rc-x",
    "s6-rc-x",
    "a b",
    "ä",
    "a%b",
    "%64efault",
    "web%2Dlog",
)


@pytest.fixture
def generate(target: Target) -> Callable[..., Unit]:
    """Return a function that generates one process; ``attributes`` are its instance's."""

    def generate(attributes: dict[str, Any] | None = None, at: Target = target, **parameters: Any) -> Unit:
        process = create_managed_process(**{"name": "web", "process": "/bin/web"} | parameters)
        return MANAGER.unit("key", ProcessesModel({"key": Instance(process, **attributes or {})}), at)

    return generate


def texts(unit: Unit) -> dict[str, str]:
    """Return the texts of a unit's files, by their paths below the definitions."""
    own = [file for file in unit.files if file.path.startswith(f"{SOURCES}/")]
    return {file.path.removeprefix(f"{SOURCES}/"): file.content for file in own}


def script_of(unit: Unit, kind: str) -> list[str]:
    """Return the lines of one of a unit's shell scripts."""
    (script,) = (file for file in unit.files if file.path == f"libexec/web.{kind}")
    assert script.mode == SCRIPT
    return script.content.splitlines()


def lexed(text: str) -> list[list[str]]:
    """Read a script as execlineb does ("Syntax of scripts"), as far as ours go: one list of words for each line."""
    lines: list[list[str]] = [[]]
    rest = re.sub(r"\A#!.*\n", "", text)
    while rest:
        if match := re.match(r'"((?:[^"\\]|\\["\\])*)"(?=\s)', rest, re.DOTALL):
            lines[-1].append(re.sub(r"\\(.)", r"\1", match[1], flags=re.DOTALL))
        elif match := re.match(r"[^\s\"\\#]+(?=\s)", rest):
            lines[-1].append(match[0])
        elif match := re.match(r"\s", rest):
            lines += [[]] if match[0] == "\n" else []
        assert match, f"no word: {rest[:80]!r}"
        rest = rest[match.end() :]
    return [line for line in lines if line]


def run_of(unit: Unit) -> list[list[str]]:
    """Return the commands of a unit's program."""
    return lexed(texts(unit)["web-srv/run"])


def test_every_byte_can_be_quoted() -> None:
    """All but NUL stands in a word, alone and together."""
    everything = "".join(chr(number) for number in range(1, 256)) + "\udcff\u65e5{}"
    values = ["", " ", "{", "}", "#", "$x", "${x}", "\\", '"', "\\n", "\\0x41", "a\\\nb", everything, everything[::-1]]
    assert lexed(words(values) + "\n") == [values]
    assert quote("/usr/bin/web-1.2") == "/usr/bin/web-1.2"


def test_plain_process(generate: Callable[..., Unit]) -> None:
    """A script sets up what surrounds the program, and becomes it."""
    unit = generate(args=["-p", 80], environment={"A": "1"}, directory="/srv", umask="0027", nice=3)
    assert run_of(unit) == [
        ["fdmove", "-c", "2", "1"],
        ["execline-umask", "0027"],
        ["execline-cd", "/srv"],
        ["/bin/sh", "/srv/profile/libexec/web.enter", "/usr/bin/nice", "-n", "3", "/bin/web", "-p", "80"],
    ]
    assert script_of(unit, "enter") == [
        "#!/bin/sh",
        "export PATH=/usr/local/bin:/usr/bin:/bin",
        "export A=1",
        "export NIXPROC_DEPLOYMENT=/srv",
        "export NIXPROC_INSTANCE=key",
        'exec "$@"',
    ]
    assert (unit.name, unit.mode, unit.pid_file) == ("web", "foreground", None)
    assert unit.log_file == "/srv/state/log/nixproc-web.log"


def test_hostile_values(generate: Callable[..., Unit], hostile: str) -> None:
    """What other syntaxes take for their own arrives as it is; variables, which may be secret, are no arguments."""
    unit = generate(args=[hostile, ""], environment={"X": hostile, "E": ""}, directory=f"/{hostile}")
    *_, directory, last = run_of(unit)
    assert directory == ["execline-cd", f"/{hostile}"]
    assert last == ["/bin/sh", "/srv/profile/libexec/web.enter", "/bin/web", hostile, ""]
    assert f"export X={shlex.quote(hostile)}\nexport E=''\n" in "\n".join(script_of(unit, "enter"))


def test_initialize_comes_first(generate: Callable[..., Unit], target: Target) -> None:
    """It runs with the variables, in the root directory, before the user is switched; its failure is told."""
    at = replace(target, force_disable_user_change=False)
    unit = generate(at=at, initialize="mkdir '/x y'", directory="/x y", user="web", environment={"A": "b c"})
    lines = run_of(unit)
    assert [line[0] for line in lines] == [
        "fdmove",
        "execline-umask",
        "execline-cd",
        "if",
        "execline-cd",
        "/bin/sh",
    ]
    assert lines[2] == ["execline-cd", "/"]
    assert lines[3] == ["if", "{", "/bin/sh", "/srv/profile/libexec/web.initialize", "}"]
    *_, variable, _, _, last = script_of(unit, "initialize")
    assert variable == "export A='b c'"
    assert last.startswith("NIXPROC_TEXT='mkdir '\"'\"'/x y'\"'\"'' /bin/sh -ec ")
    assert "initialize failed" in last
    assert lines[4] == ["execline-cd", "/x y"]
    assert lines[5][-6:] == ["/usr/bin/setpriv", "--reuid=web", "--regid=web", "--init-groups", "--", "/bin/web"]


def test_daemon_runs_behind_the_proxy(generate: Callable[..., Unit]) -> None:
    """A program that is a daemon only is supervised through the proxy, which is told its PID file and its note."""
    unit = generate(process=None, daemon="/bin/webd", daemon_args=["-D"])
    paths = ["/usr/lib/python3/dist-packages", "/srv/state/run/web.pid", "/srv/state/run/.web.daemon"]
    assert run_of(unit)[-1][-5:] == [*paths, "/bin/webd", "-D"]
    assert (unit.mode, unit.pid_file) == ("daemon", "/srv/state/run/web.pid")


def test_companion(generate: Callable[..., Unit]) -> None:
    """A program is joined to a companion that copies its output into the log; both are one bundle."""
    found = texts(generate(instance_name="it's"))
    assert found["web-srv/producer-for"] == "web-log\n"
    assert found["web-log/consumer-for"] == "web-srv\n"
    assert found["web-log/pipeline-name"] == "web\n"
    assert lexed(found["web-log/run"]) == [["redirfd", "-a", "1", "/srv/state/log/nixproc-it's.log"], ["cat"]]
    assert "web/type" not in found


def test_companion_of_a_script(generate: Callable[..., Unit]) -> None:
    """With directives, it is s6-log, which says when it is ready."""
    found = texts(generate(overrides={"s6-rc": {"logScript": ["t", "1", "/var/log/web dir"]}}))
    assert lexed(found["web-log/run"])[1] == ["s6-log", "-b", "-d3", "-l0", "--", "t", "1", "/var/log/web dir"]
    assert found["web-log/notification-fd"] == "3\n"


def test_without_companion(generate: Callable[..., Unit]) -> None:
    """A program can write its log by itself."""
    unit = generate(overrides={"s6-rc": {"autoGenerateLogService": False}})
    found = texts(unit)
    assert run_of(unit)[:2] == [
        ["redirfd", "-a", "1", "/srv/state/log/nixproc-web.log"],
        ["fdmove", "-c", "2", "1"],
    ]
    assert not [path for path in found if path.startswith("web-log/")]
    assert {"web/type", "web/contents.d/web-srv"} <= found.keys()


def test_settings(generate: Callable[..., Unit]) -> None:
    """Crashed programs stay down, and what does not stop is killed later than the deployment would."""
    found = texts(generate())
    assert found["web-srv/finish"] == "#!/bin/sh\nexit 125\n"
    assert found["web-srv/timeout-kill"] == "10000\n"
    assert texts(generate({"stop_timeout": 1.5}))["web-srv/timeout-kill"] == "6500\n"
    scripts = {f"{SOURCES}/{path}" for path in ("web-srv/run", "web-srv/finish", "web-log/run")}
    assert {file.path for file in generate().files if file.mode == SCRIPT} == {*scripts, "libexec/web.enter"}


@pytest.mark.parametrize("is_function", [False, True])
def test_overrides(generate: Callable[..., Unit], *, is_function: bool) -> None:
    """A mapping or a function changes what is written, each into its file."""
    changes: dict[str, Any] = {
        "finish": None,
        "notification_fd": 4,
        "timeout_up": 5,
        "timeout_down": "6",
        "timeout_kill": 0,
        "timeout_finish": 7,
        "max_death_tally": 8,
        "down_signal": "SIGINT",
        "flag_essential": True,
        "data": {"a": "b"},
        "env": {"C": "d\n"},
        "consumer_for": ["other"],
        "dependencies": ("first", "se cond"),
        "pipeline_name": "whole",
    }
    override = (lambda parameters: parameters | changes) if is_function else changes
    found = texts(generate(overrides={"s6-rc": override}))
    wanted = {
        "notification-fd": "4\n",
        "timeout-up": "5\n",
        "timeout-down": "6\n",
        "timeout-kill": "0\n",
        "timeout-finish": "7\n",
        "max-death-tally": "8\n",
        "down-signal": "SIGINT\n",
        "flag-essential": "",
        "data/a": "b",
        "env/C": "d\n",
        "consumer-for": "other-srv\n",
        "dependencies.d/first": "",
        "dependencies.d/se%20cond": "",
    }
    assert found | {f"web-srv/{name}": text for name, text in wanted.items()} == found
    assert "web-srv/finish" not in found
    assert lexed(found["web-srv/run"])[0] == ["s6-envdir", "env"]
    assert found["web-log/pipeline-name"] == "whole\n"
    assert {"web/contents.d/web-srv", "web/contents.d/web-log"} <= found.keys()


def test_own_scripts(generate: Callable[..., Unit]) -> None:
    """``run`` and ``finish`` can be anything that is executed."""
    found = texts(generate(overrides={"s6-rc": {"run": "#!/bin/sh\nexec web\n", "finish": "#!/bin/sh\n"}}))
    assert (found["web-srv/run"], found["web-srv/finish"]) == ("#!/bin/sh\nexec web\n", "#!/bin/sh\n")


@pytest.mark.parametrize("override", [{"type": "oneshot"}, {"up": "/bin/up 'x'"}, {"down": "/bin/down"}])
def test_oneshot(generate: Callable[..., Unit], override: dict[str, str]) -> None:
    """A daemon can be a oneshot, whose command lines are ours or others'."""
    found = texts(generate(process=None, daemon="/bin/webd", overrides={"s6-rc": override}))
    assert found["web-srv/type"] == "oneshot\n"
    assert {"web/type", "web/contents.d/web-srv"} <= found.keys()
    assert "web-srv/run" not in found
    if "up" in override:
        assert found["web-srv/up"] == override["up"]
    else:
        up = lexed(found["web-srv/up"])
        assert up[0] == ["redirfd", "-a", "1", "/srv/state/log/nixproc-web.log"]
        assert up[-1][-1] == "/bin/webd"
    if "down" in override:
        assert found["web-srv/down"] == override["down"]
    else:
        (down,) = lexed(found["web-srv/down"])
        assert down[-3:] == ["/srv/state/run/web.pid", "NIXPROC_DEPLOYMENT=/srv", "TERM"]


def test_oneshot_of_a_foreground_program(generate: Callable[..., Unit]) -> None:
    """What stays in the foreground would keep s6-rc waiting for ever."""
    with pytest.raises(Unsupported, match="stays in the foreground") as caught:
        generate(overrides={"s6-rc": {"type": "oneshot"}})
    assert "'up'" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("type", "bundle"), ("timeout_kill", -1), ("timeout_up", "1s"), ("notification_fd", 0)),
        *(("flag_essential", "no"), ("auto_generate_log_service", "no"), ("down_signal", "TREM")),
        *(("max_death_tally", True), ("down_signal", "TERM\n9"), ("data", {"a/b": ""}), ("env", {".x": ""})),
        *(("env", "A=b"), ("run", "a\0b"), ("finish", 125), ("log_script", "t 1"), ("consumer_for", "web")),
        *(("dependencies", [1]), ("producer_for", "a/b"), ("pipeline_name", "")),
    ],
)
def test_override_that_cannot_be_written(generate: Callable[..., Unit], name: str, value: object) -> None:
    """A value of another kind, or a parameter that there is not, is refused by name."""
    with pytest.raises(Unsupported, match=f"its override '{name}' is "):
        generate(overrides={"s6-rc": {name: value}})


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_parameter_is_read(generate: Callable[..., Unit], name: str) -> None:
    """None that the documentation lists is ignored: each is refused when it is something else altogether."""
    with pytest.raises(Unsupported, match=name):
        generate(overrides={"s6-rc": {name: object()}})


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_is_read(generate: Callable[..., Unit], name: str) -> None:
    """Those that any value turns on or off make other definitions in the two cases."""
    on, off = (texts(generate(overrides={"s6-rc": {name: value}})) for value in (True, False))
    assert on != off


def test_names_are_never_those_of_others(generate: Callable[..., Unit]) -> None:
    """No name makes a service that is reserved, or a part of another one."""
    parts = [part for name in AWKWARD for part in services(texts(generate(name=name))) if part != "default"]
    assert len(parts) == len(set(parts))
    assert not [part for part in parts if part.startswith((".", "s6rc-", "s6-rc-"))]
    assert service_name("web-1.local_x") == "web-1.local_x"


def test_name_has_a_limit(generate: Callable[..., Unit]) -> None:
    """The name of a pipe has one, and with it that of a process."""
    generate(name="x" * NAME_BYTES)
    for name in ("x" * (NAME_BYTES + 1), "ä" * (NAME_BYTES // 6 + 1)):
        with pytest.raises(Unsupported, match=f"more than {NAME_BYTES} bytes"):
            generate(name=name)


def services(found: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the definitions, each with its files; what lies in a directory of theirs is that directory's."""
    definitions: dict[str, dict[str, str]] = {}
    for path, text in found.items():
        name, _, file = path.partition("/")
        definitions.setdefault(name, {})[file] = text
    return definitions


def bundles(definitions: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Yield the names of all bundles, those that pipelines have too."""
    for name, files in definitions.items():
        if files["type"] == "bundle\n":
            yield name
        if "pipeline-name" in files:
            yield files["pipeline-name"].strip()


def test_definitions_have_the_documented_format(scenario: tuple[str, ProcessesModel], target: Target) -> None:
    """Every definition has a type, what that needs, nothing else, and names others that are there."""
    _, model = scenario
    generator = S6RcGenerator()
    units = [MANAGER.unit(key, model, target) for key in model]
    shared = {file.path: file.content for file in generator.generate_shared(model, target) if file.path != LAUNCHER}
    found = {path.removeprefix(f"{SOURCES}/"): text for path, text in shared.items()}
    for unit in units:
        found |= texts(unit)
    definitions = services(found)
    known = [*definitions, *bundles(definitions)]
    for name, files in definitions.items():
        kind = files["type"].removesuffix("\n")
        assert files["type"] == f"{kind}\n"
        assert {file.partition("/")[0] + "/" * ("/" in file) for file in files} <= FILES[kind] | {"type"}
        assert {"longrun": "run", "oneshot": "up"}.get(kind, "type") in files
        for file in files:
            directory, _, other = file.partition("/")
            assert directory not in ("contents.d", "dependencies.d") or other in known
        if "producer-for" in files:
            consumer = definitions[files["producer-for"].strip()]
            assert name in consumer["consumer-for"].splitlines()


def test_order(target: Target) -> None:
    """A service depends on what the model says that it needs, by the bundles' names."""
    base = Instance(create_managed_process(name="ba se", process="/bin/base"))
    top = Instance(create_managed_process(name="top", process="/bin/top", dependencies=[base]))
    unit = MANAGER.unit("b", ProcessesModel({"a": base, "b": top}), target)
    assert "top-srv/dependencies.d/ba%20se" in texts(unit)


@pytest.mark.parametrize(("count", "options"), [(1, ""), (250, ""), (251, "-C 1004 ")])
def test_launcher(target: Target, count: int, options: str) -> None:
    """s6-svscan is told how many it has to look after, where that is more than usual."""
    process = create_managed_process(name="web", process="/bin/web")
    model = ProcessesModel({f"web{number}": Instance(process) for number in range(count)})
    told = replace(target, state=StateDirs.under("/it's"))
    (launcher,) = [file for file in S6RcGenerator().generate_shared(model, told) if file.path == LAUNCHER]
    place = "'/it'\"'\"'s/run/service'"
    ready = "'/it'\"'\"'s/run/s6-svscan.pid'"
    assert launcher.content.splitlines()[-1] == f"exec s6-svscan -d 3 {options}-- {place} 3>> {ready}"
    assert launcher.mode == 0o700


def test_empty_model(target: Target) -> None:
    """A bundle of nothing would not be taken: without instances, there is none."""
    assert [file.path for file in S6RcGenerator().generate_shared(EMPTY, target)] == [LAUNCHER]


def test_socket_path_has_a_limit(target: Target) -> None:
    """A state directory that is too deep for the sockets is refused by its bytes; the last one that fits is not."""
    tail = len("/run/s6/servicedirs/s6rc-fdholder/s")
    fits = f"/{'x' * (SOCKET_PATH_LIMIT - tail - 1)}"
    S6RcGenerator().generate_shared(EMPTY, replace(target, state=StateDirs.under(fits)))
    with pytest.raises(Unsupported, match=f"more than {SOCKET_PATH_LIMIT} bytes") as caught:
        S6RcGenerator().generate_shared(EMPTY, replace(target, state=StateDirs.under(f"{fits}x")))
    assert "--nixproc-state-root" in caught.value.remedy


def test_what_s6_svstat_shows() -> None:
    """One line a service, and an empty one for what nobody supervises."""
    shown = "true true 42 -1 -1\nfalse true -1 3 -1\nfalse false -1 -1 9\n\nfalse false -1 -1 -1\n"
    assert service_states(shown) == [
        ServiceState(pid=42),
        ServiceState(is_settled=False, exit_status=3),
        ServiceState(exit_status=-9),
        ServiceState(is_supervised=False),
        ServiceState(exit_status=-1),
    ]
