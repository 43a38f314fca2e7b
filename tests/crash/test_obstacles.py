"""Obstacles in the way of a deployment: one clear error each, and nothing left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.crash.storm import RUN_SECONDS, Session, wait

MANAGERS = ("supervisord", "sysvinit")
TEST = "def test_it(nixproc_system): ...\n"

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")


def run(one: Session, *options: str, test: str = TEST) -> str:
    """Run the session with a test that deploys; return what it prints."""
    (Path(one.place) / "project" / "test_it.py").write_text(test)
    one.start(*options)
    assert wait(one.is_over, RUN_SECONDS), one.output
    return one.output


def expect_one_clear_error(one: Session, output: str, text: str) -> None:
    """Hold an output against what everything in the way has to lead to."""
    assert text in output, output
    assert "1 error" in output, output
    assert "Traceback" not in output, output
    assert "pytest_nixproc/" not in output, output
    assert "During handling" not in output, output
    assert one.left() == {}


def test_state_root_that_cannot_be_written(project: Session) -> None:
    """A state root in which nobody can make a directory is named, with the option to change it."""
    output = run(project, "--nixproc-state-root=/proc/nowhere")
    expect_one_clear_error(project, output, "cannot make a state directory in /proc/nowhere")
    assert "choose a writable --nixproc-state-root" in output


def test_state_root_that_is_a_file(project: Session) -> None:
    """The same for a file in its place."""
    Path(project.state_root).touch()
    output = run(project)
    assert f"cannot make a state directory in {project.state_root}" in output, output
    assert "1 error" in output
    assert project.processes() == []


def test_path_that_is_too_long_for_a_socket(project: Session) -> None:
    """A state root so long that no socket fits below it is refused with the numbers, before anything is started."""
    output = run(project, f"--nixproc-state-root={project.place}/{'long' * 20}")
    expect_one_clear_error(project, output, "sockets allow")
    assert "choose a shorter --nixproc-state-root" in output
    assert not os.path.exists(f"{project.place}/{'long' * 20}")


@contextmanager
def mounted(options: str, directory: str) -> Iterator[None]:
    """Mount a file system in memory for the time of a ``with`` block."""
    os.makedirs(directory, mode=0o700)
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["/bin/umount", "-l", directory], check=True)


@root_only
@pytest.mark.parametrize("manager", MANAGERS)
@pytest.mark.parametrize("size", ["size=4k", "size=12k", "nr_inodes=3", "nr_inodes=20"])
def test_full_disk_in_the_state_directory(project: Session, manager: str, size: str) -> None:
    """When the disk is full at any step, the error says so once, and nothing is left of what was begun."""
    with mounted(size, project.state_root):
        output = run(project, f"--nixproc-manager={manager}")
        expect_one_clear_error(project, output, "No space left on device")


@root_only
def test_full_disk_of_the_leases(project: Session, own_leases: str) -> None:
    """When leases cannot be written, nothing is begun, and the error names their directory."""
    with mounted("nr_inodes=2,mode=700", os.path.dirname(own_leases)):
        output = run(project)
        expect_one_clear_error(project, output, f"cannot write leases in {own_leases}: No space left on device")


@pytest.mark.parametrize("which", ["ports", "world-writable"])
def test_leases_that_cannot_be_used(project: Session, own_leases: str, which: str) -> None:
    """Corrupt leases of ports, and a directory that others can write, are an error that names them."""
    directory = Path(own_leases)
    directory.mkdir(parents=True, mode=0o700)
    if which == "ports":
        (directory / "ports.json").write_text("{")
        text = f"the leases of ports in {directory}/ports.json cannot be read"
    else:
        directory.chmod(0o777)
        text = f"{directory} cannot be trusted with leases: others can write it"
    output = run(project)
    directory.chmod(0o700)
    expect_one_clear_error(project, output, text)


HOLDING = """
import socket

def test_it(nixproc_deploy, request):
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    request.addfinalizer(held.close)
    with nixproc_deploy("processes.py") as system:
        front = system["front"]
        front.stop()
        held.bind(("127.0.0.1", front.port))
        held.listen()
"""


def test_port_that_is_held_after_the_stop_is_reported(project: Session) -> None:
    """A port on which somebody still listens after the stop is an error that names him; its lease is released."""
    output = run(project, test=HOLDING)
    assert "TCP port" in output, output
    assert f"of front is still held: process {project.pid} holds it" in output, output
    assert "1 failed" in output
    assert project.left() == {}


MOUNTING = """
import os, subprocess

def test_it(nixproc_system):
    place = f"{nixproc_system.state.lib_dir}/data"
    os.mkdir(place)
    subprocess.run(["/bin/mount", "-t", "tmpfs", "tmpfs", place], check=True)
    open(f"{place}/precious", "w").close()
"""


@root_only
def test_what_is_mounted_in_the_state_is_spared(project: Session) -> None:
    """Teardown, guardian and reap name what is mounted there and do not enter it; reap ends it when it is unmounted."""
    reap = [sys.executable, "-m", "pytest_nixproc", "reap"]
    output = run(project, test=MOUNTING)
    (precious,) = Path(project.state_root).glob("*/var/lib/data/precious")
    try:
        assert f"cannot remove {precious.parent}: something is mounted on it" in output, output
        assert f"umount {precious.parent}; then nixproc reap" in output, output
        done = subprocess.run(reap, capture_output=True, text=True, check=False)
        assert done.returncode == 4
        assert f"cannot remove {precious.parent}: something is mounted on it" in done.stdout
        assert precious.exists()
    finally:
        subprocess.run(["/bin/umount", "-l", precious.parent], check=True)
    subprocess.run(reap, check=True, stdout=subprocess.DEVNULL)
    assert project.left() == {}


YAML = """
idResources:
  webPorts: {min: 27000, max: 27099}
  uids: {min: 2000, max: 2001}
processes:
  web:
    port: "${ids.webPorts.web}"
    ports: {admin: "${freePort.admin}"}
    uid: "${ids.uids.web}"
    requiresUniqueIdsFor: [webPorts, uids]
    pkg:
      instanceName: web
      foregroundProcess: PYTHON
      foregroundProcessArgs: [PROGRAM, never, "port=${ids.webPorts.web}", "other=${freePort.admin}"]
"""

SERVER = """
import signal, socket, sys
listeners = []
for word in sys.argv[2:]:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(word.split("=")[1])))
    listener.listen()
    listeners.append(listener)
while True:
    signal.pause()
"""

PYTHON = """
import sys
from pytest_nixproc import Instance, create_managed_process

id_resources = {"webPorts": {"min": 27000, "max": 27099}, "uids": {"min": 2000, "max": 2001}}

def processes(ids, free_port):
    port, admin = ids.webPorts.web, free_port("admin")
    words = ["PROGRAM", "never", f"port={port}", f"other={admin}"]
    pkg = create_managed_process(name="web", foreground_process=sys.executable, args=words)
    required = ["webPorts", "uids"]
    return {
        "web": Instance(pkg, port=port, ports={"admin": admin}, uid=ids.uids.web, requires_unique_ids_for=required)
    }
"""

IDS_TEST = """
def test_it(nixproc_system):
    web = nixproc_system["web"]
    assert 27000 <= web.port <= 27099
    assert web.uid == 2000
    assert web.listening == {web.port, web.ports["admin"]}
    assert len(web.listening) == 2
"""


@pytest.mark.parametrize(("name", "text"), [("model.yaml", YAML), ("model.py", PYTHON)])
@pytest.mark.parametrize("manager", MANAGERS)
def test_ids_and_named_ports_in_a_system(project: Session, name: str, text: str, manager: str) -> None:
    """Models in Python and in YAML get ids and named ports, the same in attributes and arguments, and listen there."""
    server = Path(project.place) / "server.py"
    server.write_text(SERVER)
    text = text.replace("PROGRAM", str(server)).replace("PYTHON", sys.executable)
    (Path(project.place) / "project" / name).write_text(text)
    output = run(project, f"--nixproc-manager={manager}", f"--nixproc-model={name}", test=IDS_TEST)
    assert "1 passed" in output, output
    assert project.left() == {}
