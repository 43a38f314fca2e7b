"""The deployment engine, on a machine and under a manager that spawn nothing."""

from __future__ import annotations

import errno
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_nixproc._deployment import installation
from pytest_nixproc._persistence import directory
from pytest_nixproc._persistence.journal import Journal, recall
from pytest_nixproc._persistence.leases import DeploymentLease, Leases
from pytest_nixproc._planning.planner import Planner
from pytest_nixproc._system.system import System
from pytest_nixproc.errors import (
    ConflictError,
    DeploymentError,
    MachineError,
    NixprocError,
    SourceError,
    StartError,
    TeardownError,
    Unremovable,
)
from pytest_nixproc.machines.waiting import Deadline
from pytest_nixproc.model import ready
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.testing.fake_machine import FakeMachine, FakeProcess, each, ends, ignores, listens
from pytest_nixproc.values.commands import Spawn
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.units import Unit

if TYPE_CHECKING:
    from tests.unit.conftest import FakeDriver, MakeModel, Orders

PORTS = {"db": 8001, "cache": 8002, "web": 8003, "proxy": 8004}


@pytest.fixture
def three_levels(make_model: MakeModel, machine: FakeMachine) -> ProcessesModel:
    """Return a model of three levels, whose programs listen on their ports."""
    for name, port in PORTS.items():
        machine.processes.program(f"/fake/{name}", listens(port, after=0.5))
    needs: dict[str, list[str]] = {"web": ["db", "cache"], "proxy": ["web"]}
    return make_model(**{name: {"needs": needs.get(name, []), "port": port} for name, port in PORTS.items()})


@pytest.fixture
def deploy(system: System) -> Callable[[ProcessesModel], System]:
    """Return a function that deploys a model."""

    def deploy(model: ProcessesModel) -> System:
        system.start(lambda _: model)
        return system

    return deploy


@pytest.fixture
def refused(system: System, machine: FakeMachine) -> Callable[..., Any]:
    """Return a function that deploys a model in vain, and returns the error; nothing may be left afterwards."""

    def refused(kind: type[NixprocError], model: ProcessesModel) -> Any:
        with pytest.raises(kind) as caught:
            system.start(lambda _: model)
        assert not system.is_deployed
        assert [process for process in machine.processes.running() if process.command.environment] == []
        assert not [path for path in machine.files.contents if path.startswith(system.root) and "/log/" not in path]
        assert (machine.lifecycle.guarded, getattr(caught.value, "__notes__", [])) == ({}, [])
        return caught.value

    return refused


def activations(orders: Orders) -> list[tuple[str, str]]:
    """Return what was started and stopped."""
    return [(verb, names) for verb, names in orders.asked if verb in ("activate", "deactivate")]


def test_start_follows_the_levels(deploy: Any, three_levels: ProcessesModel, orders: Orders) -> None:
    """The manager comes first, then level after level, each of which begins when the last one is ready."""
    system = deploy(three_levels)
    assert orders.asked == [("open", ""), ("activate", "cache db"), ("activate", "web"), ("activate", "proxy")]
    times = {(event.happening, event.instance): event.seconds for event in system.timeline}
    for name, needs in three_levels.dependencies.items():
        assert all(times["ready", need] <= times["start", name] for need in needs)
    assert system.timeline.order("ready") == ["cache", "db", "web", "proxy"]
    assert list(system) == ["cache", "db", "web", "proxy"]


def test_events_of_a_deployment(deploy: Any, make_model: MakeModel, machine: FakeMachine) -> None:
    """Everything that happens to an instance is an event, from the plan to the removal of its files."""
    machine.processes.program("/fake/web", listens(80, after=0.5))
    system = deploy(make_model(web={"port": 80}))
    system["web"].restart()
    system.stop()
    once = ["start", "spawned", "ready", "stop", "stopped"]
    assert [event.happening for event in system.timeline] == ["planned", *once, *once, "removed"]
    assert [event.seconds for event in system.timeline] == sorted(event.seconds for event in system.timeline)


def test_guardian_knows_how_long_a_stop_may_take(deploy: Any, make_model: MakeModel, machine: FakeMachine) -> None:
    """Who takes the system down in our place may wait for its programs: level by level, for the slowest of each."""
    system = deploy(make_model(db={"stop_timeout": 40}, cache={"stop_timeout": 1}, web={"needs": ["db"]}))
    assert machine.lifecycle.recovery_seconds == {system.root: 45}
    system.switch(make_model(web={}))
    assert machine.lifecycle.recovery_seconds == {system.root: 5}


def test_stop_is_the_exact_reverse(deploy: Any, three_levels: ProcessesModel, orders: Orders) -> None:
    """Everything stops in reverse order of its start, and the manager last."""
    system = deploy(three_levels)
    started = [names for verb, names in orders.asked if verb == "activate"]
    orders.asked.clear()
    system.stop()
    assert orders.asked == [*(("deactivate", names) for names in reversed(started)), ("close", "")]
    assert not system.is_deployed


def test_nothing_is_left(deploy: Any, three_levels: ProcessesModel, machine: FakeMachine, tmp_path: Path) -> None:
    """After a stop, no process, port or lease is left, and nobody guards anything; stopping again is harmless."""
    system = deploy(three_levels)
    assert list(machine.lifecycle.guarded) == [system.root]
    for _ in range(2):
        system.stop()
    assert (machine.processes.running(), machine.network.listeners(), machine.lifecycle.guarded) == ([], [], {})
    assert not machine.files.exists(system.root)
    assert not os.path.exists(tmp_path / "leases" / "here")


def test_files_are_in_place_before_the_start(deploy: Any, make_model: MakeModel, machine: FakeMachine) -> None:
    """Directories, generated files and links are made, as the plan says."""
    system = deploy(make_model(web={"args": ["-x"]}))
    assert machine.files.read(f"{system.root}/profile/etc/unit-web") == b"-x"
    assert machine.files.links == {f"{system.root}/profile/on/unit-web": "../etc/unit-web"}
    assert machine.files.directories >= set(system.state.all())


def test_journal_tells_what_has_to_be_undone(deploy: Any, three_levels: ProcessesModel) -> None:
    """The journal knows each step while it is up, and forgets what a test has stopped."""
    system = deploy(three_levels)
    record = recall(f"{system.root}/journal")
    assert record is not None
    assert [[unit.name for unit in step] for step in record.started] == [
        ["unit-cache", "unit-db"],
        ["unit-web"],
        ["unit-proxy"],
    ]
    system["proxy"].stop()
    record = recall(f"{system.root}/journal")
    assert record is not None
    assert [unit.name for unit in record.started[-1]] == ["unit-web"]


def test_undo_is_on_disk_before_the_step(deploy: Any, make_model: MakeModel, machine: FakeMachine) -> None:
    """When a program starts, the journal says so already."""
    seen: list[str] = []

    def script(_: FakeMachine, process: Any) -> None:
        root = process.command.environment["NIXPROC_DEPLOYMENT"]
        record = recall(f"{root}/journal")
        seen.extend(unit.name for step in record.started for unit in step) if record else None

    machine.processes.program("/fake/web", script)
    deploy(make_model(web={}))
    assert seen == ["unit-web"]


def test_failure_at_start_stops_the_others(
    refused: Any, three_levels: ProcessesModel, machine: FakeMachine, orders: Orders
) -> None:
    """When an instance dies, those that run are stopped in reverse order, and what comes later never starts."""
    machine.processes.program("/fake/web", ends(3, after=0.1, output="no luck\n"))
    error = refused(StartError, three_levels)
    assert error.brief.startswith("web did not start: it ended with status 3 after 0.1")
    assert "no luck" in error.details
    verbs = [("activate", "cache db"), ("activate", "web"), ("deactivate", "web"), ("deactivate", "cache db")]
    assert activations(orders) == verbs
    assert machine.clock.now() < 2


def test_manager_that_refuses_a_unit(refused: Any, make_model: MakeModel, orders: Orders) -> None:
    """What the manager says about an instance that it does not start is the error, with the instance's name."""
    orders.refusals["unit-web"] = "no such file"
    assert refused(StartError, make_model(web={}, db={})).brief == "web did not start: no such file"


def test_manager_that_refuses_a_unit_whose_port_is_taken(
    system: System, make_model: MakeModel, machine: FakeMachine, orders: Orders
) -> None:
    """Who has taken the port of such an instance meanwhile is told with it."""
    orders.refusals["unit-web"] = "it ended at once"

    def taken(machine: FakeMachine, _: object) -> None:
        machine.network.listen(80, machine.processes.spawn(Spawn(("/bin/nc", "-l"))))

    machine.processes.program("/fake/web", each(taken, ends(1)))
    with pytest.raises(StartError, match=r"it ended at once\nTCP port 80: process \d+ holds it \(/bin/nc -l\)\n"):
        system.start(lambda _: make_model(web={"port": 80}))


@pytest.mark.parametrize("verb", ["open", "activate"])
def test_broken_manager_is_an_error(refused: Any, make_model: MakeModel, orders: Orders, verb: str) -> None:
    """A manager that fails is the error, and is closed all the same."""
    orders.broken.add(verb)
    assert refused(MachineError, make_model(web={})).brief == f"{verb} is broken"
    assert orders.asked[-1] == ("close", "")


def test_interruption_takes_everything_down(
    system: System, three_levels: ProcessesModel, machine: FakeMachine, orders: Orders
) -> None:
    """An interruption by the user, in the middle of a start, stops what has started."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    machine.clock.after(0.7, interrupt)
    with pytest.raises(KeyboardInterrupt):
        system.start(lambda _: three_levels)
    assert (machine.processes.running(), system.is_deployed, orders.asked[-1]) == ([], False, ("close", ""))


def test_problems_of_undoing_become_notes(system: System, make_model: MakeModel, orders: Orders) -> None:
    """What goes wrong while a failed start is undone is added to its error, and does not replace it."""
    orders.refusals["unit-web"] = "no such file"
    orders.broken |= {"close"}
    with pytest.raises(StartError, match="no such file") as caught:
        system.start(lambda _: make_model(web={}))
    (note,) = caught.value.__notes__
    assert "close is broken" in note


def test_state_of_a_failed_start_can_be_kept(
    system: System, planner: Planner, make_model: MakeModel, machine: FakeMachine, orders: Orders
) -> None:
    """Where it was asked for, a failed start leaves its files, and says where."""
    planner.settings = replace(planner.settings, keep_failed=True)
    orders.refusals["unit-web"] = "no"
    with pytest.raises(StartError) as caught:
        system.start(lambda _: make_model(web={}))
    assert caught.value.__notes__ == [f"the state is kept in {system.root}"]
    assert machine.files.exists(f"{system.root}/profile/etc/unit-web")
    assert machine.processes.running() == []


def test_conflicts_are_refused_before_anything_starts(refused: Any, make_model: MakeModel, orders: Orders) -> None:
    """A model whose instances conflict is refused, with both, before the manager is even opened."""
    error = refused(ConflictError, make_model(a={"port": 80}, b={"port": 80}))
    assert "NP101 error: a and b declare the same TCP port 80" in str(error)
    assert orders.asked == []


def test_held_port_names_its_holder(refused: Any, make_model: MakeModel, machine: FakeMachine, orders: Orders) -> None:
    """A declared port that somebody else holds is refused at once, and the error names the process."""
    machine.network.listen(80, machine.processes.spawn(Spawn(("/bin/nc", "-l", "80"))))
    brief = refused(DeploymentError, make_model(web={"port": 80})).brief
    assert brief.startswith("web cannot have TCP port 80 (processes.web.port): process ")
    assert "(/bin/nc -l 80)" in brief
    assert orders.asked == []


@pytest.mark.parametrize(("said", "is_free"), [("127.0.0.2", True), ("::1", True), ("127.0.0.1", False), ("", False)])
def test_held_port_at_an_address(
    system: System, make_model: MakeModel, machine: FakeMachine, said: str, *, is_free: bool
) -> None:
    """A port that somebody holds on one address is refused to those who are told that one, or all, and to no others."""
    machine.network.listen(80, machine.processes.spawn(Spawn(("/bin/nc",))))
    machine.processes.program("/fake/web", listens(80, host=said or "127.0.0.2"))
    with nullcontext() if is_free else pytest.raises(DeploymentError, match="web cannot have TCP port 80"):
        system.start(lambda _: make_model(web={"port": 80, "bind_address": said}))
    system.stop()


def test_live_check_refuses_a_deaf_instance(system: System, make_model: MakeModel, machine: FakeMachine) -> None:
    """An instance whose port somebody else has opened meanwhile is not taken for ready, and is stopped."""
    machine.processes.program("/fake/web", lambda machine, _: machine.network.listen(80))
    with pytest.raises(ConflictError, match="NP202 error: web declares TCP port 80"):
        system.start(lambda _: make_model(web={"port": 80}))
    assert (machine.processes.running(), system.is_deployed) == ([], False)


def test_journal_that_cannot_be_begun(
    refused: Any, system: System, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the disk has room for a directory and for nothing else, that directory is removed again."""

    def full(path: str) -> Journal:
        assert os.path.isdir(system.root)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(installation, "Journal", full)
    assert "No space left on device" in refused(DeploymentError, make_model(web={})).brief
    assert not os.path.exists(system.root)


def test_post_install_runs_in_the_profile(deploy: Any, make_model: MakeModel, machine: FakeMachine) -> None:
    """What a process adds to its files is for the caller alone, and is made in ``out``, before anything starts.

    The text is not on the command line, which everybody can read.
    """
    machine.processes.program("/bin/sh", ends(0))
    system = deploy(make_model(web={"post_install": "touch $out/x"}))
    first = next(iter(machine.processes.by_pid.values()))
    assert first.command.argv == ("/bin/sh", "-ec", 'umask 077\neval "unset NIXPROC_TEXT; $NIXPROC_TEXT"')
    assert first.command.environment["NIXPROC_TEXT"] == "touch $out/x"
    assert first.command.environment["out"] == f"{system.root}/profile"


@pytest.mark.parametrize(("status", "words"), [(3, "ended with status 3"), (None, "was killed at its time limit")])
def test_post_install_that_fails(
    refused: Any, make_model: MakeModel, machine: FakeMachine, status: int | None, words: str
) -> None:
    """A failure there fails the deployment, with what it printed."""
    if status is not None:
        machine.processes.program("/bin/sh", ends(status, output="no space\n"))
    error = refused(DeploymentError, make_model(web={"post_install": "false"}))
    assert error.brief == f"post_install of web {words}"
    assert error.details == ("no space\n" if status else "")


def test_teardown_goes_on_past_failures(
    deploy: Any, three_levels: ProcessesModel, machine: FakeMachine, orders: Orders
) -> None:
    """Every failure of a teardown is reported, in one error, and the rest is done all the same."""
    machine.processes.program("/fake/web", each(listens(PORTS["web"]), ignores(signal.SIGTERM)))
    system = deploy(three_levels)
    orders.broken |= {"close"}
    machine.processes.spawn(Spawn(("/bin/stray",), {"NIXPROC_DEPLOYMENT": system.root}))
    with pytest.raises(TeardownError) as caught:
        system.stop()
    web, close, stray = caught.value.problems
    assert re.match(r"web did not stop within 5 s: process \d+ was ended by SIGKILL after 6.0 s", web)
    stopped = {event.instance: event.detail for event in system.timeline if event.happening == "stopped"}
    assert stopped == {"web": "ended by SIGKILL", "db": "", "cache": "", "proxy": ""}
    assert close == "close is broken"
    assert "was left behind, and killed: " in stray
    assert (machine.processes.running(), machine.files.exists(system.root), system.is_deployed) == ([], False, False)


def test_what_the_manager_keeps_is_an_error(deploy: Any, three_levels: ProcessesModel, orders: Orders) -> None:
    """After it was closed, a manager is asked what it still has; that is the teardown's error, and all else is done."""
    system = deploy(three_levels)
    orders.left = ["container web", "volume data"]
    with pytest.raises(TeardownError) as caught:
        system.stop()
    assert list(caught.value.problems) == [f"left after the teardown: {item}" for item in orders.left]
    assert not system.is_deployed


def test_manager_that_was_never_open_is_not_asked(refused: Any, make_model: MakeModel, orders: Orders) -> None:
    """A start that fails before the manager is up has one error, and nothing to add about what is left."""
    orders.broken |= {"open"}
    orders.left = ["container of somebody"]
    assert not hasattr(refused(MachineError, make_model(web={})), "__notes__")


def test_manager_out_of_reach_is_told_of_once(
    deploy: Any, three_levels: ProcessesModel, machine: FakeMachine, orders: Orders, tmp_path: Path
) -> None:
    """Processes are ended without it; directory, journal, lease and guardian stay for whoever finds it again."""
    system = deploy(three_levels)
    orders.is_out_of_reach = True
    with pytest.raises(TeardownError) as caught:
        system.stop()
    remedy = f"{system.root} is kept until it is back; nixproc reap removes what is left then"
    problems = [problem for problem in caught.value.problems if "was ended by SIGTERM" not in problem]
    assert problems == ["the manager does not answer", remedy]
    assert (machine.processes.running(), system.is_deployed) == ([], False)
    assert Path(f"{system.root}/journal").is_file()
    assert [lease.root for lease in Leases(str(tmp_path / "leases" / "here")).all()] == [system.root]
    assert list(machine.lifecycle.guarded) == [system.root]


def test_directory_that_cannot_be_removed(
    deploy: Any, three_levels: ProcessesModel, machine: FakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stays is told of, once: the lease alone says so from then on, and the guardian does not try again."""
    system = deploy(three_levels)

    def refuse(path: str) -> None:
        raise Unremovable(f"cannot remove {path}: something is mounted on it")

    monkeypatch.setattr(machine.files, "remove", refuse)
    with pytest.raises(TeardownError) as caught:
        system.stop()
    problem = f"cannot remove {system.root}: something is mounted on it"
    assert caught.value.problems == (problem,)
    assert (machine.processes.running(), system.is_deployed) == ([], False)
    leases = Leases(str(tmp_path / "leases" / "here")).all()
    assert leases == [DeploymentLease(system.root, (), rest=problem, told=True)]
    assert list(machine.lifecycle.guarded) == []


def test_switch_restarts_only_what_changed(
    deploy: Any, make_model: MakeModel, machine: FakeMachine, orders: Orders
) -> None:
    """An upgrade stops what is gone or changed, starts what is new or changed, and leaves the rest alone."""
    base: dict[str, Any] = {"db": {}, "web": {"needs": ["db"]}, "old": {}}
    system = deploy(make_model(**base))
    kept = system["db"].pid
    orders.asked.clear()
    system.switch(make_model(db={}, web={"needs": ["db"], "args": ["-v2"]}, new={}))
    assert orders.asked == [
        ("deactivate", "old web"),
        ("refresh", "db web new"),
        ("activate", "new web"),
    ]
    assert system["db"].pid == kept
    assert machine.files.read(f"{system.root}/profile/etc/unit-web") == b"-v2"
    assert list(system) == ["db", "new", "web"]


def test_switch_takes_all_forms_of_a_model(deploy: Any, make_model: MakeModel, tmp_path: Path) -> None:
    """An upgrade is to a mapping, a function or a path as well, and to nothing else."""
    system = deploy(make_model(web={}))
    system.switch({"mapped": make_model(web={})["web"]})
    assert list(system) == ["mapped"]
    system.switch(lambda process_manager: {"called": make_model(web={"args": [process_manager]})["web"]})
    assert list(system) == ["called"]
    with pytest.raises(SourceError, match="no model file"):
        system.switch(tmp_path / "none.py")
    with pytest.raises(SourceError, match="5 is no model"):
        system.switch(5)
    assert list(system) == ["called"]


def test_switch_adds_to_the_files_of_what_changed(deploy: Any, make_model: MakeModel, machine: FakeMachine) -> None:
    """An upgrade runs what processes add to their files for those that are new or changed, and leaves others alone."""
    machine.processes.program("/bin/sh", ends(0))
    base: dict[str, Any] = {
        "kept": {"post_install": "a"},
        "changed": {"post_install": "b"},
        "more": {"post_install": "c"},
    }
    system = deploy(make_model(**base))
    for name in base:
        machine.files.write(f"{system.root}/profile/etc/unit-{name}", "with an addition", 0o644)
    base["changed"] = {"post_install": "b", "args": ["-v2"]}
    system.switch(make_model(**base | {"more": {"post_install": "c2"}, "new": {"post_install": "d"}}))
    run = [
        process.command.environment["NIXPROC_TEXT"]
        for process in machine.processes.by_pid.values()
        if process.command.argv[0] == "/bin/sh"
    ]
    assert run == ["a", "b", "c", "b", "c2", "d"]
    files = [machine.files.read(f"{system.root}/profile/etc/unit-{name}") for name in base]
    assert files == [b"with an addition", b"-v2", b""]


def test_switch_removes_files_of_what_is_gone(deploy: Any, make_model: MakeModel, machine: FakeMachine) -> None:
    """After an upgrade, the place holds the files and links of the new model, and no others."""
    system = deploy(make_model(web={}, old={}))
    system.switch(make_model(web={}))
    assert not machine.files.exists(f"{system.root}/profile/etc/unit-old")
    assert not machine.files.exists(f"{system.root}/profile/on/unit-old")


def test_switch_restarts_what_has_another_file(
    system: System, make_model: MakeModel, machine: FakeMachine, orders: Orders
) -> None:
    """An instance whose file has another text is restarted with it; a file that nobody describes any more is gone."""

    def model(text: str, *names: str) -> Callable[[StateDirs], ProcessesModel]:
        def processes(state: StateDirs) -> ProcessesModel:
            files = {f"{state.lib_dir}/own/{name}": {"text": text, "mode": "0640"} for name in names}
            return make_model(web={"directories": [f"{state.lib_dir}/own"], "files": files}, other={})

        return processes

    system.start(lambda context: model("one", "a", "b")(context.state))
    own = f"{system.state.lib_dir}/own"
    assert machine.files.modes[f"{own}/a"] == 0o640
    orders.asked.clear()
    system.switch(model("two", "a"))
    assert orders.asked == [("deactivate", "web"), ("refresh", "web other"), ("activate", "web")]
    assert machine.files.contents[f"{own}/a"] == b"two"
    assert f"{own}/b" not in machine.files.contents
    assert own in machine.files.directories
    orders.asked.clear()
    system.switch(model("two", "a"))
    assert [verb for verb, _ in orders.asked] in ([], ["refresh"])


def test_switch_to_the_same_does_nothing(deploy: Any, make_model: MakeModel, orders: Orders) -> None:
    """An upgrade to an equal model starts and stops nothing."""
    system = deploy(make_model(web={}))
    orders.asked.clear()
    system.switch(make_model(web={}))
    assert activations(orders) == []


def test_switch_to_a_conflict_changes_nothing(deploy: Any, make_model: MakeModel, orders: Orders) -> None:
    """An upgrade to a model that is refused leaves the old one up."""
    system = deploy(make_model(web={}))
    orders.asked.clear()
    with pytest.raises(ConflictError):
        system.switch(make_model(web={"port": 80}, b={"port": 80}))
    assert (activations(orders), list(system), system["web"].is_running) == ([], ["web"], True)


def test_switch_to_what_a_neighbour_has_changes_nothing(
    deploy: Any, planner: Planner, make_model: MakeModel, orders: Orders, tmp_path: Path
) -> None:
    """An upgrade to a model that claims what another deployment of the machine has is refused, as a start would be."""
    other = System(planner, Leases(str(tmp_path / "leases" / "here")))
    other.start(lambda _: make_model(db={"data_dir": "/srv/data"}))
    system = deploy(make_model(web={}))
    orders.asked.clear()
    with pytest.raises(ConflictError, match="NP120 error: web claims /srv/data, and so does db"):
        system.switch(make_model(web={"data_dir": "/srv/data"}))
    assert (activations(orders), system["web"].is_running) == ([], True)


def test_switch_that_fails_takes_everything_down(
    deploy: Any, make_model: MakeModel, machine: FakeMachine, orders: Orders
) -> None:
    """An upgrade that fails in the middle stops what runs of the old and of the new."""
    system = deploy(make_model(web={}))
    orders.refusals["unit-new"] = "no"
    with pytest.raises(StartError, match="new did not start: no"):
        system.switch(make_model(web={}, new={}))
    assert (machine.processes.running(), system.is_deployed) == ([], False)


def test_instances_can_be_stopped_and_started(deploy: Any, three_levels: ProcessesModel, machine: FakeMachine) -> None:
    """A test can stop an instance and start it again, and it is ready then."""
    web = deploy(three_levels)["web"]
    before = web.pid
    with web.stopped():
        assert (web.is_running, web.pid, web.pids, web.listening) == (False, None, [], set())
    assert web.is_running
    assert web.pid != before
    assert (web.listening, web.port, web.url) == ({8003}, 8003, "http://127.0.0.1:8003")
    child = machine.processes.fork(web.pid, Spawn(("/bin/child",)))
    assert web.pids == [web.pid, child]


def stop_and_start(system: System) -> None:
    """Do what a test does that wants an instance stopped for a moment."""
    with system["web"].stopped():
        pass


@pytest.mark.parametrize(
    "act", [stop_and_start, lambda system: system["web"].restart(), lambda system: system.restart_alone("web")]
)
def test_what_had_to_be_killed_is_started_again(
    deploy: Any, make_model: MakeModel, machine: FakeMachine, act: Callable[[System], object]
) -> None:
    """Where the stop of an instance is unclean, that is the error; but the instance runs again for others."""
    machine.processes.program("/fake/web", ignores(signal.SIGTERM))
    system = deploy(make_model(web={}))
    before = system["web"].pid
    with pytest.raises(TeardownError, match=r"web did not stop within 5 s: process \d+ was ended by SIGKILL"):
        act(system)
    assert system["web"].is_running
    assert system["web"].pid != before


def says_up_later(machine: FakeMachine, process: FakeProcess) -> None:
    """Have a program log that it is up after half a second."""
    log = process.command.output
    assert log is not None
    machine.clock.after(0.5, lambda: machine.files.append(log, "up\n"))


@pytest.mark.parametrize(
    "act", [stop_and_start, lambda system: system["web"].restart(), lambda system: system.restart_alone("web")]
)
@pytest.mark.parametrize("condition", [ready.log("^up$"), ready.tcp(81) | ready.log("^up$")], ids=str)
def test_line_of_an_earlier_run(
    deploy: Any,
    make_model: MakeModel,
    machine: FakeMachine,
    act: Callable[[System], object],
    condition: ready.Condition,
) -> None:
    """What an instance logged before its last start does not make it ready."""
    machine.processes.program("/fake/web", says_up_later)
    system = deploy(make_model(web={"ready": condition}))
    begun = machine.clock.now()
    act(system)
    assert machine.clock.now() - begun >= 0.5
    assert system["web"].log == "up\nup\n"


def test_log_that_is_emptied_at_the_start(deploy: Any, make_model: MakeModel, machine: FakeMachine) -> None:
    """A log that is shorter than before the start is a new one."""
    machine.processes.program("/fake/web", ends(after=60, output="up, for the first time\n"))
    system = deploy(make_model(web={"ready": ready.log("^up")}))
    path = system["web"].stop() or next(file for file, text in machine.files.contents.items() if text.startswith(b"up"))
    machine.processes.program("/fake/web", lambda machine, _: machine.files.write(path, "up again\n"))
    system["web"].start()


def test_start_of_what_is_up(deploy: Any, make_model: MakeModel, machine: FakeMachine) -> None:
    """An instance that runs is ready by what it has said, when it is started again, too."""
    machine.processes.program("/fake/web", says_up_later)
    system = deploy(make_model(web={"ready": ready.log("^up$")}))
    system["web"].start()


def test_one_port_on_two_addresses(deploy: Any, make_model: MakeModel, machine: FakeMachine) -> None:
    """Two instances may have one port: each has a URL of its own, and a stop of one neither touches nor blames one."""
    hosts = {"one": "127.0.0.1", "two": "127.0.0.2"}
    for name, host in hosts.items():
        machine.processes.program(f"/fake/{name}", listens(80, host=host, after=0.5))
    system = deploy(make_model(**{name: {"port": 80, "bind_address": host} for name, host in hosts.items()}))
    assert {name: it.url for name, it in system.items()} == {"one": "http://127.0.0.1:80", "two": "http://127.0.0.2:80"}
    assert [system.restart_alone(name) for name in hosts] == [[], []]
    assert system.findings == ()


def leaves_a_child(machine: FakeMachine, process: FakeProcess) -> None:
    """Have a program start a child that ignores SIGTERM and holds its port: the script of a wrapper."""
    command = Spawn(("/bin/child",), process.command.environment)
    child = machine.processes.by_pid[machine.processes.fork(process.pid, command)]
    child.ignored = frozenset({signal.SIGTERM})
    machine.network.listen(8003, child.pid)


LEFT = r"process \d+ of web was left behind, holding TCP port 8003, and killed: /bin/child"


@pytest.mark.parametrize("stop", [lambda system: system["web"].stop(), stop_and_start, System.stop])
def test_what_a_stop_leaves_is_told_and_ended(
    deploy: Any, make_model: MakeModel, machine: FakeMachine, stop: Callable[[System], object]
) -> None:
    """A stop, of an instance or of all, names the process that outlives its grace, and the port; then it is gone."""
    machine.processes.program("/fake/web", leaves_a_child)
    system = deploy(make_model(web={"port": 8003}))
    with pytest.raises(TeardownError, match=rf"on fake was not stopped cleanly\n  {LEFT}"):
        stop(system)
    commands = [process.command.argv[0] for process in machine.processes.running()]
    assert commands == (["/fake/web", "/bin/child"] if stop is stop_and_start else [])


def test_what_an_upgrade_leaves_is_told_and_ended(deploy: Any, make_model: MakeModel, machine: FakeMachine) -> None:
    """The stops of an upgrade are judged as any other."""
    machine.processes.program("/fake/web", leaves_a_child)
    system = deploy(make_model(web={"port": 8003}, db={}))
    with pytest.raises(TeardownError, match=LEFT):
        system.switch(make_model(db={}))
    assert [process.command.argv[0] for process in machine.processes.running()] == ["/fake/db"]


def test_what_a_restart_alone_leaves_is_a_finding(deploy: Any, make_model: MakeModel, machine: FakeMachine) -> None:
    """A restart that is checked reports a finding, by the same judgement, and what is left is ended as well."""
    machine.processes.program("/fake/web", leaves_a_child)
    system = deploy(make_model(web={"port": 8003}))
    before = system["web"].pids
    (finding,) = system.restart_alone("web")
    assert (finding.code, finding.resource) == ("NP301", f"process {before[1]}")
    assert not machine.processes.by_pid[before[1]].runs
    assert system["web"].listening == {8003}


def test_pausing_freezes_all_processes(deploy: Any, make_model: MakeModel, machine: FakeMachine) -> None:
    """A paused instance is stopped with all its processes, and goes on afterwards."""
    web = deploy(make_model(web={}))["web"]
    machine.processes.fork(web.pid, Spawn(("/bin/child",)))
    with web.paused():
        pass
    received = [process.received for process in machine.processes.running()]
    assert received == [[signal.SIGSTOP, signal.SIGCONT]] * 2


def test_conflicts_of_a_running_system(deploy: Any, three_levels: ProcessesModel, machine: FakeMachine) -> None:
    """A healthy system has no conflicts; an instance that has ended is one."""
    system = deploy(three_levels)
    system.assert_no_conflicts()
    machine.processes.end(system["web"].pid, 1)
    with pytest.raises(ConflictError, match="NP201 error: web does not run: ended with status 1"):
        system.assert_no_conflicts()


def test_limits_of_an_instance_count(deploy: Any, make_model: MakeModel, machine: FakeMachine) -> None:
    """An instance can be given its own time to start."""
    machine.processes.program("/fake/web", listens(80, after=40))
    system = deploy(make_model(web={"port": 80, "start_timeout": 60}))
    assert system["web"].is_running
    assert 40 <= machine.clock.now() < 41


def test_abandoned_system_runs_on(deploy: Any, three_levels: ProcessesModel, machine: FakeMachine) -> None:
    """A system that is kept runs on with its state, and is no longer ours to stop."""
    system = deploy(three_levels)
    system.abandon()
    machine.lifecycle.close()
    assert (len(machine.processes.running()), system.is_deployed, machine.lifecycle.guarded) == (4, False, {})
    assert machine.files.exists(system.root)


def test_machine_is_shown_what_a_model_names(
    system: System, make_model: MakeModel, machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything starts, also in an upgrade, the machine sees all programs; state is its own affair."""
    shown: list[list[str]] = []
    monkeypatch.setattr(machine.files, "show", lambda paths: shown.append(sorted(paths)))
    system.start(
        lambda arguments: make_model(web={"args": (f"--pid={arguments.state.runtime_dir}/x", "--conf=/etc/x")})
    )
    system.upgrade(lambda _: make_model(other={}))
    assert shown == [["/etc/x", "/fake/web"], ["/fake/other"]]


@pytest.mark.parametrize("executes", [True, False])
def test_root_in_which_nothing_can_be_executed(
    planner: Planner, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, executes: bool
) -> None:
    """A manager that executes its files there is refused before the model is read; another one is not in the way."""
    monkeypatch.setattr(directory, "NOEXEC", -1)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=1))
    capabilities = replace(planner.manager.capabilities, executes_files=executes)
    planner.manager = replace(planner.manager, capabilities=capabilities)
    system = System(planner, Leases(str(tmp_path / "leases" / "here")))
    read = []

    def load(_: object) -> ProcessesModel:
        read.append("the model")
        return make_model(web={})

    if executes:
        with pytest.raises(DeploymentError, match="nothing can be executed in state root"):
            system.start(load)
        assert (read, os.path.exists(os.path.dirname(system.root))) == ([], False)
    else:
        system.start(load)
        system.stop()
        assert read


BROKEN = "/fake/web cannot be executed: it has no #! line"


@pytest.mark.parametrize("initialize", ["", "true"])
def test_program_that_cannot_be_executed(
    refused: Any, make_model: MakeModel, machine: FakeMachine, orders: Orders, initialize: str
) -> None:
    """What the kernel does not execute is refused, with the remedy, before its manager is asked to start it."""
    machine.files.write("/fake/web", "")
    machine.files.unexecutable["/fake/web"] = BROKEN
    error = refused(StartError, make_model(web={"initialize": initialize}))
    assert (error.brief, "begin a script with #!/bin/sh" in error.remedy) == (f"web cannot be started: {BROKEN}", True)
    assert activations(orders) == []


def test_program_that_initialize_makes(deploy: Any, make_model: MakeModel, machine: FakeMachine) -> None:
    """A program that is missing may be made by ``initialize``, and may have removed itself once it runs."""
    machine.files.unexecutable["/fake/web"] = "/fake/web does not exist"
    assert deploy(make_model(web={"initialize": "make it"}))["web"].is_running


def test_program_that_initialize_makes_wrong(
    refused: Any, make_model: MakeModel, machine: FakeMachine, system: System
) -> None:
    """What it makes in the deployment's directories is looked at when the instance is ready, and not before."""
    program = f"{system.root}/var/lib/web"
    machine.files.unexecutable[program] = BROKEN
    machine.processes.program("/fake/web", lambda machine, _: machine.files.write(program, ""))
    error = refused(StartError, make_model(web={"initialize": "make it", "process": program}))
    assert error.brief == f"web cannot be started: {BROKEN}"


def test_program_that_initialize_is_still_writing(
    deploy: Any, make_model: MakeModel, machine: FakeMachine, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has only to live for a moment may be ready before its program is whole: that is waited for, and no fault."""
    program = f"{system.root}/var/lib/web"
    machine.processes.program("/fake/web", lambda machine, _: machine.files.write(program, ""))
    looks = iter(["it is empty", "it is not executable"])
    monkeypatch.setattr(machine.files, "execution_problem", lambda _: next(looks, ""))
    assert deploy(make_model(web={"initialize": "make it", "process": program}))["web"].is_running
    assert list(looks) == []


def test_calls_end_before_anything_is_undone(
    refused: Any,
    make_model: MakeModel,
    machine: FakeMachine,
    driver: FakeDriver,
    orders: Orders,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When an instance does not start, the calls that still start others are told to end, and waited for."""
    activate = type(driver).activate

    def in_a_thread(action: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        Thread(target=lambda: future.set_result(action()), daemon=True).start()
        return future

    def activated(its: FakeDriver, units: Sequence[Unit], deadline: Deadline) -> dict[str, str]:
        problems = activate(its, units, deadline)
        if units[0].name == "unit-slow":
            last = time.monotonic() + 5
            while deadline.remaining and time.monotonic() < last:
                time.sleep(0.001)
            orders.asked.append(("activated", "slow"))
        return problems

    monkeypatch.setattr(machine, "begin", in_a_thread)
    monkeypatch.setattr(type(driver), "activate", activated)
    orders.refusals["unit-web"] = "no"
    assert refused(StartError, make_model(web={}, slow={"start_timeout": 1000})).brief == "web did not start: no"
    verbs = [verb for verb, _ in orders.asked]
    assert verbs.index("activated") < verbs.index("deactivate")
