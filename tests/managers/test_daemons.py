"""What is alike for daemons under several managers of ours, and no part of what every manager has to do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pytest_nixproc._registry import Registry
from pytest_nixproc.machines.host import Host
from pytest_nixproc.model import ready
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.testing.conformance.bench import Bench, clean
from tests.managers.daemon_programs import LEAVES_ITS_PLACE


@pytest.mark.parametrize("manager", ["supervisord", "sysvinit", "disnix"])
def test_daemon_that_leaves_its_place_to_another(manager: str, machine: Host) -> None:
    """What a PID file names first may live for a moment, and end well: the daemon is the one that it names then."""

    def instance(pid_file: str) -> Instance:
        argv = ["-I", "-S", "-c", LEAVES_ITS_PLACE, pid_file]
        pkg = create_managed_process(name="it", daemon=sys.executable, daemon_args=argv, pid_file=pid_file)
        return Instance(pkg, ready=ready.log("up"))

    with (
        clean(Bench(Registry().manager(manager), machine)) as bench,
        bench.deploy(lambda state: {"it": instance(f"{state.runtime_dir}/it.pid")}) as system,
    ):
        assert system["it"].pid == int(Path(f"{system.state.runtime_dir}/it.pid").read_text())
        system.assert_no_conflicts()
        assert system.timeline.order("ended") == []
