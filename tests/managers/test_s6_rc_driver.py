"""s6-rc for real: what its supervision tree does with definitions, and what the deployment keeps it from."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping

import pytest

from pytest_nixproc._registry import Registry
from pytest_nixproc._system.system import System
from pytest_nixproc.errors import StartError, TeardownError
from pytest_nixproc.machines.host import Host
from pytest_nixproc.machines.process_table import is_alive
from pytest_nixproc.managers.s6_rc.generator import SOURCES, live_directory, scanner_file
from pytest_nixproc.managers.s6_rc.syntax import words
from pytest_nixproc.managers.s6_rc.tools import OTHER_DIRECTORIES, TOOLS
from pytest_nixproc.model import ready
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.testing.conformance.bench import (
    Bench,
    bystander,
    driver_at,
    http_body,
    load,
    one,
    read_text,
    received,
    write_text,
)
from pytest_nixproc.testing.conformance.hostile import HOSTILE
from pytest_nixproc.testing.programs.models import probe
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.target import Target

TOOLS_PATH = os.pathsep.join((os.environ["PATH"], *OTHER_DIRECTORIES))
SAYS = (
    "import os, sys, time; os.write(1, bytes.fromhex(sys.argv[1])); os.write(2, b'!'); time.sleep(float(sys.argv[2]))"
)
NOTIFIES = """
import os, sys, time
while not os.path.exists(sys.argv[1]): time.sleep(0.01)
os.write(4, b"\\n")
time.sleep(1000)
"""


@pytest.fixture
def bench(machine: Host) -> Iterator[Bench]:
    """Return a bench that deploys with s6-rc."""
    manager = Registry().manager("s6-rc")
    if reason := manager.unavailable_reason(Host):
        required = {"all", "s6-rc"} & set(os.environ.get("NIXPROC_REQUIRE", "").split(","))
        (pytest.fail if required else pytest.skip)(reason)
    bench = Bench(manager, machine)
    yield bench
    assert not bench.leftovers()


def target_of(system: System) -> Target:
    """Return the place of a deployment."""
    return Target(system.state, f"{system.root}/profile")


def ask(system: System, tool: str, *arguments: str) -> str:
    """Run one of the tools on the live state; return what it prints."""
    command = [tool, "-l", live_directory(target_of(system)), "-b", *arguments]
    return system.machine.succeed(["env", f"PATH={TOOLS_PATH}", *command])


def program(*argv: str, overrides: Mapping[str, object] | None = None, **parameters: object) -> Instance:
    """Return an instance of a program that stays in the foreground."""
    own = {"foreground_process": argv[0], "args": argv[1:], "overrides": {"s6-rc": dict(overrides or {})}}
    return Instance(create_managed_process(name="it", **own, **parameters))  # type: ignore[arg-type]


def says(content: bytes, seconds: float = 1000, **parameters: object) -> Instance:
    """Return an instance that writes bytes to its output and one more to its error, and stays for a while."""
    return program(sys.executable, "-I", "-S", "-c", SAYS, content.hex(), str(seconds), **parameters)  # type: ignore[arg-type]


def scanner_of(system: System) -> int:
    """Return the process of s6-svscan."""
    return int(read_text(scanner_file(target_of(system))).split()[0])


def chain(state: StateDirs) -> Mapping[str, Instance]:
    """Return a probe that depends on another one."""
    return {"base": probe("base", state), "top": probe("top", state, dependencies=["base"])}


def test_execlineb_reads_words_as_they_were(bench: Bench) -> None:
    """What is quoted is what a command is given."""
    show = [sys.executable, "-I", "-S", "-c", "import sys; print(ascii(sys.argv[1:]))"]
    hostile = [*HOSTILE, "{", "}", "\\0x41", "a\\\nb", "".join(map(chr, range(1, 256)))]
    command = ["execlineb", "-P", "-c", words([*show, *hostile])]
    assert bench.machine.succeed(["env", f"PATH={TOOLS_PATH}", *command]).strip() == ascii(hostile)


def test_database(bench: Bench) -> None:
    """The database has each instance as a bundle of program and companion, their order, and the bundle of all."""
    with bench.deploy(chain) as system:
        assert set(ask(system, "s6-rc-db", "contents", "default").split()) == {
            *("base-srv", "base-log", "top-srv", "top-log")
        }
        assert set(ask(system, "s6-rc-db", "dependencies", "top-srv").split()) >= {"base-srv", "top-log"}
        # Its versions differ in what they write between the names.
        assert re.split(r"\W*[/|]\W*", ask(system, "s6-rc-db", "pipeline", "top-srv").strip()) == ["top-srv", "top-log"]
        assert set(ask(system, "s6-rc", "-a", "list").split()) >= {"base-srv", "base-log", "top-srv", "top-log"}
        assert ask(system, "s6-rc", "diff") == ""


def test_stop_of_a_dependency_is_its_own(bench: Bench) -> None:
    """A single stop or start takes neither dependants nor dependencies along, though they are s6-rc's too."""
    with bench.deploy(chain) as system:
        base, top = system["base"], system["top"]
        pids = base.pid, top.pid
        base.stop()
        assert (base.is_running, top.pid) == (False, pids[1])
        top.restart()
        assert (base.is_running, top.is_running) == (False, True)
        base.start()
        assert base.pid not in (None, pids[0])
        top.stop()
        base.stop()
        top.start()
        assert (base.is_running, top.is_running) == (False, True)
        top.stop()
        assert not top.is_running
        top.start()
        assert (base.is_running, top.is_running) == (False, True)


def test_upgrade_leaves_dependants_alone(bench: Bench) -> None:
    """A changed dependency is started anew, and what depends on it goes on; what is new can be depended on."""

    def build(state: StateDirs, *arguments: str, more: bool = False) -> ProcessesModel:
        new = {"new": probe("new", state)} if more else {}
        needs = ["base", *new]
        changed = {"base": probe("base", state, "foreground", *arguments), **new}
        return ProcessesModel(
            {
                **changed,
                "top": probe("top", state, dependencies=["base"]),
                "last": probe("last", state, dependencies=needs),
            }
        )

    with bench.deploy(build) as system:
        before = {name: system[name].pid for name in system}
        system.switch(build(system.state, "changed"))
        assert {name: system[name].pid == pid for name, pid in before.items()} == {
            "base": False,
            "top": True,
            "last": True,
        }
        assert b"changed" in received(system, "base").arguments
        system.switch(build(system.state, "changed", more=True))
        assert (system["top"].pid, system["last"].pid == before["last"]) == (before["top"], False)
        system.switch(build(system.state))
        assert system["top"].pid == before["top"]
        assert "new" not in system
        assert not os.path.exists(f"{system.root}/profile/{SOURCES}/new-srv")
        system.switch(ProcessesModel({}))
        assert ask(system, "s6-rc-db", "list", "bundles") == ""
        system.switch(build(system.state))
        assert system["last"].is_running


def test_finish_decides_about_restarts(bench: Bench) -> None:
    """Without ``finish``, s6-supervise starts a killed program again; the port is served by the new process."""
    port = bench.port()
    override = {"s6-rc": {"finish": None}}
    with bench.deploy(one(lambda state: probe("it", state, port=port, overrides=override))) as system:
        it = system["it"]
        before = it.pid
        it.kill(signal.SIGKILL)
        bench.await_that(lambda: it.is_running and it.pid not in (None, before), "it runs again")
        bench.await_that(lambda: it.listening == {port}, "it listens again")
        assert http_body(it) == str(it.pid)


def test_readiness_by_notification(bench: Bench) -> None:
    """With ``notification_fd`` an instance has started when its program says so, and not before."""
    override = {"notificationFd": 4}

    def build(state: StateDirs, text: str = "") -> Mapping[str, Instance]:
        argv = (sys.executable, "-I", "-S", "-c", NOTIFIES, f"{state.lib_dir}/go")
        return {"it": program(*argv, overrides=override, initialize=text)}

    with pytest.raises(StartError, match=r"it did not start: (.|\n)*timed out"):
        System(bench.planner(start_seconds=1)).start(load(build))
    with bench.deploy(lambda state: build(state, f"touch {state.lib_dir}/go")) as system:
        assert system["it"].is_running


@pytest.mark.parametrize("auto", [True, False])
def test_log_has_every_byte(bench: Bench, *, auto: bool) -> None:
    """Unfinished lines, NUL and what is no UTF-8 are in the log at once, and so are the last words of what ends."""
    content = b"one\ntwo\0\xff\r\n" + b"x" * 60_000 + b"\nno end"
    override = {"autoGenerateLogService": auto}
    with bench.deploy(one(lambda _: says(content, 0.3, overrides=override))) as system:
        it = system["it"]
        bench.await_that(lambda: it.status.has_ended, "it has ended")
        assert it.log == (content + b"!").decode(errors="replace")
        with open(system.state.log_dir + "/nixproc-it.log", "rb") as file:
            assert file.read() == content + b"!"


def test_last_words_of_a_failed_start(bench: Bench) -> None:
    """What dies at once has its words in the error, however little of a line they are."""
    for _ in range(5):
        with pytest.raises(StartError, match="end of its log:\nfatal!"), bench.deploy(one(lambda _: says(b"fatal", 0))):
            pass


def test_log_script(bench: Bench) -> None:
    """Directives make the companion s6-log."""
    build = one(lambda _: says(b"a line\n", overrides={"logScript": ["t", "1"]}))
    with bench.deploy(build) as system:
        bench.await_that(lambda: re.fullmatch("@[0-9a-f]{24} a line\n", system["it"].log), "the line has a time")


def test_environment_directory(bench: Bench) -> None:
    """Files in ``env`` are variables, those of the model come after them."""
    override = {"s6-rc": {"env": {"FROM_FILE": "a  b\n", "GIVEN": "file\n"}, "data": {"x": "y"}}}
    given = {"GIVEN": "model"}
    with bench.deploy(one(lambda state: probe("it", state, environment=given, overrides=override))) as system:
        environment = received(system, "it").environment
        assert (environment[b"FROM_FILE"], environment[b"GIVEN"]) == (b"a  b", b"model")
        assert read_text(f"{live_directory(target_of(system))}/servicedirs/it-srv/data/x") == "y"


def test_pipeline(bench: Bench) -> None:
    """A program can read what another one writes."""

    def build(state: StateDirs) -> Mapping[str, Instance]:
        del state
        reader = {"foreground_process": "/bin/cat", "overrides": {"s6-rc": {"consumer_for": ["it"]}}}
        return {
            "reader": Instance(create_managed_process(name="reader", **reader)),  # type: ignore[arg-type]
            "it": says(b"into the pipe\n", overrides={"producer_for": "reader"}),
        }

    with bench.deploy(build) as system:
        bench.await_that(lambda: system["reader"].log == "into the pipe\n!", "it has arrived")
        system["it"].stop()
        assert system["reader"].is_running


def oneshot(state: StateDirs, port: int, **changes: object) -> Instance:
    """Return a daemon that s6-rc itself starts and stops."""
    return probe("it", state, "daemon", port=port, overrides={"s6-rc": {"type": "oneshot", **changes}})


def test_oneshot(bench: Bench) -> None:
    """A daemon can be a oneshot: it is started, stopped and started again, and its end is seen."""
    port = bench.port()
    with bench.deploy(one(lambda state: oneshot(state, port))) as system:
        it = system["it"]
        before = it.pid
        assert before is not None
        assert it.log.splitlines()[0] == "the probe is up"
        it.reload()
        bench.await_line(it, "reloaded")
        it.stop()
        assert not is_alive(before)
        assert not it.is_running
        it.start()
        assert http_body(it) == str(it.pid)
        it.kill(signal.SIGKILL)
        bench.await_that(lambda: it.status.has_ended, "its end is seen")
        it.start()
        assert http_body(it) == str(it.pid)


def test_oneshot_spares_strangers(bench: Bench) -> None:
    """A PID file that names somebody else's process neither counts as the daemon, nor is that process stopped."""
    with bystander("/bin/sleep", "1000") as stranger:
        port = bench.port()
        with bench.deploy(one(lambda state: oneshot(state, port))) as system:
            it = system["it"]
            it.kill(signal.SIGKILL)
            write_text(it.pid_file, f"{stranger.pid}\n")
            assert not it.is_running


def test_oneshot_of_own_commands(bench: Bench) -> None:
    """Its command lines can be anything that ends, and need no daemon."""

    def build(state: StateDirs) -> Mapping[str, Instance]:
        command = f"/bin/sleep 1000 & echo $! > {state.lib_dir}/pid"
        up = words(("/bin/sh", "-c", f"touch {state.lib_dir}/up; {command}"))
        down = words(("/bin/sh", "-c", f"touch {state.lib_dir}/down; kill $(cat {state.lib_dir}/pid)"))
        process = create_managed_process(
            name="it",
            daemon="/bin/true",
            overrides={"s6-rc": {"up": up, "down": down}},
            pid_file=f"{state.lib_dir}/pid",
        )
        return {"it": Instance(process, ready=ready.file(f"{state.lib_dir}/up"))}

    with bench.deploy(build) as system:
        assert system["it"].is_running
        system["it"].stop()
        assert os.path.exists(f"{system.state.lib_dir}/down")


def test_another_driver_stops_what_one_has_started(
    bench: Bench, machine: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver made anew, which has another ``PATH``, knows what runs, and takes all of it down."""
    with bench.deploy(one(lambda state: probe("it", state))) as system:
        pid, scanner = system["it"].pid, scanner_of(system)
        assert pid is not None
        unit = system._deployment.operation.context.units["it"]  # noqa: SLF001
        monkeypatch.setenv("PATH", "/nowhere")
        driver = driver_at(bench.manager, machine, system.root)
        assert driver.status([unit])["it"].pid == pid
        driver.deactivate([unit], machine.deadline(5))
        assert driver.status([unit])["it"].has_ended
        driver.close(machine.deadline(5))
        driver.close(machine.deadline(5))
        assert machine.processes.ended([pid, scanner]) == {pid, scanner}


def test_killed_scanner_leaves_nothing(bench: Bench) -> None:
    """When s6-svscan is killed, the teardown still ends all that is left of the tree."""
    with bench.deploy(one(lambda state: probe("it", state))) as system:
        pid = system["it"].pid
        os.kill(scanner_of(system), signal.SIGKILL)
        with pytest.raises(TeardownError, match="s6-supervise"):
            system.stop()
    assert pid
    assert not is_alive(pid)


@pytest.mark.parametrize("package", TOOLS)
def test_missing_tool_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not installed is named, with where it is to be had."""
    monkeypatch.setattr(shutil, "which", lambda name, path: None if name in TOOLS[package] else f"{path}/{name}")
    reason = Registry().manager("s6-rc").unavailable_reason(Host)
    assert reason.startswith(f"{TOOLS[package][0]} is not installed: install {package} ")
