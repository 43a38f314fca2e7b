"""The short kill storm, and the lease race: the same program as the benchmark, with few rounds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.storm import obstacle_of

STORM = Path(__file__).parent / "storm.py"


def ask_for(name: str) -> None:
    """Skip the test where a manager cannot run, or fail it where that manager is required."""
    required = set(os.environ.get("NIXPROC_REQUIRE", "").split(","))
    if obstacle := obstacle_of(name):
        (pytest.fail if required & {*name.split("@"), "all"} else pytest.skip)(f"{name} cannot run here: {obstacle}")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"managers": "supervisord", "rounds": 11, "lease-rounds": 0, "share-rounds": 0}, id="supervisord"),
        pytest.param({"managers": "sysvinit", "rounds": 11, "lease-rounds": 0, "share-rounds": 0}, id="sysvinit"),
        pytest.param({"managers": "docker", "rounds": 11, "lease-rounds": 0, "share-rounds": 1}, id="docker"),
        pytest.param({"managers": "s6-rc", "rounds": 11, "lease-rounds": 0, "share-rounds": 1}, id="s6-rc"),
        pytest.param({"managers": "systemd", "rounds": 11, "lease-rounds": 0, "share-rounds": 1}, id="systemd"),
        pytest.param(
            {"managers": "supervisord@nspawn", "rounds": 11, "lease-rounds": 0, "share-rounds": 0}, id="nspawn"
        ),
        pytest.param({"rounds": 0, "lease-rounds": 3, "share-rounds": 0}, id="ports"),
        pytest.param({"rounds": 0, "lease-rounds": 0, "share-rounds": 2}, id="share"),
    ],
)
@pytest.mark.timeout(300)
def test_nothing_is_left_by_the_storm(options: dict[str, object]) -> None:
    """After hits of every kind nothing is left, and no two processes have leased the same port."""
    for name in filter(None, str(options.get("managers", "")).split(",")):
        ask_for(name)
    words = [f"--{name}={value}" for name, value in options.items()]
    seed = os.environ.get("NIXPROC_TEST_SEED", "11")
    done = subprocess.run(
        [sys.executable, STORM, f"--seed={seed}", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
