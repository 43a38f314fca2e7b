"""Tests of PID files: their places, and those that are stale, late, wrong or missing."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping
from typing import Final

import pytest

from pytest_nixproc._system.system import System
from pytest_nixproc.errors import DeploymentError
from pytest_nixproc.model.instance import Instance
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
from pytest_nixproc.testing.pace import slowness
from pytest_nixproc.testing.programs.models import misbehaving, probe
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.units import Mode

CONTENTS: Final[Mapping[str, str]] = {
    "lines": r"{}\n/var/lib/data\n1690000000\n",
    "words": r"{} 1\n",
    "comment": r"{} misbehaving\n",
    "blanks": r"\n  {:012}  \r\n",
    "filled": r"{}\0\0\0\0\0\0\0\0",
}
"""What daemons write into their PID files, with ``{}`` for the number; and with escapes, for a command line."""


class PidFiles(Fixtures):
    """Tests of PID files: their places, and those that are stale, late, wrong or missing."""

    @in_both_modes
    def test_place(self, bench: Bench, mode: Mode) -> None:
        """A PID file has the path that the model gives it, or the default one, and holds the program's pid."""

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
                content = system.machine.files.read(place)
                assert content is not None or mode == "foreground"
                assert content is None or int(content) == received(system, name).pid

    @in_both_modes
    def test_stale_one_is_not_believed(self, bench: Bench, mode: Mode) -> None:
        """A process in a stale PID file is not taken for the program, and neither hinders its start nor is stopped."""
        port = bench.port()
        with (
            bystander(*IDLE) as stranger,
            subprocess.Popen(["/bin/sh", "-c", ":"]) as dead,
            bench.deploy(one(lambda state: probe("it", state, mode, port=port))) as system,
        ):
            dead.wait()
            it = system["it"]
            for content in ("no number\n", "", f"{dead.pid}\n", f"{stranger.pid}\n"):
                it.stop()
                write_text(it.pid_file, content)
                assert (content, it.is_running) == (content, False)
                it.start()
                assert (content, own_number(it)) == (content, received(system, "it").pid)
                assert http_body(it) == str(own_number(it))
                it.stop()
                write_text(it.pid_file, content)
                it.stop()
            # The teardown finds the pid of a living process.
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

    def test_contents(self, bench: Bench) -> None:
        """A PID file may hold more than a number: the first word of its first line that has one counts."""

        def build(state: StateDirs) -> Mapping[str, Instance]:
            told = {name: {"written": text} for name, text in CONTENTS.items()}
            return {
                name: misbehaving(name, state, "daemon", "forks", port=bench.port(), options=options)
                for name, options in told.items()
            }

        with bench.deploy(build) as system:
            for name in CONTENTS:
                before = system[name].pid
                content = system.machine.files.read(system[name].pid_file) or b""
                assert (name, own_number(system[name])) == (name, int(content.split()[0].strip(b"\0")))
                system[name].restart()
                assert system[name].pid not in (None, before)
                assert system[name].is_running

    def test_content_without_a_number(self, bench: Bench) -> None:
        """The error about a daemon whose PID file begins with no number quotes it, with control characters escaped."""
        port, seconds, told = bench.port(), 1.5 * slowness(), {"written": r"pid \x1b {}"}

        def build(state: StateDirs) -> Mapping[str, Instance]:
            return {"it": impatient(misbehaving("it", state, "daemon", "forks", port=port, options=told), seconds)}

        with pytest.raises(DeploymentError, match=r"/it\.pid holds 'pid \\x1b [0-9]+'"), bench.deploy(build):
            pass

    def test_one_of_the_dead(self, bench: Bench) -> None:
        """The error about a daemon whose PID file names a process that has ended says which one, and that it has."""
        port, seconds = bench.port(), 1.5 * slowness()
        build = one(lambda state: impatient(misbehaving("it", state, "daemon", "wrong-pid-file", port=port), seconds))
        said = r"/it\.pid holds '[0-9]+', and that process has ended"
        with pytest.raises(DeploymentError, match=said), bench.deploy(build):
            pass

    @pytest.mark.parametrize("behaviour", ["wrong-pid-file", "no-pid-file"])
    def test_missing_one(self, bench: Bench, behaviour: str) -> None:
        """A daemon whose PID file does not lead to it fails the deployment, and is ended all the same, in time."""
        port, seconds = bench.port(), 1.5 * slowness()
        system = System(bench.planner())
        with pytest.raises(DeploymentError, match=r"/it\.pid"):
            system.start(
                load(one(lambda state: impatient(misbehaving("it", state, "daemon", behaviour, port=port), seconds)))
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
