"""Runs that share deployments: who starts, who uses, who takes down; decided by leases of living processes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from pytest_nixproc._persistence.files import replace_file
from pytest_nixproc._persistence.leases import DeploymentLease, Leases
from pytest_nixproc._persistence.process_identity import ProcessIdentity
from pytest_nixproc._persistence.shared_deployments import PytestRun, SharedDeployment, root_for
from pytest_nixproc._recovery import abandoned, take_over
from pytest_nixproc.errors import WaitTimeout
from pytest_nixproc.testing.fake_machine import FakeMachine

ROOT = "/srv/shared"


@pytest.fixture
def leases(tmp_path: Path) -> Leases:
    """Return leases of the test's own."""
    return Leases(f"{tmp_path}/top/leases")


@pytest.fixture
def new_member(leases: Leases) -> Iterator[Callable[..., tuple[PytestRun, Popen[bytes]]]]:
    """Return a function that makes members of a run: each is a process that lives until it is killed."""
    living: list[Popen[bytes]] = []

    def make(identity: str = "run1") -> tuple[PytestRun, Popen[bytes]]:
        process = Popen(["/bin/cat"], stdin=PIPE, stdout=PIPE)
        living.append(process)
        run = PytestRun(leases, identity)
        run.me = ProcessIdentity.of(process.pid)
        run.enter()
        return run, process

    yield make
    for process in living:
        end(process)


def end(process: Popen[bytes]) -> None:
    """Kill a member."""
    process.kill()
    process.communicate()


Make = Callable[..., tuple[PytestRun, Popen[bytes]]]


def test_first_member_starts_and_the_others_use(new_member: Make) -> None:
    """The first one that wants a system starts it; the others wait until it is open, and use it then."""
    (first, _), (second, _) = new_member(), new_member()
    assert first.join(ROOT, None) == "starter"
    assert second.join(ROOT, None) == "waiter"
    first.opened(ROOT)
    assert second.join(ROOT, None) == "guest"


def test_last_member_takes_down(new_member: Make, leases: Leases) -> None:
    """Who leaves while others live takes nothing down; the last one takes everything of the run, and only that."""
    (first, _), (second, _) = new_member(), new_member()
    other, _ = new_member("run2")
    for run, root in ((first, ROOT), (first, "/srv/second"), (other, "/srv/other")):
        run.join(root, None)
        run.opened(root)
    assert first.leave() == []
    assert sorted(second.leave()) == ["/srv/second", ROOT]
    lease = leases.lease_of(ROOT)
    assert lease is not None
    assert lease.phase == "stopping"


def test_nobody_uses_what_is_being_taken_down(new_member: Make) -> None:
    """A member that comes when the last one is leaving waits until the system is gone, and starts it anew then."""
    first, _ = new_member()
    first.join(ROOT, None)
    first.opened(ROOT)
    assert first.leave() == [ROOT]
    late, _ = new_member()
    assert late.join(ROOT, None) == "waiter"
    late.leases.remove(ROOT)
    assert late.join(ROOT, None) == "starter"


def test_dead_members_do_not_count(new_member: Make) -> None:
    """A member that is killed is no member any more: the next one that leaves may be the last."""
    (first, process), (second, _) = new_member(), new_member()
    first.join(ROOT, None)
    first.opened(ROOT)
    assert len(second.members()) == 2
    end(process)
    assert second.members() == [second.me]
    assert second.leave() == [ROOT]


def test_guardian_of_a_dead_member_leaves_it_to_the_living(new_member: Make) -> None:
    """While other members live, a dead one's guardian takes nothing down that they can use."""
    (first, process), (second, _) = new_member(), new_member()
    first.join(ROOT, None)
    first.opened(ROOT)
    end(process)
    assert first.recover() == []
    assert second.leave() == [ROOT]


def test_guardian_of_the_last_member_takes_down(new_member: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """When all members are dead, one guardian takes everything down, and a second one at the same time nothing."""
    (first, process), (second, another), (_, guardian) = new_member(), new_member(), new_member("another run")
    first.join(ROOT, None)
    first.opened(ROOT)
    end(process)
    end(another)
    assert first.recover() == [ROOT]
    assert second.recover() == [ROOT], "the same process may ask twice"
    monkeypatch.setattr(ProcessIdentity, "current", lambda: ProcessIdentity.of(guardian.pid))
    assert second.recover() == []


def test_half_started_system_of_a_dead_member_is_taken_down(new_member: Make) -> None:
    """A starter that is killed leaves something that nobody can use: its guardian takes that down for the others."""
    (first, process), (second, _) = new_member(), new_member()
    first.join(ROOT, None)
    end(process)
    assert second.join(ROOT, None) == "waiter"
    assert first.recover() == [ROOT]


def test_wait_for_a_starter_ends(new_member: Make) -> None:
    """A member waits for another one for so long and no longer, and says for what."""
    (first, _), (second, _) = new_member(), new_member()
    first.join(ROOT, None)
    with pytest.raises(WaitTimeout, match="wait for the shared deployment /srv/shared: not within 7 s") as error:
        SharedDeployment(second, ROOT, 7).join(FakeMachine(), None)
    assert "another member of the run is starting or stopping it" in str(error.value)


def test_runs_do_not_meet(new_member: Make) -> None:
    """Members of another run are no members, also when its name begins with that of this one."""
    first, _ = new_member("run1")
    new_member("run1.5")
    new_member("run1/../run2")
    assert first.members() == [first.me]


def test_members_without_a_system_leave_nothing(new_member: Make, leases: Leases, tmp_path: Path) -> None:
    """When all have left, not even the directory is there."""
    for run in [new_member()[0] for _ in range(3)]:
        assert run.leave() == []
    leases.leave()
    assert not (tmp_path / "top").exists()


def test_traces_of_killed_members_go_with_the_next_run(new_member: Make, leases: Leases) -> None:
    """Members that were killed before they deployed anything are forgotten when somebody enters any run."""
    run, process = new_member()
    replace_file(f"{leases.directory}/run-x.1.member", json.dumps(replace(run.me, started="1").facts()))
    (Path(leases.directory) / "run-x.2.member.new").write_text("{")
    end(process)
    entered, _ = new_member("run2")
    (name,) = [name for name in os.listdir(leases.directory) if "member" in name]
    assert name.endswith(f".{entered.me.pid}.member")


def test_abandoned_runs(new_member: Make, leases: Leases) -> None:
    """A shared system is abandoned when no member lives, though a guardian that was its parent may stay with it."""
    run, process = new_member()
    run.join(ROOT, ProcessIdentity.current())
    run.opened(ROOT)
    assert list(abandoned(leases)) == []
    end(process)
    assert [lease.root for lease in abandoned(leases)] == [ROOT]


def test_abandoned_systems_are_taken_over_once(leases: Leases) -> None:
    """Of two processes that find the same leftover, one takes it down: the other sees that somebody is at it."""
    gone = replace(ProcessIdentity.current(), started="1")
    leases.save(DeploymentLease(ROOT, (gone,)))
    assert [lease.root for lease in take_over(leases)] == [ROOT]
    assert take_over(leases) == []


@pytest.mark.parametrize(
    "what",
    [("run2", "m", {}), ("run1", "n", {}), ("run1", "m", {"port": 1}), ("run1", "m", {"port": "1"}), ("run1", "m")],
)
def test_places_differ(what: tuple[object, ...]) -> None:
    """Another run, model or parameters mean another place; the same ones the same place, in every process."""
    assert root_for("/srv", "run1", "m", {}) == root_for("/srv", "run1", "m", {})
    run, *rest = what
    assert root_for("/srv", str(run), *rest) != root_for("/srv", "run1", "m", {})
