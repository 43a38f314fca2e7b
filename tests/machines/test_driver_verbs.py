"""The verbs of the NixOS test driver, as scripts use them, on the real host."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from pytest_nixproc._system.nixos_driver.verbs import DriverMachine
from pytest_nixproc._system.system import System
from pytest_nixproc.errors import CommandFailed, MachineError, WaitTimeout
from pytest_nixproc.machines.host import Host
from pytest_nixproc.values.tags import DEPLOYMENT


@dataclass
class OneInstance(dict[str, "OneInstance"]):
    """As much of a system as the verbs look at; it is its own instance ``web``."""

    machine: Host
    root: str
    is_unprivileged: bool = True
    waits: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self["web"] = self

    def wait_ready(self) -> None:
        """Note that somebody has waited."""
        self.waits.append("web")


@pytest.fixture
def system(tmp_path: Path) -> Iterator[OneInstance]:
    """Return a system on the host."""
    with Host() as host:
        yield OneInstance(host, str(tmp_path / "directory"))


@pytest.fixture
def machine(system: OneInstance, tmp_path: Path) -> DriverMachine:
    """Return its machine, with a directory of programs."""
    program = tmp_path / "bin" / "greet"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho hello $1\n")
    program.chmod(0o755)
    return DriverMachine(cast("System", system), (str(program.parent),), 0.3)


def test_commands(machine: DriverMachine) -> None:
    """Commands find the definition's programs, and end at their first failure, in the middle of a pipeline too."""
    assert machine.succeed("greet you", "greet 'a b'") == "hello you\nhello a b\n"
    assert machine.fail("false; echo on") == ""
    assert machine.fail("false | cat") == ""
    assert machine.fail("echo $UNSET_VARIABLE_OF_NOBODY") != ""
    assert machine.execute("exit 7") == (7, "")
    assert machine.execute("exit 7", check_return=False)[0] == -1
    with pytest.raises(CommandFailed, match=r"command ended with status 3: exit 3"):
        machine.succeed("true", "exit 3", "touch never")
    with pytest.raises(CommandFailed, match=r"command succeeded, although it must fail: true"):
        machine.fail("true")
    with pytest.raises(CommandFailed, match=r"was killed at its time limit: sleep 60"):
        machine.succeed("sleep 60", timeout=0.2)


def test_commands_carry_the_tag(machine: DriverMachine, system: OneInstance) -> None:
    """What a script starts and leaves running is found with the deployment's own processes."""
    assert machine.succeed(f"echo ${DEPLOYMENT}") == f"{system.root}\n"


def test_waits(machine: DriverMachine, tmp_path: Path) -> None:
    """Commands are repeated until they end as wanted, for as long as the script says or else the options."""
    count = tmp_path / "count"
    command = f"echo >> {count}; test $(wc -l < {count}) -ge 3 && echo done"
    assert machine.wait_until_succeeds(command, 10) == "done\n"
    assert machine.wait_until_fails(f"echo >> {count}; test $(wc -l < {count}) -lt 6", timeout=10) == ""
    with pytest.raises(WaitTimeout, match=r"wait for a command to succeed: exit 4: not within 0\.3 s") as error:
        machine.wait_until_succeeds("exit 4")
    assert "ended with status 4" in str(error.value)
    with pytest.raises(WaitTimeout, match=r"not within 0\.1 s"):
        machine.wait_until_fails("true", 0.1)


def test_ports_files_and_sockets(machine: DriverMachine, tmp_path: Path) -> None:
    """The driver's parameters are taken by place and by name."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        machine.wait_for_open_port(port)
        machine.wait_for_open_port(port, "localhost", 5)
        with pytest.raises(WaitTimeout):
            machine.wait_for_closed_port(port, timeout=0.1)
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        machine.wait_for_open_port(server.getsockname()[1])
    machine.wait_for_closed_port(port, addr="127.0.0.1")
    machine.wait_for_file(str(tmp_path))
    with pytest.raises(WaitTimeout, match=r"wait for file /nowhere: not within 0\.3 s"):
        machine.wait_for_file("/nowhere")
    path = f"{os.path.relpath(tmp_path)}/s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        machine.wait_for_open_unix_socket(path)
    with pytest.raises(MachineError, match="datagram"):
        machine.wait_for_open_unix_socket(path, is_datagram=True)


def test_units_are_instances(machine: DriverMachine, system: OneInstance) -> None:
    """A unit that has the name of an instance is that instance, whatever its manager."""
    machine.wait_for_unit("web.service")
    machine.wait_for_unit("web")
    assert system.waits == ["web", "web"]


def test_becoming_the_unprivileged_user(machine: DriverMachine) -> None:
    """Who becomes the original's ordinary user, or the calling one, stays who they are, with their PATH."""
    user = machine.succeed("id -un").strip()
    assert machine.succeed("su - unprivileged -c 'id -un; greet you'") == f"{user}\nhello you\n"
    assert machine.succeed(f"su {user} -c 'id -un'") == f"{user}\n"
    assert machine.succeed("su unprivileged -c 'echo \"$0\" $#'").endswith("0\n")
    machine.fail("su - no-such-user -c true < /dev/null")


def test_privileged_scripts_have_the_real_su(system: OneInstance) -> None:
    """Where users are switched, nothing stands for su."""
    system.is_unprivileged = False
    DriverMachine(cast("System", system), (), 1.0)
    assert not os.path.exists(system.root)


def test_talk_and_time(machine: DriverMachine, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A script can say something, let time pass and copy files."""
    machine.log("hello")
    machine.sleep(0.01)
    machine.start()
    (tmp_path / "source").write_text("text")
    machine.copy_from_host(str(tmp_path / "source"), str(tmp_path / "target"))
    assert (tmp_path / "target").read_text() == "text"
    assert capsys.readouterr().out == "hello\n"


@pytest.mark.parametrize("verb", ["screenshot", "wait_for_text", "send_key", "get_tty_text", "forward_port"])
def test_what_only_virtual_machines_have(machine: DriverMachine, verb: str) -> None:
    """A verb that needs a screen or a console is refused by its name."""
    with pytest.raises(MachineError, match=f"machine.{verb} needs a virtual machine"):
        getattr(machine, verb)


def test_host_is_not_crashed(machine: DriverMachine) -> None:
    """A machine that the tests run on is neither crashed nor cut off."""
    for verb in (machine.crash, machine.shutdown, machine.block, machine.unblock):
        with pytest.raises(MachineError, match="cannot be"):
            verb()
