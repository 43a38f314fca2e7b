"""Components, and the text of the models: what they hold, and what cannot stand in them as it is."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest

from pytest_nixproc._registry import Registry
from pytest_nixproc.errors import Unsupported
from pytest_nixproc.managers.disnix import MANAGER
from pytest_nixproc.managers.disnix.generator import PLAIN, component_name
from pytest_nixproc.managers.disnix.models import models_of
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.nix_syntax import NoValue, literal, quote
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Unit

STORE_NAME = re.compile(r"[0-9A-Za-z+\-_?=][0-9A-Za-z+\-._?=]*")
"""What may be the name of a path in the Nix store (the manual's chapter "Store Path")."""


def unit_of(target: Target, **parameters: Any) -> Unit:
    """Return the component of one process."""
    process = create_managed_process(**{"name": "web", "process": "/bin/web"} | parameters)
    return MANAGER.unit("key", ProcessesModel({"key": Instance(process)}), target)


def settings_of(unit: Unit) -> dict[str, str]:
    """Read what describes a component as a shell does that sources it."""
    (file,) = (file for file in unit.files if "/etc/dysnomia/process/" in file.path)
    return dict(line.split("=", 1) for line in shlex.split(file.content))


def test_component(target: Target) -> None:
    """A component says where its process is, which is the only file of its kind, and where its PID will be."""
    unit = unit_of(target)
    assert settings_of(unit) == {
        "process": "/srv/profile/components/web/bin/web",
        "pidFile": "/srv/state/run/web.pid",
    }
    assert [(file.path, file.mode) for file in unit.files] == [
        ("components/web/etc/dysnomia/process/web", 0o600),
        ("components/web/bin/web", 0o700),
    ]
    assert (unit.mode, unit.pid_file, unit.links) == ("daemon", "/srv/state/run/web.pid", ())


@pytest.mark.parametrize("name", ["a b", "*", "~x", "$HOME", "naïve", "\udcff", "a=b", "x" * 60, "%41"])
def test_component_name(name: str, target: Target) -> None:
    """Whatever a process is called, scripts that split paths at blanks can be told of its component, and so can Nix."""
    folded = component_name(name)
    assert STORE_NAME.fullmatch(folded)
    assert PLAIN.fullmatch(settings_of(unit_of(target, name=name))["process"])


def test_component_names_differ() -> None:
    """No two names are folded into one."""
    names = ["a b", "a=20b", "a%20b", "~x", "%7Ex", "=7Ex"]
    assert len({component_name(name) for name in names}) == len(names)


def test_unusual_pid_file_gets_a_link(target: Target) -> None:
    """A PID file whose path Dysnomia would take apart is named to it by a link."""
    unit = unit_of(target, pid_file="/srv/it's here")
    assert [(link.path, link.target) for link in unit.links] == [("components/web/pid", "/srv/it's here")]
    assert settings_of(unit)["pidFile"] == "/srv/profile/components/web/pid"
    assert unit.pid_file == "/srv/it's here"


@pytest.mark.parametrize("spelling", ["pid_file", "pidFile"])
def test_overrides(target: Target, spelling: str) -> None:
    """An override names another process, and where it leaves its PID."""
    unit = unit_of(target, overrides={"disnix": {"process": "/bin/other start", spelling: "/run/other.pid"}})
    assert settings_of(unit) == {"process": "/bin/other start", "pidFile": "/run/other.pid"}
    assert unit.pid_file == "/run/other.pid"


def test_value_that_no_component_can_have(target: Target) -> None:
    """A PID file is an absolute path, because nobody knows where a relative one would be."""
    with pytest.raises(Unsupported, match=r"its override 'pidFile' is 'web\.pid', which is not an absolute path"):
        unit_of(target, overrides={"disnix": {"pidFile": "web.pid"}})


def test_unknown_override(target: Target) -> None:
    """What a component does not have is refused by its name."""
    with pytest.raises(Unsupported, match=r"disnix .*its override 'stop' is no parameter"):
        unit_of(target, overrides={"disnix": {"stop": "kill"}})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", '""'),
        ("plain", '"plain"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("${x} $${y} $z $$ {", '"\\${x} $\\${y} $z $$ {"'),
        ("a\nb\r\tc", '"a\\nb\\r\\tc"'),
    ],
)
def test_quote(value: str, text: str) -> None:
    """What Nix would read otherwise in a string is escaped, and nothing else is."""
    assert quote(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (None, "null"),
        (-5, "(-5)"),
        (2**63 - 1, "9223372036854775807"),
        (0.5, "0.5"),
        (1e-7, "1.0e-07"),
        (-1e22, "(-1.0e+22)"),
        ([], "[ ]"),
        ([1, "a"], '[ 1 "a" ]'),
        ({}, "{\n}"),
        ({"a b": [1]}, '{\n  "a b" = [ 1 ];\n}'),
    ],
)
def test_literals(value: object, text: str) -> None:
    """A value becomes the literal of its type, which can stand in a list."""
    assert literal(value) == text


@pytest.mark.parametrize("value", [object(), 2**63, float("nan"), {"a": [object()]}])
def test_what_is_no_value(value: object) -> None:
    """What Nix has no value for is an error that shows it."""
    with pytest.raises(NoValue, match="is no value of a Nix expression"):
        literal(value)


MODULES = {name: manager.capabilities.dysnomia_module for name, manager in Registry().managers.items()}


@pytest.mark.parametrize("module", list(MODULES.values()))
def test_every_managers_services(module: str) -> None:
    """The services model has the module of whichever manager's configurations Dysnomia is to activate."""
    model = ProcessesModel({"web": Instance(create_managed_process(name="web", process="/bin/web"))})
    assert f'"type" = "{module}";' in models_of(model, module, {"web": ("web", "/../..")}, {})["services.nix"]


def test_every_manager_has_another_module() -> None:
    """No two managers claim the same module of Dysnomia."""
    assert all(MODULES.values())
    assert len(MODULES) == len(set(MODULES.values()))
