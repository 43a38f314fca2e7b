"""What is seen of a running system."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_nixproc.checks.claims import Claim, Told
from pytest_nixproc.deployment.observation import observe
from pytest_nixproc.machines.host import Host
from pytest_nixproc.managers.api import Target
from pytest_nixproc.model.state import StateDirs

if TYPE_CHECKING:
    from tests.unit.deployment.conftest import FakeDriver, MakeModel


def test_told_pid_file_that_cannot_be_read(
    driver: FakeDriver, make_model: MakeModel, units: Any, tmp_path: Path
) -> None:
    """What a program is told as a PID file, and is none that we can read, ends no look, and is not held against it."""
    model = make_model(web={})
    told = Told(str(tmp_path), (Claim("web", "pkg.args[1]", str(tmp_path), str(tmp_path)),), is_asked_for=True)
    driver.machine, driver.target = Host(), Target(StateDirs.under(str(tmp_path.parent)), str(tmp_path))
    (seen,) = observe(model, units(model), driver, driver.target, told=[told]).told_pid_files
    assert (seen.content, seen.is_right) == (None, True)
