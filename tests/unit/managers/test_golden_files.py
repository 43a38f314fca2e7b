"""What managers generate is what was looked at and found right.

``NIXPROC_WRITE_GOLDEN=1 pytest tests/unit/managers`` writes the files anew; then look at what has changed.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_nixproc._registry import Registry
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import File, Unit, joined

GOLDEN = Path(__file__).parents[1] / "golden"
MANAGERS = Registry().managers


def listing(files: list[File], units: dict[str, Unit]) -> str:
    """Return what is not in the files themselves: modes, links, and what drivers are told."""
    lines = [f"{file.mode:04o} {file.path}" for file in files]
    lines += [f"link {link.path} -> {link.target}" for unit in units.values() for link in unit.links]
    lines += [
        f"unit {key}: {unit.name}, {unit.mode}, log {unit.log_file}, pid {unit.pid_file}" for key, unit in units.items()
    ]
    return "\n".join(lines) + "\n"


def generated(manager: str, model: ProcessesModel, target: Target) -> dict[str, bytes]:
    """Return everything that a manager generates for a model, by path."""
    generator = MANAGERS[manager].generator()
    units = {key: MANAGERS[manager].unit(key, model, target) for key in model}
    files = joined(
        [*generator.generate_shared(model, target), *(file for unit in units.values() for file in unit.files)]
    )
    contents = {f"files/{file.path}": file.content.encode(errors="surrogateescape") for file in files}
    return contents | {"LISTING": listing(files, units).encode()}


def recorded(directory: Path) -> dict[str, bytes]:
    """Return what was found right, by path."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def record(directory: Path, contents: dict[str, bytes]) -> None:
    """Write what is to be found right."""
    shutil.rmtree(directory, ignore_errors=True)
    for path, content in contents.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)


@pytest.mark.parametrize("manager", MANAGERS)
def test_generated_files(manager: str, scenario: tuple[str, ProcessesModel], target: Target) -> None:
    """Each manager generates the same bytes as ever, without any tool, for every scenario."""
    name, model = scenario
    contents = generated(manager, model, replace(target, force_disable_user_change=name != "everything-set"))
    if os.environ.get("NIXPROC_WRITE_GOLDEN"):
        record(GOLDEN / manager / name, contents)
    assert contents == recorded(GOLDEN / manager / name)


@pytest.mark.parametrize("manager", MANAGERS)
def test_generation_is_repeatable(manager: str, scenario: tuple[str, ProcessesModel], target: Target) -> None:
    """The same model at the same place gives the same files: a switch to it restarts nothing."""
    _, model = scenario
    assert generated(manager, model, target) == generated(manager, model, target)
