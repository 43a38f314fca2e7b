"""The project where others than root can use it: a copy of the tree, and an environment with what it needs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from tests.open_interpreter import USER, VERSION

ROOT: Final = Path(__file__).parents[1]
NEEDED: Final = ("pytest-nixproc", "pytest-timeout")


def make_tree(place: Path) -> None:
    """Put what everybody can read into a directory: a copy of the tree, and a home that is the user's own."""
    place.chmod(0o755)
    for name in ("pytest_nixproc", "examples", "conftest.py", "pyproject.toml"):
        copy(ROOT / name, place / "tree" / name)
    open_to_all(place / "tree")
    (place / "home").mkdir()
    os.chown(place / "home", USER, USER)


def make_environment(place: Path, interpreter: str) -> Path:
    """Make an environment of copies of the installed distributions; return its interpreter."""
    subprocess.run([interpreter, "-m", "venv", "--without-pip", place / "venv"], check=True, env={})
    packages = place / "venv" / "lib" / f"python{VERSION}" / "site-packages"
    for found in required(NEEDED).values():
        copy_distribution(found, packages)
    open_to_all(place / "venv")
    return place / "venv" / "bin" / "python"


def required(names: tuple[str, ...]) -> dict[str, Distribution]:
    """Return the installed distributions of these names, and those that they need."""
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        try:
            if name not in found:
                found[name] = distribution(name)
                waiting += [re.split(r"[^\w.-]", line)[0] for line in found[name].requires or ()]
        except PackageNotFoundError:
            continue  # it is only needed elsewhere, or for an extra
    return found


def copy_distribution(found: Distribution, packages: Path) -> None:
    """Copy the files of a distribution; of an editable one that is its metadata, which names the plugin."""
    for file in found.files or ():
        if ".." not in file.parts and file.suffix not in (".pth", ".pyc"):
            copy(Path(str(found.locate_file(file))), packages / file)


def copy(source: Path, target: Path) -> None:
    """Copy a file or a directory."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def open_to_all(directory: Path) -> None:
    """Let everybody read what is in a directory, and execute what its owner can."""
    for path in (directory, *directory.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
