"""The end of programs that do not want to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import nullcontext

import pytest

from pytest_nixproc.errors import TeardownError
from pytest_nixproc.machines.process_table import is_alive, own_pid
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import Mode
from pytest_nixproc.model.state import StateDirs
from pytest_nixproc.testing.conformance.bench import (
    Bench,
    http_body,
    one,
    own_number,
    read_text,
)
from pytest_nixproc.testing.conformance.fixtures import Fixtures, in_both_modes
from pytest_nixproc.testing.programs.models import misbehaving, probe


class Stopping(Fixtures):
    """The end of programs that do not want to."""

    @in_both_modes
    def test_ignoring_sigterm(self, bench: Bench, mode: Mode) -> None:
        """A program that ignores SIGTERM is killed after its time, and reported by name; the others are not."""

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
    @pytest.mark.parametrize("behaviour", ["escapes", "leaves-children"])
    def test_left_behind(self, bench: Bench, mode: Mode, behaviour: str) -> None:
        """A process that outlives its program, wherever it fled to, is ended, and reported where it could live on."""
        port = bench.port()

        def build(state: StateDirs) -> Mapping[str, Instance]:
            options = {"escaped": f"{state.lib_dir}/escaped"}
            return {"it": misbehaving("it", state, mode, behaviour, port=port, options=options)}

        with bench.deploy(build) as system:
            number = int(read_text(f"{system.state.lib_dir}/escaped"))
            escaped = next(pid for pid in system["it"].pids if own_pid(pid) == number)
            report = pytest.raises(TeardownError, match=rf"process {escaped} was left behind.*misbehaving")
            can = bench.manager.capabilities
            is_told = can.stops_groups and (mode, behaviour) == ("foreground", "leaves-children")
            with nullcontext() if can.contains or is_told else report:
                system.stop()
        assert not is_alive(escaped)

    @in_both_modes
    def test_a_stop_waits_for_the_end(self, bench: Bench, mode: Mode) -> None:
        """A stop has come to its end when the program has, which may take its time."""
        options, port = {"delay": 0.4}, bench.port()
        build = one(lambda state: misbehaving("it", state, mode, "ends-slowly", port=port, options=options))
        with bench.deploy(build) as system:
            pid = system["it"].pid
            assert pid is not None
            system["it"].stop()
            assert not is_alive(pid)
            assert "ended after a while\n" in system["it"].log

    @in_both_modes
    def test_stop_and_start_of_a_single_one(self, bench: Bench, mode: Mode) -> None:
        """``stopped()`` closes the port of that instance alone, and opens it again."""
        ports = {"one": bench.port(), "two": bench.port()}
        with bench.deploy(
            lambda state: {name: probe(name, state, mode, port=port) for name, port in ports.items()}
        ) as system:
            kept = system["two"].pid
            with system["one"].stopped():
                system.machine.wait_for_closed_port(ports["one"], timeout=5)
                status = system["one"].status
                assert (status.running, status.pid) == (False, None)
                assert system["one"].pids == []
                assert system["two"].pid == kept
            assert http_body(system["one"]) == str(own_number(system["one"]))

    @in_both_modes
    def test_starting_twice_is_harmless(self, bench: Bench, mode: Mode) -> None:
        """A start of what runs leaves it alone."""
        port = bench.port()
        with bench.deploy(one(lambda state: probe("it", state, mode, port=port))) as system:
            before = system["it"].pid
            system["it"].start()
            assert system["it"].pid == before

    @in_both_modes
    def test_stopping_twice_is_harmless(self, bench: Bench, mode: Mode) -> None:
        """A stop of what is stopped, and a teardown after it, do nothing."""
        with bench.deploy(one(lambda state: probe("it", state, mode))) as system:
            system["it"].stop()
            system["it"].stop()
            assert not system["it"].is_running
            system.stop()
