"""The generated rc.d scripts, run by hand the way that people do.

The whole life of a program, which uses all of a script's lines, and the syntax are tried under every shell at hand.
What they read and call of FreeBSD is a stand-in, which is strict; on FreeBSD itself it is the real thing.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest

from pytest_nixproc.machines.host import Host
from pytest_nixproc.machines.process_table import is_alive
from pytest_nixproc.machines.waiting import wait_until
from pytest_nixproc.managers.bsdrc import MANAGER, BsdrcGenerator, RcSystem, identifier
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.testing.programs import models
from pytest_nixproc.testing.programs.models import misbehaving, probe
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.tags import DEPLOYMENT
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Mode, Unit

Build = Callable[[StateDirs], Instance]
Need = Callable[[str], str]

STAND_INS: Final = Path(__file__).parent / "stand_ins"
GOLDEN: Final = Path(__file__).parents[1] / "unit" / "golden" / "bsdrc"
REAL: Final = sys.platform.startswith("freebsd")
SYSTEM: Final = RcSystem() if REAL else RcSystem(str(STAND_INS / "rc.subr"), str(STAND_INS / "daemon"))
SHELLS: Final[Mapping[str, tuple[str, ...]]] = {
    "dash": ("dash",),
    "bash": ("bash", "--posix"),
    "busybox": ("busybox", "ash"),
    **({"sh": ("sh",)} if REAL else {}),
}
USUAL: Final = "sh" if REAL else "dash"

in_both_modes = pytest.mark.parametrize("mode", ["foreground", "daemon"])
in_every_shell = pytest.mark.parametrize("shell", SHELLS, indirect=True)
in_every_shell_and_mode = pytest.mark.parametrize(
    ("shell", "mode"), [*((name, "foreground") for name in SHELLS), (USUAL, "daemon")], indirect=["shell"]
)
"""The modes differ in variables that rc.subr reads, not in what a shell does."""


@dataclass(frozen=True)
class Script:
    """A generated script in its place, and the shell that runs it."""

    shell: tuple[str, ...]
    path: str
    unit: Unit
    dump: str
    machine: Host
    tags: Mapping[str, str]

    def __call__(self, command: str, **environment: str) -> tuple[int, str]:
        """Run the script; return its exit status and what it says."""
        variables = {"PATH": self.machine.facts.path_variable, **self.tags, **environment}
        with open(f"{self.path}.out", "w+", encoding="utf-8") as output:
            status = subprocess.run(
                [*self.shell, self.path, command],
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=20,
                check=False,
            ).returncode
            output.seek(0)
            return status, output.read()

    def start(self) -> int:
        """Start the probe, wait until it is up, and return its pid."""
        assert self("onestart") == (0, f"Starting {self.name}.\n"), self.log
        wait_until(lambda: "" if os.path.exists(self.dump) else "not yet", self.machine.deadline(10), "wait for it")
        return int(self.dumped["pid"])

    @property
    def name(self) -> str:
        """What rc.subr calls it."""
        return os.path.basename(self.path)

    @property
    def dumped(self) -> dict[str, Any]:
        """What the probe was given."""
        dumped: dict[str, Any] = json.loads(Path(self.dump).read_text())
        return dumped

    @property
    def log(self) -> str:
        """What the program has logged."""
        path = Path(self.unit.log_file)
        return path.read_text() if path.exists() else ""


Make = Callable[..., Script]


@pytest.fixture
def shell(request: pytest.FixtureRequest, need: Need) -> tuple[str, ...]:
    """Return the command of a shell; of the usual one, for what does not depend on it."""
    program, *options = SHELLS[getattr(request, "param", USUAL)]
    return (need(program), *options)


@pytest.fixture
def make(place: str, machine: Host) -> Make:
    """Return a function that generates an instance's script for a shell, and puts it in its place."""

    def make(build: Build, shell: tuple[str, ...] = ("/bin/sh",), *, stop_seconds: float = 5) -> Script:
        state, tags = StateDirs.under(f"{place}/var"), {DEPLOYMENT: place}
        for directory in state.all():
            os.makedirs(directory, exist_ok=True)
        target = Target(state, f"{place}/p", facts=machine.facts, tags=tags, stop_seconds=stop_seconds)
        model = ProcessesModel({"it": build(state)})
        unit = BsdrcGenerator(SYSTEM).generate(MANAGER.launch("it", model, target))
        for file in unit.files:
            machine.files.write(f"{target.directory}/{file.path}", file.content, file.mode)
        path = f"{target.directory}/etc/rc.d/{identifier(unit.name)}"
        return Script(shell, path, unit, models.dump_of(state, unit.name), machine, tags)

    return make


@in_every_shell_and_mode
def test_life(make: Make, shell: tuple[str, ...], mode: Mode) -> None:
    """Every command has its exit status in every state, and does what it says."""
    script = make(lambda state: probe("it-1", state, mode), shell)
    assert script("onestatus") == (1, "it_1 is not running.\n")
    assert script("onestop")[0] == 1
    assert script("onereload")[0] == 1
    first = script.start()
    assert script("onestatus") == (0, f"it_1 is running as pid {first}.\n")
    status, said = script("onestart")
    assert (status, "already running" in said) == (1, True)
    assert script("onereload")[0] == 0
    wait_until(lambda: "" if "reloaded" in script.log else "not yet", script.machine.deadline(5), "wait for a reload")
    assert script("onerestart")[0] == 0
    wait_until(lambda: "" if os.path.exists(script.dump) else "not yet", script.machine.deadline(10), "wait for it")
    second = int(script.dumped["pid"])
    assert second != first
    assert not is_alive(first)
    assert script("onestop")[0] == 0
    assert not is_alive(second)
    assert not os.path.exists(script.unit.pid_file or "")
    assert script("status")[0] == 1


@in_both_modes
def test_stop_kills_in_the_end(make: Make, shell: tuple[str, ...], mode: Mode) -> None:
    """A program that ignores SIGTERM is killed after its time, which rc.subr alone would wait for."""
    script = make(
        lambda state: misbehaving("it", state, mode, "ignores-term", options={"ready": 1}), shell, stop_seconds=1
    )
    assert script("onestart")[0] == 0
    wait_until(lambda: "" if "ready" in script.log else "not yet", script.machine.deadline(10), "wait for it")
    pid = int(Path(script.unit.pid_file or "").read_text())
    status, said = script("onestop")
    assert (status, "did not stop within 1 s, killing it" in said) == (0, True)
    assert not is_alive(pid)


@in_both_modes
def test_pid_file_of_a_stranger(make: Make, mode: Mode) -> None:
    """A process that a PID file names by mistake is neither taken for the program nor touched."""
    script = make(lambda state: probe("it", state, mode))
    script.start()
    assert script("onestop")[0] == 0
    with subprocess.Popen([models.INTERPRETER, "-I", "-S", "-c", "import signal; signal.pause()"]) as stranger:
        Path(script.unit.pid_file or "").write_text(f"{stranger.pid}\n")
        assert script("onestatus")[0] == 1
        assert script("onestop")[0] == 1
        assert stranger.poll() is None
        stranger.kill()


def test_failed_start_is_logged(make: Make) -> None:
    """The log has the status of a daemon that could not be started, which rc.subr does not tell."""
    script = make(lambda state: misbehaving("it", state, "daemon", "dies", options={"status": 9, "early": 1}))
    assert script("onestart")[0] == 1
    assert "it: start failed (status 9)" in script.log


def test_hooks_run(make: Make, place: str) -> None:
    """Commands and hooks that overrides give are run by rc.subr, among them those that it does not have itself."""

    def build(state: StateDirs) -> Instance:
        commands = {
            "start": {"pre": f"echo before >> {place}/hooks", "post": f"echo after >> {place}/hooks"},
            "stop": {"post": f"echo stopped >> {place}/hooks"},
            "check": {"pre": "true", "implementation": "echo all is well", "post": "echo and done"},
        }
        instance = probe("it", state, "daemon")
        return Instance(replace(instance.pkg, overrides={"bsdrc": {"commands": commands}}))

    script = make(build)
    script.start()
    assert Path(place, "hooks").read_text() == "before\nafter\n"
    assert script("onecheck") == (0, "all is well\nand done\n")
    assert script("onestop")[0] == 0
    assert Path(place, "hooks").read_text() == "before\nafter\nstopped\n"


def test_requirements_are_checked(make: Make, place: str) -> None:
    """A start without what is required fails, and says what is missing."""

    def build(state: StateDirs) -> Instance:
        instance = probe("it", state, "daemon")
        override = {"required_files": [f"{place}/settings"], "required_vars": ["it_custom"]}
        return Instance(replace(instance.pkg, overrides={"bsdrc": {**override, "rcvars_defaults": {"custom": "YES"}}}))

    script = make(build)
    status, said = script("onestart")
    assert (status, f"{place}/settings is not readable" in said) == (1, True)
    Path(place, "settings").touch()
    script.start()
    assert script("onestop")[0] == 0


@pytest.mark.skipif(REAL, reason="the real rc.subr has more commands")
def test_stand_in_is_strict(make: Make) -> None:
    """Commands that a script does not have, and variables that rc.subr does not know, end it with status 99."""
    script = make(lambda state: probe("it", state, "daemon"))
    assert script("onefly")[0] == 99
    text = Path(script.path).read_text()
    Path(script.path).write_text(text.replace("rcvar=it_enable\n", "rcvar=it_enable\nit_directory=/\n"))
    assert script("onestart")[0] == 99


def golden_files() -> list[Path]:
    """Return the files that the generator makes of the models with golden files."""
    files = sorted(filter(Path.is_file, GOLDEN.rglob("files/**/*")))
    assert files
    return files


@in_every_shell
def test_every_shell_reads_generated_text(shell: tuple[str, ...]) -> None:
    """Every shell can parse the scripts."""
    for path in golden_files():
        subprocess.run([*shell, "-n", path], check=True)


def test_generated_text_is_clean(need: Need) -> None:
    """Shellcheck finds nothing in the scripts."""
    for path in golden_files():
        # It reads UTF-8 alone, and the hostile values hold what is none.
        content = path.read_bytes().decode(errors="replace")
        checked = subprocess.run(
            [need("shellcheck"), "--shell=sh", "-"], input=content, capture_output=True, text=True, check=False
        )
        assert (path, checked.stdout) == (path, "")


def test_rcorder_agrees() -> None:
    """In the order of what they provide and require, each script comes after those that it depends on."""
    scripts = {
        path.name: path.read_text() for path in (GOLDEN / "with-dependency" / "files" / "etc" / "rc.d").iterdir()
    }
    provides = {name: re.findall(r"^# PROVIDE: (.*)$", text, re.MULTILINE)[0].split() for name, text in scripts.items()}
    requires = {
        name: " ".join(re.findall(r"^# REQUIRE: (.*)$", text, re.MULTILINE)).split() for name, text in scripts.items()
    }
    provider = {word: name for name, words in provides.items() for word in words}
    assert {name: {provider[word] for word in words} for name, words in requires.items()} == {
        "webapp1": set(),
        "nginx": {"webapp1"},
        "last": {"nginx", "webapp1"},
    }
