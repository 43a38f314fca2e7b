"""Tests of starts: their order, their failures, and conflicts."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import pytest

from pytest_nixproc._system.system import System
from pytest_nixproc.errors import DeploymentError, StartError, Unsupported
from pytest_nixproc.model import ready
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.testing.conformance.bench import (
    Bench,
    bystander,
    http_body,
    impatient,
    load,
    one,
    own_number,
    read_text,
    received,
    seconds_of,
    write_text,
)
from pytest_nixproc.testing.conformance.fixtures import Fixtures, Note, in_both_modes
from pytest_nixproc.testing.conformance.hostile import OTHER_STATE_ROOTS
from pytest_nixproc.testing.programs.models import misbehaving, probe
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.tags import DEPLOYMENT
from pytest_nixproc.values.units import Mode

ENDINGS: Final[Mapping[str, tuple[Mode, Mapping[str, object], str]]] = {
    "status": ("foreground", {"status": 7}, "status 7"),
    "signal": ("foreground", {"signal": 11}, "SIGSEGV|signal 11"),
    "daemon's status": ("daemon", {"status": 7, "keeps_pid_file": 1}, "status 7"),
    "starter's status": ("daemon", {"status": 9, "early": 1}, "status 9"),
    # Where a PID file was all that led to the process, its status may be lost with it.
    "without a trace": ("daemon", {"status": 7}, "dead did not start"),
}
"""Ways to die at the start: of which mode, what the program is told, and what the error has to show."""


UNEXECUTABLE: Final[Mapping[str, tuple[str | None, str]]] = {
    "missing": (None, "does not exist"),
    "not executable": ("#!/bin/sh\n", "is not executable"),
    "no line": ("sleep 1000\n", "cannot be executed: it has no #! line"),
    "bad interpreter": ("#!/no/such\n", "cannot be executed: its interpreter /no/such does not exist"),
    "line ends": ("#!/bin/sh\r\n", r"cannot be executed: its lines end in CR LF, .* '/bin/sh\\r'"),
}
"""Contents of programs that are none, each with what an error has to say."""

AT_ONCE_SECONDS: Final = 5.0
"""The limit for "at once": a quarter of the limit of a start, so that a busy machine is fast enough."""

FAN: Final = 50


def idle(name: str, **parameters: Any) -> Instance:
    """Return an instance that does nothing, at the least cost."""
    return Instance(create_managed_process(name=name, foreground_process="/bin/sleep", args=[1000], **parameters))


class Starting(Fixtures):
    """Tests of starts: their order, their failures, and conflicts."""

    @in_both_modes
    def test_initialize_runs_before_every_start(self, bench: Bench, mode: Mode) -> None:
        """``initialize`` runs to its end before every start of the program, and has the program's variables."""
        text = """
            # it's a comment with "one" quote
            test -n "$PATH" && test ! -e "$PROBE_DUMP"
            printf '%s\\n' "$GREETING" >> "$LOG"
            sleep 0.1; echo done >> "$LOG"
        """
        greeting = 'it\'s "100%" $HOME'

        def build(state: StateDirs) -> Mapping[str, Instance]:
            variables = {"GREETING": greeting, "LOG": f"{state.lib_dir}/log"}
            return {"it": probe("it", state, mode, environment=variables, initialize=textwrap.dedent(text))}

        with bench.deploy(build) as system:
            log = f"{system.state.lib_dir}/log"
            assert read_text(log) == f"{greeting}\ndone\n"
            system["it"].restart()
            assert read_text(log) == f"{greeting}\ndone\n" * 2

    @in_both_modes
    @pytest.mark.parametrize("text", ["echo of no use; exit 42", "echo of no use; (exit 42); echo went on"])
    def test_failing_initialize_aborts_the_start(self, bench: Bench, mode: Mode, text: str) -> None:
        """When a command of ``initialize`` fails, nothing after it runs, and the error shows its status and output."""
        instance = one(lambda state: probe("it", state, mode, initialize=text))
        with pytest.raises(StartError) as caught, bench.deploy(instance):
            pass
        assert "it" in caught.value.brief
        assert "42" in str(caught.value)
        assert "of no use" in str(caught.value)
        assert "went on" not in str(caught.value)
        assert "the probe is up" not in str(caught.value)

    @in_both_modes
    def test_order(self, bench: Bench, mode: Mode) -> None:
        """Dependencies are ready before dependants start, and stop after them; nobody waits for unrelated instances."""

        def build(state: StateDirs) -> Mapping[str, Instance]:
            base = probe("base", state, mode, port=ports[0], delay=0.1)
            left = probe("left", state, mode, port=ports[1], dependencies=[base.pkg])
            right = probe("right", state, mode, port=ports[2], dependencies=["base"])
            # Neither is ready before both have begun: were the one to wait for the other, it would wait for ever.
            meeting = {"PROBE_MEETS": f"2:{state.spool_dir}"}
            top = probe("top", state, mode, port=ports[3], dependencies=[left.pkg, right.pkg], environment=meeting)
            slow = probe("slow", state, mode, port=ports[4], environment=meeting)
            return {"top": top, "left": left, "right": right, "base": base, "slow": slow}

        ports = [bench.port() for _ in range(5)]
        with bench.deploy(build) as system:
            dumps = {name: received(system, name) for name in system}
        assert dumps["base"].listening < min(dumps["left"].begun, dumps["right"].begun)
        assert max(dumps["left"].listening, dumps["right"].listening) < dumps["top"].begun
        assert dumps["top"].begun < dumps["slow"].listening
        asked = ("start", "ready", "stop", "stopped")
        relevant = [event for event in system.timeline if event.instance != "slow" and event.happening in asked]
        events = [(event.happening, event.instance) for event in relevant]
        groups = [(happening, {name for _, name in group}) for happening, group in groupby(events, itemgetter(0))]
        both = {"left", "right"}
        assert groups == [
            *(("start", {"base"}), ("ready", {"base"}), ("start", both), ("ready", both)),
            *(("start", {"top"}), ("ready", {"top"}), ("stop", {"top"}), ("stopped", {"top"})),
            *(("stop", both), ("stopped", both), ("stop", {"base"}), ("stopped", {"base"})),
        ]

    def test_fan(self, bench: Bench) -> None:
        """Fifty instances start after the one they need and before the one that needs them, and stop in reverse."""
        leaves = [f"leaf{number}" for number in range(FAN)]

        def build(state: StateDirs) -> Mapping[str, Instance]:
            middle = {name: idle(name, dependencies=["base"]) for name in leaves}
            return {"top": idle("top", dependencies=leaves), **middle, "base": probe("base", state)}

        with bench.deploy(build, start_seconds=60, stop_seconds=60) as system:
            assert all(status.running for status in system.statuses().values())
            assert len({status.pid for status in system.statuses().values()}) == FAN + 2
        for order in (system.timeline.order("ready"), system.timeline.order("stopped")[::-1]):
            assert (order[0], set(order[1:-1]), order[-1]) == ("base", set(leaves), "top")

    @in_both_modes
    def test_one_level_starts_side_by_side(self, bench: Bench, mode: Mode) -> None:
        """Instances that do not depend on each other start in parallel."""
        names = ("one", "two", "three")

        def build(state: StateDirs) -> Mapping[str, Instance]:
            # None of them is ready before all have begun: who starts one after the other waits for ever.
            meeting = {"PROBE_MEETS": f"{len(names)}:{state.spool_dir}"}
            return {name: probe(name, state, mode, environment=meeting) for name in names}

        with bench.deploy(build) as system:
            dumps = [received(system, name) for name in system]
        assert max(dump.begun for dump in dumps) < min(dump.listening for dump in dumps)

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_death_at_start(self, bench: Bench, ending: str) -> None:
        """An instance that ends at once fails the deployment, with its status and last output; others are stopped."""
        mode, options, shown = ENDINGS[ending]

        def build(state: StateDirs) -> Mapping[str, Instance]:
            good = probe("good", state, mode, port=ports[0])
            dead = misbehaving("dead", state, mode, "dies", port=ports[1], options=options, dependencies=["good"])
            return {"good": good, "dead": dead}

        ports = [bench.port(), bench.port()]
        system = System(bench.planner())
        with pytest.raises(StartError) as caught:
            system.start(load(build))
        assert seconds_of(system, "stop", "dead") - seconds_of(system, "start", "dead") < AT_ONCE_SECONDS
        assert caught.value.brief.startswith("dead ")
        assert re.search(shown, str(caught.value))
        assert "the disk is on fire" in str(caught.value)
        assert system.timeline.order("stopped") == ["dead", "good"]

    def test_starter_that_fails(self, bench: Bench) -> None:
        """A starter that fails though its daemon is there fails the deployment at once, with its status."""
        build = one(lambda state: misbehaving("it", state, "daemon", "forks", port=bench.port(), options={"leaves": 9}))
        system = System(bench.planner())
        with pytest.raises(StartError, match="status 9"):
            system.start(load(build))
        assert seconds_of(system, "stop", "it") - seconds_of(system, "start", "it") < AT_ONCE_SECONDS

    def test_starter_that_stays(self, bench: Bench) -> None:
        """A daemon that answers, and has written its PID file, is not ready before its starter has ended well."""

        def build(state: StateDirs) -> Mapping[str, Instance]:
            def staying(name: str) -> Instance:
                told = {"stays": 0.5, "left": f"{state.lib_dir}/{name}"}
                return misbehaving(name, state, "daemon", "forks", port=ports[name], options=told)

            return {"base": staying("base"), "top": probe("top", state, dependencies=["base"]), "it": staying("it")}

        ports = {"base": bench.port(), "it": bench.port()}
        with bench.deploy(build) as system:
            assert received(system, "top").begun > float(read_text(f"{system.state.lib_dir}/base"))
            before, left = system["it"].pid, f"{system.state.lib_dir}/it"
            os.unlink(left)
            system["it"].restart()
            assert os.path.exists(left)
            assert system["it"].pid not in (None, before)

    @in_both_modes
    @pytest.mark.parametrize("fault", UNEXECUTABLE)
    def test_program_that_cannot_be_run(self, bench: Bench, mode: Mode, fault: str) -> None:
        """What the kernel does not execute is refused: the error names the program, and a script's bad interpreter."""
        content, reason = UNEXECUTABLE[fault]
        path = f"{bench.scratch}/a program"
        if content is not None:
            write_text(path, content)
            os.chmod(path, 0o600 if fault == "not executable" else 0o700)
        own = {"foreground": "foreground_process", "daemon": "daemon"}[mode]
        parameters: dict[str, Any] = {own: path}
        with (
            pytest.raises(StartError, match=f"{path} {reason}"),
            bench.deploy(one(lambda _: Instance(create_managed_process(name="it", **parameters)))),
        ):
            pass

    @in_both_modes
    def test_never_ready(self, bench: Bench, mode: Mode) -> None:
        """An instance that never listens fails the deployment at the time limit; the error names it and its port."""
        port = bench.port()
        with (
            pytest.raises(StartError, match=rf"it is not ready after 1.5 s\n.*port {port}"),
            bench.deploy(one(lambda state: impatient(misbehaving("it", state, mode, "never-ready", port=port), 1.5))),
        ):
            pass

    @in_both_modes
    def test_other_port_than_declared(self, bench: Bench, mode: Mode) -> None:
        """Listening on another port than the declared one is a conflict, and the error names the declared port."""
        ports = bench.port(), bench.port()

        def build(state: StateDirs) -> Mapping[str, Instance]:
            told = {"other_port": ports[1]}
            wrong = misbehaving("wrong", state, mode, "listens-elsewhere", port=ports[0], options=told)
            return {"wrong": Instance(wrong.pkg, ready=ready.tcp(ports[1]), port=ports[0])}

        with pytest.raises(DeploymentError) as caught, bench.deploy(build):
            pass
        assert f"wrong declares TCP port {ports[0]}, and nobody listens on it" in str(caught.value)

    @in_both_modes
    def test_port_held_by_a_stranger(self, bench: Bench, mode: Mode) -> None:
        """A declared port held by a foreign process is reported with that process before anything is started."""
        port = bench.port()
        text = f"import socket, time; s = socket.create_server(('', {port})); print('up', flush=True); time.sleep(99)"
        with bystander(sys.executable, "-c", text) as stranger:
            assert stranger.stdout is not None
            assert stranger.stdout.readline() == "up\n"
            with (
                pytest.raises(DeploymentError) as caught,
                bench.deploy(one(lambda state: probe("it", state, mode, port=port))),
            ):
                pass
        assert f"process {stranger.pid} " in str(caught.value)
        assert "socket.create_server" in str(caught.value)

    @in_both_modes
    def test_two_deployments_of_one_model(self, bench: Bench, mode: Mode) -> None:
        """Two deployments of a model with different ports run side by side; the end of one leaves the other alone."""
        ports = [bench.port(), bench.port()]
        with bench.deploy(one(lambda state: probe("it", state, mode, port=ports[0]))) as first:
            with bench.deploy(one(lambda state: probe("it", state, mode, port=ports[1]))) as second:
                assert first["it"].pid != second["it"].pid
                assert (first["it"].listening, second["it"].listening) == ({ports[0]}, {ports[1]})
                assert own_number(first["it"]) == received(first, "it").pid
            assert first["it"].is_running
            assert http_body(first["it"]) == str(own_number(first["it"]))

    @in_both_modes
    def test_state_root_with_a_blank(self, bench: Bench, mode: Mode) -> None:
        """A state root may contain blanks."""
        root = f"{bench.scratch}/a  b"
        with bench.deploy(one(lambda state: probe("it", state, mode)), state_root=root) as system:
            assert received(system, "it").environment[DEPLOYMENT.encode()].startswith(os.fsencode(root))
            system["it"].restart()
            assert system["it"].is_running
        assert bench.deployments(root) == []

    def test_program_that_initialize_makes(self, bench: Bench) -> None:
        """A program may be made by ``initialize``; what it makes without a #! line is refused as all others are."""
        with bench.deploy(one(lambda state: makes_program(state, "#!/bin/sh"))) as system:
            assert system["it"].is_running
        with (
            pytest.raises(StartError, match="program cannot be executed: it has no #! line"),
            bench.deploy(one(lambda state: makes_program(state, ""))),
        ):
            pass

    @in_both_modes
    def test_state_root_behind_a_link(self, bench: Bench, mode: Mode) -> None:
        """Where a symbolic link leads to the state root, an instance still writes and works where it should."""
        os.mkdir(f"{bench.scratch}/real")
        os.symlink("real", f"{bench.scratch}/link")
        build = one(lambda state: probe("it", state, mode, directory=state.lib_dir))
        with bench.deploy(build, state_root=f"{bench.scratch}/link/root") as system:
            assert [finding.problem for finding in system.findings] == []

    @in_both_modes
    def test_other_state_roots_work_or_are_refused(self, bench: Bench, mode: Mode, refused_some: Note) -> None:
        """A deployment works in a state root of any name, or is refused with the path before anything is started."""
        refusals: dict[str, str] = {}
        for name in OTHER_STATE_ROOTS:
            root = f"{bench.scratch}/{name}"
            system = System(bench.planner(state_root=root))
            try:
                system.start(load(one(lambda state: probe("it", state, mode))))
            except Unsupported as error:
                refusals[name] = str(error)
            else:
                assert own_number(system["it"]) == received(system, "it").pid
                system.stop()
            assert bench.deployments(root) == []
        refused_some(refusals)
        for name, refusal in refusals.items():
            assert bench.manager.name in refusal
            assert repr(f"{bench.scratch}/{name}")[1:-1] in refusal


def makes_program(state: StateDirs, first_line: str) -> Instance:
    """Return an instance whose ``initialize`` makes its program, a script with this first line."""
    program = f"{state.lib_dir}/program"
    initialize = f"printf '%s\\n' '{first_line}' 'exec sleep 1000' > {program}; chmod 700 {program}"
    return Instance(create_managed_process(name="it", foreground_process=program, initialize=initialize))
