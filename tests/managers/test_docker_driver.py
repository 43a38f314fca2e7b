"""Containers on a real engine: what surrounds a program, what overrides change, and images of others."""

from __future__ import annotations

import io
import os
import secrets
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from pytest_nixproc._registry import Registry
from pytest_nixproc._system.system import System
from pytest_nixproc.errors import DeploymentError, StartError
from pytest_nixproc.machines.host import Host
from pytest_nixproc.machines.process_table import descendants, parents
from pytest_nixproc.managers.docker.container_states import ContainerStates
from pytest_nixproc.managers.docker.engine import connect
from pytest_nixproc.managers.docker.generator import LABEL
from pytest_nixproc.model import ready
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.testing.conformance import Bench, load, one, read_text
from pytest_nixproc.testing.programs.models import probe
from pytest_nixproc.values.state import StateDirs

if TYPE_CHECKING:
    from docker import DockerClient

PLAIN_PYTHON = (sys.executable, "-I", "-S", "-c")

SERVER = """
import socket, sys, time
time.sleep(float(sys.argv[2]))
server = socket.create_server(("", int(sys.argv[1])))
while True:
    connection, _ = server.accept()
    connection.recv(4096)
    connection.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\nhere I am")
    connection.close()
"""

GLUTTON = """
hoard = []
while True:
    hoard.append(bytearray(1 << 20))
"""

PARENT_OF_ORPHANS = """
import os, signal, sys
for _ in range(20):
    if not os.fork():
        os.fork()
        os._exit(0)
    os.wait()
open(sys.argv[1], "w").close()
signal.pause()
"""


@pytest.fixture
def engine() -> Iterator[DockerClient]:
    """Return a client of the engine, if there is one."""
    if reason := Registry().manager("docker").unavailable_reason(Host):
        pytest.skip(reason)
    client = connect(os.environ)
    yield client
    client.close()


@pytest.fixture
def bench(machine: Host, engine: DockerClient) -> Iterator[Bench]:
    """Return a bench that deploys with docker, and sees that the engine has nothing of it afterwards."""
    bench = Bench(Registry().manager("docker"), machine)
    volumes = anonymous_volumes(engine)
    yield bench
    left = [name for name, root in containers(engine).items() if root.startswith(f"{bench.state_root}/")]
    assert not bench.leftovers()
    assert not left
    assert not anonymous_volumes(engine) - volumes


def containers(engine: DockerClient) -> dict[str, str]:
    """Return all containers of deployments, with the directories of these."""
    entries = engine.api.containers(all=True, filters={"label": LABEL})
    return {entry["Names"][0]: entry["Labels"][f"{LABEL}.root"] for entry in entries}


def images_of_deployments(engine: DockerClient) -> set[str]:
    """Return the names of the images that deployments have made."""
    return {name for image in engine.api.images(filters={"reference": "nixproc-*"}) for name in image["RepoTags"] or ()}


def anonymous_volumes(engine: DockerClient) -> set[str]:
    """Return the volumes without a name of somebody's choice."""
    found = engine.api.volumes()["Volumes"] or ()
    return {volume["Name"] for volume in found if len(volume["Name"]) == 64}


def program(
    name: str, text: str, *args: str, options: Mapping[str, object] | None = None, **attributes: Any
) -> Instance:
    """Return an instance of a Python program, with options of ``docker create``."""
    overrides = {"docker": {"container": {"docker_create_parameters": options or {}}}}
    pkg = create_managed_process(
        name=name, foreground_process=PLAIN_PYTHON[0], args=[*PLAIN_PYTHON[1:], text, *args], overrides=overrides
    )
    return Instance(pkg, **attributes)


def shell(name: str, text: str, **parameters: Any) -> Callable[[StateDirs], Mapping[str, Instance]]:
    """Return a model of one shell that writes a file ``out`` into the library directory, and stays."""

    def build(state: StateDirs) -> Mapping[str, Instance]:
        out = f"{state.lib_dir}/out"
        script = f"exec > {out}.new\n{text}\nmv {out}.new {out}; exec sleep 1000"
        pkg = create_managed_process(name=name, foreground_process="/bin/sh", args=["-c", script], **parameters)
        return {name: Instance(pkg, ready=ready.file(out))}

    return build


def output(system: System) -> str:
    """Return what such a shell has written."""
    return read_text(f"{system.state.lib_dir}/out")


def with_options(**options: object) -> dict[str, Any]:
    """Return overrides with options of ``docker create``."""
    return {"overrides": {"docker": {"container": {"docker_create_parameters": options}}}}


def test_names_and_labels(bench: Bench, engine: DockerClient) -> None:
    """Containers and their one image are named and labelled after the deployment, and gone with it."""
    with bench.deploy(lambda state: {name: probe(name, state) for name in ("one", "two", "three")}) as system:
        identity = os.path.basename(system.root)
        entries = engine.api.containers(filters={"label": f"{LABEL}={identity}"})
        assert sorted(entry["Names"][0] for entry in entries) == [
            f"/nixproc-{identity}-{name}" for name in ("one", "three", "two")
        ]
        made = {name for name in images_of_deployments(engine) if identity in name}
        assert len(made) == 1
        assert {entry["Image"] for entry in entries} == made
        assert len(engine.api.images(filters={"label": f"{LABEL}={identity}"})) == 1
    assert not engine.api.containers(all=True, filters={"label": f"{LABEL}={identity}"})
    assert not engine.api.images(filters={"label": f"{LABEL}={identity}"})
    assert not [name for name in images_of_deployments(engine) if identity in name]


def test_root_directory(bench: Bench) -> None:
    """A program writes to the state and to temporary directories of its own, and to nothing else."""
    text = """
        for place in / /etc /usr /var /tmp /var/tmp; do
            touch "$place/it-was-here" 2> /dev/null && echo "$place"
        done
        id -un
    """
    with bench.deploy(shell("it", text)) as system:
        assert output(system).split() == ["/tmp", "/var/tmp", machine_user()]
        assert not system.machine.files.exists("/tmp/it-was-here")


def test_files_in_the_image(bench: Bench, engine: DockerClient) -> None:
    """Files that a process wants in its image are there beside the accounts, in an image of its own."""
    overrides = {"docker": {"image": {"files": {"/etc/greeting": "it's me\n", "srv/deep/er": "%"}}}}

    def build(state: StateDirs) -> Mapping[str, Instance]:
        reader = shell("it", "cat /etc/greeting /srv/deep/er; id -un", overrides=overrides)
        return {**reader(state), "other": probe("other", state)}

    with bench.deploy(build) as system:
        assert output(system) == f"it's me\n%{machine_user()}\n"
        identity = os.path.basename(system.root)
        assert len([name for name in images_of_deployments(engine) if identity in name]) == 2


def machine_user() -> str:
    """Return the name of the calling user."""
    return Host().facts.account.user


def test_orphans_are_buried(bench: Bench) -> None:
    """What a program's children leave behind ends for good: the first process of the container waits for it."""
    build = one(lambda s: program("it", PARENT_OF_ORPHANS, f"{s.lib_dir}/done", ready=ready.file(f"{s.lib_dir}/done")))
    with bench.deploy(build) as system:
        pid = system["it"].pid
        assert pid is not None
        first = parents()[pid]

        # The last of them may not even have ended when the program has made its file.
        bench.await_that(lambda: {*descendants([first], parents())} <= {first, pid}, "nothing is left, and no zombie")
        assert system["it"].pids == [pid]


def test_container_without_its_program(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a container is up whose first process has not started the program yet, the instance does not run."""
    with bench.deploy(one(lambda state: probe("it", state, "foreground"))) as system:
        assert system["it"].is_running
        with monkeypatch.context() as patch:
            patch.setattr(ContainerStates, "main_process", lambda *_: None)
            status = system["it"].status
        assert (status.running, status.has_ended, status.pid) == (False, False, None)
        assert status.text == "its container is up, and its program has not been started"
        assert system["it"].is_running


def test_memory_limit(bench: Bench) -> None:
    """A container that is killed by its memory limit is reported as that."""
    limits = {"memory": "32m", "memory_swap": "32m"}
    with (
        pytest.raises(StartError, match=r"killed at its memory limit of 33554432 bytes \(OOM\)") as caught,
        bench.deploy(one(lambda _: program("it", GLUTTON, options=limits, port=bench.port()))),
    ):
        pass
    assert "it was killed by signal 9" in caught.value.brief


def test_capabilities_and_volumes(bench: Bench) -> None:
    """Capabilities, volumes and variables of ``docker create`` reach the container."""
    Path(bench.scratch, "word").write_text("a volume")
    options = with_options(cap_drop=["ALL"], volume=[f"{bench.scratch}:/data:ro"])
    text = 'cat /data/word; echo; grep CapEff /proc/self/status; touch /data/x 2> /dev/null || echo "read-only"'
    with bench.deploy(shell("it", text, **options)) as system:
        assert output(system).split("\n")[:3] == ["a volume", "CapEff:\t0000000000000000", "read-only"]


@pytest.mark.usefixtures("init")
def test_init(bench: Bench) -> None:
    """With the engine's own init, a program needs none of ours, and is found and stopped like any other."""
    with bench.deploy(shell("it", "cat /proc/1/comm", **with_options(init=True))) as system:
        assert output(system).strip() in ("docker-init", "tini")
        pid = system["it"].pid
        assert pid is not None
        assert "sleep" in system.machine.processes.describe(pid)


@pytest.fixture
def init(engine: DockerClient) -> None:
    """Skip where the engine cannot give a container an init of its own."""
    if not shutil.which(engine.info().get("InitBinary") or "docker-init"):
        pytest.skip("the engine has no docker-init: install tini")


@pytest.fixture
def bridge(engine: DockerClient) -> str:
    """Return the network of its own that a container can be given."""
    if not engine.networks.list(names=["bridge"]):
        pytest.skip("the engine has no network called bridge")
    return "bridge"


def test_published_port(bench: Bench, bridge: str) -> None:
    """A port published from a network of the container's own is the instance's, and ready when it is served there."""
    port, delay = bench.port(), 0.5
    options = {"network": bridge, "publish": f"127.0.0.1:{port}:8000"}
    with bench.deploy(one(lambda _: program("it", SERVER, "8000", str(delay), options=options, port=port))) as system:
        events = {event.happening: event.seconds for event in system.timeline}
        assert events["ready"] - events["start"] >= delay
        assert system["it"].listening == {port}
        system.assert_no_conflicts()
        assert requests.get(system["it"].url, timeout=5).text == "here I am"


def test_published_port_that_is_not_served(bench: Bench, bridge: str) -> None:
    """That the engine accepts connections for a container does not make it ready."""
    port = bench.port()
    options = {"network": bridge, "publish": f"{port}:8000"}
    with (
        pytest.raises(StartError, match=f"port 8000 of its container, published as {port}, is not listened on"),
        bench.deploy(one(lambda _: program("it", SERVER, "8001", "0", options=options, port=port)), start_seconds=1.5),
    ):
        pass


@pytest.fixture
def archive(engine: DockerClient, tmp_path: Path) -> Path:
    """Return an archive of an image, as ``docker save`` writes it, with a web server and a page."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed")
    name = f"page-{secrets.token_hex(4)}:1"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as image:
        image.add(busybox, "bin/busybox")
        entry = tarfile.TarInfo("www/index.html")
        entry.size = len(PAGE)
        image.addfile(entry, io.BytesIO(PAGE))
    repository, _, tag = name.partition(":")
    changes = ['ENTRYPOINT ["/bin/busybox", "httpd", "-f", "-h", "/www"]', 'CMD ["-p", "8000"]']
    engine.api.import_image_from_data(buffer.getvalue(), repository=repository, tag=tag, changes=changes)
    path = tmp_path / "page.tar"
    try:
        with path.open("wb") as file:
            file.writelines(engine.images.get(name).save(named=True))
    finally:
        engine.images.remove(name)
    return path


PAGE = b"a page of the image\n"


def conventional(
    image: Mapping[str, object], port: int, options: Mapping[str, object] | None = None, **container: object
) -> Instance:
    """Return an instance that runs an image; under other managers, it would be a program of the machine.

    The server in it is no good first process of a container: it has the engine's init.
    """
    parameters = {"init": True, "network": "host", **(options or {})}
    overrides = {"docker": {"image": image, "container": {"docker_create_parameters": parameters, **container}}}
    return Instance(create_managed_process(name="page", process="/bin/false", overrides=overrides), port=port)


@pytest.mark.usefixtures("init")
def test_image_of_an_archive(bench: Bench, engine: DockerClient, archive: Path) -> None:
    """An archive's image is run as it is, with the command that is asked for, and removed with the deployment."""
    port = bench.port()
    image = {"archive": str(archive)}
    with bench.deploy(one(lambda _: conventional(image, port, command=["-p", str(port)]))) as system:
        page = system["it"]
        assert requests.get(page.url, timeout=5).content == PAGE
        assert page.listening == {port}
        assert page.pids[0] == page.pid
        (entry,) = engine.api.containers(filters={"label": f"{LABEL}={os.path.basename(system.root)}"})
        facts = engine.api.inspect_container(entry["Id"])
        assert (facts["Mounts"], facts["Config"]["User"], facts["HostConfig"]["ReadonlyRootfs"]) == ([], "", False)
        assert not [tag for tag in engine.images.get(facts["Image"]).tags if tag.startswith("page-")]
    # Other tests have images of their own on this engine.
    assert facts["Image"] not in {image["Id"] for image in engine.api.images()}


@pytest.mark.usefixtures("init")
def test_image_of_the_engine(bench: Bench, engine: DockerClient, archive: Path, bridge: str) -> None:
    """An image that the engine has is run, and stays; its own command counts, and its port can be published."""
    with archive.open("rb") as file:
        (image,) = engine.images.load(file)
    try:
        port = bench.port()
        options = {"network": bridge, "publish": f"{port}:8000"}
        with bench.deploy(one(lambda _: conventional({"reference": image.tags[0]}, port, options))) as system:
            assert requests.get(system["it"].url, timeout=5).content == PAGE
            assert system["it"].listening == {port}
        assert engine.images.get(image.tags[0]).id == image.id
    finally:
        engine.images.remove(image.tags[0])


def without(path: Path) -> None:
    """Remove an archive."""
    path.unlink()


def truncate(path: Path) -> None:
    """Cut an archive in half."""
    os.truncate(path, path.stat().st_size // 2)


def replace_by_text(path: Path) -> None:
    """Make an archive of something else."""
    path.write_text("no archive at all")


def replace_by_sources(path: Path) -> None:
    """Make an archive that holds no image."""
    with tarfile.open(path, "w") as file:
        file.add(__file__, "main.py")


@pytest.mark.parametrize("damage", [without, truncate, replace_by_text, replace_by_sources])
def test_archive_that_is_none(bench: Bench, archive: Path, damage: Callable[[Path], None]) -> None:
    """What is no image of an archive is one clear error, which names the archive."""
    damage(archive)
    with pytest.raises(DeploymentError, match=f"image archive {archive} cannot be loaded: ") as caught:
        System(bench.planner()).start(load(one(lambda _: conventional({"archive": str(archive)}, bench.port()))))
    assert "docker save" in str(caught.value)


def test_image_that_nobody_has(bench: Bench) -> None:
    """A reference to an image that the engine does not have is one clear error; nothing is pulled."""
    image = {"reference": "nobody-has-this:1"}
    with pytest.raises(DeploymentError, match="nobody-has-this:1"):
        System(bench.planner()).start(load(one(lambda _: conventional(image, bench.port()))))


def test_engine_refuses(bench: Bench) -> None:
    """What the engine says against a container is in the error, with the instance's name."""
    build = one(lambda _: program("it", SERVER, "1", "0", options={"network": "no-such-network"}, port=bench.port()))
    with pytest.raises(DeploymentError, match=r"it did not start: .*no-such-network"), bench.deploy(build):
        pass


def test_software_of_a_home_directory(bench: Bench, tmp_path: Path) -> None:
    """A program outside the system's directories runs, with what lies beside it, and with nothing of its neighbours."""
    home = tmp_path / "app" / "bin"
    home.mkdir(parents=True)
    (tmp_path / "app" / "lib").mkdir()
    (tmp_path / "app" / "lib" / "word").write_text("found")
    (tmp_path / "secret").write_text("secret")
    out = f"exec > $1.new; cat {home}/../lib/word; test -e {tmp_path}/sec*t && echo too much; mv $1.new $1; sleep 1000"
    (home / "run").write_text(f"#!/bin/sh\n{out}\n")
    (home / "run").chmod(0o755)

    def build(state: StateDirs) -> Mapping[str, Instance]:
        pkg = create_managed_process(name="it", foreground_process=f"{home}/run", args=[f"{state.lib_dir}/out"])
        return {"it": Instance(pkg, ready=ready.file(f"{state.lib_dir}/out"))}

    with bench.deploy(build) as system:
        assert output(system) == "found"
