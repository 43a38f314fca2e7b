"""A manager of another distribution, installed as its page says, is one like any other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "third-party-manager"
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


def commands() -> list[list[str]]:
    """Return the commands of the example's page."""
    (block,) = re.findall(
        r"^```sh\n(.*?)^```$", (EXAMPLE / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    return [line.split() for line in block.splitlines()]


def test_steps_of_the_example(environment: dict[str, str], tmp_path: Path) -> None:
    """The commands of its page install it, list it, and have it pass the whole conformance suite."""
    shutil.copytree(EXAMPLE, tmp_path / "example")
    outputs = []
    for command in commands():
        done = subprocess.run(
            [shutil.which(command[0], path=environment["PATH"]) or "", *command[1:]],
            cwd=tmp_path / "example",
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        outputs.append(done.stdout)
    _, listing, last = outputs
    assert "runit: can run here\n" in listing
    assert re.search(r"^=+ \d+ passed in ", last.splitlines()[-1])
