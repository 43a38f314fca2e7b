"""What is seen of a running system."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_nixproc._inspection.answers import ProcessAttribution
from pytest_nixproc._inspection.observation import (
    LOOKS,
    PASSING_SECONDS,
    PidFileReader,
    changed_paths,
    inspect_processes,
    observe,
    real_directories,
    with_real_paths,
)
from pytest_nixproc.checks.api import PidFileState
from pytest_nixproc.checks.claims import ReferencedPidFile, ResourceClaim
from pytest_nixproc.machines.host import Host
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.testing.fake_machine import FakeMachine, FakeProcess
from pytest_nixproc.values.commands import Spawn
from pytest_nixproc.values.machine import ProcessInfo
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Unit

if TYPE_CHECKING:
    from tests.unit.conftest import FakeDriver, MakeModel

MAIN = 42


def look_at_told(path: Path, driver: FakeDriver, units: dict[str, Unit]) -> PidFileState:
    """Look at a PID file of this machine, which ``web`` is told by an option."""
    driver.machine = Host()
    state = StateDirs.under(str(path.parent))
    driver.target = Target(state, state.state_dir)
    told = ReferencedPidFile(str(path), (ResourceClaim("web", "pkg.args[1]", str(path), str(path)),), is_asked_for=True)
    return PidFileReader(driver, units, ProcessAttribution(driver.machine, driver.target, {}), []).read_until_stable(
        [told]
    )[0]


@pytest.mark.parametrize("ends", [1, 9])
def test_instance_that_ends_while_it_is_looked_at(
    driver: FakeDriver,
    make_model: MakeModel,
    units: Any,
    target: Target,
    machine: FakeMachine,
    monkeypatch: pytest.MonkeyPatch,
    ends: int,
) -> None:
    """The look is taken anew: what was seen of a process before its end, and after, does not fit together."""
    model = make_model(web={}, db={})
    generated = units(model)
    driver.activate(list(generated.values()), machine.deadline(1))
    looks = 0

    def inspect(mains: Sequence[int], tag: str) -> list[ProcessInfo]:  # noqa: ARG001
        nonlocal looks
        looks += 1
        if looks <= ends:
            machine.processes.end(mains[0])
            if looks > 1 or ends > 1:
                driver.activate([generated["web"]], machine.deadline(1))
        return [ProcessInfo(pid, pid) for pid in mains]

    monkeypatch.setattr(machine.processes, "inspect", inspect)
    snapshot = observe(model, generated, driver, target)
    assert looks == (2 if ends == 1 else LOOKS)
    if ends == 1:
        assert sorted(status.running for status in snapshot.statuses.values()) == [False, True]


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
    kernel = machine.processes.by_pid[0] = FakeProcess(0, Spawn(("kernel",)), parent=0)
    main, stranger = machine.processes.spawn(Spawn(("/bin/web",))), machine.processes.spawn(Spawn(("/bin/other",)))
    machine.processes.by_pid[stranger].parent = kernel.pid
    grandchild = machine.processes.fork(machine.processes.fork(main))
    owners = ProcessAttribution(machine, target, {main: "web"})
    assert [owners.owner(pid) for pid in (main, grandchild, stranger, 0)] == ["web", "web", None, None]


@pytest.mark.parametrize("passing", [{"main": MAIN, "is_zombie": True}, {"main": None, "instance": "web"}])
@pytest.mark.parametrize("stays", [False, True])
def test_passing_process(machine: FakeMachine, target: Target, passing: dict[str, Any], stays: bool) -> None:  # noqa: FBT001
    """A process that has ended, or descends from no main process, is seen only if it does not go in a moment.

    A program that goes into the background may write its PID file before the process that was started has ended.
    """
    process = ProcessInfo(4711, **passing)
    machine.processes.escaped.append(process)
    if not stays:
        machine.clock.after(PASSING_SECONDS / 2, machine.processes.escaped.clear)
    seen = inspect_processes(machine, {MAIN: "web"}, target)
    assert [item.pid for _, item in seen] == [MAIN, 4711][: 1 + stays]


def test_places_behind_links(machine: FakeMachine, target: Target) -> None:
    """Places and directories are known as the kernel shows them, too; what leads into them is no change elsewhere."""
    machine.files.link("/srv", "/mnt/data")
    places = with_real_paths(machine, ("/srv/state", "/home/web"))
    assert places == ("/srv/state", "/home/web", "/mnt/data/state")
    process = create_managed_process(name="web", process="/bin/web", directory="/srv/state/lib")
    model = ProcessesModel({"web": Instance(process), "db": Instance(create_managed_process(name="db", process="/x"))})
    assert real_directories(machine, model) == {"web": "/mnt/data/state/lib"}
    outside = {"/mnt/data/state/f": "web", "/mnt/f": "web", "/mnt/g": "db"}
    for path in outside:
        machine.files.write(path, "")
    assert changed_paths(machine, outside, target, places) == {"web": ("/mnt/f",), "db": ("/mnt/g",)}
