"""A manager of another distribution, installed as its page says, is one like any other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from pytest_nixproc._plugin import options
from pytest_nixproc.testing.conformance.results import Results
from tests.conformance.conftest import recorded

EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "third-party-manager"
GUIDE: Final = Path(__file__).parents[2] / "docs" / "adding-a-manager.md"
FEATURES: Final = "test_reload or test_restart or test_left_behind or test_parameter"
Run = Callable[..., str]
REQUIRED: Final = "runit" in os.environ.get("NIXPROC_TEST_REQUIRE", "").split(",")
OFFLINE: Final = {
    # pip reads this one the other way round: 0 builds in the environment itself, which has what is needed.
    "PIP_NO_BUILD_ISOLATION": "0",
    "PIP_NO_INDEX": "1",
    "PIP_NO_DEPS": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the variables of an environment that has what this one has, and can be given more."""
    missing = [name for name in ("runsv", "sv") if shutil.which(name) is None]
    if missing:
        (pytest.fail if REQUIRED else pytest.skip)(f"{', '.join(missing)} is not installed: apt-get install runit")
    for module in ("pip", "hatchling"):
        pytest.importorskip(module)
    place = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    (packages,) = place.glob("lib/python*/site-packages")
    ours = [path for path in sys.path if path.endswith("-packages")]
    (packages / "ours.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in ours))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NIXPROC_", "PYTEST_"))}
    return {**kept, **OFFLINE, "PATH": f"{place}/bin:{os.environ['PATH']}", "PYTEST_ADDOPTS": "-p no:cacheprovider"}


@pytest.fixture(scope="module")
def installed(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a function that runs a command, which has to succeed, where the page's first command has been run."""
    place = tmp_path_factory.mktemp("example")
    shutil.copytree(EXAMPLE, place, dirs_exist_ok=True)

    def run(*command: str, **variables: str) -> str:
        program = shutil.which(command[0], path=environment["PATH"])
        done = subprocess.run(
            [program or "", *command[1:]],
            cwd=place,
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    (place / "test_runit.py").write_text(blocks(GUIDE, "python")[0])
    run(*commands()[0])
    return run


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands() -> list[list[str]]:
    """Return the commands of the example's page."""
    return [line.split() for line in blocks(EXAMPLE / "README.md", "sh")[0].splitlines()]


def test_it_is_listed(installed: Run) -> None:
    """Installed, it is one of the managers, and can run here."""
    assert "runit: can run here\n" in installed(*commands()[1])


@pytest.mark.long
def test_it_conforms(installed: Run, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """The command of its page has it pass the whole suite, as is written down of it."""
    directory = options.read(pytestconfig, "conformance-results")
    results = os.path.abspath(directory) if directory else str(tmp_path)
    output = installed(*commands()[2], NIXPROC_CONFORMANCE_RESULTS=results)
    assert re.search(r"^=+ \d+ passed in ", output.splitlines()[-1])
    if not directory:
        expected = recorded("runit").findings
        assert expected.items() >= Results.read(str(tmp_path / "runit.json")).findings.items()


def test_class_of_the_guide(installed: Run) -> None:
    """The class that the guide shows runs the suite."""
    output = installed("python", "-m", "pytest", "test_runit.py", "-k", FEATURES)
    passed = re.match(r"=+ (\d+) passed, \d+ deselected in ", output.splitlines()[-1])
    assert passed
    assert int(passed[1]) > 20


def test_guide_shows_the_example() -> None:
    """All that the guide shows of code is the example's own."""
    source = "".join(path.read_text(encoding="utf-8") for path in EXAMPLE.glob("*.*"))
    shown = [*blocks(GUIDE, "py"), *blocks(GUIDE, "toml")]
    assert len(shown) > 5
    assert [text for text in shown if text not in source] == []
