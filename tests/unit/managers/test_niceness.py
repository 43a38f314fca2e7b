"""Programs are as nice as the model says on top of the tests, whether or not their manager was started by those."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import pytest

from pytest_nixproc._registry import Registry
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.machine import Facts
from pytest_nixproc.values.target import Target

ADDED: Final = r"/usr/bin/nice -n (-?\d+) "
WHOLE: Final = r'/usr/bin/nice -n "\$\(\((-?\d+) - \$\(/usr/bin/nice\)\)\)" '
INHERITED: Final = {
    **dict.fromkeys(("supervisord", "sysvinit", "disnix", "s6-rc"), ADDED),
    "bsdrc": r"webapp_nice=(\S+)",
}
"""How managers say by how much a program is nicer than themselves; they were started by the tests."""

INDEPENDENT: Final = {
    "systemd": r"(?m)^Nice=(.+)$",
    "launchd": r"<key>Nice</key>\s*<integer>(.+)</integer>",
    **dict.fromkeys(("docker", "cygrunsrv"), WHOLE),
}
"""How those say how nice a program is that may have been started by anybody."""


def levels(manager: str, target: Target, nice: int | None, model_loader: Mapping[str, str]) -> list[int]:
    """Return what the files say that a manager generates for a process."""
    process = create_managed_process(name="webapp", process="/bin/web", initialize="true", nice=nice)
    unit = Registry().managers[manager].unit("web", ProcessesModel({"web": Instance(process)}), target)
    return [int(level) for file in unit.files for level in re.findall(model_loader[manager], file.content)]


@pytest.mark.parametrize("manager", INDEPENDENT)
@pytest.mark.parametrize(
    ("tests", "nice", "said"),
    [(0, None, []), (0, 5, [5]), (10, None, [10]), (10, 5, [15]), (10, -5, [5]), (10, 15, [19]), (-10, -15, [-20])],
)
def test_manager_of_anybody(manager: str, target: Target, tests: int, nice: int | None, said: list[int]) -> None:
    """A manager that may be less nice than the tests is told the sum, within what there is; nothing, if that is 0."""
    assert levels(manager, replace(target, facts=Facts(niceness=tests)), nice, INDEPENDENT) == said


@pytest.mark.parametrize("manager", INHERITED)
@pytest.mark.parametrize(("nice", "said"), [(None, []), (5, [5])])
def test_manager_of_the_tests(manager: str, target: Target, nice: int | None, said: list[int]) -> None:
    """A manager that is as nice as the tests is told what comes on top of that."""
    assert levels(manager, replace(target, facts=Facts(niceness=10)), nice, INHERITED) == said
