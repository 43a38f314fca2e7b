"""systemd for real: a systemd of the deployment's own, what it keeps to itself, and what its units can do."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_nixproc._persistence.directory import DeploymentDirectory
from pytest_nixproc._persistence.journal import recall
from pytest_nixproc._registry import Registry
from pytest_nixproc._system.system import System
from pytest_nixproc.errors import DeploymentError, StartError, TeardownError, Unsupported
from pytest_nixproc.machines.host import Host
from pytest_nixproc.machines.process_table import environment_of, is_alive
from pytest_nixproc.managers.systemd.directives import DIRECTIVES
from pytest_nixproc.managers.systemd.journal import JOURNAL_SOCKET
from pytest_nixproc.managers.systemd.scope import SystemdScope
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.testing.conformance import AWKWARD_NAMES, HOSTILE, Bench, driver_at, http_body, load, one
from pytest_nixproc.testing.programs.models import misbehaving, probe
from pytest_nixproc.values.commands import Spawn
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.tags import DEPLOYMENT
from pytest_nixproc.values.target import Target

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may switch to other users")
NOBODY = "nobody"

NOTIFIES = """
import os, socket, sys, time
while not os.path.exists(sys.argv[1]): time.sleep(0.01)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
    manager.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
print("said so", flush=True)
time.sleep(1000)
"""


@pytest.fixture
def bench(machine: Host) -> Iterator[Bench]:
    """Return a bench that deploys with systemd."""
    manager = Registry().manager("systemd")
    if reason := manager.unavailable_reason(Host):
        pytest.skip(reason)
    bench = Bench(manager, machine)
    yield bench
    assert not bench.leftovers()


def home_of(system: System) -> SystemdScope:
    """Return the systemd that runs a deployment."""
    home = SystemdScope.recall(system.machine, target_of(system))
    assert home is not None
    return home


def target_of(system: System) -> Target:
    """Return the place of a deployment."""
    directory = DeploymentDirectory(system.root)
    return Target(directory.state, directory.profile, directory.identity)


def own_systemd(system: System) -> int:
    """Return the pid of the deployment's own systemd."""
    home = home_of(system)
    if home.kind != "private":
        pytest.skip("the session's systemd is used here")
    (pid,) = Path(f"{home.cgroup}/init.scope/cgroup.procs").read_text().split()
    return int(pid)


def systemctl(system: System, *words: str) -> str:
    """Ask the deployment's systemd."""
    command = home_of(system).command(system.machine, target_of(system), *words)
    return subprocess.run(command.argv, env=command.environment, check=True, capture_output=True, text=True).stdout


def program(*argv: str, overrides: Mapping[str, object] | None = None) -> Instance:
    """Return an instance of a program that stays in the foreground."""
    changes = {"systemd": dict(overrides)} if overrides else {}
    return Instance(create_managed_process(name="it", foreground_process=argv[0], args=argv[1:], overrides=changes))


def test_restart_always_brings_a_killed_process_back(bench: Bench) -> None:
    """With ``Service.Restart=always`` a killed program runs again; the port is served by the new process."""
    override = {"systemd": {"Service": {"Restart": "always", "RestartSec": "10ms"}}}
    port = bench.port()
    with bench.deploy(one(lambda state: probe("it", state, port=port, overrides=override))) as system:
        it = system["it"]
        before = it.pid
        it.kill(signal.SIGKILL)
        bench.await_that(lambda: it.is_running and it.pid not in (None, before), "it runs again")
        bench.await_that(lambda: it.listening == {port}, "it listens again")
        assert http_body(it) == str(it.pid)


def test_without_restart_it_is_reported_dead(bench: Bench) -> None:
    """Without an override a killed program stays dead, and the status says how it has ended."""
    with bench.deploy(one(lambda state: probe("it", state))) as system:
        it = system["it"]
        it.kill(signal.SIGKILL)
        bench.await_that(lambda: it.status.has_ended, "its end is seen")
        assert (it.status.running, it.status.exit_status) == (False, -signal.SIGKILL)
        assert it.status.text == "failed (failed), result signal"
        unit = f"nixproc-{system.root[-8:]}-it.service"
        assert systemctl(system, "show", "--property=NRestarts", unit).strip() == "NRestarts=0"


def test_readiness_by_notification(bench: Bench) -> None:
    """With ``Service.Type=notify`` an instance has started when its program says so, and not before."""
    build = one(
        lambda state: program(sys.executable, "-I", "-S", "-c", NOTIFIES, f"{state.lib_dir}/go", overrides=NOTIFY)
    )
    system = System(bench.planner(start_seconds=1))
    with pytest.raises(StartError, match=r"it did not start: activating \(start\)"):
        system.start(load(build))

    def build_and_allow(state: StateDirs) -> Mapping[str, Instance]:
        return {"it": replace_initialize(build(state)["it"], f"touch {shlex.quote(state.lib_dir)}/go")}

    with bench.deploy(build_and_allow) as system:
        assert system["it"].is_running
        bench.await_line(system["it"], "said so")


NOTIFY = {"Service": {"Type": "notify"}}


def replace_initialize(instance: Instance, text: str) -> Instance:
    """Return an instance with another ``initialize``."""
    return Instance(replace(instance.pkg, initialize=text))


def test_stop_of_a_dependency_is_its_own(bench: Bench) -> None:
    """A single stop or start takes neither dependants nor dependencies along, though units require each other."""

    def build(state: StateDirs) -> Mapping[str, Instance]:
        base = probe("base", state)
        return {"base": base, "top": probe("top", state, dependencies=["base"])}

    with bench.deploy(build) as system:
        top = system["top"].pid
        system["base"].stop()
        assert system["top"].pid == top
        system["top"].restart()
        assert not system["base"].is_running
        system["base"].start()
        requires = systemctl(system, "show", "--property=Requires", f"nixproc-{system.root[-8:]}-top.service")
        assert f"nixproc-{system.root[-8:]}-base.service" in requires


@pytest.mark.parametrize(
    ("override", "shown"),
    [
        ({"ExecStart": ""}, "bad unit file setting"),
        ({"ExecStart": "no-such-program"}, "its program cannot be executed (status 203/EXEC): no-such-program"),
        ({"ExecStartPre": "/nowhere/to be found"}, "status 203/EXEC): /nowhere/to"),
        ({"WorkingDirectory": "/nowhere"}, "its directory cannot be entered (status 200/CHDIR)"),
        ({"BindPaths": "/nowhere"}, "its namespaces cannot be set up"),
    ],
)
def test_overrides_that_systemd_does_not_take(bench: Bench, override: Mapping[str, str], shown: str) -> None:
    """What systemd cannot do fails the start at once with a reason."""
    build = one(lambda _: program("/bin/sleep", "1000", overrides={"Service": override}))
    with pytest.raises(StartError) as caught, bench.deploy(build):
        pass
    assert shown in str(caught.value)


def test_directives_of_the_installed_systemd() -> None:
    """The systemd that runs here knows no directive of a service's unit that an override could not have."""
    library = next(Path("/usr/lib").glob("*/systemd/libsystemd-core-*.so"), None)
    if library is None:
        pytest.skip("systemd's parser is not in a library of its own here")
    names = re.findall(rb"\0(Unit|Service|Install)\.([A-Z][A-Za-z]+)(?=\0)", library.read_bytes())
    known = {(section.decode(), name.decode()) for section, name in names}
    assert len(known) > 300
    assert {(section, name) for section, name in known if name not in DIRECTIVES[section]} == set()


def test_output_to_a_journal_that_is_not_there(bench: Bench) -> None:
    """An override for the journal fails the start where none runs."""
    if os.path.exists(JOURNAL_SOCKET):
        pytest.skip("a journal runs here")
    build = one(lambda _: program("/bin/sleep", "1000", overrides={"Service": {"StandardOutput": "journal"}}))
    with pytest.raises(StartError, match=f"send its output to the journal.*{JOURNAL_SOCKET}"), bench.deploy(build):
        pass


def test_own_systemd_has_no_other_units(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has our units and its own slices, an environment of ours alone, and nothing of the caller's."""
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nowhere")
    with bench.deploy(one(lambda state: probe("it", state))) as system:
        pid = own_systemd(system)
        lines = systemctl(system, "list-units", "--all", "--plain", "--no-legend").splitlines()
        kinds = {line.split()[0].rpartition(".")[2] for line in lines if "nixproc" not in line.split()[0]}
        assert kinds <= {"target", "slice", "scope", "mount", "device", "swap"}
        names = {entry.partition(b"=")[0] for entry in environment_of(pid).split(b"\0") if entry}
        assert {name for name in names if name.startswith((b"DBUS", b"HOME", b"XDG_CONFIG"))} == set()
        assert DEPLOYMENT.encode() in names
        profile = DeploymentDirectory(system.root).profile
        paths = f"UnitPath={profile}/etc/systemd/system {profile}/etc/systemd/private"
        assert systemctl(system, "show", "--property=UnitPath").strip() == paths


def test_own_systemd_shares_all_but_the_mounts(bench: Bench) -> None:
    """Programs see the machine's processes, network, users' numbers and files."""
    with bench.deploy(one(lambda state: probe("it", state))) as system:
        own_systemd(system)
        pid = system["it"].pid
        for kind in ("pid", "net", "ipc", "uts", *(("user",) if os.geteuid() == 0 else ())):
            assert os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}")
        assert set(os.listdir("/run")) <= set(os.listdir(f"/proc/{pid}/root/run"))


def own_mounts() -> list[str]:
    """Return what is mounted here, but for what tests beside this one mount: containers, and below their places."""
    own = tempfile.gettempdir()
    others = f"{os.path.dirname(own)}/np-"
    lines = Path("/proc/self/mounts").read_text().splitlines()
    places = {line: line.split()[1] for line in lines if not line.startswith("overlay ") and " nsfs " not in line}
    return [line for line, place in places.items() if place.startswith(f"{own}/") or not place.startswith(others)]


def test_control_group_ends_with_the_deployment(bench: Bench) -> None:
    """A deployment's control group holds all of its processes, and is gone afterwards; mounts were never seen here."""
    mounts = own_mounts()
    with bench.deploy(one(lambda state: probe("it", state))) as system:
        own_systemd(system)
        home = home_of(system)
        assert f"/nixproc-{system.root[-8:]}/" in Path(f"/proc/{system['it'].pid}/cgroup").read_text()
        assert own_mounts() == mounts
        driver = driver_at(bench.manager, bench.machine, system.root)
        assert driver.remains() == [f"left of systemd: {home.cgroup}"]
    assert not os.path.exists(home.cgroup)


def test_systemd_that_dies(bench: Bench) -> None:
    """When systemd itself is killed, statuses say so, and the teardown ends what it has left, and says so."""
    with bench.deploy(one(lambda state: probe("it", state, port=bench.port()))) as system:
        pid = system["it"].pid
        os.kill(own_systemd(system), signal.SIGKILL)
        with pytest.raises(TeardownError) as caught:
            system.stop()
    assert "systemd has not stopped units" in str(caught.value)
    assert pid is not None
    assert not is_alive(pid)


def test_a_new_driver_finds_everything_again(bench: Bench) -> None:
    """A driver made anew sees and stops what another has started, and its end is harmless when nothing is left."""
    with bench.deploy(one(lambda state: probe("it", state))) as system:
        driver = driver_at(bench.manager, bench.machine, system.root)
        record = recall(DeploymentDirectory(system.root).journal)
        assert record is not None
        ((unit,),) = record.started
        assert driver.status([unit])["it"].pid == system["it"].pid
        driver.deactivate([unit], bench.machine.deadline(5))
        assert not system["it"].is_running
    for _ in range(2):
        driver.close(bench.machine.deadline(5))
    assert driver.remains() == []


def test_launcher_that_fails(bench: Bench) -> None:
    """When no control group can be made, the error says what was tried."""
    system = System(bench.planner())
    home = SystemdScope.choose(bench.machine, target_of(system))
    if home.kind != "private":
        pytest.skip("the session's systemd is used here")
    os.mkdir(home.cgroup)
    try:
        with pytest.raises(DeploymentError, match=r"(?s)systemd ended at its start.*mkdir.*File exists"):
            system.start(load(one(lambda state: probe("it", state))))
    finally:
        if os.path.exists(home.cgroup):
            os.rmdir(home.cgroup)


@AS_ROOT
def test_users_are_switched_to(bench: Bench) -> None:
    """Root's own systemd starts a program as its user; ``initialize`` still runs as root, in any directory."""
    credentials = {"users": {NOBODY: {"group": "nogroup"}}}

    def build(state: StateDirs) -> Mapping[str, Instance]:
        text = f"id -u > {shlex.quote(state.lib_dir)}/initialized"
        parameters = {"user": NOBODY, "credentials": credentials, "initialize": text, "directory": "/tmp"}
        process = create_managed_process(name="it", foreground_process="/bin/sleep", args=["1000"], **parameters)  # type: ignore[arg-type]
        return {"it": Instance(process)}

    os.chmod(bench.directory, 0o711)  # noqa: S103 - users of the machine pass through it
    system = System(bench.planner(privileged=True))
    system.start(load(build))
    try:
        pid = system["it"].pid
        uids = re.search(r"^Uid:\s+(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        assert uids is not None
        assert set(uids[1].split()) == {str(pwd.getpwnam(NOBODY).pw_uid)}
        assert Path(f"{system.state.lib_dir}/initialized").read_text() == "0\n"
    finally:
        system.stop()


@pytest.mark.parametrize("mode", ["foreground", "daemon"])
def test_every_unit_is_verified_in_silence(bench: Bench, need: Callable[[str], str], mode: str) -> None:
    """``systemd-analyze verify`` has nothing to say about any unit, with hostile values and names too."""
    analyze = need("systemd-analyze")
    variables = {f"HOSTILE_{number}": value for number, value in enumerate(HOSTILE)}

    def build(state: StateDirs) -> Mapping[str, Instance]:
        hostile = probe("hostile", state, mode, *HOSTILE, environment=variables)  # type: ignore[arg-type]
        words = [value for value in HOSTILE if value.isprintable() or value in ("two\nlines", "tab\there")]
        native = probe("native", state, mode, *words, initialize="true", nice=3, dependencies=["hostile"])  # type: ignore[arg-type]
        bad = misbehaving("bad", state, mode, "dies", dependencies=["native"])  # type: ignore[arg-type]
        names = {name: probe(name, state, mode) for name in AWKWARD_NAMES}  # type: ignore[arg-type]
        return {"hostile": hostile, "native": native, "bad": bad, **names}

    plan = bench.planner().plan(load(build))
    units = []
    for file in (*plan.shared, *(file for unit in plan.unit_set.units.values() for file in unit.files)):
        bench.machine.files.write(f"{bench.scratch}/{file.path}", file.content, file.mode)
        units += [f"{bench.scratch}/{file.path}"] if file.path.startswith("etc/systemd/system") else []
    environment = {
        "PATH": bench.machine.facts.path_variable,
        "XDG_RUNTIME_DIR": bench.scratch,
        "SYSTEMD_UNIT_PATH": f"{bench.scratch}/etc/systemd/system:{bench.scratch}/etc/systemd/private",
    }
    command = Spawn((analyze, "verify", "--user", "--man=no", *units), environment)
    status, output = bench.machine.processes.capture(command, bench.machine.deadline(60))
    assert output == ""
    assert status == 0


def test_socket_has_to_be_short(bench: Bench) -> None:
    """A state root that is too long for a socket is refused before anything is started."""
    root = f"{bench.scratch}/{'x' * 100}"
    system = System(bench.planner(state_root=root))
    with pytest.raises(Unsupported, match="107 bytes"):
        system.start(load(one(lambda state: probe("it", state))))
    assert bench.deployments(root) == []
