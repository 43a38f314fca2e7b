"""What is seen of a running system."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_nixproc.checks.api import ToldPidFile
from pytest_nixproc.checks.claims import Claim, Told
from pytest_nixproc.deployment.observation import Owners, ToldPidFiles
from pytest_nixproc.machines.api import Spawn
from pytest_nixproc.machines.host import Host
from pytest_nixproc.managers.api import Target, Unit
from pytest_nixproc.model.state import StateDirs
from pytest_nixproc.testing.fake_machine import FakeMachine, FakeProcess

if TYPE_CHECKING:
    from tests.unit.deployment.conftest import FakeDriver, MakeModel


def look_at_told(path: Path, driver: FakeDriver, units: dict[str, Unit]) -> ToldPidFile:
    """Look at a PID file of this machine, which ``web`` is told by an option."""
    driver.machine = Host()
    state = StateDirs.under(str(path.parent))
    driver.target = Target(state, state.state_dir)
    told = Told(str(path), (Claim("web", "pkg.args[1]", str(path), str(path)),), is_asked_for=True)
    return ToldPidFiles(driver, units, Owners(driver.machine, driver.target, {}), []).settled([told])[0]


def test_told_pid_file_that_cannot_be_read(
    driver: FakeDriver, make_model: MakeModel, units: Any, tmp_path: Path
) -> None:
    """What a program is told as a PID file, and is none that we can read, ends no look, and is not held against it."""
    seen = look_at_told(tmp_path, driver, units(make_model(web={})))
    assert (seen.content, seen.is_right) == (None, True)


def test_told_pid_file_that_names_no_process(
    driver: FakeDriver, make_model: MakeModel, units: Any, tmp_path: Path
) -> None:
    """A number that is no process's, such as the time, is wrong in a PID file, and ends no look."""
    path = tmp_path / "web.pid"
    path.write_text("1700000000000\n")
    seen = look_at_told(path, driver, units(make_model(web={})))
    assert (seen.content, seen.is_right) == ("1700000000000\n", False)


def test_owner_by_ancestry(machine: FakeMachine, target: Target) -> None:
    """What descends from a main process is its instance's; the kernel's own process may be its own parent."""
    kernel = machine.processes[0] = FakeProcess(0, Spawn(("kernel",)), parent=0)
    main, stranger = machine.spawn(Spawn(("/bin/web",))), machine.spawn(Spawn(("/bin/other",)))
    machine.processes[stranger].parent = kernel.pid
    grandchild = machine.fork(machine.fork(main))
    owners = Owners(machine, target, {main: "web"})
    assert [owners.owner(pid) for pid in (main, grandchild, stranger, 0)] == ["web", "web", None, None]
