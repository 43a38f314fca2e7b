"""Tests of a program's execution environment: arguments, variables, directory, umask and others."""

from __future__ import annotations

import os
import re
import resource
import secrets
import signal
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import pytest

from pytest_nixproc._persistence.directory import DeploymentDirectory
from pytest_nixproc._system.system import System
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.api import Manager
from pytest_nixproc.model import ready
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import ManagedProcess, create_managed_process
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
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.tags import DEPLOYMENT
from pytest_nixproc.values.units import Mode
from pytest_nixproc.values.value import Value

VARIABLES: Final = {f"HOSTILE_{number}": value for number, value in enumerate(HOSTILE)} | {
    name: f"{name} 'of' \"%(x)s\" $HOME" for name in HOSTILE_NAMES
}
SIGNAL_MASKS: Final = "/proc/self/status"
CALLERS_OWN: Final = "NIXPROC_CALLERS_OWN"
"""A variable that the caller has, and no model."""

SOMEBODY: Final = "65534"
DROPS_ROOT: Final = """
import os, signal, sys
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(int(sys.argv[1]))
    os.setuid(int(sys.argv[1]))
os.close(os.open(sys.argv[2], os.O_CREAT | os.O_WRONLY))
signal.pause()
"""

HOSTILE_TEXT: Final = "\n".join(HOSTILE)
OWN_PATH: Final = "/o n e:/t'wo"


class Surroundings(Fixtures):
    """Tests of a program's execution environment: arguments, variables, directory, umask and others."""

    @pytest.fixture(scope="class")
    @classmethod
    def hostile(cls, tested_manager: Manager, machine: Machine, mode: Mode) -> Iterator[Hostile]:
        """Return a probe with hostile values, and the execution environment it had; one for all tests of a mode."""
        with clean(Bench(tested_manager, machine)) as bench:
            yield Hostile.given(bench, mode)

    @pytest.fixture(scope="class")
    @classmethod
    def plain(cls, tested_manager: Manager, machine: Machine, mode: Mode) -> Iterator[System]:
        """Return a running system with few parameters; one for all tests of a mode."""
        with clean(Bench(tested_manager, machine)) as bench, pytest.MonkeyPatch.context() as environment:
            environment.setenv(CALLERS_OWN, "1")
            with bench.deploy(says_little(bench, mode)) as system:
                yield system

    @in_both_modes_at_once
    def test_arguments(self, hostile: Hostile, mode: Mode) -> None:
        """Arguments arrive byte for byte, even hostile ones, and none is added."""
        words = (models.INTERPRETER, *models.OPTIONS, f"{models.HERE}/probe.py", *HOSTILE)
        expected = (*words, *(["-D"] if mode == "daemon" else []))
        assert hostile.found.arguments == tuple(map(os.fsencode, expected))

    @in_both_modes_at_once
    def test_environment(self, hostile: Hostile) -> None:
        """Variables arrive byte for byte, even hostile ones, and even if something on the way uses one of that name."""
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
        """A program starts in its directory, even if that has a hostile name."""
        directory = hostile.requires("directory")
        assert hostile.found.directory == os.fsencode(directory)

    @in_both_modes_at_once
    def test_umask(self, hostile: Hostile) -> None:
        """A program starts with the umask that its model gives it."""
        assert hostile.found.umask == int(hostile.requires("umask"), 8)

    @in_both_modes_at_once
    def test_nice(self, hostile: Hostile) -> None:
        """A program's niceness is that of its model, added to the niceness of the tests."""
        assert hostile.found.nice == min(19, os.getpriority(os.PRIO_PROCESS, 0) + hostile.requires("nice"))

    @in_both_modes_at_once
    def test_post_install(self, hostile: Hostile) -> None:
        """``post_install`` is run in the generated configuration, once, before anything is started."""
        hostile.requires("post_install")
        assert hostile.installed == b"1\n"

    @in_both_modes_at_once
    def test_user_without_privileges(self, plain: System, tested_manager: Manager) -> None:
        """Without a switch of users, ``user`` changes only the PID file's place: the program runs as the caller."""
        it = plain["owned"]
        assert it.pid is not None
        assert plain.machine.accounts.of(it.pid) == (os.geteuid(), os.getegid())
        is_refused = "user" in tested_manager.capabilities.unsupported
        assert it.pid_file == f"{plain.state.runtime_dir if is_refused else plain.state.tmp_dir}/owned.pid"

    def test_program_of_both_modes(self, bench: Bench) -> None:
        """A program that can do both runs in the mode that the manager prefers, with the arguments of that mode."""
        with bench.deploy(one(of_both_modes)) as system:
            found = received(system, "it")
            assert own_number(system["it"]) == found.pid
        words = {"foreground": (b"both", b"stays"), "daemon": (b"both", b"-D")}
        assert found.arguments[-2:] == words[bench.manager.capabilities.prefers]

    @in_both_modes_at_once
    def test_defaults(self, plain: System) -> None:
        """By default, a program has root directory, umask 0022, the machine's PATH, and nothing of the caller's."""
        found = received(plain, "plain")
        assert (found.directory, found.umask) == (b"/", 0o022)
        assert found.nice == os.getpriority(os.PRIO_PROCESS, 0)
        assert found.environment[DEPLOYMENT.encode()] == os.fsencode(plain.root)
        assert found.environment[b"PATH"] == os.fsencode(plain.machine.facts.path_variable)
        assert found.environment[b"NIXPROC_INSTANCE"] == b"plain"
        assert os.fsencode(CALLERS_OWN) not in found.environment

    @in_both_modes_at_once
    def test_path_of_the_model_wins(self, plain: System) -> None:
        """A PATH among the variables replaces the composed one, ``path`` included."""
        assert received(plain, "pathed").environment[b"PATH"] == os.fsencode(OWN_PATH)

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
        """An instance of any name is deployed with the name in its environment, or the manager refuses the name."""

        def build(names: Sequence[str]) -> Build:
            return lambda state: {name: probe(name, state, mode) for name in names}

        names = [name for name in AWKWARD_NAMES if not bench.refuses(build([name]))]
        assert names, "all were refused"
        refused_some(name for name in AWKWARD_NAMES if name not in names)
        with bench.deploy(build(names)) as system:
            for name in names:
                assert received(system, name).environment[b"NIXPROC_INSTANCE"] == os.fsencode(name)
                assert own_number(system[name]) == received(system, name).pid

    @in_both_modes_at_once
    def test_descriptors(self, plain: System) -> None:
        """A program has standard input, output and error, and no descriptor of a manager's own."""
        assert received(plain, "plain").descriptors.keys() == {"0", "1", "2"}

    @in_both_modes_at_once
    def test_limit_of_open_files(self, plain: System) -> None:
        """A program may have as many files open as the tests, and may raise that as far as they can."""
        assert tuple(received(plain, "plain").limits["NOFILE"]) == resource.getrlimit(resource.RLIMIT_NOFILE)

    @in_both_modes_at_once
    def test_limits(self, hostile: Hostile) -> None:
        """A program has the limits of its model, soft and hard, and others as without."""
        hostile.requires("limits")
        found = {name: tuple(limit) for name, limit in hostile.found.limits.items()}
        assert found | {"NPROC": ()} == {
            "NOFILE": (200, 200),
            "STACK": (4 << 20, 4 << 20),
            "CORE": (0, 0),
            "MEMLOCK": (64 << 10, 64 << 10),
            "AS": resource.getrlimit(resource.RLIMIT_AS),
            "NPROC": (),
        }

    @in_both_modes_at_once
    def test_accounts(self, plain: System) -> None:
        """A program knows the users that the machine has in its own files, as a server needs that drops root itself."""
        found = received(plain, "plain").users
        users = {user.name: [user.uid, user.gid] for user in plain.machine.facts.users}
        assert {name: found.get(name) for name in users} == users

    def test_program_that_drops_root(self, bench: Bench) -> None:
        """A program that becomes another user by itself, as root's can, reaches the state that its user owns."""
        Path(bench.directory).chmod(0o711)
        with bench.deploy(one(drops_root)) as system:
            assert system["it"].is_running

    @in_both_modes
    def test_secrets(self, bench: Bench, mode: Mode) -> None:
        """What a program is told, and what it says, is in no file that other users can read."""
        secret = secrets.token_hex()
        environment = bench.honoured(environment={"SECRET": secret})
        says = f'echo "${{SECRET-{secret}}}"'
        with bench.deploy(lambda state: {"it": Instance(does(says, "it", state, mode, **environment))}) as system:
            bench.await_line(system["it"], secret)
            assert open_to_others(system.root, secret.encode()) == []

    @in_both_modes
    def test_standard_input(self, bench: Bench, mode: Mode) -> None:
        """Who reads its standard input is at the end of it at once: the program, and its ``initialize``."""
        with bench.deploy(one(lambda state: reads_input(state, mode, bench))) as system:
            assert system["it"].is_running

    @in_both_modes_at_once
    def test_directories_and_files(self, plain: System) -> None:
        """Directories and files are there when a program starts, with their modes, and texts byte for byte."""
        own = f"{plain.state.lib_dir}/{HOSTILE_FILE_NAME}"
        assert plain.machine.files.read(f"{own}/out") == os.fsencode(HOSTILE_TEXT)
        assert plain.machine.files.read(f"{plain.state.lib_dir}/modes") == b"directory\nfile\n"

    @in_both_modes_at_once
    def test_signals_are_at_their_default(self, plain: System) -> None:
        """No signal is ignored or blocked when a program starts, but those that interpreters ignore for themselves."""
        if not os.path.exists(SIGNAL_MASKS):
            pytest.skip(f"signal masks can be seen in {SIGNAL_MASKS}, which this system does not have")
        status = (plain.machine.files.read(f"{plain.state.lib_dir}/status") or b"").decode()
        masks = dict(re.findall(r"^(SigBlk|SigIgn):\s*(\w+)$", status, re.MULTILINE))
        names = {
            kind: {signal.Signals(number).name for number in range(1, 32) if int(mask, 16) >> (number - 1) & 1}
            for kind, mask in masks.items()
        }
        assert names["SigBlk"] == set()
        assert names["SigIgn"] <= {"SIGPIPE", "SIGXFSZ"}


class Hostile(Value):
    """A probe with hostile values: its parameters, and the execution environment that it had."""

    bench: Bench
    told: Mapping[str, Any]
    """The parameters of its process."""

    found: Received
    installed: bytes | None
    """The content of the file that its ``post_install`` writes; None without one."""

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
            limits={"open_files": 200, "stack_size": 4 << 20, "core_size": 0, "locked_memory": 64 << 10},
            umask="0027",
            nice=5,
            post_install='echo 1 >> "$out/installed"',
            overrides={"no-manager-of-this-name": {"nothing": 1}},
        )
        with bench.deploy(one(lambda state: probe("it", state, mode, *HOSTILE, **told))) as system:
            return cls(
                bench,
                told,
                received(system, "it"),
                system.machine.files.read(f"{DeploymentDirectory(system.root).profile}/installed"),
            )

    def requires(self, parameter: str) -> Any:
        """Return a parameter of the probe; skip where the manager refuses it, which is tested elsewhere."""
        if reason := self.bench.manager.capabilities.unsupported.get(parameter):
            pytest.skip(f"{self.bench.manager.name} refuses {parameter}: {reason}")
        return self.told[parameter]


def says_little(bench: Bench, mode: Mode) -> Build:
    """Return a model of a program without parameters, and of some that test one parameter each."""
    owner = bench.honoured(user="npx-nobody", credentials={"users": {"npx-nobody": {}}})

    def build(state: StateDirs) -> Mapping[str, Instance]:
        shows_masks = {"masked": reports_signals("masked", state, mode)} if os.path.exists(SIGNAL_MASKS) else {}
        return {
            "plain": probe("plain", state, mode),
            "pathed": probe("pathed", state, mode, environment={"PATH": OWN_PATH}, path=["/three"]),
            "owned": probe("owned", state, mode, **owner),
            "configured": configured(state, mode),
            **shows_masks,
        }

    return build


def of_both_modes(state: StateDirs) -> Instance:
    """Return the probe as a program that stays in the foreground unless an argument makes it a daemon."""
    pkg = create_managed_process(
        name="it",
        process=models.INTERPRETER,
        args=[*models.OPTIONS, f"{models.HERE}/probe.py", "both"],
        foreground_process_extra_args=["stays"],
        daemon_extra_args=["-D"],
        environment={"PROBE_DUMP": models.dump_of(state, "it"), "PROBE_PID_FILE": f"{state.runtime_dir}/it.pid"},
    )
    return Instance(pkg, ready=ready.file(models.dump_of(state, "it")))


def reports_signals(name: str, state: StateDirs, mode: Mode) -> Instance:
    """Return a shell that has a child show the signal masks; an interpreter would change some at its start."""
    return copies(SIGNAL_MASKS, f"{state.lib_dir}/status", name, state, mode)


def configured(state: StateDirs, mode: Mode) -> Instance:
    """Return a shell that copies a file of its own, and tells whether modes are those of the model."""
    own, modes = f"{state.lib_dir}/{HOSTILE_FILE_NAME}", f"{state.lib_dir}/modes"
    looks = (
        r'find "$OWN" -prune -perm 750 -exec echo directory \;;',
        r'find "$OWN/in" -prune -perm 640 -exec echo file \;;',
    )
    pkg = does(
        f'cat "$OWN/in" > "$OWN/out" && {{ {" ".join(looks)} }} > {modes}.new && mv {modes}.new {modes}',
        "configured",
        state,
        mode,
        environment={"OWN": own},
        directories={own: {"mode": "0750"}},
        files={f"{own}/in": {"text": HOSTILE_TEXT, "mode": "0640"}},
    )
    return Instance(pkg, ready=ready.file(modes))


def drops_root(state: StateDirs) -> Instance:
    """Return a program that becomes another user where it may, and then makes a file in that user's directory."""
    own = f"{state.lib_dir}/own"
    initialize = f'mkdir {own}; [ "$(id -u)" != 0 ] || chown {SOMEBODY} {own}'
    args = [*models.OPTIONS, "-c", DROPS_ROOT, SOMEBODY, f"{own}/file"]
    pkg = create_managed_process(name="it", foreground_process=models.INTERPRETER, args=args, initialize=initialize)
    return Instance(pkg, ready=ready.file(f"{own}/file"))


def reads_input(state: StateDirs, mode: Mode, bench: Bench) -> Instance:
    """Return a shell that reads its standard input to the end, as its ``initialize`` has done before."""
    initialize = bench.honoured(initialize=f"cat > {state.lib_dir}/initialized")
    return copies("-", f"{state.lib_dir}/read", "it", state, mode, **initialize)


def copies(source: str, file: str, name: str, state: StateDirs, mode: Mode, **parameters: str) -> Instance:
    """Return a shell that is ready when it has copied a file into another one; ``-`` is its standard input."""
    text = f"cat {source} > {file}.new && mv {file}.new {file}"
    return Instance(does(text, name, state, mode, **parameters), ready=ready.file(file))


def does(text: str, name: str, state: StateDirs, mode: Mode, **parameters: Any) -> ManagedProcess:
    """Return a shell that does something, and stays then."""
    end = {"foreground": "exec sleep 1000", "daemon": '{ sleep 1000 & echo $! > "$1"; }'}[mode]
    args = ["-c", f"{text} && {end}", "sh", f"{state.runtime_dir}/{name}.pid"]
    own: dict[str, Any] = {f"{mode}_process" if mode == "foreground" else mode: "/bin/sh"}
    return create_managed_process(name=name, args=args, **own, **parameters)


def open_to_others(root: str, secret: bytes) -> list[str]:
    """Return the files of a deployment that hold a secret, and that other users can read who know their names."""
    paths = [os.path.join(directory, name) for directory, _, names in os.walk(root) for name in names]
    modes = {path: os.lstat(path).st_mode for path in paths if os.stat(root).st_mode & stat.S_IXOTH}
    readable = [path for path, mode in modes.items() if stat.S_ISREG(mode) and mode & stat.S_IROTH]
    return [path for path in readable if secret in Path(path).read_bytes()]
