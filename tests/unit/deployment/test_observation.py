"""What is seen of a running system."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_nixproc.checks.claims import Claim, Told
from pytest_nixproc.deployment.observation import Owners, observe
from pytest_nixproc.machines.api import Spawn
from pytest_nixproc.machines.host import Host
from pytest_nixproc.managers.api import Target
from pytest_nixproc.model.state import StateDirs
from pytest_nixproc.testing.fake_machine import FakeMachine, FakeProcess

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


def test_owner_by_ancestry(machine: FakeMachine, target: Target) -> None:
    """What descends from a main process is its instance's; the kernel's own process may be its own parent."""
    kernel = machine.processes[0] = FakeProcess(0, Spawn(("kernel",)), parent=0)
    main, stranger = machine.spawn(Spawn(("/bin/web",))), machine.spawn(Spawn(("/bin/other",)))
    machine.processes[stranger].parent = kernel.pid
    grandchild = machine.fork(machine.fork(main))
    owners = Owners(machine, target, {main: "web"})
    assert [owners.owner(pid) for pid in (main, grandchild, stranger, 0)] == ["web", "web", None, None]
