"""What programs are given."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from pytest_nixproc.deployment.site import TAG
from pytest_nixproc.model import ready
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import Mode, create_managed_process
from pytest_nixproc.model.state import StateDirs
from pytest_nixproc.testing.conformance.bench import (
    Bench,
    Build,
    one,
    own_number,
    received,
)
from pytest_nixproc.testing.conformance.fixtures import Fixtures, in_both_modes
from pytest_nixproc.testing.conformance.hostile import (
    AWKWARD_NAMES,
    HOSTILE,
    HOSTILE_FILE_NAME,
    HOSTILE_NAMES,
    SPECIAL_NAMES,
)
from pytest_nixproc.testing.programs import models
from pytest_nixproc.testing.programs.models import probe


class Surroundings(Fixtures):
    """What programs are given."""

    @in_both_modes
    def test_hostile_values_arrive_byte_for_byte(self, bench: Bench, mode: Mode) -> None:
        """Arguments, variables, directory, PATH, umask and nice level arrive exactly as the model has them."""
        directory, package = f"{bench.scratch}/{HOSTILE_FILE_NAME}", f"{bench.scratch}/p {HOSTILE_FILE_NAME}"
        os.mkdir(directory)
        variables = {f"HOSTILE_{number}": value for number, value in enumerate(HOSTILE)}
        variables |= {name: f"{name} 'of' \"%(x)s\" $HOME" for name in HOSTILE_NAMES}

        def build(state: StateDirs) -> Mapping[str, Instance]:
            surroundings: dict[str, Any] = {"directory": directory, "path": [package], "umask": "0027", "nice": 5}
            return {"it": probe("it", state, mode, *HOSTILE, environment=variables, **surroundings)}

        with bench.deploy(build) as system:
            found = received(system, "it")
        words = (models.INTERPRETER, *models.OPTIONS, f"{models.HERE}/probe.py", *HOSTILE)
        assert found.arguments == tuple(map(os.fsencode, (*words, *(["-D"] if mode == "daemon" else []))))
        assert {name: found.environment.get(os.fsencode(name)) for name in variables} == {
            name: os.fsencode(value) for name, value in variables.items()
        }
        assert found.directory == os.fsencode(directory)
        assert found.environment[b"PATH"].startswith(os.fsencode(f"{package}/bin:"))
        assert (found.umask, found.nice) == (0o027, os.getpriority(os.PRIO_PROCESS, 0) + 5)

    @in_both_modes
    def test_defaults(self, bench: Bench, mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a word in the model: root directory, umask 0022, the machine's PATH, nothing of the caller's."""
        monkeypatch.setenv("NIXPROC_CALLERS_OWN", "1")
        with bench.deploy(one(lambda state: probe("it", state, mode))) as system:
            found = received(system, "it")
            tag = found.environment[TAG.encode()]
            assert tag == os.fsencode(system.root)
        assert (found.directory, found.umask) == (b"/", 0o022)
        assert found.nice == os.getpriority(os.PRIO_PROCESS, 0)
        assert found.environment[b"PATH"] == os.fsencode(bench.machine.path_variable)
        assert found.environment[b"NIXPROC_INSTANCE"] == b"it"
        assert b"NIXPROC_CALLERS_OWN" not in found.environment

    @in_both_modes
    def test_path_of_the_model_wins(self, bench: Bench, mode: Mode) -> None:
        """A PATH among the variables replaces the composed one, ``path`` included."""
        parameters: dict[str, Any] = {"environment": {"PATH": "/o n e:/t'wo"}, "path": ["/three"]}
        with bench.deploy(one(lambda state: probe("it", state, mode, **parameters))) as system:
            assert received(system, "it").environment[b"PATH"] == b"/o n e:/t'wo"

    @in_both_modes
    def test_special_variables_arrive_or_are_refused(self, bench: Bench, mode: Mode) -> None:
        """A variable that shells treat specially arrives as given, or the manager refuses it by name."""

        def build(names: Sequence[str]) -> Build:
            return lambda state: {
                f"p{name}": probe(f"p{name}", state, mode, environment={name: "7 of 9"}) for name in names
            }

        names = [name for name in SPECIAL_NAMES if not bench.refuses(build([name]))]
        with bench.deploy(build(names)) as system:
            values = {name: received(system, f"p{name}").environment.get(name.encode()) for name in names}
        assert values == dict.fromkeys(names, b"7 of 9")

    @in_both_modes
    def test_awkward_names_work_or_are_refused(self, bench: Bench, mode: Mode) -> None:
        """An instance of any name is deployed and told its name, or the manager refuses the name."""

        def build(names: Sequence[str]) -> Build:
            return lambda state: {name: probe(name, state, mode) for name in names}

        names = [name for name in AWKWARD_NAMES if not bench.refuses(build([name]))]
        assert names, "all were refused"
        with bench.deploy(build(names)) as system:
            for name in names:
                assert received(system, name).environment[b"NIXPROC_INSTANCE"] == os.fsencode(name)
                assert own_number(system[name]) == received(system, name).pid

    @in_both_modes
    def test_descriptors(self, bench: Bench, mode: Mode) -> None:
        """A program has standard input, output and error, and no descriptor of a manager's own."""
        with bench.deploy(one(lambda state: probe("it", state, mode))) as system:
            assert received(system, "it").descriptors.keys() == {"0", "1", "2"}

    @in_both_modes
    def test_signals_are_at_their_default(self, bench: Bench, mode: Mode) -> None:
        """No signal is ignored or blocked when a program starts, but those that interpreters ignore for themselves."""
        with bench.deploy(one(lambda state: reports_signals(state, mode))) as system:
            status = (system.machine.read(f"{system.state.lib_dir}/status") or b"").decode()
        masks = dict(re.findall(r"^(SigBlk|SigIgn):\s*(\w+)$", status, re.MULTILINE))
        names = {kind: {signal.Signals(number).name for number in in_mask(mask)} for kind, mask in masks.items()}
        assert names["SigBlk"] == set()
        assert names["SigIgn"] <= {"SIGPIPE", "SIGXFSZ"}


def reports_signals(state: StateDirs, mode: Mode) -> Instance:
    """Return a shell that has a child show the signal masks; an interpreter would change some at its start."""
    end = {"foreground": "exec sleep 1000", "daemon": '{ sleep 1000 & echo $! > "$2"; }'}[mode]
    text = f'cat /proc/self/status > "$1.new" && mv "$1.new" "$1" && {end}'
    file = f"{state.lib_dir}/status"
    args = ["-c", text, "sh", file, f"{state.runtime_dir}/it.pid"]
    own = {f"{mode}_process" if mode == "foreground" else mode: "/bin/sh"}
    return Instance(create_managed_process(name="it", args=args, **own), ready=ready.file(file))  # type: ignore[arg-type]


def in_mask(mask: str) -> list[int]:
    """Return the numbers of the signals in a mask of proc(5)."""
    return [number for number in range(1, 32) if int(mask, 16) >> (number - 1) & 1]
