"""What interpreters that we start look at for modules: places of installed packages, and none of the tests' own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc._persistence.recovery_command import recovery_command
from pytest_nixproc.machines.package import places_of_packages


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return places that are looked at first for modules: of tests, of packages, of a project's own metadata."""
    made = {"tests": "json.py", "packages": "thing-1.0.dist-info", "project": "project.egg-info"}
    for name, entry in made.items():
        (tmp_path / name / entry).mkdir(parents=True)
    (tmp_path / "archive.zip").touch()
    found = {name: str(tmp_path / name) for name in (*made, "archive.zip", "missing")}
    monkeypatch.setattr(sys, "path", ["", *found.values(), *sys.path])
    return found


def test_only_places_of_packages_are_handed_on(places: dict[str, str]) -> None:
    """A place where packages are installed is searched by what we start; one of tests, or of a checkout, is not."""
    assert places_of_packages()[:2] == [places["packages"], places["archive.zip"]]
    assert not {places["tests"], places["project"], places["missing"]} & set(places_of_packages())


def test_recovery_looks_for_modules_of_its_own(places: dict[str, str]) -> None:
    """The command of a recovery isolates its interpreter, and names no place that is the tests' own."""
    argv = recovery_command("/state/root", Leases("/leases"))
    assert argv[:3] == [sys.executable, "-I", "-c"]
    assert places["packages"] in argv[3]
    assert places["tests"] not in argv[3]
    assert argv[3].endswith("sys.exit(main(['_recover', '--leases=/leases', '/state/root']))\n")
