"""Tests of stops, also of programs that do not want to end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Final

import pytest

from pytest_nixproc._system.system import System
from pytest_nixproc.errors import TeardownError
from pytest_nixproc.machines.process_table import is_alive, own_pid
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.testing.conformance.bench import (
    Bench,
    http_body,
    one,
    own_number,
    pids_of,
    read_text,
    seconds_of,
    stopped_within,
)
from pytest_nixproc.testing.conformance.fixtures import Fixtures, in_both_modes, in_both_modes_at_once
from pytest_nixproc.testing.programs.models import misbehaving, probe
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.units import Mode

CONTAINED_SECONDS: Final = 2.0
"""How long a manager that contains processes waits for those that escaped and heed no SIGTERM; the program heeds it."""


class Stopping(Fixtures):
    """Tests of stops, also of programs that do not want to end."""

    @in_both_modes
    def test_ignoring_sigterm(self, bench: Bench, mode: Mode) -> None:
        """A program that ignores SIGTERM is killed at the time limit and reported by name; other programs are not."""

        def build(state: StateDirs) -> Mapping[str, Instance]:
            good = probe("good", state, mode)
            bad = misbehaving("bad", state, mode, "ignores-term", port=port, dependencies=["good"])
            return {"good": good, "bad": bad}

        port = bench.port()
        with bench.deploy(build, stop_seconds=1) as system:
            pid = system["bad"].pid
            with pytest.raises(TeardownError) as caught:
                system.stop()
        assert [problem.partition(" ")[0] for problem in caught.value.problems] == ["bad"]
        assert re.search("kill", str(caught.value), re.IGNORECASE)
        assert pid
        assert not is_alive(pid)
        assert system.timeline.order("stopped") == ["bad", "good"]

    @in_both_modes
    def test_signals_of_the_model(self, bench: Bench, mode: Mode) -> None:
        """A program is asked to stop by the signal of its model, and no other, and to reload by the model's, too."""
        signals = bench.honoured(stop_signal="QUIT", reload_signal="USR1")
        if len(signals) < 2:
            pytest.skip(f"{bench.manager.name} refuses them")

        def build(state: StateDirs) -> Mapping[str, Instance]:
            return {"it": misbehaving("it", state, mode, "minds-quit", options={"ready": 1}, **signals)}

        with bench.deploy(build) as system:
            it = system["it"]
            bench.await_line(it, "ready")
            it.reload()
            bench.await_line(it, "line 1 on request")
            it.restart()
            it.stop()
            log = it.log
        assert log.count("told to quit\n") == log.count("ready\n")
        assert "SIGTERM" not in log

    @in_both_modes
    @pytest.mark.parametrize("behaviour", ["escapes", "leaves-children"])
    def test_left_behind(self, bench: Bench, mode: Mode, behaviour: str) -> None:
        """A process that outlives its program is ended, and reported unless the manager's own stop ends it."""
        port = bench.port()

        def build(state: StateDirs) -> Mapping[str, Instance]:
            options = {"escaped": f"{state.lib_dir}/escaped"}
            return {"it": misbehaving("it", state, mode, behaviour, port=port, options=options)}

        with bench.deploy(build, stop_seconds=CONTAINED_SECONDS) as system:
            number = int(read_text(f"{system.state.lib_dir}/escaped"))
            escaped = next(pid for pid in system["it"].pids if own_pid(pid) == number)
            report = pytest.raises(TeardownError, match=rf"process {escaped} of it was left behind.*misbehaving")
            can = bench.manager.capabilities
            is_told = can.stops_groups and (mode, behaviour) == ("foreground", "leaves-children")
            with nullcontext() if can.contains or is_told else report:
                system.stop()
        assert not is_alive(escaped)

    @in_both_modes
    def test_left_with_the_port(self, bench: Bench, mode: Mode) -> None:
        """What an instance leaves behind is told by its stop, with the port that it holds, and ended before a start."""
        port, can = bench.port(), bench.manager.capabilities
        is_ended = can.contains or (can.stops_groups and mode == "foreground")
        told = rf"on {bench.manager.name} was not .*\n  process \d+ of it was left behind, holding TCP port {port}, and"
        with bench.deploy(one(lambda state: misbehaving("it", state, mode, "leaves-a-server", port=port))) as system:
            it = system["it"]
            for stop in (it.stop, system.stop):
                it.start()
                bench.await_that(lambda: len(it.pids) > 1, "there is a child")
                pids = it.pids
                with nullcontext() if is_ended else pytest.raises(TeardownError, match=told):
                    stop()
                assert not any(map(is_alive, pids))

    @in_both_modes
    def test_left_for_a_moment(self, bench: Bench, mode: Mode) -> None:
        """A helper that ends a moment after its program was not left behind, neither by a stop nor by the teardown."""
        options, port = {"delay": 0.4}, bench.port()
        build = one(lambda state: misbehaving("it", state, mode, "leaves-a-helper", port=port, options=options))
        with bench.deploy(build) as system:
            system["it"].restart()
            system.stop()

    @in_both_modes
    def test_longer_limit(self, bench: Bench, mode: Mode) -> None:
        """An instance that may take longer to stop than others has that time, and its stop is clean."""
        options, port = {"delay": 2.5}, bench.port()

        def build(state: StateDirs) -> Mapping[str, Instance]:
            slow = misbehaving("it", state, mode, "ends-slowly", port=port, options=options)
            return {"it": stopped_within(slow, bench.stop_seconds)}

        with bench.deploy(build, stop_seconds=1) as system:
            system["it"].stop()
            assert "ended after a while\n" in system["it"].log

    @in_both_modes
    def test_shorter_limit(self, bench: Bench, mode: Mode) -> None:
        """An instance that exceeds its own limit is killed then, and reported with how long was really waited."""
        port = bench.port()
        build = one(lambda state: stopped_within(misbehaving("it", state, mode, "ignores-term", port=port), 1))
        told = r"it did not stop within 1 s: process \d+ was (ended by SIGKILL|killed by its manager) after (\d+\.\d) s"
        with bench.deploy(build, stop_seconds=60) as system:
            with pytest.raises(TeardownError, match=told) as caught:
                system["it"].stop()
            taken = seconds_of(system, "stopped", "it") - seconds_of(system, "stop", "it")
        said = re.search(told, str(caught.value))
        assert said
        assert 1 <= float(said[2]) <= taken + 0.1
        assert taken < 30

    @in_both_modes
    def test_a_stop_waits_for_the_end(self, bench: Bench, mode: Mode) -> None:
        """A stop lasts until the program has ended, which may take its time."""
        options, port = {"delay": 0.4}, bench.port()
        build = one(lambda state: misbehaving("it", state, mode, "ends-slowly", port=port, options=options))
        with bench.deploy(build) as system:
            pid = system["it"].pid
            assert pid is not None
            system["it"].stop()
            assert not is_alive(pid)
            assert "ended after a while\n" in system["it"].log

    @in_both_modes_at_once
    def test_stop_and_start_of_a_single_one(self, system: System) -> None:
        """``stopped()`` closes the port of that instance alone, and opens it again."""
        it = system["stopped"]
        others = {name: pid for name, pid in pids_of(system).items() if name != "stopped"}
        with it.stopped():
            system.machine.wait_for_closed_port(it.port, timeout=5)
            assert (it.status.running, it.status.pid) == (False, None)
            assert it.pids == []
            assert pids_of(system) == {**others, "stopped": None}
        assert http_body(it) == str(own_number(it))

    @in_both_modes_at_once
    def test_starting_twice_is_harmless(self, system: System) -> None:
        """A start of a running instance leaves it alone."""
        before = pids_of(system)
        system["started"].start()
        assert pids_of(system) == before

    @in_both_modes
    def test_stopping_twice_is_harmless(self, bench: Bench, mode: Mode) -> None:
        """A stop of a stopped instance, and a teardown after it, do nothing."""
        with bench.deploy(one(lambda state: probe("it", state, mode))) as system:
            system["it"].stop()
            system["it"].stop()
            assert not system["it"].is_running
            system.stop()
