"""Deployments whose lease somebody has removed: what their journals say of whose they are."""

from __future__ import annotations

import json
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_nixproc._persistence import owners as module
from pytest_nixproc._persistence import process_identity
from pytest_nixproc._persistence.directory import DeploymentDirectory
from pytest_nixproc._persistence.journal import Journal, begin, begin_machine
from pytest_nixproc._persistence.leases import DeploymentLease, Leases
from pytest_nixproc._persistence.owners import (
    NO_JOURNAL,
    NOBODY_KNOWS,
    Stranded,
    note_kept,
    own_text,
    owner_in,
    sign,
    stranded,
)
from pytest_nixproc._persistence.process_identity import ProcessIdentity, host_name
from pytest_nixproc.values.target import Target

ME = ProcessIdentity.current()
GONE = replace(ME, started="1")


@pytest.fixture
def leases(tmp_path: Path) -> Leases:
    """Return leases of our own."""
    return Leases(f"{tmp_path}/run/leases")


def left(root: Path, *users: ProcessIdentity, guardian: ProcessIdentity = GONE, **facts: Any) -> str:
    """Leave a deployment that processes have used, without a lease."""
    root.mkdir(parents=True)
    own = DeploymentDirectory(str(root))
    with closing(Journal(own.journal)) as journal:
        begin(journal, "sysvinit", "host", Target(own.state, own.profile, own.identity))
        for user in users:
            said = {"host": host_name(), "user": user.facts(), "guardian": guardian.facts(), **facts}
            journal.write("used", **said)
    return own.root


def found(place: Path, leases: Leases) -> list[Stranded]:
    """Return the deployments in a state root that no lease names."""
    return list(stranded([str(place)], leases))


def test_one_whose_owners_are_dead_is_found(tmp_path: Path, leases: Leases) -> None:
    """A deployment without a lease is found once all that its journal names are dead, its guardian included."""
    place = tmp_path / "nixproc"
    root = left(place / "0123abcd", GONE, replace(GONE, started="2"))
    left(place / "1123abcd", GONE, ME)
    left(place / "2123abcd", GONE, guardian=ME)
    leased = left(place / "3123abcd", GONE)
    leases.save(DeploymentLease(leased, (ME,)))
    (item,) = found(place, leases)
    assert (item.root, item.doubt) == (root, "")
    assert item.lease is not None
    assert item.lease.users == (GONE, replace(GONE, started="2"), GONE, GONE)
    assert not item.lease.kept


def test_what_we_sign_is_ours(tmp_path: Path, leases: Leases) -> None:
    """A deployment that this process uses is nobody else's to take down; nor is a machine that it has booted."""
    place = tmp_path / "nixproc"
    with closing(Journal(f"{left(place / '0123abcd')}/journal")) as journal:
        sign(journal, None)
    (place / "1123abcd").mkdir()
    with closing(begin_machine(f"{place}/1123abcd/journal", "nspawn")) as journal:
        sign(journal, GONE)
    assert found(place, leases) == []


@pytest.mark.parametrize("kept", [True, False])
def test_one_that_was_kept_is_left_alone(tmp_path: Path, leases: Leases, kept: bool) -> None:  # noqa: FBT001 - a table
    """What was kept on purpose is told of, with the command that ends it."""
    root = left(tmp_path / "nixproc" / "0123abcd", GONE)
    if kept:
        with closing(Journal(f"{root}/journal")) as journal:
            note_kept(journal)
    (item,) = found(tmp_path / "nixproc", leases)
    assert (item.lease is None, item.doubt) == (kept, "it was kept" if kept else "")
    assert item.remedy == f"nixproc end {root}"


@pytest.mark.parametrize(
    ("facts", "doubt"),
    [({"host": "elsewhere"}, "it is of another machine"), ({"user": None}, NO_JOURNAL), (None, NOBODY_KNOWS)],
)
def test_doubts_are_told(tmp_path: Path, leases: Leases, facts: dict[str, Any] | None, doubt: str) -> None:
    """What another machine has on a shared disk, what cannot be read, and what earlier versions have left is spared."""
    root = left(tmp_path / "nixproc" / "0123abcd", *([] if facts is None else [GONE]), **(facts or {}))
    assert found(tmp_path / "nixproc", leases) == [Stranded(root, None, doubt)]


@pytest.mark.parametrize(
    ("line", "doubt"),
    [(b'{"event": []}', ""), (b"[]", NOBODY_KNOWS), (b"[" * 100_000, NOBODY_KNOWS), (b"\xff", NOBODY_KNOWS)],
)
def test_strange_lines_do_no_harm(tmp_path: Path, leases: Leases, line: bytes, doubt: str) -> None:
    """Noise ends a journal: what nothing says the owner of is left alone; a strange event is passed over."""
    path = Path(left(tmp_path / "nixproc" / "0123abcd", GONE)) / "journal"
    first, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(b"\n".join([first, line, rest]))
    (item,) = found(tmp_path / "nixproc", leases)
    assert item.doubt == doubt


def test_directory_without_a_journal_is_told_of(tmp_path: Path, leases: Leases) -> None:
    """A directory of that kind of name without our journal is told of; anything else in a state root is not."""
    place = tmp_path / "nixproc"
    for name in ("0123abcd", "leases", "thesis-1"):
        (place / name).mkdir(parents=True)
    (place / "1123abcd").write_text("")
    (item,) = found(place, leases)
    assert (item.root, item.doubt, item.remedy) == (f"{place}/0123abcd", NO_JOURNAL, f"rm -r {place}/0123abcd")
    assert found(tmp_path / "nowhere", leases) == []


def test_planted_journal_is_not_believed(tmp_path: Path, leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal of another user, or in a place that somebody else could exchange, is nobody's order."""
    place = tmp_path / "nixproc"
    root = left(place / "0123abcd", GONE)
    place.chmod(0o777)
    (item,) = found(place, leases)
    assert (item.lease, item.doubt) == (None, f"{place} can be written by everybody")
    place.chmod(0o700)
    monkeypatch.setattr(module, "stranger_on_the_way", lambda _: "")
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert found(place, leases) == [Stranded(root, None, NO_JOURNAL)]


def test_owners_in_texts() -> None:
    """A label's owner is read back where it is of our user and machine; others, and any other text, name nobody."""
    assert owner_in(own_text()) == ME
    facts = json.loads(own_text())
    for other in ({"user": 4242}, {"host": "elsewhere"}, {"pid": None}):
        assert owner_in(json.dumps(facts | other)) is None
    for text in ("", "[]", "{", "3"):
        assert owner_in(text) is None


def test_process_of_another_container_counts_as_living(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pids of another container, whose leases may be in a shared directory, say nothing here; a reboot ends all."""
    assert ME.is_alive
    assert not GONE.is_alive
    assert replace(GONE, namespace="pid:[1]").is_alive
    assert not replace(GONE, namespace="").is_alive
    monkeypatch.setattr(process_identity, "boot_id", lambda: "another boot")
    assert not replace(GONE, namespace="pid:[1]").is_alive
