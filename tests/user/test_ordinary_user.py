"""The examples pass for an ordinary user, also when the suite is run by root."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.open_interpreter import USER, VERSION, as_user, open_interpreter
from tests.open_tree import ROOT, make_environment, make_tree

EXAMPLES: Final = [name for name in ("first", "webapps", "databases") if (ROOT / "examples" / name).is_dir()]

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="whoever runs these tests is an ordinary user already"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Return a directory that everybody can read, with a copy of the tree, and a home that is the user's own."""
    with tempfile.TemporaryDirectory(prefix="u") as directory:
        make_tree(Path(directory))
        yield Path(directory)


@pytest.fixture(scope="module")
def python(place: Path) -> Path:
    """Return an interpreter that the user can execute, in an environment of copies of the installed distributions."""
    base = open_interpreter()
    if base is None:
        reason = f"no Python {VERSION} that user {USER} can execute, with the module venv"
        if "ordinary-user" in os.environ.get("NIXPROC_TEST_REQUIRE", "").split(","):
            pytest.fail(reason)
        pytest.skip(reason)
    return make_environment(place, base)


def test_a_process_really_is_the_users(place: Path, python: Path) -> None:
    """What is run here runs as the user, without root's capabilities, and can write into the home only."""
    program = "import os; print(os.getuid(), os.geteuid(), os.getgid(), os.getgroups(), os.access('../tree', os.W_OK))"
    run = as_user([python, "-c", program], directory=place / "home", environment={})
    assert run.stdout == f"{USER} {USER} {USER} [] False\n"


@pytest.mark.parametrize(
    "example", [pytest.param(name, marks=[] if name == "first" else pytest.mark.long) for name in EXAMPLES]
)
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
