"""Units say which program of the machine they run, as far as no override has another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest

from pytest_nixproc._registry import Registry
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.target import Target

MANAGERS: Final = Registry().managers

OVERRIDES: Final[Mapping[str, list[tuple[Mapping[str, Any], str]]]] = {
    "sysvinit": [({"stop_signal": "INT"}, "/bin/web"), ({"process": "/bin/other"}, "/bin/other")],
    "supervisord": [({"autorestart": "true"}, "/bin/web"), ({"command": "/bin/other"}, "")],
    "systemd": [({"Service": {"Restart": "always"}}, "/bin/web"), ({"Service": {"ExecStart": "/bin/other"}}, "")],
    "disnix": [({"pid_file": "/srv/x.pid"}, "/bin/web"), ({"process": "/bin/other"}, "")],
    "docker": [
        ({"container": {"docker_create_parameters": {"memory": "1g"}}}, "/bin/web"),
        ({"container": {"docker_create_parameters": {"volume": "/x:/bin"}}}, ""),
        ({"image": {"reference": "redis:7"}}, ""),
    ],
    "launchd": [({"ProgramArguments": ["/bin/other"]}, "")],
}


def program_of(manager: str, target: Target, **parameters: Any) -> str:
    """Return the program of a unit."""
    process = create_managed_process(**{"name": "web", "foreground_process": "/bin/web"} | parameters)
    return MANAGERS[manager].unit("web", ProcessesModel({"web": Instance(process)}), target).program


@pytest.mark.parametrize("manager", MANAGERS)
def test_program_in_both_modes(manager: str, target: Target) -> None:
    """It is the model's program in the mode of the unit, whatever stands before it on the command line."""
    assert program_of(manager, target) == "/bin/web"
    assert program_of(manager, target, foreground_process=None, daemon="/bin/webd") == "/bin/webd"


@pytest.mark.parametrize(
    ("manager", "override", "program"), [(name, *case) for name, cases in OVERRIDES.items() for case in cases]
)
def test_program_that_an_override_may_replace(
    manager: str, target: Target, override: Mapping[str, Any], program: str
) -> None:
    """Overrides that leave the program alone change nothing; where there may be another one, none is named."""
    assert program_of(manager, target, overrides={manager: override}) == program
