"""One round of each kind of the kill storm, and the lease race; `.ci/night storm` has hundreds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.results import Results
from tests.crash.storm import KINDS, key_of, measurements, short_orders, storm_orders

STORM = Path(__file__).parent / "storm.py"
MANAGERS = "supervisord,sysvinit,docker,systemd,disnix,s6-rc,supervisord@nspawn"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_nothing_is_left_by_the_storm(tmp_path: Path) -> None:
    """After a hit of every kind nothing is left, and no two processes have leased the same port."""
    seed = os.environ.get("NIXPROC_TEST_SEED", "11")
    words = ("--short", f"--managers={MANAGERS}", f"--seed={seed}", f"--results={tmp_path}")
    done = subprocess.run([sys.executable, STORM, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert all(bar.holds for bar in Results.read(tmp_path / "kill_storm.json").bars)


@pytest.mark.parametrize("managers", [["one"], ["one", "two"], ["one", "two", "three"]], ids=len)
def test_short_storm_has_every_kind(managers: list[str]) -> None:
    """A short storm has one hit of each kind, all managers alike, and the undisturbed runs that these need."""
    orders = short_orders(managers, seed=1)
    assert [order.kind for order in orders] == [kind.name for kind in KINDS]
    hits = [sum(order.manager == manager for order in orders) for manager in managers]
    assert max(hits) - min(hits) <= 1
    assert {order.manager for order in orders if order.stubborn} == set(managers)
    needed = {key_of(order.manager, order.kind) for order in orders}
    assert sorted(key_of(order.manager, order.kind) for order in measurements(orders)) == sorted(needed)


def test_throwaway_machines_have_fewer_rounds() -> None:
    """A machine that boots for each round has a number of rounds of its own, and all kinds of hits among them."""
    orders = storm_orders(["one", "two@machine"], 30, 1, 12)
    of_machine = [order for order in orders if order.manager == "two@machine"]
    assert len([order for order in orders if order.manager == "one"]) == 30
    assert {order.kind for order in of_machine} == {kind.name for kind in KINDS}
    assert len(of_machine) == 12
    assert len(storm_orders(["two@machine"], 5, 1, 12)) == 5
