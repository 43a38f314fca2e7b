"""What every process manager has to do, as tests: subclass :class:`ManagerConformance` and name a manager.

    import pytest
    pytest.register_assert_rewrite("pytest_nixproc.testing.conformance")
    from pytest_nixproc.testing.conformance import ManagerConformance

    class TestMine(ManagerConformance):
        manager = "mine"

The manager is found through the registry, like by a user's tests. Where it cannot run, the tests are skipped with its
reason. Fixtures can be overridden, for example ``machine`` to run the suite on another machine.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import pytest

from pytest_nixproc.deployment.planner import Load, Planner, Settings
from pytest_nixproc.deployment.site import TAG, Site
from pytest_nixproc.deployment.system import RunningInstance, System
from pytest_nixproc.errors import DeploymentError, ModelError, NixprocError, StartError, TeardownError, Unsupported
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.process_table import environment_of, is_alive, own_pid, stat_fields
from pytest_nixproc.machines.waiting import wait_until
from pytest_nixproc.managers.api import Driver, Manager, Target
from pytest_nixproc.model import ready
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import Mode, create_managed_process
from pytest_nixproc.model.state import StateDirs
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.registry import Registry
from pytest_nixproc.testing.programs import models
from pytest_nixproc.testing.programs.models import misbehaving, probe

Build = Callable[[StateDirs], Mapping[str, Instance]]

MODES: Final[tuple[Mode, ...]] = ("foreground", "daemon")

HOSTILE: Final = (
    *("", " ", "a b", "  two  blanks  ", "it's", "'", 'say "hi"', '"', "'\"'", "50%", "%(x)s", "%s %%", "%(ENV_HOME)s"),
    *("$HOME", "${HOME}", "$(id)", "`id`", "$", "back\\slash", "\\n", "ends in \\", "two\nlines", "\n", "ends in\n"),
    *("tab\there", "\r", "\x01\x7f", ";", "a;b", " ;x", "a ;b", "#", "# no comment", "a #b", "naïve", "日本", "\udcff"),
    *("-e", "-n", "--", "-", "*", "?", "[a-z]", "~", "~root", "{a,b}", "!", "!!", "&", "&&", "|", "<", ">", "(", ")"),
    *("=", "a=b", ",", ':"', "\\'", '\\"', "]", "}", "@", "^", "x" * 5000),
)
"""Values that some syntax on the way treats specially; the surrogate stands for a byte that is no UTF-8."""

HOSTILE_NAMES: Final = (
    *("pid", "name", "pid_file", "program", "record", "started", "stat", "known", "naps", "log_file", "VERBOSE"),
    *("stop_signal", "reload_signal", "stop_seconds", "HOME", "ENV", "BASH_ENV", "CDPATH", "PS4", "LANG", "USER"),
    *("PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH", "TMPDIR", "POSIXLY_CORRECT", "SUPERVISOR_ENABLED", "_x", "x"),
)
"""Variables that a script, a shell, or an interpreter on the way may use itself."""

SPECIAL_NAMES: Final = ("PPID", "OPTIND", "UID", "LINENO", "RANDOM", "SHELLOPTS", "GROUPS", "LC_ALL")
"""Variables to which some shells do not let one assign what one likes: they arrive, or are refused."""

IDLE: Final = (sys.executable, "-I", "-S", "-c", "import signal; signal.pause()")

ENDINGS: Final[Mapping[str, tuple[Mapping[str, object], str]]] = {
    "status": ({"status": 7, "keeps_pid_file": 1}, "status 7"),
    "signal": ({"signal": 11}, "SIGSEGV|signal 11"),
    "starter's status": ({"status": 9, "early": 1}, "status 9"),
    # Where a PID file was all that led to the process, its status may be lost with it.
    "without a trace": ({"status": 7}, "dead did not start"),
}
"""Ways to die at the start: what the program is told, and what the error has to show."""

HOSTILE_FILE_NAME: Final = "a b' \" % %(x)s $HOME `id` \\ ; # naïve\n~*"
AWKWARD_NAMES: Final = (
    "a b",
    "it's",
    'q"q',
    "50%",
    "$HOME",
    "`id`",
    "a;b",
    "a ;b",
    "a #b",
    "naïve",
    "a:b",
    "a]b",
    "a,b",
    "~x",
    "*",
)
OTHER_STATE_ROOTS: Final = ('it\'s "here"', "50% %(x)s", "$HOME `id`;x ;x #x \\", "naïve*[a]", "a\nb")


@dataclass(frozen=True)
class Received:
    """What a probe was given."""

    arguments: tuple[bytes, ...]
    environment: Mapping[bytes, bytes]
    directory: bytes
    umask: int
    nice: int
    descriptors: Mapping[str, str]
    begun: float
    listening: float
    pid: int


def received(system: System, name: str) -> Received:
    """Return what the probe of this name has written down."""
    return received_in(system.machine, models.dump_of(system.state, name))


def received_in(machine: Machine, dump: str) -> Received:
    """Return what a probe has written into a file."""
    content = machine.read(dump)
    assert content is not None, f"nothing has been written to {dump}"
    facts = json.loads(content)
    entries = [bytes.fromhex(entry) for entry in facts.pop("environment")]
    names = [entry.partition(b"=")[0] for entry in entries]
    assert len(names) == len(set(names)), "a variable is given twice"
    return Received(
        arguments=tuple(bytes.fromhex(word) for word in facts.pop("arguments")),
        environment={entry.partition(b"=")[0]: entry.partition(b"=")[2] for entry in entries},
        directory=bytes.fromhex(facts.pop("directory")),
        **facts,
    )


def own_number(instance: RunningInstance) -> int | None:
    """Return the number by which an instance's main process knows itself: in a container, it is not the machine's."""
    pid = instance.pid
    return None if pid is None else own_pid(pid)


class Bench:
    """Deploys models with one manager, below a state root of its own, and sees that nothing is left."""

    def __init__(self, manager: Manager, machine: Machine) -> None:
        self.manager = manager
        self.machine = machine
        # Short, and resolved: a Unix socket's path has about 100 bytes, and a probe reports real paths.
        self.directory = os.path.realpath(tempfile.mkdtemp(prefix="np"))
        self.scratch = f"{self.directory}/x"
        self.state_root = f"{self.directory}/s"
        os.mkdir(self.scratch)
        self._ports: list[int] = []
        self._roots: list[str] = []
        self._rules = Registry().rules

    def port(self) -> int:
        """Return a TCP port that is free; below the range from which kernels choose ports of clients."""
        while True:
            port = 20000 + secrets.randbelow(12000)
            if port not in self._ports and self.machine.port_is_free(port):
                self._ports.append(port)
                return port

    def planner(self, *, state_root: str | None = None, **settings: Any) -> Planner:
        """Return a planner; times are short by default, so that what hangs does not hang long."""
        limits: dict[str, Any] = {
            "start_seconds": 20.0,
            "stop_seconds": 10.0,
            "state_root": state_root or self.state_root,
        }
        return Planner(self.manager, self.machine, self._rules, Settings(**(limits | settings)))

    @contextmanager
    def deploy(self, build: Build, **settings: Any) -> Iterator[System]:
        """Deploy what ``build`` returns for its state directories, for the time of a ``with`` block."""
        system = System(self.planner(**settings))
        self._roots.append(system.root)
        system.start(load(build))
        try:
            yield system
        finally:
            system.stop()

    def refuses(self, build: Build) -> bool:
        """Tell whether the manager refuses to express a model, in words that name it."""
        try:
            self.planner().draft(load(build))
        except (Unsupported, ModelError) as error:
            return self.is_named_by(error)
        return False

    def is_named_by(self, error: NixprocError) -> bool:
        """Tell whether an error is about the model alone, or names the manager that it is about; it has to."""
        assert isinstance(error, ModelError) or self.manager.name in str(error)
        return True

    def await_that(self, condition: Callable[[], object], what: str, seconds: float = 5) -> None:
        """Wait until something holds."""
        wait_until(lambda: "" if condition() else "not yet", self.machine.deadline(seconds), f"wait until {what}")

    def await_line(self, instance: RunningInstance, line: str) -> None:
        """Wait until an instance has logged a line."""
        self.await_that(lambda: line in instance.log.splitlines(), f"the log has the line {line!r}")

    def deployments(self, state_root: str) -> list[str]:
        """Return what is in a state root; the root itself belongs to who named it."""
        return [f"{state_root}/{name}" for name in os.listdir(state_root)] if os.path.isdir(state_root) else []

    def leftovers(self) -> list[str]:
        """End what is left behind, and say what it was."""
        tag = f"{TAG}={self.directory}/".encode()
        found = [f"process {pid}: {self.machine.describe(pid)}" for pid in self._kill_tagged(tag)]
        found += [f"port {port}" for port in self._ports if not self.machine.port_is_free(port)]
        found += [f"file {name}" for name in self.deployments(self.state_root)]
        found += [trace for root in self._roots for trace in remains(self.manager, self.machine, root)]
        shutil.rmtree(self.directory)
        return found

    def _kill_tagged(self, tag: bytes) -> Iterator[int]:
        for pid in self.machine.parents():
            if tag in environment_of(pid) and is_alive(pid):
                yield pid
                self.machine.signal(pid, signal.SIGKILL)


def remains(manager: Manager, machine: Machine, root: str) -> Sequence[str]:
    """Return what a manager still has of a deployment of which only the place is known."""
    driver = driver_at(manager, machine, root)
    try:
        return driver.remains()
    finally:
        driver.close(machine.deadline(1))


def driver_at(manager: Manager, machine: Machine, root: str) -> Driver:
    """Return a driver for a deployment of which only the place is known."""
    site = Site(root)
    return manager.driver(machine, Target(site.state, site.profile, site.identity))


def load(build: Build) -> Load:
    """Return the function that makes a model for the place that is chosen for it."""
    return lambda arguments: ProcessesModel(build(arguments.state), origin="of a conformance test")


def one(instance: Callable[[StateDirs], Instance]) -> Build:
    """Return a model of a single instance, called ``it``."""
    return lambda state: {"it": instance(state)}


@contextmanager
def bystander(*argv: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process that has nothing to do with a deployment; it has to be alive at the end."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
            assert process.poll() is None, "a process that is none of ours was touched"
        finally:
            process.kill()


def write_text(path: str, text: str) -> None:
    """Write a file of the test's own."""
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)


def read_text(path: str) -> str:
    """Return the content of a file of the test's own."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


class Fixtures:
    """What the tests share; override what another machine or manager needs."""

    manager: ClassVar[str]

    @pytest.fixture(scope="class")
    @classmethod
    def machine(cls) -> Iterator[Machine]:
        """Return the machine to deploy on; one for all tests of the class."""
        machine = Registry().machine("host")()
        yield machine
        machine.close()

    @pytest.fixture(scope="class")
    @classmethod
    def tested_manager(cls, machine: Machine) -> Manager:
        """Return the manager under test, if it can run here."""
        manager = Registry().manager(cls.manager)
        if obstacle := manager.obstacle(type(machine)):
            pytest.skip(f"{manager.name} cannot run here: {obstacle}")
        return manager

    @pytest.fixture
    def bench(self, tested_manager: Manager, machine: Machine) -> Iterator[Bench]:
        """Return a bench; what a test leaves behind on it is an error."""
        bench = Bench(tested_manager, machine)
        yield bench
        leftovers = bench.leftovers()
        assert not leftovers, f"left behind: {leftovers}"


in_both_modes = pytest.mark.parametrize("mode", MODES)


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


def seconds_of(system: System, happening: str, name: str) -> float:
    """Return when something happened to an instance."""
    return next(event.seconds for event in system.timeline if (event.happening, event.instance) == (happening, name))


def in_mask(mask: str) -> list[int]:
    """Return the numbers of the signals in a mask of proc(5)."""
    return [number for number in range(1, 32) if int(mask, 16) >> (number - 1) & 1]


class Starting(Fixtures):
    """What happens until instances are ready, and when one is not."""

    @in_both_modes
    def test_initialize_runs_before_every_start(self, bench: Bench, mode: Mode) -> None:
        """``initialize`` has ended when the program starts, each time, and sees its variables."""
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
        """When a command of ``initialize`` fails, nothing after it runs, and the error has its status and words."""
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
        """Dependencies are ready before their dependants start, and stop after them, in the exact reverse order."""

        def build(state: StateDirs) -> Mapping[str, Instance]:
            base = probe("base", state, mode, port=ports[0], delay=0.1)
            left = probe("left", state, mode, port=ports[1], dependencies=[base.pkg])
            right = probe("right", state, mode, port=ports[2], dependencies=["base"])
            top = probe("top", state, mode, port=ports[3], dependencies=[left.pkg, right.pkg])
            return {"top": top, "left": left, "right": right, "base": base}

        ports = [bench.port() for _ in range(4)]
        with bench.deploy(build) as system:
            dumps = {name: received(system, name) for name in system}
        assert dumps["base"].listening < min(dumps["left"].begun, dumps["right"].begun)
        assert max(dumps["left"].listening, dumps["right"].listening) < dumps["top"].begun
        events = [(event.happening, event.instance) for event in system.timeline]
        assert events == [
            *(("start", "base"), ("ready", "base"), ("start", "left"), ("start", "right")),
            *(("ready", "left"), ("ready", "right"), ("start", "top"), ("ready", "top")),
            *(("stop", "top"), ("stopped", "top"), ("stop", "left"), ("stop", "right")),
            *(("stopped", "left"), ("stopped", "right"), ("stop", "base"), ("stopped", "base")),
        ]

    @in_both_modes
    def test_one_level_starts_side_by_side(self, bench: Bench, mode: Mode) -> None:
        """Instances that do not depend on each other take their time to start at the same time."""
        ports = {"one": bench.port(), "two": bench.port(), "three": bench.port()}
        with bench.deploy(
            lambda state: {name: probe(name, state, mode, port=port, delay=0.3) for name, port in ports.items()}
        ) as system:
            dumps = [received(system, name) for name in system]
        assert max(dump.begun for dump in dumps) < min(dump.listening for dump in dumps)

    @in_both_modes
    @pytest.mark.parametrize("ending", ENDINGS, ids=str.lower)
    def test_death_at_start(self, bench: Bench, mode: Mode, ending: str) -> None:
        """An instance that dies fails the deployment at once, with its end and last words; the others are stopped."""
        options, shown = ENDINGS[ending]

        def build(state: StateDirs) -> Mapping[str, Instance]:
            good = probe("good", state, mode, port=ports[0])
            dead = misbehaving("dead", state, mode, "dies", port=ports[1], options=options, dependencies=["good"])
            return {"good": good, "dead": dead}

        ports = [bench.port(), bench.port()]
        system = System(bench.planner())
        with pytest.raises(StartError) as caught:
            system.start(load(build))
        assert seconds_of(system, "stop", "dead") - seconds_of(system, "start", "dead") < 1
        assert caught.value.brief.startswith("dead ")
        assert re.search(shown, str(caught.value))
        assert "the disk is on fire" in str(caught.value)
        assert system.timeline.order("stopped") == ["dead", "good"]

    @in_both_modes
    @pytest.mark.parametrize("kind", ["missing", "not executable"])
    def test_program_that_cannot_be_run(self, bench: Bench, mode: Mode, kind: str) -> None:
        """A program that is not there, or not executable, fails the deployment at once, by its path."""
        path = f"{bench.scratch}/a program"
        if kind == "not executable":
            write_text(path, "#!/bin/sh\n")
        own = {"foreground": "foreground_process", "daemon": "daemon"}[mode]
        parameters: dict[str, Any] = {own: path}
        system = System(bench.planner())
        with pytest.raises(StartError, match=path):
            system.start(load(one(lambda _: Instance(create_managed_process(name="it", **parameters)))))
        assert seconds_of(system, "stop", "it") - seconds_of(system, "start", "it") < 1

    @in_both_modes
    def test_never_ready(self, bench: Bench, mode: Mode) -> None:
        """An instance that lives and does not listen fails the deployment at the limit, by name and port."""
        port = bench.port()
        with (
            pytest.raises(StartError, match=rf"it is not ready after 0.7 s\n.*port {port}"),
            bench.deploy(
                one(lambda state: misbehaving("it", state, mode, "never-ready", port=port)), start_seconds=0.7
            ),
        ):
            pass

    @in_both_modes
    def test_port_of_another_instance(self, bench: Bench, mode: Mode) -> None:
        """A port on which another instance listens than the one that declares it is a conflict that names both."""
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
        """A declared port that a foreign process holds is named by process, before anything is started."""
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
        """Two deployments of a model, with other ports, run side by side; the end of one is nothing to the other."""
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
            assert received(system, "it").environment[TAG.encode()].startswith(os.fsencode(root))
            system["it"].restart()
            assert system["it"].is_running
        assert bench.deployments(root) == []

    @in_both_modes
    def test_other_state_roots_work_or_are_refused(self, bench: Bench, mode: Mode) -> None:
        """A deployment works in a state root of any name, or is refused with the path before anything is started."""
        refusals, paths = [], []
        for name in OTHER_STATE_ROOTS:
            root = f"{bench.scratch}/{name}"
            system = System(bench.planner(state_root=root))
            try:
                system.start(load(one(lambda state: probe("it", state, mode))))
            except Unsupported as error:
                refusals.append(str(error))
                paths.append(root)
            else:
                assert own_number(system["it"]) == received(system, "it").pid
                system.stop()
            assert bench.deployments(root) == []
        for path, refusal in zip(paths, refusals, strict=True):
            assert bench.manager.name in refusal
            assert repr(path)[1:-1] in refusal


def http_body(instance: RunningInstance) -> str:
    """Ask a program over HTTP for its pid."""
    with socket.create_connection(("127.0.0.1", instance.port), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return connection.makefile("rb").read().rpartition(b"\r\n")[2].decode()


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
        system = System(bench.planner(start_seconds=1, stop_seconds=4))
        with pytest.raises(DeploymentError, match=r"/it\.pid"):
            system.start(load(one(lambda state: misbehaving("it", state, "daemon", behaviour, port=port))))
        assert seconds_of(system, "stopped", "it") - seconds_of(system, "stop", "it") < 3

    def test_one_that_stays_behind(self, bench: Bench) -> None:
        """A daemon that does not remove its PID file is stopped and started like any other."""
        build = one(lambda state: misbehaving("it", state, "daemon", "stale-pid-file", port=bench.port()))
        with bench.deploy(build) as system:
            before = system["it"].pid
            system["it"].restart()
            assert system["it"].pid not in (None, before)
            system["it"].stop()
            assert not system["it"].is_running


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
            with nullcontext() if bench.manager.capabilities.contains else report:
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


class Living(Fixtures):
    """What can be seen and done while a system is up."""

    @in_both_modes
    @pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGUSR2, 3)])
    def test_crash_is_seen(self, bench: Bench, mode: Mode, number: signal.Signals, status: int) -> None:
        """A program that has ended by itself does not run, its status is known, and the teardown is clean."""
        with bench.deploy(one(lambda state: probe("it", state, mode, port=bench.port()))) as system:
            it = system["it"]
            it.kill(number)
            bench.await_that(lambda: it.status.has_ended, "the end is seen")
            assert (it.status.exit_status, it.pid, it.pids, it.listening) == (status, None, [], set())
            with pytest.raises(DeploymentError, match="it does not run"):
                system.assert_no_conflicts()

    @in_both_modes
    def test_restart(self, bench: Bench, mode: Mode) -> None:
        """A restarted program is another process, which serves."""
        with bench.deploy(one(lambda state: probe("it", state, mode, port=bench.port()))) as system:
            before = system["it"].pid
            system["it"].restart()
            assert system["it"].pid not in (None, before)
            assert http_body(system["it"]) == str(own_number(system["it"]))
            system.assert_no_conflicts()

    @in_both_modes
    def test_reload(self, bench: Bench, mode: Mode) -> None:
        """A reload reaches the program, which goes on."""
        with bench.deploy(one(lambda state: probe("it", state, mode, port=bench.port()))) as system:
            before = system["it"].pid
            system["it"].reload()
            bench.await_line(system["it"], "reloaded")
            assert system["it"].pid == before

    @in_both_modes
    def test_log(self, bench: Bench, mode: Mode) -> None:
        """The log has what a program writes to its output and error, in order, at once, once."""
        with bench.deploy(one(lambda state: probe("it", state, mode, port=bench.port()))) as system:
            it = system["it"]
            sizes = system.log_sizes()
            for number in (1, 2):
                it.kill(signal.SIGUSR1)
                bench.await_line(it, f"line {number} on request")
            assert system.logs_since(sizes) == {"it": "line 1 on request\nline 2 on request\n"}
            assert it.log == "the probe is up\nline 1 on request\nline 2 on request\n"

    @in_both_modes
    def test_pause(self, bench: Bench, mode: Mode) -> None:
        """A paused program is stopped by the kernel, still counts as running, and goes on afterwards."""
        with bench.deploy(one(lambda state: probe("it", state, mode, port=bench.port()))) as system:
            pid = system["it"].pid
            assert pid is not None
            with system["it"].paused():
                bench.await_that(lambda: stat_fields(pid)[0] == "T", "it is stopped")
                assert system["it"].is_running
            assert http_body(system["it"]) == str(own_pid(pid))

    @in_both_modes
    def test_processes_and_ports(self, bench: Bench, mode: Mode) -> None:
        """An instance's processes and ports are its own, with the program first."""
        ports = {"one": bench.port(), "two": bench.port()}
        with bench.deploy(
            lambda state: {name: probe(name, state, mode, port=port) for name, port in ports.items()}
        ) as system:
            for name, port in ports.items():
                assert [own_pid(pid) for pid in system[name].pids] == [received(system, name).pid]
                assert system[name].listening == {port}
                assert system.statuses()[name].pid == system[name].pid

    @in_both_modes
    def test_switch(self, bench: Bench, mode: Mode) -> None:
        """An upgrade stops what is gone, restarts what has changed, starts what is new, and leaves the rest alone."""
        ports = {name: bench.port() for name in ("same", "changed", "gone", "new")}

        def build(state: StateDirs, *names: str, **arguments: str) -> ProcessesModel:
            return ProcessesModel(
                {
                    name: probe(name, state, mode, *filter(None, [arguments.get(name)]), port=ports[name])
                    for name in names
                }
            )

        with bench.deploy(lambda state: build(state, "same", "changed", "gone")) as system:
            before = {name: system[name].pid for name in system}
            system.switch(build(system.state, "same", "changed", "new", changed="with an argument"))
            assert system["same"].pid == before["same"]
            assert system["changed"].pid not in (None, before["changed"])
            assert b"with an argument" in received(system, "changed").arguments
            assert http_body(system["new"]) == str(own_number(system["new"]))
            system.machine.wait_for_closed_port(ports["gone"], timeout=5)


class ManagerConformance(Surroundings, Starting, PidFiles, Stopping, Living):
    """Everything; set ``manager`` to the name under which the manager is registered."""
