"""Docker's engine is somebody else's: it may go and come back, and it has more in it than a deployment of ours."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from glob import glob
from pathlib import Path

import pytest
from docker.types import Mount

from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc._registry import Registry
from pytest_nixproc._system.system import System
from pytest_nixproc.errors import DeploymentError
from pytest_nixproc.machines.host import Host
from pytest_nixproc.managers.docker import images
from pytest_nixproc.managers.docker.generator import LABEL
from pytest_nixproc.testing.conformance import Bench, load
from pytest_nixproc.testing.pace import slowness
from pytest_nixproc.testing.programs.models import probe
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.target import Target
from tests.crash.private_engine import PrivateEngine
from tests.crash.storm import RUN_SECONDS, Session, wait
from tests.crash.test_reap import crash, pytest_nixproc, tagged

ASKING = """
import json
import os
import time
from conftest import mark
from pytest_nixproc.errors import NixprocError

def test_it(nixproc_system):
    web, front = nixproc_system["web"], nixproc_system["front"]
    print("pid", web.pid)
    mark("deployed")
    while not os.path.exists("engine-is-gone"):
        time.sleep(0.01)
    answers = {}
    for what in ("pid", "log"):
        begun = time.monotonic()
        try:
            answer = getattr(web, what)
        except NixprocError as error:
            answer = str(error)
        answers[what] = (answer, time.monotonic() - begun)
    with open("answers", "w") as file:
        json.dump(answers, file)
"""

FEW_SECONDS = 6
THEIRS = "nixproc-theirs:latest"


@pytest.fixture
def project(project: Session, engine: PrivateEngine) -> Session:
    """Return a session, not started, that does not take the engine for one of its processes."""
    project.bystander = engine.directory
    return project


def without_engine(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """Run our command line where nothing names the engine; return what it prints."""
    with monkeypatch.context() as context:
        context.delenv("DOCKER_HOST")
        done = pytest_nixproc(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "number",
    [*(pytest.param(number, marks=pytest.mark.long) for number in (signal.SIGTERM, signal.SIGKILL)), signal.SIGSTOP],
    ids=lambda number: number.name,
)
def test_engine_that_goes(
    engine: PrivateEngine, project: Session, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """An engine that has gone is one clear error, soon; what it still has is taken down once it is back."""
    directory = Path(project.place) / "project"
    (directory / "test_it.py").write_text(ASKING)
    engine.start()
    project.start(manager="docker")
    assert wait(lambda: "deployed" in project.marks().values(), RUN_SECONDS), project.output
    (root,) = glob(f"{project.state_root}/*")
    engine.hit(number)
    (directory / "engine-is-gone").touch()
    assert wait(project.is_over, RUN_SECONDS)

    error = f"the Docker engine at {engine.address} does not answer"
    (pid, pid_seconds), (log, log_seconds) = json.loads((directory / "answers").read_text()).values()
    few_seconds = FEW_SECONDS * slowness()
    assert max(pid_seconds, log_seconds) < few_seconds
    assert log.startswith(f"{error}\n"), log
    if number == signal.SIGTERM:
        # An engine that ends in order ends its containers.
        assert str(pid).startswith(f"{error}\n"), pid
    else:
        assert isinstance(pid, int), pid
    # The summary says it again where pytest does not shorten it, as in continuous integration.
    report, _, _ = project.output.partition("short test summary")
    assert report.count(error) == 1, project.output
    assert f"{root} is kept until it is back; nixproc reap removes what is left" in project.output
    (ended,) = re.findall(r"1 passed, 1 error in ([0-9.]+)s", project.output)
    assert float(ended) < 5 * few_seconds

    assert Path(f"{root}/journal").is_file()
    assert [lease.root for lease in Leases().all()] == [root]
    engine.bring_back()
    assert engine.contents()
    assert without_engine(monkeypatch, "reap") == f"taking down {root}\n"
    assert engine.contents() == []
    assert project.left() == {}


def test_reap_finds_the_engine_by_itself(
    engine: PrivateEngine, project: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left when pytest and guardian are killed is taken down also where nothing names the engine."""
    engine.start()
    root = crash(project, "docker")
    assert project.left().keys() == {"processes", "ports", "directories", "leases", "remains"}
    assert without_engine(monkeypatch, "reap", "--dry-run") == f"would take down {root}\n"
    assert len(project.left()["remains"]) == 4, "three containers and an image"
    assert without_engine(monkeypatch, "reap").startswith(f"taking down {root}\n")
    assert engine.contents() == []
    assert project.left() == {}


@pytest.mark.parametrize("lost", ["lease", "lease and directory"])
def test_containers_are_found_without_a_lease(engine: PrivateEngine, project: Session, lost: str, bench: Bench) -> None:
    """Containers and images of a dead owner are found by journal or labels; a living neighbour's are not touched."""
    engine.start()
    root = crash(project, "docker")
    with bench.deploy(lambda state: {"it": probe("it", state)}) as staying:
        shutil.rmtree(Leases().directory)
        if lost == "lease and directory":
            shutil.rmtree(root)
        done = pytest_nixproc("reap", f"--state-root={project.state_root}")
        assert done.returncode == 0, done.stdout
        assert f"{root}\n" in done.stdout
        assert os.path.basename(root) not in str(engine.contents())
        assert staying["it"].is_running
    assert engine.contents() == []
    assert not os.path.exists(root)
    assert not tagged(project)


@pytest.fixture
def bench(engine: PrivateEngine) -> Iterator[Bench]:  # noqa: ARG001 - it has to outlive what is deployed on it
    """Return a bench that deploys on the private engine."""
    machine = Host()
    bench = Bench(Registry().manager("docker"), machine)
    yield bench
    left = bench.leftovers()
    machine.lifecycle.close()
    assert not left


def test_neighbours_do_not_disturb_each_other(engine: PrivateEngine, bench: Bench) -> None:
    """Of two deployments on one engine, the end of one leaves the other alone, and names that others gave to images."""
    engine.start()
    port = bench.port()
    with bench.deploy(lambda state: {"it": probe("it", state, port=port)}) as staying, engine.client() as client:
        pid, before = staying["it"].pid, engine.contents()
        with bench.deploy(lambda state: {"it": probe("it", state)}) as going:
            (image,) = client.api.images(filters={"reference": f"nixproc-{os.path.basename(going.root)}-*"})
            client.api.tag(image["Id"], THEIRS)
        assert sorted(engine.contents()) == sorted([*before, THEIRS])
        assert staying["it"].pid == pid
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
        client.api.remove_image(THEIRS)
    assert engine.contents() == []


def test_container_of_somebody_else_is_not_touched(engine: PrivateEngine, bench: Bench) -> None:
    """A container that has one of our names, and is none of the deployment, is refused, and goes on as it was."""
    engine.start()
    with engine.client() as client:
        images.make(client, bench.scratch, THEIRS, {LABEL: "theirs"})
        system = System(bench.planner())
        system.start(load(lambda state: {"one": probe("one", state)}))
        name = f"nixproc-{os.path.basename(system.root)}-late"
        places = bench.machine.files.software(("/bin/sleep",))
        mounts = [Mount(target=place, source=place, type="bind", read_only=True) for place in places]
        theirs = client.containers.run(THEIRS, ["/bin/sleep", "1000"], name=name, mounts=mounts, detach=True)
        with pytest.raises(DeploymentError) as caught:
            system.switch(lambda state: {name: probe(name, state) for name in ("one", "late")})
        assert f"there is a container {name} already, which is none of this deployment" in str(caught.value)
        theirs.reload()
        assert theirs.status == "running"
        assert engine.contents() == [f"/{name}", THEIRS]
        theirs.remove(force=True)


MANY = """
from pytest_nixproc.testing.programs.models import probe

def processes(state):
    return {f"p{number}": probe(f"p{number}", state) for number in range(20)}
"""


def test_interrupt_while_containers_are_made(engine: PrivateEngine, project: Session) -> None:
    """What was asked for when the interrupt came is waited for, and taken down; what was not asked for yet is not."""
    directory = Path(project.place) / "project"
    (directory / "processes.py").write_text(MANY)
    (directory / "test_it.py").write_text("def test_it(nixproc_system): ...\n")
    engine.start()
    project.start(manager="docker")
    assert wait(lambda: any(name.startswith("/") for name in engine.contents()), RUN_SECONDS), project.output
    engine.hit(signal.SIGSTOP)
    os.kill(project.pid, signal.SIGINT)
    engine.hit(signal.SIGCONT)
    assert wait(project.is_over, RUN_SECONDS)
    assert "KeyboardInterrupt" in project.output
    assert engine.contents() == []
    assert project.left() == {}


def test_engine_is_slow_to_do_what_a_dead_client_has_asked_for(engine: PrivateEngine, bench: Bench) -> None:
    """Recovery takes down also what the engine shows only later: what it was asked for by one that was killed."""
    engine.start()
    target = Target(StateDirs.under(f"{bench.scratch}/var"), bench.scratch, "0123abcd")
    label = f"{LABEL}={target.identity}"
    killed, recovery = (Registry().manager("docker").driver(bench.machine, target) for _ in range(2))
    killed.open(bench.machine.deadline(RUN_SECONDS))
    with engine.client() as client:
        # This engine copies images, which takes a while with a big one.
        Path(f"{bench.scratch}/big").write_bytes(bytes(1 << 26))
        images.make(client, bench.scratch, THEIRS, {LABEL: "theirs"})
        recovery.remains()
        request(engine, "/containers/create", {"Image": THEIRS, "Cmd": ["/x"], "Labels": {LABEL: target.identity}})
        recovery.close(bench.machine.deadline(RUN_SECONDS))
        now = math.ceil(time.time())
        happened = client.api.events(until=now, since=now - int(RUN_SECONDS), filters={"label": label}, decode=True)
        assert [event["Action"] for event in happened] == ["create", "destroy"]
        client.api.remove_image(THEIRS)
    killed.close(bench.machine.deadline(RUN_SECONDS))


def request(engine: PrivateEngine, path: str, facts: Mapping[str, object]) -> None:
    """Send a request and hang up at once."""
    content = json.dumps(facts)
    headers = {"Host": "x", "Content-Type": "application/json", "Content-Length": len(content)}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", content]
    with socket.socket(socket.AF_UNIX) as sender:
        sender.connect(engine.address.removeprefix("unix://"))
        sender.sendall("\r\n".join(lines).encode())
