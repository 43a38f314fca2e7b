"""Models in configuration files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_nixproc.errors import ModelError, SourceError
from pytest_nixproc.model import ready
from pytest_nixproc.model.context import ModelContext
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.sources.config import read_config

if TYPE_CHECKING:
    from tests.unit.sources.conftest import WriteFile

    ReadText = Callable[..., ProcessesModel]

SYSTEM = {
    "processes": {
        "web": {"port": 5000, "dnsName": "web.local", "pkg": {"name": "web", "process": "/bin/web"}},
        "proxy": {"pkg": {"instanceName": "proxy", "foregroundProcess": "/bin/proxy", "dependencies": ["web"]}},
    }
}

YAML = """
    processes:
      web:
        port: 5000
        dnsName: web.local
        pkg: {name: web, process: /bin/web}
      proxy:
        pkg:
          instanceName: proxy
          foregroundProcess: /bin/proxy
          dependencies: [web]
"""


@pytest.fixture
def read(write_file: WriteFile, context: ModelContext) -> ReadText:
    """Return a function that reads the text of a configuration file, YAML by default."""
    return lambda text, suffix="yaml": read_config(write_file(f"model.{suffix}", text), context)


@pytest.fixture
def pkg(read: ReadText) -> Callable[..., Any]:
    """Return a function that reads one process with some parameters."""
    return lambda **parameters: read(json.dumps({"name": "web", "process": "/bin/web", **parameters}))["web"].pkg


@pytest.fixture
def faults_of(read: ReadText) -> Callable[[str], list[str]]:
    """Return a function that reads a faulty file, and returns its faults."""

    def faults(text: str) -> list[str]:
        with pytest.raises(ModelError) as caught:
            read(text)
        return [str(fault) for fault in caught.value.faults]

    return faults


@pytest.mark.parametrize(("suffix", "text"), [("json", json.dumps(SYSTEM)), ("yaml", YAML), ("yml", YAML)])
def test_system_is_read(read: ReadText, suffix: str, text: str) -> None:
    """JSON and YAML say the same: instances, their attributes, their processes, their dependencies."""
    model = read(text, suffix)
    assert (model["web"].port, model["web"].dns_name) == (5000, "web.local")
    assert model["proxy"].pkg.foreground_process == "/bin/proxy"
    assert model.levels == (("web",), ("proxy",))
    assert model.origin.endswith(f"model.{suffix}")


@pytest.mark.parametrize("text", ["{instanceName: web1, process: /bin/web}", "{name: web1, daemon: /bin/web}"])
def test_single_process_is_a_system_of_one(read: ReadText, text: str) -> None:
    """A file whose top level is a process holds one instance, named by the process."""
    assert list(read(text)) == ["web1"]


def test_placeholders_stand_for_values(pkg: Callable[..., Any]) -> None:
    """Directories, the manager and the user's parameters are put in, wherever a value is, and nowhere else."""
    process = pkg(
        pidFile="${runtimeDir}/web.pid",
        args=["--dir=${stateDir}/${greeting}", "${processManager}"],
        environment={"TMP_FILE": "${tmpDir}/x${greeting}"},
        overrides={"sysvinit": {"description": ["${logDir}"]}},
    )
    assert process.pid_file == "/srv/state/run/web.pid"
    assert process.args == ("--dir=/srv/state/hello", "supervisord")
    assert process.environment == {"TMP_FILE": "/srv/state/tmp/xhello"}
    assert process.overrides == {"sysvinit": {"description": ["/srv/state/log"]}}


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        ("$${stateDir}", "${stateDir}"),
        ("$$${stateDir}", "$${stateDir}"),
        ("$HOME $1 $$ $(x) ${x-1} $", "$HOME $1 $$ $(x) ${x-1} $"),
        ("${unknown}", "${unknown}"),
        ("${greeting}${greeting}", "hellohello"),
    ],
)
def test_other_dollars_are_left_alone(pkg: Callable[..., Any], text: str, read_as: str) -> None:
    """Only known placeholders are replaced, and one can be written literally."""
    assert pkg(args=[text]).args == (read_as,)


def test_names_hold_no_placeholders(faults_of: Callable[[str], list[str]]) -> None:
    """A placeholder in a name stays there, where it is no name."""
    (fault,) = faults_of("{name: web, process: /bin/web, environment: {'${greeting}': x}}")
    assert "has the name '${greeting}'" in fault


def test_values_put_in_are_not_looked_at_again(write_file: WriteFile, context: ModelContext) -> None:
    """A parameter that looks like a placeholder is passed on as it is."""
    path = write_file("model.yaml", "{name: web, process: /bin/web, args: ['${greeting}']}")
    model = read_config(path, replace(context, params={"greeting": "${stateDir}"}))
    assert model["web"].pkg.args == ("${stateDir}",)


def test_placeholder_alone_keeps_the_type(write_file: WriteFile, context: ModelContext) -> None:
    """A value that is nothing but a placeholder is the parameter itself, so that ports can be parameters."""
    path = write_file("model.yaml", "processes: {web: {port: '${port}', pkg: {name: web, process: /bin/web}}}")
    assert read_config(path, replace(context, params={"port": 5001}))["web"].port == 5001


def test_yaml_values_are_what_they_look_like(pkg: Callable[..., Any], read: ReadText) -> None:
    """Numbers and truth values become text where text is wanted; null is the default."""
    process = read("{name: web, process: /bin/web, args: [80, 1.5, yes, '022'], pidFile: null}")["web"].pkg
    assert process.args == ("80", "1.5", "1", "022")
    assert process.pid_file is None
    assert pkg(nice=5).nice == 5


def test_conditions_are_read(read: ReadText) -> None:
    """``ready`` becomes a condition, with its placeholders."""
    model = read("processes: {web: {ready: {file: '${stateDir}/up'}, pkg: {name: web, process: /bin/web}}}")
    assert model["web"].ready == ready.AllOf((ready.file("/srv/state/up"),))


def test_faults_come_together(faults_of: Callable[[str], list[str]]) -> None:
    """All that is wrong in a file is in one error, each with its path in the file."""
    faults = faults_of("""
        processes:
          web: {port: 0, ready: {tpc: 1}, pkg: {name: web, process: /bin/web, umask: 022, argz: /x}}
          db: {port: 1}
          cache: 5
          proxy: {pkg: {name: proxy, process: /bin/proxy, dependencies: [wbe], args: [2020-01-01]}}
    """)
    paths = [fault.partition(": ")[0] for fault in faults]
    assert sorted(paths) == [
        "processes.cache.pkg",
        "processes.db.pkg",
        "processes.proxy.args[0]",
        "processes.proxy.dependencies[0]",
        "processes.web.argz",
        "processes.web.port",
        "processes.web.ready",
        "processes.web.umask",
    ]


@pytest.mark.parametrize(
    ("suffix", "text", "place"),
    [
        ("json", '{\n  "name": }', "model.json:2:11: Expecting value"),
        ("yaml", "name: web\nargs: [a", "line 2, column 9"),
        ("yaml", "a: b: c", "line 1, column 5"),
    ],
)
def test_syntax_error_names_its_place(read: ReadText, suffix: str, text: str, place: str) -> None:
    """A syntax error names the file, the line and the column."""
    with pytest.raises(SourceError) as caught:
        read(text, suffix)
    assert f"model.{suffix}" in str(caught.value)
    assert place in str(caught.value)


@pytest.mark.parametrize("text", ["", "5", "[a]", "processes: [a]", "{processes: {}, other: 1}", "processes: null"])
def test_other_form_is_an_error(read: ReadText, text: str) -> None:
    """A file of another form is told where the form is described."""
    with pytest.raises(SourceError) as caught:
        read(text)
    assert caught.value.remedy == "see docs/processes.schema.json"


@pytest.mark.parametrize(
    "text", ["{on: 1, name: web, process: /x}", "processes: {web: {pkg: {1: 2, name: web, process: /x}}}"]
)
def test_parameter_that_is_no_text(faults_of: Callable[[str], list[str]], text: str) -> None:
    """A parameter whose name YAML takes for something else than text is a fault like any unknown one."""
    (fault,) = faults_of(text)
    assert "is no parameter of a managed process" in fault


@pytest.mark.parametrize("name", ["self", "attributes", "faults"])
def test_any_attribute_name_can_be_read(read: ReadText, name: str) -> None:
    """An attribute may have any name, whatever our own code calls its things."""
    model = read(f"processes: {{web: {{{name}: 5, pkg: {{name: web, process: /bin/web}}}}}}")
    assert model["web"].attributes[name] == 5


def test_file_that_is_no_text(write_file: WriteFile, context: ModelContext) -> None:
    """A file that is not UTF-8, or not there, is an error that names it."""
    path = write_file("model.json", "")
    with open(path, "wb") as file:
        file.write(b"\xff")
    for wrong in (path, f"{path}.absent.json"):
        with pytest.raises(SourceError, match=f"cannot read model file {wrong}"):
            read_config(wrong, context)


def test_lines_of_json_with_tabs(read: ReadText) -> None:
    """Values of a JSON file have their lines, also where tabs indent it, which YAML refuses."""
    location = read(json.dumps(SYSTEM, indent="\t"), "json").locate("web", "port")
    assert location is not None
    assert location.line == 4


def test_lines_of_a_file_that_is_gone(read: ReadText, tmp_path: Path) -> None:
    """A finding about a file that cannot be read again has no line."""
    model = read(YAML)
    (tmp_path / "model.yaml").unlink()
    assert model.locate("web", "port") is None
