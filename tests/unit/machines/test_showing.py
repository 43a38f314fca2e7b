"""What a throwaway machine has to be shown, of real directories below ``/tmp``, which it has itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pytest_nixproc.machines.nspawn import showing
from pytest_nixproc.machines.nspawn.showing import Showing, interpreter


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory of the host that a machine has itself, whatever the temporary directory is."""
    place = tmp_path.resolve()
    monkeypatch.setattr(showing, "OWN_SYSTEM", (str(place),))
    return place


@pytest.fixture
def shows() -> Showing:
    """Return what a machine is shown that shares a directory."""
    return Showing(("/opt",), "/shared")


def test_directory_and_ways_to_it(place: Path, shows: Showing) -> None:
    """A directory is shown at its path, and at each link's that leads to it; both but once."""
    real, link = place / "a b" / "réal", place / "x" / "link"
    (real / "in").mkdir(parents=True)
    link.parent.mkdir()
    link.symlink_to(real.parent)
    paths = [f"{link}/réal/in", f"{real}", "/no/such/path"]
    assert shows.words(paths) == ["/shared", str(real), str(real), f"{real}/in", f"{link}/réal/in"]
    assert shows.words(paths) == []


def test_program_brings_what_lies_beside_it(place: Path, shows: Showing) -> None:
    """Of a program its directory is shown, and its interpreter's."""
    (place / "i").mkdir()
    (place / "i" / "sh").symlink_to("/bin/sh")
    (place / "p").mkdir()
    (place / "p" / "server").write_text(f"#!{place}/i/sh\n")
    (place / "p" / "server").chmod(0o755)
    shell = os.path.realpath("/bin/sh")
    assert shows.words([f"{place}/p/server"])[1::2] == [f"{place}/i", f"{place}/p"]
    assert not any(word.startswith(shell) for word in shows.words([f"{place}/p/server"]))


def test_what_a_machine_sees_is_not_shown(place: Path) -> None:
    """The system's software, directories that hold everything, and what is shared need not be shown."""
    (place / "shared").mkdir()
    shows = Showing((), f"{place}/shared")
    assert shows.words([f"{place}/shared/x", "/bin/sh", "/tmp", "/var/lib", "/"]) == []


def test_what_an_overlay_hides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is mounted below a top-level directory that a machine sees has to be shown as well."""
    top = f"/{tmp_path.resolve().parts[1]}"
    inner = tmp_path.resolve() / "mounted" / "project"
    inner.mkdir(parents=True)
    monkeypatch.setattr(showing, "OWN_SYSTEM", ())
    assert Showing((top,), "/shared").words([str(inner)]) == []
    monkeypatch.setattr(os.path, "ismount", str(inner.parent).__eq__)
    assert Showing((top,), "/shared").words([str(inner)])[1:] == [str(inner)] * 2


def test_interpreter_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter is needed, with where it is installed and every directory that it looks for modules in."""
    monkeypatch.setattr(sys, "path", ["", "/by/a/pth/file"])
    assert {sys.executable, sys.prefix, sys.base_prefix, "/by/a/pth/file"} <= {*interpreter()}
