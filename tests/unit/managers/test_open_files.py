"""Programs may have as many files open as the tests, whoever started their manager, and whatever it needs itself."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

import pytest

from pytest_nixproc._registry import Registry
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.machine import Facts
from pytest_nixproc.values.target import Target

INDEPENDENT: Final = {
    "systemd": r"(?m)^LimitNOFILE=1000:5000$",
    "docker": r"(?m)^--ulimit\nnofile=1000:5000$",
    "launchd": r"<key>NumberOfFiles</key>\s*<integer>1000</integer>",
    "cygrunsrv": r"(?m)^ulimit -S -n 1000$",
}
"""How managers say it that may have been started by anybody."""


@pytest.mark.parametrize("initialize", ["", "true"])
@pytest.mark.parametrize("manager", INDEPENDENT)
def test_manager_of_anybody(manager: str, target: Target, initialize: str) -> None:
    """A manager that may have other limits than the tests is told theirs, with and without a launch script."""
    process = create_managed_process(name="webapp", process="/bin/web", initialize=initialize)
    told = replace(target, facts=Facts(open_files=1000, most_open_files=5000))
    unit = Registry().managers[manager].unit("web", ProcessesModel({"web": Instance(process)}), told)
    assert sum(len(re.findall(INDEPENDENT[manager], file.content)) for file in unit.files) == 1


@pytest.mark.parametrize(("programs", "said"), [(48, 0), (49, 1)])
@pytest.mark.parametrize("initialize", ["", "true"])
def test_manager_that_needs_more(target: Target, programs: int, said: int, initialize: str) -> None:
    """The limit that supervisord raises for itself, where it has many programs, is not theirs."""
    process = create_managed_process(name="web", process="/bin/web", initialize=initialize)
    model = ProcessesModel({f"web{number}": Instance(process) for number in range(programs)})
    unit = Registry().managers["supervisord"].unit("web0", model, replace(target, facts=Facts(open_files=256)))
    assert sum(file.content.count("ulimit -S -n 256") for file in unit.files) == said
