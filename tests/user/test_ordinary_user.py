"""The examples pass for an ordinary user, also when the suite is run by root."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

import pytest

from tests.open_interpreter import USER, VERSION, as_user, open_interpreter

ROOT: Final = Path(__file__).parents[2]
NEEDED: Final = ("pytest-nixproc", "pytest-timeout")
EXAMPLES: Final = [name for name in ("first", "webapps") if (ROOT / "examples" / name).is_dir()]

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="whoever runs these tests is an ordinary user already"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Return a directory that everybody can read, with a copy of the tree, and a home that is the user's own."""
    with tempfile.TemporaryDirectory(prefix="u") as directory:
        place = Path(directory)
        place.chmod(0o755)
        for name in ("pytest_nixproc", "examples", "conftest.py", "pyproject.toml"):
            copy(ROOT / name, place / "tree" / name)
        open_to_all(place / "tree")
        (place / "home").mkdir()
        os.chown(place / "home", USER, USER)
        yield place


@pytest.fixture(scope="module")
def python(place: Path) -> Path:
    """Return an interpreter that the user can execute, in an environment of copies of the installed distributions."""
    base = open_interpreter()
    if base is None:
        reason = f"no Python {VERSION} that user {USER} can execute, with the module venv"
        if "ordinary-user" in os.environ.get("NIXPROC_TEST_REQUIRE", "").split(","):
            pytest.fail(reason)
        pytest.skip(reason)
    subprocess.run([base, "-m", "venv", "--without-pip", place / "venv"], check=True, env={})
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


def test_a_process_really_is_the_users(place: Path, python: Path) -> None:
    """What is run here runs as the user, without root's capabilities, and can write into the home only."""
    program = "import os; print(os.getuid(), os.geteuid(), os.getgid(), os.getgroups(), os.access('../tree', os.W_OK))"
    run = as_user([python, "-c", program], directory=place / "home", environment={})
    assert run.stdout == f"{USER} {USER} {USER} [] False\n"


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_pass_for_an_ordinary_user(example: str, place: Path, python: Path) -> None:
    """An example deploys, passes and leaves nothing for a user without any rights, on every manager."""
    environment = {
        **{
            name: value for name, value in os.environ.items() if name in ("NIXPROC_TEST_REQUIRE", "PYTEST_XDIST_WORKER")
        },
        "HOME": str(place / "home"),
        "LC_ALL": "C.UTF-8",
        "PATH": os.defpath + ":/usr/sbin:/usr/local/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(place / "home"),
    }
    arguments = ["-p", "no:cacheprovider", "--nixproc-manager=supervisord,sysvinit", f"examples/{example}"]
    run = as_user([python, "-m", "pytest", *arguments], directory=place / "tree", environment=environment)
    assert run.returncode == 0, run.stdout
    assert " passed" in run.stdout.splitlines()[-1], run.stdout
    left = [name for name in os.listdir(place / "home") if not name.startswith("pytest-of-")]
    assert left == [], "the user's session left files"
