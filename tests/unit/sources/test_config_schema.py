"""The published JSON schema of configuration files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator

from pytest_nixproc.errors import NixprocError
from pytest_nixproc.model.context import ModelContext
from pytest_nixproc.model.names import camel_case
from pytest_nixproc.model.process import ManagedProcess
from pytest_nixproc.sources.config import read_config, schema

if TYPE_CHECKING:
    from tests.unit.sources.conftest import WriteFile

PUBLISHED = Path(__file__).parents[3] / "docs" / "processes.schema.json"
WEB: dict[str, Any] = {"name": "web", "process": "/bin/web"}

EVERYTHING: dict[str, Any] = {
    "name": "web",
    "instanceName": "web1",
    "description": "Web",
    "process": "/bin/web",
    "args": ["-p", 80, 1.5, True],
    "foregroundProcess": "${stateDir}/web",
    "foregroundProcessExtraArgs": ["a"],
    "foregroundProcessArgs": [],
    "daemon": "/bin/webd",
    "daemonExtraArgs": [],
    "daemonArgs": ["-D"],
    "pidFile": "/srv/web.pid",
    "initialize": "mkdir -p x",
    "path": ["/usr"],
    "environment": {"PORT": 80, "DEBUG": False},
    "directories": ["${libDir}/web", {"path": "${cacheDir}/web", "mode": "0750", "user": "web", "group": "web"}],
    "files": [{"path": "${runtimeDir}/web.conf", "text": "", "mode": "0640", "secret": True}],
    "directory": "/srv",
    "stopSignal": "SIGQUIT",
    "reloadSignal": "USR1",
    "limits": {"openFiles": 100, "coreSize": "unlimited"},
    "umask": "0027",
    "nice": 5,
    "user": "web",
    "dependencies": [],
    "credentials": {"groups": {"web": {"gid": 5}}, "users": {"web": {"group": "web", "createHomeDir": True}}},
    "overrides": {"sysvinit": {"runlevels": [3]}},
    "postInstall": "true",
}

GOOD: dict[str, dict[str, Any]] = {
    "process": WEB,
    "everything": EVERYTHING,
    "instance name alone": {"instanceName": "web", "daemon": "/bin/web"},
    "system": {"processes": {"web": {"port": 80, "adminPort": 81, "ports": {"x": 82}, "free": [1], "pkg": WEB}}},
    "empty system": {"processes": {}},
}

BAD: dict[str, dict[str, Any]] = {
    "unknown parameter": WEB | {"pidfile": "/x"},
    "no name": {"process": "/bin/web"},
    "no program": {"name": "web"},
    "text for a list": WEB | {"args": "-D"},
    "list in a list": WEB | {"args": [["a"]]},
    "relative path": WEB | {"directory": "srv"},
    "name with a slash": WEB | {"name": "a/b"},
    "umask as a number": WEB | {"umask": 18},
    "signal as a number": WEB | {"stopSignal": 3},
    "signal that stops nothing": WEB | {"stopSignal": "KILL"},
    "unknown limit": WEB | {"limits": {"files": 3}},
    "limit as text": WEB | {"limits": {"openFiles": "3"}},
    "negative limit": WEB | {"limits": {"openFiles": -1}},
    "mode as a number": WEB | {"directories": [{"path": "/srv/web", "mode": 750}]},
    "unknown property of a directory": WEB | {"directories": [{"path": "/srv/web", "owner": "web"}]},
    "directory without a path": WEB | {"directories": [{"mode": "0755"}]},
    "file without a text": WEB | {"files": [{"path": "/srv/web.conf"}]},
    "file as a path": WEB | {"files": ["/srv/web.conf"]},
    "nice out of range": WEB | {"nice": 20},
    "null in the environment": WEB | {"environment": {"A": None}},
    "name in the environment": WEB | {"environment": {"A-B": "x"}},
    "unknown account property": WEB | {"credentials": {"users": {"web": {"homedir": "/x"}}}},
    "unknown account section": WEB | {"credentials": {"user": {}}},
    "account id as text": WEB | {"credentials": {"groups": {"web": {"gid": "5"}}}},
    "override as text": WEB | {"overrides": {"sysvinit": "x"}},
    "instance without process": {"processes": {"web": {"port": 80}}},
    "port out of range": {"processes": {"web": {"port": 0, "pkg": WEB}}},
    "port as text": {"processes": {"web": {"adminPort": "80", "pkg": WEB}}},
    "named port as text": {"processes": {"web": {"ports": {"x": "80"}, "pkg": WEB}}},
    "ports as a list": {"processes": {"web": {"ports": [80], "pkg": WEB}}},
    "something beside the processes": {"processes": {}, "other": 1},
    "processes as a list": {"processes": []},
}


def accepted(document: dict[str, Any]) -> bool:
    """Tell whether the schema accepts a document."""
    return bool(Draft202012Validator(schema()).is_valid(document))


def test_published_schema_is_the_current_one() -> None:
    """The file in the documentation is what the declarations of the parameters say."""
    assert PUBLISHED.read_text(encoding="utf-8") == json.dumps(schema(), indent=2) + "\n"


def test_schema_is_a_schema() -> None:
    """The schema itself is valid, and has every parameter, described."""
    Draft202012Validator.check_schema(schema())
    properties = schema()["$defs"]["process"]["properties"]
    assert set(properties) == {camel_case(name) for name in ManagedProcess.PARAMETERS} == set(EVERYTHING)
    assert all(entry["description"] for entry in properties.values())


@pytest.mark.parametrize("document", GOOD.values(), ids=GOOD)
def test_good_document(document: dict[str, Any], write_file: WriteFile, context: ModelContext) -> None:
    """A document that the schema accepts is read."""
    assert accepted(document)
    read_config(write_file("model.json", json.dumps(document)), context)


@pytest.mark.parametrize("document", BAD.values(), ids=BAD)
def test_bad_document(document: dict[str, Any], write_file: WriteFile, context: ModelContext) -> None:
    """A document that cannot be read is refused by the schema too."""
    assert not accepted(document)
    with pytest.raises(NixprocError):
        read_config(write_file("model.json", json.dumps(document)), context)
