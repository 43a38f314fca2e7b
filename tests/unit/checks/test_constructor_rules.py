"""The rules about constructors: what stays the same although parameters differ is found, and nothing else."""

# ruff: noqa: ARG001, ARG005 - constructors that do not pass a parameter on are what this is about

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_nixproc import Instance, StateDirs, create_managed_process
from pytest_nixproc.checks.constructor import compare, nixproc_checks
from pytest_nixproc.errors import NixprocError
from pytest_nixproc.model.constructors import ConstructorTrial
from pytest_nixproc.model.context import ModelContext
from pytest_nixproc.sources.files import FILES
from pytest_nixproc.sources.python import constructor_of
from pytest_nixproc.values.findings import Finding, Origin

STATE = StateDirs.under("/run/test/var")


def findings(function: Callable[..., Any], params: Mapping[str, Any] | None = None, **trial: Any) -> list[Finding]:
    """Return what all rules find in a constructor."""
    comparison = compare(
        ConstructorTrial(constructor_of(function), **trial), ModelContext(state=STATE, params=params or {}), FILES
    )
    return [finding for rule in nixproc_checks() for finding in rule.constructor(comparison)]


def server(name: str, **parameters: Any) -> Any:
    """Return a process that is right but for what it is given."""
    return create_managed_process(**({"name": name, "process": "/usr/bin/server"} | parameters))


def right(state: StateDirs, *, port: int = 5000, instance_suffix: str = "", instance_name: str | None = None) -> Any:
    """Pass everything on."""
    name = instance_name or f"server{instance_suffix}"
    return server(
        name,
        args=["--port", port, f"--listen=127.0.0.1:{port}", "--jobs", 4],
        environment={"PORT": port, "PID_FILE": f"{state.tmp_dir}/{name}.pid", "LANG": "C"},
        initialize=f"mkdir -p {state.lib_dir}/servers/{name} {state.lib_dir}/servers\nlisten_on={port}\n",
        directory=state.lib_dir,
        user=name,
        credentials={"groups": {name: {}}, "users": {name: {"group": name, "home_dir": f"{state.lib_dir}/{name}"}}},
        overrides={"supervisord": {"priority": 5}},
    )


def test_right_constructor_has_no_findings() -> None:
    """Names by suffix or by name, shared programs, levels and parent directories are no conflict."""
    assert findings(right) == []


FAULTS: dict[str, tuple[Callable[..., Any], str, str, str]] = {
    "name": (lambda *, port, instance_suffix="": server("web", args=["-p", port, instance_suffix]),
             "NP401", "the name web", "derive it from instance_suffix"),
    "instance name": (lambda *, instance_suffix: server(f"web{instance_suffix}", instance_name="web"),
                      "NP401", "the name web", "derive it from instance_suffix"),
    "port in the environment": (
        lambda *, port, instance_suffix: server(f"w{instance_suffix}", environment={"PORT": 80}),
        "NP402", "does not pass port on: every instance", "derive it from port"),
    "port in an argument": (lambda *, port, instance_suffix: server(f"w{instance_suffix}", args=["--port=5000"]),
                            "NP402", "TCP port 5000", "derive it from port"),
    "port after its option": (lambda *, port, instance_suffix: server(f"w{instance_suffix}", args=["-p", 5000]),
                              "NP402", "TCP port 5000", "derive it from port"),
    "default that is written out": (
        lambda *, port=5432, instance_suffix: server(f"w{instance_suffix}", args=["start 5432 now"]),
        "NP402", "does not pass port on", "derive it from port"),
    "second listener": (
        lambda *, port, instance_suffix: server(f"w{instance_suffix}", args=[port, "--admin", "127.0.0.1:9000"]),
        "NP402", "every instance of <lambda> has TCP port 9000", "derive it from port"),
    "port of an instance": (lambda *, instance_suffix: Instance(server(f"w{instance_suffix}"), port=81),
                            "NP402", "TCP port 81", "add a parameter for it: port"),
    "port in an override": (
        lambda *, instance_suffix: server(f"w{instance_suffix}", overrides={"docker": {"container": {"port": 81}}}),
        "NP402", "TCP port 81", "add a parameter for it: port"),
    "port in shell text": (
        lambda *, port, instance_suffix: server(
            f"w{instance_suffix}", initialize=f"echo {port}\necho 'listen: 8080'\n"),
        "NP402", "TCP port 8080", "derive it from port"),
    "PID file": (lambda state, *, instance_suffix: server(f"w{instance_suffix}", pid_file=f"{state.tmp_dir}/w.pid"),
                 "NP403", "/run/test/var/tmp/w.pid", "derive it from instance_suffix"),
    "socket in the environment": (
        lambda state, *, instance_suffix: server(f"w{instance_suffix}", environment={"S": f"unix:{state.tmp_dir}/s"}),
        "NP403", "the path /run/test/var/tmp/s", "derive it from instance_suffix"),
    "log in /tmp": (lambda *, instance_suffix: server(f"w{instance_suffix}", args=["--log", "/tmp/web.log"]),
                    "NP403", "the path /tmp/web.log", "derive it from instance_suffix"),
    "data directory": (
        lambda state, *, instance_name: server(instance_name, args=["-D", f"{state.lib_dir}/a b'c"]),
        "NP403", "/run/test/var/lib/a b'c", "derive it from instance_name"),
    "quoted path in shell text": (
        lambda state, *, instance_name: server(instance_name, initialize=f"cd '{state.lib_dir}/a b'; touch x"),
        "NP403", "/run/test/var/lib/a b", "derive it from instance_name"),
    "working directory": (
        lambda state, *, instance_suffix: server(f"w{instance_suffix}", directory=f"{state.lib_dir}/web"),
        "NP403", "/run/test/var/lib/web", "derive it from instance_suffix"),
    "home": (
        lambda state, *, instance_suffix: server(
            f"w{instance_suffix}",
            credentials={"users": {f"w{instance_suffix}": {"home_dir": f"{state.lib_dir}/web"}}}),
        "NP403", "/run/test/var/lib/web", "derive it from instance_suffix"),
    "user": (lambda *, instance_suffix: server(f"w{instance_suffix}", user="web"),
             "NP404", "the account web", "derive it from instance_suffix"),
    "user id": (
        lambda *, instance_suffix: server(
            f"w{instance_suffix}", credentials={"users": {f"w{instance_suffix}": {"uid": 3000}}}),
        "NP404", "the account uid 3000", "derive it from instance_suffix"),
    "idle parameter": (lambda *, instance_suffix, verbose=False: server(f"w{instance_suffix}"),
                       "NP405", "does nothing with its parameter verbose", "pass it on, or remove it"),
    "idle port": (lambda *, instance_suffix, port: server(f"w{instance_suffix}"),
                  "NP405", "does nothing with its parameter port", "pass it on, or remove it"),
    "port that is only declared": (lambda *, instance_suffix, port: Instance(server(f"w{instance_suffix}"), port=port),
                                   "NP405", "does nothing with its parameter port", "pass it on, or remove it"),
    "one of two ports": (
        lambda *, instance_suffix, port=5000, admin_port=9000: server(
            f"w{instance_suffix}", args=["-p", port, "--admin-port", 9000]),
        "NP402", "does not pass admin_port on", "derive it from admin_port"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults(fault: str) -> None:
    """Each fault is found by the rule that is meant, by no other, and names the parameter."""
    function, code, problem, remedy = FAULTS[fault]
    (finding,) = findings(function)
    assert finding.code == code
    assert problem in finding.problem
    assert finding.remedy == remedy
    assert len(finding.instances) == 2


def test_places_are_named() -> None:
    """A finding says where the value stands, with the line of a text that has several."""
    function = FAULTS["port in shell text"][0]
    (finding,) = findings(function)
    (origin,) = finding.origins
    assert isinstance(origin, Origin)
    assert (origin.path, origin.value) == ("pkg.initialize, line 2", "echo 'listen: 8080'")
    assert origin.location is not None
    assert origin.location.file == __file__
    assert finding.resource == "tcp port 8080"


def configured(text: str, suffix: str = ".conf") -> Callable[[Path], Callable[..., Any]]:
    """Return what makes a constructor whose programs read a configuration file with a text."""

    def made(directory: Path) -> Callable[..., Any]:
        path = directory / f"server{suffix}"
        path.write_text(text.replace("HERE", str(directory)), encoding="utf-8")
        (directory / "more.conf").write_text("log = /run/test/var/log/all.log\n", encoding="utf-8")

        def configured_server(state: StateDirs, *, port: int, instance_suffix: str = "") -> Any:
            return server(f"w{instance_suffix}", args=["--config", path, port])

        return configured_server

    return made


@pytest.mark.parametrize(
    ("constructor", "expected"),
    [
        (configured("[server]\nport = 5432\n"), [("NP402", "TCP port 5432")]),
        (configured("listen 127.0.0.1:80;"), [("NP402", "TCP port 80")]),
        (configured('{"logFile": "/run/test/var/log/it.log"}', ".json"), [("NP403", "/run/test/var/log/it.log")]),
        (configured("include HERE/more.conf;"), [("NP403", "/run/test/var/log/all.log")]),
        (configured("# port = 5432\n; listen 80\nworkers 4\n"), []),
        (configured("port = 5432", ".txt"), [("NP402", "TCP port 5432")]),
        (configured("port = 5432\0"), []),
    ],
)
def test_configuration_files(
    constructor: Callable[[Path], Callable[..., Any]], expected: list[tuple[str, str]], tmp_path: Path
) -> None:
    """Files that instances are told to read are looked at, and the files that these include; not their comments."""
    found = findings(constructor(tmp_path))
    named = [finding.problem.split(" has ")[1].removeprefix("the path ") for finding in found]
    assert list(zip([finding.code for finding in found], named, strict=True)) == expected


def test_what_is_shared_is_no_conflict() -> None:
    """Ports and paths of what all instances are given alike may stay the same."""
    database = Instance(server("database", environment={"S": "/run/test/var/run/db.sock"}), port=5432)

    def client(*, instance_suffix: str, database: Instance, backend: str) -> Any:
        return server(
            f"client{instance_suffix}",
            args=[f"--backend=127.0.0.1:{database.port}", "/run/test/var/run/db.sock", f"--port={backend}"],
        )

    assert findings(client, params={"backend": "9000"}, shared=lambda _: {"database": database}) == []


def test_given_values_are_used() -> None:
    """Values of one's own replace those that are derived; there are as many instances as values."""

    def named(*, level: str, port: int) -> Any:
        return server(f"w-{level}", args=[port])

    trial = ConstructorTrial(constructor_of(named), vary={"level": ["low", "mid", "high"]})
    comparison = compare(trial, ModelContext(state=STATE), FILES)
    assert [variant.name for variant in comparison.schemes[0]] == ["w-low", "w-mid", "w-high"]
    assert len({variant.values["port"] for variant in comparison.schemes[0]}) == 3
    assert comparison.hard_coded == ()


def broken(*, instance_suffix: str) -> Any:
    """Raise."""
    raise ValueError("spilt")


@pytest.mark.parametrize(
    ("function", "trial", "message"),
    [
        (lambda *, thing: server("a"), {}, "nothing is known about the values of 'thing'"),
        (right, {"vary": {"colour": [1, 2]}}, "there is no parameter 'colour'"),
        (right, {"vary": {"port": [1]}}, "'port' varies over [1]"),
        (right, {"vary": {"port": "12"}}, "'port' varies over '12'"),
        (right, {"vary": {"port": [7, 7]}}, "which has a value twice"),
        (right, {"vary": {"port": [1, 2], "instance_suffix": ["a", "b", "c"]}}, "differ in length"),
        (right, {"shared": lambda _: {"colour": 1}}, "there is no parameter 'colour'"),
        (right, {"shared": lambda _: {"port": 1}, "vary": {"port": [1, 2]}}, "'port' is shared, and varies"),
        (lambda *, port: 3, {}, "returned int"),
        (broken, {}, "ValueError: spilt"),
    ],
)
def test_nonsense_is_one_clear_error(function: Callable[..., Any], trial: dict[str, Any], message: str) -> None:
    """What makes no sense is refused in words that name the constructor and the parameter."""
    with pytest.raises(NixprocError) as caught:
        findings(function, **trial)
    assert message in str(caught.value)
    assert str(Path(__file__).name) in str(caught.value)


def test_values_that_a_constructor_refuses_are_looked_at() -> None:
    """A parameter of which only some values are allowed is not idle."""

    def picky(*, instance_suffix: str, level: str = "low") -> Any:
        return server(f"w{instance_suffix}", nice={"low": 1}[level])

    assert findings(picky) == []
