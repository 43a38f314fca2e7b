"""The verbs of a machine do the same on all machines."""

from __future__ import annotations

import os
import socket
import stat
from functools import partial
from pathlib import Path

import pytest

from pytest_nixproc.errors import CommandFailed, MachineError, WaitTimeout
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.host import Host
from pytest_nixproc.machines.waiting import wait_until
from pytest_nixproc.testing.conformance.bench import side_by_side
from pytest_nixproc.values.commands import AnyCommand, Spawn

HOSTILE = 'it\'s "50%" $HOME `id` \\ *\nnaïve'

LISTEN = "import socket, time; s = socket.socket({family}); s.bind({address!r}); s.listen(); time.sleep(100)"


@pytest.fixture
def directory(machine: Machine, tmp_path: Path) -> str:
    """Return an empty directory there; one of this host is pytest's, a throwaway machine takes its own with it."""
    if isinstance(machine, Host):
        there = tmp_path / "there"
        there.mkdir()
        return str(there)
    return machine.succeed("mktemp -d").strip()


def test_commands_are_shell_text_or_words(machine: Machine) -> None:
    """Text is read by a shell, words reach the program as they are, and what they print comes back."""
    assert machine.execute("echo $((6 * 7)); exit 3") == (3, "42\n")
    assert machine.execute(["printf", "%s|", HOSTILE, "", "b"]) == (0, f"{HOSTILE}||b|")
    assert machine.succeed("echo one", ["echo", "two"], "echo three >&2") == "one\ntwo\nthree\n"
    assert machine.fail("echo no; false", ["sh", "-c", "exit 9"]) == "no\n"


def test_threads_get_their_own_answers(machine: Machine) -> None:
    """Several threads may ask at once: each gets what it has asked for, and none waits for ever."""

    def ask(word: str) -> None:
        for number in range(15):
            assert machine.succeed(["echo", f"{word} {number}"]) == f"{word} {number}\n"

    side_by_side(*(partial(ask, word) for word in ("red", "green", "blue")))


def test_failures_show_command_status_and_output(machine: Machine) -> None:
    """An error has the command as one would type it, how it ended, and what it has printed."""
    with pytest.raises(CommandFailed) as caught:
        machine.succeed(["sh", "-c", "echo the disk is on fire; exit 7"])
    assert str(caught.value) == (
        "command ended with status 7: sh -c 'echo the disk is on fire; exit 7'\nthe disk is on fire\n"
    )
    with pytest.raises(CommandFailed, match="command was killed by signal 9: kill -9"):
        machine.succeed("kill -9 $$")
    with pytest.raises(CommandFailed, match=r"although it must fail: echo it is fine\nit is fine"):
        machine.fail("echo it is fine")
    status, output = machine.execute(["no-such-program"])
    assert status == 127
    assert "no-such-program" in output


def test_command_that_no_program_can_be_given(machine: Machine) -> None:
    """A command with a NUL in it is refused in words, and all that runs on the machine goes on."""
    pid = machine.processes.spawn(Spawn((machine.facts.shell, "-c", "exec sleep 1000")))
    with pytest.raises(MachineError, match=f"(embedded null byte|Invalid argument): {machine.facts.shell}"):
        machine.succeed("printf 'a\0b'")
    assert machine.succeed("echo on") == "on\n"
    assert machine.processes.ended([pid]) == set()
    machine.processes.signal(pid, 9)


def test_time_limit_ends_what_a_command_has_started(machine: Machine) -> None:
    """At its time limit, a command is killed with its children, and has no exit status."""
    status, output = machine.execute("sleep 1234.5 & echo $!; wait", timeout=0.5)
    assert status is None
    child = int(output)
    wait_until(
        lambda: "" if machine.processes.ended([child]) else f"process {child} runs",
        machine.deadline(5),
        "wait for the child's end",
    )
    with pytest.raises(CommandFailed, match=r"was killed at its time limit: sleep 1234\.5"):
        machine.succeed("sleep 1234.5", timeout=0.2)


def test_waiting_for_commands(machine: Machine, directory: str) -> None:
    """A command is repeated until it succeeds or fails; a limit that is reached shows the last output."""
    count = f"cd {directory}; echo x >> tries; cat tries; test $(wc -l < tries)"
    assert machine.wait_until_succeeds(f"{count} -ge 3", timeout=10) == "x\n" * 3
    assert machine.wait_until_fails(f"{count} -lt 6", timeout=10) == "x\n" * 6
    with pytest.raises(WaitTimeout, match=r"wait for a command to succeed: .*\n.*status 1.*\nstill not"):
        machine.wait_until_succeeds("echo still not; false", timeout=0.3)


def test_waiting_for_ports_sockets_and_files(machine: Machine, directory: str) -> None:
    """Ports, Unix sockets and files are waited for until they are there, and ports until they are not."""
    # From the kernel's own: those that other tests lease lie below.
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    environment = {"PATH": machine.facts.path_variable}
    addresses = {"AF_INET": ("127.0.0.1", port), "AF_UNIX": f"{directory}/socket"}
    pids = [
        machine.processes.spawn(
            Spawn((machine.facts.python, "-c", LISTEN.format(family=f"socket.{family}", address=address)), environment)
        )
        for family, address in addresses.items()
    ]
    machine.wait_for_open_port(port, timeout=10)
    machine.wait_for_open_unix_socket(f"{directory}/socket", timeout=10)
    machine.wait_for_file(f"{directory}/socket", timeout=1)
    for pid in pids:
        machine.processes.signal(pid, 9)
    machine.wait_for_closed_port(port, timeout=10)
    with pytest.raises(WaitTimeout, match=f"wait for port {port}: not within 0.1 s"):
        machine.wait_for_open_port(port, timeout=0.1)
    with pytest.raises(WaitTimeout, match=f"wait for socket {directory}/socket: not within"):
        machine.wait_for_open_unix_socket(f"{directory}/socket", timeout=0.1)
    with pytest.raises(WaitTimeout, match=f"wait for file {directory}/nothing: not within"):
        machine.wait_for_file(f"{directory}/nothing", timeout=0.1)


def test_copies(machine: Machine, directory: str, tmp_path: Path) -> None:
    """Files and whole directories are copied there and back: contents, modes, links, names of any kind."""
    source = tmp_path / "source"
    (source / HOSTILE).mkdir(parents=True)
    (source / HOSTILE / "a program").write_bytes(b"#!/bin/sh\necho \xff\n")
    (source / HOSTILE / "a program").chmod(0o750)
    (source / "link").symlink_to("nowhere")
    (source / "one").write_text("same")
    os.link(source / "one", source / "two")
    there = f"{directory}/deep/er"
    machine.copy_from_host(source, there)
    assert machine.files.read(f"{there}/{HOSTILE}/a program") == b"#!/bin/sh\necho \xff\n"
    assert machine.succeed(["stat", "-c", "%a %U", f"{there}/{HOSTILE}/a program"]) == "750 root\n"
    machine.copy_to_host(there, tmp_path / "back")
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == sorted(["link", "one", "two", HOSTILE])
    assert stat.S_IMODE((tmp_path / "back" / HOSTILE / "a program").stat().st_mode) == 0o750
    assert (tmp_path / "back" / "link").readlink() == Path("nowhere")
    assert (tmp_path / "back" / "two").read_text() == "same"
    machine.copy_to_host(f"{there}/one", tmp_path / "one")
    assert (tmp_path / "one").read_text() == "same"


def test_copies_that_cannot_be_made(machine: Machine, tmp_path: Path) -> None:
    """What is not there, or cannot be written, is an error that names the path."""
    with pytest.raises(MachineError, match=f"cannot read {tmp_path}/nothing: No such file"):
        machine.copy_from_host(tmp_path / "nothing", "/tmp/x")
    with pytest.raises(MachineError, match="cannot read /no/where: No such file"):
        machine.copy_to_host("/no/where", tmp_path / "x")
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="cannot write /dev/null: File exists"):
        machine.copy_from_host(tmp_path / "file", "/dev/null/x")


def test_unit_that_systemd_does_not_know(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit that will never be there is asked for once and not waited for: the error names it."""
    asked: list[object] = []

    def systemctl(arguments: AnyCommand, *, timeout: float = 60) -> tuple[int | None, str]:
        asked.append(arguments)
        return Machine.systemctl(machine, arguments, timeout=timeout)

    monkeypatch.setattr(machine, "systemctl", systemctl)
    with pytest.raises(CommandFailed, match=r"unit no-such\.service"):
        machine.wait_for_unit("no-such.service", timeout=30)
    assert len(asked) == 1
