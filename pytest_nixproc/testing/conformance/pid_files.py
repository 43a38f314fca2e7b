"""PID files: where they are, and which are not believed."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping

import pytest

from pytest_nixproc.deployment.system import System
from pytest_nixproc.errors import DeploymentError
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import Mode
from pytest_nixproc.model.state import StateDirs
from pytest_nixproc.testing.conformance.bench import (
    IDLE,
    Bench,
    bystander,
    http_body,
    impatient,
    load,
    one,
    own_number,
    received,
    seconds_of,
    write_text,
)
from pytest_nixproc.testing.conformance.fixtures import Fixtures, in_both_modes
from pytest_nixproc.testing.programs.models import misbehaving, probe


class PidFiles(Fixtures):
    """PID files: where they are, and which are not believed."""

    @in_both_modes
    def test_place(self, bench: Bench, mode: Mode) -> None:
        """A PID file has the place that the model rules say, and names the program."""

        def build(state: StateDirs) -> Mapping[str, Instance]:
            explicit = f"{state.lib_dir}/it's here"
            return {
                "plain": probe("plain", state, mode),
                "named": probe("named", state, mode, instance_name="other", pid_file=f"{state.runtime_dir}/x.pid"),
                "explicit": probe("explicit", state, mode, pid_file=explicit),
            }

        with bench.deploy(build) as system:
            places = {"plain": f"{system.state.runtime_dir}/plain.pid", "named": f"{system.state.runtime_dir}/x.pid"}
            places["explicit"] = f"{system.state.lib_dir}/it's here"
            assert {name: system[name].pid_file for name in system} == places
            for name, place in places.items():
                content = system.machine.read(place)
                assert content is not None or mode == "foreground"
                assert content is None or int(content) == received(system, name).pid

    @in_both_modes
    @pytest.mark.parametrize("kind", ["of a dead process", "of a stranger", "without a number", "empty"])
    def test_stale_one_is_not_believed(self, bench: Bench, mode: Mode, kind: str) -> None:
        """What is left in a PID file neither counts as the program, nor hinders its start, nor is touched at a stop."""
        with bystander(*IDLE) as stranger, subprocess.Popen(["/bin/sh", "-c", ":"]) as dead:
            dead.wait()
            contents = {"of a dead process": f"{dead.pid}\n", "of a stranger": f"{stranger.pid}\n"}
            content = contents.get(kind, "no number\n" if kind == "without a number" else "")
            port = bench.port()
            with bench.deploy(one(lambda state: probe("it", state, mode, port=port))) as system:
                it = system["it"]
                it.stop()
                write_text(it.pid_file, content)
                assert not it.is_running
                it.start()
                assert own_number(it) == received(system, "it").pid
                assert http_body(it) == str(own_number(it))
                it.stop()
                write_text(it.pid_file, content)

    @in_both_modes
    def test_crash_leaves_one(self, bench: Bench, mode: Mode) -> None:
        """After a crash that left the PID file, the program can be started again at once."""
        port = bench.port()
        with bench.deploy(one(lambda state: probe("it", state, mode, port=port))) as system:
            it = system["it"]
            before = it.pid
            it.kill(signal.SIGKILL)
            it.start()
            assert it.pid not in (None, before)
            assert http_body(it) == str(own_number(it))

    def test_late_one(self, bench: Bench) -> None:
        """A daemon may write its PID file after its starter has ended."""
        options = {"delay": 0.3}
        port = bench.port()
        build = one(lambda state: misbehaving("it", state, "daemon", "late-pid-file", port=port, options=options))
        with bench.deploy(build) as system:
            assert http_body(system["it"]) == str(own_number(system["it"]))

    @pytest.mark.parametrize("behaviour", ["wrong-pid-file", "no-pid-file"])
    def test_missing_one(self, bench: Bench, behaviour: str) -> None:
        """A daemon whose PID file does not lead to it fails the deployment, and is ended all the same, in time."""
        port = bench.port()
        system = System(bench.planner())
        with pytest.raises(DeploymentError, match=r"/it\.pid"):
            system.start(
                load(one(lambda state: impatient(misbehaving("it", state, "daemon", behaviour, port=port), 3)))
            )
        assert seconds_of(system, "stopped", "it") - seconds_of(system, "stop", "it") < bench.stop_seconds

    def test_one_that_stays_behind(self, bench: Bench) -> None:
        """A daemon that does not remove its PID file is stopped and started like any other."""
        build = one(lambda state: misbehaving("it", state, "daemon", "stale-pid-file", port=bench.port()))
        with bench.deploy(build) as system:
            before = system["it"].pid
            system["it"].restart()
            assert system["it"].pid not in (None, before)
            system["it"].stop()
            assert not system["it"].is_running
