"""``nixproc reap``, and what sessions do about earlier ones: what is found, what is told, and what is left alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_nixproc import _recovery
from pytest_nixproc._cli import main
from pytest_nixproc._cli import reap as command
from pytest_nixproc._cli.api import ExitStatus
from pytest_nixproc._persistence.directory import DeploymentDirectory
from pytest_nixproc._persistence.journal import Journal, begin
from pytest_nixproc._persistence.leases import DeploymentLease, Leases
from pytest_nixproc._persistence.owners import NOBODY_KNOWS, note_kept, own_text, sign
from pytest_nixproc._persistence.process_identity import ProcessIdentity, host_name
from pytest_nixproc._planning.other_deployments import running_deployments
from pytest_nixproc._recovery import reap_all
from pytest_nixproc._registry import Registry
from pytest_nixproc.errors import Unremovable
from pytest_nixproc.machines.host import Host, files
from pytest_nixproc.machines.removal import remove_tree
from pytest_nixproc.managers.api import Belonging
from pytest_nixproc.values.target import Target

ME = ProcessIdentity.current()
GONE = replace(ME, started="1")
PROBLEM = "cannot remove {}/var/data: something is mounted on it"


@pytest.fixture(autouse=True)
def leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Leases:
    """Return leases of our own, which commands find; and have them look nowhere else."""
    monkeypatch.setenv("NIXPROC_LEASES", f"{tmp_path}/run/leases")
    monkeypatch.setattr(command, "default_state_root", lambda: f"{tmp_path}/state")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.socket")
    return Leases()


@pytest.fixture
def left(tmp_path: Path) -> Callable[..., str]:
    """Return a function that leaves the directory of a deployment, used by a process that has ended or by none."""

    def leave(name: str, user: ProcessIdentity | None = GONE) -> str:
        own = DeploymentDirectory(f"{tmp_path}/state/{name}")
        os.makedirs(f"{own.root}/var/data")
        with closing(Journal(own.journal)) as journal:
            begin(journal, "sysvinit", "host", Target(own.state, own.profile, own.identity))
            if user:
                journal.write("used", host=host_name(), user=user.facts(), guardian=None)
        return own.root

    return leave


@pytest.fixture
def unremovable(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of directories, empty, of which something cannot be removed."""
    those: list[str] = []

    def remove(path: str) -> None:
        if path in those:
            raise Unremovable(PROBLEM.format(path), remedy=f"umount {path}/var/data")
        remove_tree(path)

    monkeypatch.setattr(files, "remove_tree", remove)
    return those


def reaped(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, list[str]]:
    """Run the command; return its status, and the lines that it prints."""
    status = main(["reap", *options])
    return status, capsys.readouterr().out.splitlines()


def test_what_cannot_be_removed_is_told_per_item(
    left: Callable[..., str], leases: Leases, unremovable: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two leftovers, the one with a mount is named with its full path, and the other one goes; the status tells."""
    bad, good = left("0000000a"), left("0000000b")
    for root in (bad, good):
        leases.save(DeploymentLease(root, (GONE,)))
    with leases.locked() as ports:
        ports.lease(bad, GONE, [30000])
    unremovable.append(bad)
    status, lines = reaped(capsys)
    assert status == ExitStatus.INCONSISTENT
    told = [f"taking down {bad}", f"  {PROBLEM.format(bad)}", f"  fix: umount {bad}/var/data"]
    assert lines == [*told, f"taking down {good}"]
    assert (os.path.exists(bad), os.path.exists(good)) == (True, False)
    with leases.locked() as ports:
        assert not ports.is_leased(30000, but_for=""), "its ports are for others"
    # It is tried again each time that somebody asks, and forgotten once it is gone.
    assert reaped(capsys) == (ExitStatus.INCONSISTENT, told)
    assert reaped(capsys, "--dry-run") == (ExitStatus.DONE, [f"would take down {bad}"])
    unremovable.clear()
    assert reaped(capsys) == (ExitStatus.DONE, [f"taking down {bad}"])
    assert reaped(capsys) == (ExitStatus.DONE, ["nothing is left of earlier runs"])
    assert not os.path.exists(leases.directory)


def test_sessions_tell_of_it_once(left: Callable[..., str], leases: Leases, unremovable: list[str]) -> None:
    """The first session that cannot remove something says so; later ones neither try it nor speak of it."""
    root = left("0000000a")
    leases.save(DeploymentLease(root, (GONE,)))
    unremovable.append(root)
    problem = f"{PROBLEM.format(root)}\nfix: umount {root}/var/data"
    assert reap_all(Registry(), leases) == [f"could not remove what an earlier run has left in {root}", problem]
    assert reap_all(Registry(), leases) == []
    assert running_deployments(leases, Host(), "/elsewhere") == []
    (lease,) = leases.all()
    assert (lease.rest, lease.told) == (problem, True)


def test_what_only_the_guardian_has_tried_is_told_by_the_next_session(
    left: Callable[..., str], leases: Leases, unremovable: list[str]
) -> None:
    """Nobody reads what the guardian's recovery says: the next session does so, once, and does not try again."""
    root = left("0000000a")
    leases.save(DeploymentLease(root, (GONE,)))
    unremovable.append(root)
    assert main(["_recover", f"--leases={leases.directory}", "--alone", root]) == 0
    unremovable.clear()
    told = reap_all(Registry(), leases)
    assert told[0] == f"could not remove what an earlier run has left in {root}"
    assert told[1].startswith(PROBLEM.format(root))
    assert reap_all(Registry(), leases) == []
    assert os.path.exists(root)


def test_rest_that_people_have_removed_is_forgotten(leases: Leases) -> None:
    """A rest that is there no more is no news."""
    leases.leave_rest("/nowhere/0000000a", "it is mounted", told=False)
    assert reap_all(Registry(), leases) == []
    assert leases.all() == []


def test_no_item_keeps_the_others(
    left: Callable[..., str], leases: Leases, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is wrong with one leftover is told of, and the next one is taken down."""
    bad, good = left("0000000a"), left("0000000b")
    for root in (bad, good):
        leases.save(DeploymentLease(root, (GONE,)))

    def strange(path: str) -> None:
        if path == bad:
            raise RecursionError("too deep")
        remove_tree(path)

    monkeypatch.setattr(files, "remove_tree", strange)
    status, lines = reaped(capsys)
    assert (status, lines) == (4, [f"taking down {bad}", "  RecursionError: too deep", f"taking down {good}"])
    assert not os.path.exists(good)


def test_deployment_without_a_lease_is_found_by_its_journal(
    left: Callable[..., str], leases: Leases, capsys: pytest.CaptureFixture[str]
) -> None:
    """What has lost its lease is taken down once its owners are dead; what is used, kept or nobody's is not touched."""
    lost, kept, unsaid = left("0000000a"), left("0000000b"), left("0000000c", None)
    used = left("0000000d")
    with closing(Journal(f"{used}/journal")) as journal:
        sign(journal, None)
    with closing(Journal(f"{kept}/journal")) as journal:
        note_kept(journal)
    doubts = [
        f"not touched: {kept}: it was kept; if nobody needs it: nixproc end {kept}",
        f"not touched: {unsaid}: {NOBODY_KNOWS}; if nobody needs it: nixproc end {unsaid}",
    ]
    assert reaped(capsys, "--dry-run") == (ExitStatus.INCONSISTENT, [f"would take down {lost}", *doubts])
    assert reaped(capsys) == (ExitStatus.INCONSISTENT, [f"taking down {lost}", *doubts])
    assert sorted(os.listdir(os.path.dirname(lost))) == ["0000000b", "0000000c", "0000000d"]
    assert leases.all() == []
    assert main(["end", used]) == ExitStatus.BUSY
    assert f"{used} is in use by process {os.getpid()}" in capsys.readouterr().err
    assert main(["end", kept]) == ExitStatus.DONE


def test_other_state_roots_are_looked_at_on_demand(
    tmp_path: Path, left: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A state root that was chosen by an option is looked at when it is named."""
    root = left("0000000a")
    Path(f"{tmp_path}/state").rename(tmp_path / "other")
    journal = tmp_path / "other" / "0000000a" / "journal"
    journal.write_text(journal.read_text().replace(f"{tmp_path}/state/", f"{tmp_path}/other/"))
    assert reaped(capsys) == (ExitStatus.DONE, ["nothing is left of earlier runs"])
    expected = root.replace("/state/", "/other/")
    assert reaped(capsys, f"--state-root={tmp_path}/other") == (ExitStatus.DONE, [f"taking down {expected}"])


@pytest.mark.parametrize("damage", ["lease", "journal too"])
def test_guardian_knows_what_it_guards(left: Callable[..., str], leases: Leases, damage: str) -> None:
    """A deployment of one process alone is taken down by its guardian whatever a cleaner has removed of it."""
    root = left("0000000a")
    if damage == "journal too":
        os.unlink(f"{root}/journal")
    assert main(["_recover", f"--leases={leases.directory}", "--alone", root]) == 0
    assert not os.path.exists(root)
    assert leases.all() == []


@pytest.mark.parametrize("has_lease", [True, False])
def test_guardian_hears_that_a_deployment_is_still_there(
    left: Callable[..., str], leases: Leases, monkeypatch: pytest.MonkeyPatch, *, has_lease: bool
) -> None:
    """What could not be ended keeps the deployment, and the guardian tries again once it has ended all below it."""
    root = left("0000000a")
    if has_lease:
        leases.save(DeploymentLease(root, (GONE,)))
    with monkeypatch.context() as patch:
        patch.setattr(_recovery, "still_running", lambda _: ["process 17 could not be ended"])
        assert main(["_recover", f"--leases={leases.directory}", "--alone", root]) == ExitStatus.INCONSISTENT
        assert os.path.exists(root)
    assert main(["_recover", f"--leases={leases.directory}", "--alone", root]) == ExitStatus.DONE
    assert not os.path.exists(root)
    assert leases.all() == []


def test_guardian_spares_what_others_use_or_was_kept(left: Callable[..., str], leases: Leases) -> None:
    """Without its lease, a shared deployment goes with its last user; a kept one stays."""
    shared, kept = left("0000000a"), left("0000000b")
    with closing(Journal(f"{shared}/journal")) as journal:
        sign(journal, None)
    with closing(Journal(f"{kept}/journal")) as journal:
        note_kept(journal)
    assert main(["_recover", f"--leases={leases.directory}", shared]) == 5
    assert main(["_recover", f"--leases={leases.directory}", "--alone", kept]) == 0
    assert (os.path.exists(shared), os.path.exists(kept)) == (True, True)
    lost = left("0000000c")
    assert main(["_recover", f"--leases={leases.directory}", lost]) == 0
    assert not os.path.exists(lost)


DEAD = json.dumps({**json.loads(own_text()), "started": "1"})


@pytest.mark.parametrize(
    ("owner", "is_there", "expected"),
    [
        (DEAD, False, "removed"),
        (DEAD, True, "told"),
        (own_text(), False, "ours"),
        (json.dumps({**json.loads(DEAD), "user": 4242}), False, "ours"),
        (json.dumps({**json.loads(DEAD), "host": "elsewhere"}), False, "ours"),
        (json.dumps({**json.loads(DEAD), "namespace": "pid:[1]"}), False, "ours"),
        ("", False, "told"),
        ("", True, "ours"),
    ],
)
def test_orphans_are_removed_by_what_they_say(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    owner: str,
    is_there: bool,  # noqa: FBT001 - a table of values
    expected: str,
) -> None:
    """Only what our user has made on this machine, for a process that is dead, is removed; the rest is named or not."""
    removed: list[str] = []
    root = f"{tmp_path}/0000000a"
    if is_there:
        os.mkdir(root)
    thing = Belonging("container it", root, owner, "docker rm it", lambda: removed.append("it"))
    managers: dict[str, Any] = {"docker": replace(Registry().manager("docker"), belongings=lambda: [thing])}
    monkeypatch.setattr(Registry, "managers", managers)
    status, lines = reaped(capsys)
    assert removed == (["it"] if expected == "removed" else [])
    if expected == "removed":
        assert (status, lines) == (ExitStatus.DONE, [f"removing container it of {root}"])
    elif expected == "told":
        assert status == ExitStatus.INCONSISTENT
        assert lines[0].startswith(f"not touched: container it of {root}: ")
        assert lines[0].endswith("if nobody needs it: docker rm it")
    else:
        assert (status, lines) == (ExitStatus.DONE, ["nothing is left of earlier runs"])


def test_what_a_lease_vouches_for_is_no_orphan(
    leases: Leases, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What belongs to a deployment with a lease goes with that; and a manager's error is told of, with the command."""

    def refuse() -> None:
        raise Unremovable("the engine says no")

    leases.save(DeploymentLease("/nowhere/0000000a", (), kept=True))
    things = [Belonging("container it", f"/nowhere/0000000{which}", DEAD, "docker rm it", refuse) for which in "ab"]
    managers: dict[str, Any] = {"docker": replace(Registry().manager("docker"), belongings=lambda: things)}
    monkeypatch.setattr(Registry, "managers", managers)
    status, lines = reaped(capsys)
    assert status == ExitStatus.INCONSISTENT
    assert lines == [
        "removing container it of /nowhere/0000000b",
        "  the engine says no",
        "  fix: docker rm it",
    ]
