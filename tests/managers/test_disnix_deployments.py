"""Components that are really activated, as the module of Dysnomia would or by Dysnomia."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_nixproc._registry import Registry
from pytest_nixproc.machines.host import Host
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.testing.conformance import Bench
from pytest_nixproc.testing.conformance.bench import IDLE
from pytest_nixproc.values.state import StateDirs


@pytest.fixture
def bench(machine: Host) -> Iterator[Bench]:
    """Return a bench that deploys with disnix."""
    bench = Bench(Registry().manager("disnix"), machine)
    yield bench
    assert not bench.leftovers()


def test_overridden_pid_file(bench: Bench) -> None:
    """A PID file in another place is the one that counts, for the checks and for tests."""

    def build(state: StateDirs) -> dict[str, Instance]:
        overrides = {"disnix": {"pid_file": f"{state.runtime_dir}/other.pid"}}
        process, *args = IDLE
        return {
            "it": Instance(
                create_managed_process(name="it", foreground_process=process, args=args, overrides=overrides)
            )
        }

    with bench.deploy(build) as system:
        assert system["it"].pid_file == f"{system.state.runtime_dir}/other.pid"
        with open(system["it"].pid_file) as file:
            assert int(file.read()) == system["it"].pid
