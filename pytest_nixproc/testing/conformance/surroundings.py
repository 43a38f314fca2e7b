"""What programs are given."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import pytest

from pytest_nixproc.deployment.site import TAG, Site
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.api import Manager
from pytest_nixproc.model import ready
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import Mode, create_managed_process
from pytest_nixproc.model.state import StateDirs
from pytest_nixproc.testing.conformance.bench import (
    Bench,
    Build,
    Received,
    clean,
    one,
    own_number,
    received,
)
from pytest_nixproc.testing.conformance.fixtures import Fixtures, Note, in_both_modes, in_both_modes_at_once
from pytest_nixproc.testing.conformance.hostile import (
    AWKWARD_NAMES,
    HOSTILE,
    HOSTILE_FILE_NAME,
    HOSTILE_NAMES,
    SPECIAL_NAMES,
)
from pytest_nixproc.testing.programs import models
from pytest_nixproc.testing.programs.models import probe

VARIABLES: Final = {f"HOSTILE_{number}": value for number, value in enumerate(HOSTILE)} | {
    name: f"{name} 'of' \"%(x)s\" $HOME" for name in HOSTILE_NAMES
}
SIGNAL_MASKS: Final = "/proc/self/status"


class Surroundings(Fixtures):
    """What programs are given."""

    @pytest.fixture(scope="class")
    @classmethod
    def hostile(cls, tested_manager: Manager, machine: Machine, mode: Mode) -> Iterator[Hostile]:
        """Return what a probe has received of a model full of hostile values; one for all tests of a mode."""
        with clean(Bench(tested_manager, machine)) as bench:
            yield Hostile.given(bench, mode)

    @in_both_modes_at_once
    def test_arguments(self, hostile: Hostile, mode: Mode) -> None:
        """Arguments arrive byte for byte, whatever they hold, and none is added."""
        words = (models.INTERPRETER, *models.OPTIONS, f"{models.HERE}/probe.py", *HOSTILE)
        expected = (*words, *(["-D"] if mode == "daemon" else []))
        assert hostile.found.arguments == tuple(map(os.fsencode, expected))

    @in_both_modes_at_once
    def test_environment(self, hostile: Hostile) -> None:
        """Variables arrive byte for byte, whatever they hold, and whoever else uses one of that name."""
        hostile.requires("environment")
        found = hostile.found.environment
        assert {name: found.get(os.fsencode(name)) for name in VARIABLES} == {
            name: os.fsencode(value) for name, value in VARIABLES.items()
        }

    @in_both_modes_at_once
    def test_path(self, hostile: Hostile) -> None:
        """The packages of ``path`` come before the machine's own software."""
        package = hostile.requires("path")[0]
        assert hostile.found.environment[b"PATH"].startswith(os.fsencode(f"{package}/bin:"))

    @in_both_modes_at_once
    def test_directory(self, hostile: Hostile) -> None:
        """A program starts in its directory, whatever that is called."""
        directory = hostile.requires("directory")
        assert hostile.found.directory == os.fsencode(directory)

    @in_both_modes_at_once
    def test_umask(self, hostile: Hostile) -> None:
        """A program has its umask."""
        assert hostile.found.umask == int(hostile.requires("umask"), 8)

    @in_both_modes_at_once
    def test_nice(self, hostile: Hostile) -> None:
        """A program is as nice as it is to be, on top of what the tests are."""
        assert hostile.found.nice == os.getpriority(os.PRIO_PROCESS, 0) + hostile.requires("nice")

    @in_both_modes_at_once
    def test_post_install(self, hostile: Hostile) -> None:
        """``post_install`` is run in the generated configuration, once, before anything is started."""
        hostile.requires("post_install")
        assert hostile.installed == b"1\n"

    @in_both_modes
    def test_user_without_privileges(self, bench: Bench, mode: Mode) -> None:
        """Where users are not switched, a user only moves the PID file: the program runs as the caller."""
        told = bench.honoured(user="npx-nobody", credentials={"users": {"npx-nobody": {}}})
        with bench.deploy(one(lambda state: probe("it", state, mode, **told))) as system:
            it = system["it"]
            assert it.pid is not None
            assert system.machine.account_of(it.pid) == (os.geteuid(), os.getegid())
            assert it.pid_file == f"{system.state.tmp_dir if 'user' in told else system.state.runtime_dir}/it.pid"

    def test_program_of_both_modes(self, bench: Bench) -> None:
        """A program that can do both runs in the mode that the manager prefers, with the arguments of that mode."""
        with bench.deploy(one(of_both_modes)) as system:
            found = received(system, "it")
            assert own_number(system["it"]) == found.pid
        words = {"foreground": (b"both", b"stays"), "daemon": (b"both", b"-D")}
        assert found.arguments[-2:] == words[bench.manager.capabilities.prefers]

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
    def test_awkward_names_work_or_are_refused(self, bench: Bench, mode: Mode, refused_some: Note) -> None:
        """An instance of any name is deployed and told its name, or the manager refuses the name."""

        def build(names: Sequence[str]) -> Build:
            return lambda state: {name: probe(name, state, mode) for name in names}

        names = [name for name in AWKWARD_NAMES if not bench.refuses(build([name]))]
        assert names, "all were refused"
        refused_some(name for name in AWKWARD_NAMES if name not in names)
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
        if not os.path.exists(SIGNAL_MASKS):
            pytest.skip(f"signal masks can be seen in {SIGNAL_MASKS}, which this system does not have")
        with bench.deploy(one(lambda state: reports_signals(state, mode))) as system:
            status = (system.machine.read(f"{system.state.lib_dir}/status") or b"").decode()
        masks = dict(re.findall(r"^(SigBlk|SigIgn):\s*(\w+)$", status, re.MULTILINE))
        names = {kind: {signal.Signals(number).name for number in in_mask(mask)} for kind, mask in masks.items()}
        assert names["SigBlk"] == set()
        assert names["SigIgn"] <= {"SIGPIPE", "SIGXFSZ"}


@dataclass(frozen=True)
class Hostile:
    """What a probe was told, and what of it has arrived."""

    bench: Bench
    told: Mapping[str, Any]
    found: Received
    installed: bytes | None

    @classmethod
    def given(cls, bench: Bench, mode: Mode) -> Self:
        """Deploy a probe whose every parameter is hostile, as far as the manager has these parameters."""
        directory = f"{bench.scratch}/{HOSTILE_FILE_NAME}"
        os.mkdir(directory)
        told = bench.honoured(
            description="\n".join(filter(str.isprintable, HOSTILE)),
            environment=VARIABLES,
            directory=directory,
            path=[f"{bench.scratch}/p {HOSTILE_FILE_NAME}"],
            umask="0027",
            nice=5,
            post_install='echo 1 >> "$out/installed"',
            overrides={"no-manager-of-this-name": {"nothing": 1}},
        )
        with bench.deploy(one(lambda state: probe("it", state, mode, *HOSTILE, **told))) as system:
            return cls(
                bench, told, received(system, "it"), system.machine.read(f"{Site(system.root).profile}/installed")
            )

    def requires(self, parameter: str) -> Any:
        """Return what the probe was told; skip where the manager refuses the parameter, which is tested elsewhere."""
        if reason := self.bench.manager.capabilities.unsupported.get(parameter):
            pytest.skip(f"{self.bench.manager.name} refuses {parameter}: {reason}")
        return self.told[parameter]


def of_both_modes(state: StateDirs) -> Instance:
    """Return the probe as a program that stays in the foreground unless it is told to be a daemon."""
    pkg = create_managed_process(
        name="it",
        process=models.INTERPRETER,
        args=[*models.OPTIONS, f"{models.HERE}/probe.py", "both"],
        foreground_process_extra_args=["stays"],
        daemon_extra_args=["-D"],
        environment={"PROBE_DUMP": models.dump_of(state, "it"), "PROBE_PID_FILE": f"{state.runtime_dir}/it.pid"},
    )
    return Instance(pkg, ready=ready.file(models.dump_of(state, "it")))


def reports_signals(state: StateDirs, mode: Mode) -> Instance:
    """Return a shell that has a child show the signal masks; an interpreter would change some at its start."""
    end = {"foreground": "exec sleep 1000", "daemon": '{ sleep 1000 & echo $! > "$2"; }'}[mode]
    text = f'cat {SIGNAL_MASKS} > "$1.new" && mv "$1.new" "$1" && {end}'
    file = f"{state.lib_dir}/status"
    args = ["-c", text, "sh", file, f"{state.runtime_dir}/it.pid"]
    own = {f"{mode}_process" if mode == "foreground" else mode: "/bin/sh"}
    return Instance(create_managed_process(name="it", args=args, **own), ready=ready.file(file))  # type: ignore[arg-type]


def in_mask(mask: str) -> list[int]:
    """Return the numbers of the signals in a mask of proc(5)."""
    return [number for number in range(1, 32) if int(mask, 16) >> (number - 1) & 1]
