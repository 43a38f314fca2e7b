"""A manager that kills what does not stop is told the instance's own limit: it kills no earlier, and not much later."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest

from pytest_nixproc._registry import Registry
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.target import Target

SAID: Final = {
    "supervisord": r"(?m)^stopwaitsecs=(.+)$",
    "sysvinit": r"(?m)^stop_seconds=(.+)$",
    "bsdrc": r"(?m)^stop_seconds=(.+)$",
    "systemd": r"(?m)^TimeoutStopSec=(.+)$",
    "docker": r"(?m)^dockerStopTimeout=(.+)$",
    "launchd": r"<key>ExitTimeOut</key>\s*<integer>(.+)</integer>",
    "s6-rc": r"\A(\d{4,})\n\Z",
}
"""How managers say after which time they kill; s6-rc does it in milliseconds."""

NEVER: Final = {"disnix", "cygrunsrv"}
"""Managers that do not kill: who waits for the end does."""

LATER: Final = 6.0
"""How much later a manager may kill, where who waits for the end does so before it."""


def limits(manager: str, target: Target, **attributes: Any) -> list[float]:
    """Return after which times, in seconds, a manager kills an instance, as its files say."""
    process = create_managed_process(name="web", process="/bin/web")
    unit = Registry().managers[manager].unit("web", ProcessesModel({"web": Instance(process, **attributes)}), target)
    said = [found for file in unit.files for found in re.findall(SAID[manager], file.content)]
    return [float(text) / (1000 if manager == "s6-rc" else 1) for text in said]


@pytest.mark.parametrize("manager", SAID)
@pytest.mark.parametrize("seconds", [0.4, 2.4, 3.5, 37, 600.0])
def test_own_limit(manager: str, target: Target, seconds: float) -> None:
    """An instance's ``stop_timeout`` is the manager's limit, whether longer or shorter than that of the others."""
    (limit,) = limits(manager, target, stop_timeout=seconds)
    assert seconds <= limit <= seconds + LATER


@pytest.mark.parametrize("manager", SAID)
def test_limit_of_all(manager: str, target: Target) -> None:
    """An instance without a limit of its own has that of the deployment."""
    assert limits(manager, target) == limits(manager, target, stop_timeout=target.stop_seconds)


def test_every_manager_is_here() -> None:
    """A manager that kills, and is not tried here, would be missed."""
    assert SAID.keys() | NEVER == Registry().managers.keys()
