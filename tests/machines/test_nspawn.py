"""A throwaway machine: its own accounts, units and network; gone with everything on it."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc.errors import CommandFailed, MachineError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.nspawn import Nspawn, container
from pytest_nixproc.machines.nspawn import boot as booting
from pytest_nixproc.machines.nspawn.container import listening
from pytest_nixproc.machines.package import PACKAGE_ROOT
from pytest_nixproc.machines.process_table import environment_of, parents
from pytest_nixproc.machines.waiting import wait_until
from pytest_nixproc.values.addresses import IPV4_LOOPBACK, url_of
from pytest_nixproc.values.commands import Spawn
from tests.machines.conftest import Boot


@pytest.fixture(scope="module")
def machine(boot: Boot) -> Iterator[Machine]:
    """Return a machine that several tests look at, and do not break."""
    with boot() as machine:
        yield machine


def first_processes(machine: Machine) -> list[int]:
    """Return the processes on this host that are systemd-nspawn and the first process of a machine."""
    return [pid for pid in parents() if machine.spec.tag.encode() in environment_of(pid).split(b"\0")]


def traces(machine: Machine) -> list[str]:
    """Return what this host still has of a machine."""
    name = f"nixproc-{os.path.basename(machine.spec.directory)}"
    own = [path for path, _, _ in os.walk("/sys/fs/cgroup") if os.path.basename(path) == name]
    found = [f"process {pid}" for pid in first_processes(machine)]
    found += [machine.spec.directory] if os.path.exists(machine.spec.directory) else []
    return found + own + [lease.root for lease in Leases().all() if lease.root == machine.spec.directory]


def serve(machine: Machine, port: int, host: str = IPV4_LOOPBACK) -> None:
    """Have a web server listen on a port of a machine."""
    argv = (machine.facts.python, "-m", "http.server", str(port), "--bind", host, "--directory", "/")
    machine.processes.spawn(Spawn(argv, {"PATH": machine.facts.path_variable}, "/root/log"))
    machine.wait_for_open_port(port, host, timeout=10)


def url(machine: Machine, port: int, host: str = IPV4_LOOPBACK) -> str:
    """Return where the tests reach a port of a machine."""
    return f"{url_of(*machine.address(port, host))}/"


def test_accounts_are_its_own(machine: Machine) -> None:
    """Accounts made there work there, with a home, and are unknown here."""
    before = Path("/etc/passwd").read_bytes()
    machine.succeed("useradd --create-home --shell /bin/sh --uid 4242 visitor")
    assert machine.succeed("su - visitor -c 'touch ~/mine; id -u; stat -c %U ~/mine'") == "4242\nvisitor\n"
    assert Path("/etc/passwd").read_bytes() == before
    assert not Path("/home/visitor").exists()


def test_what_is_written_there_stays_there(machine: Machine) -> None:
    """System directories are its own, ``/usr`` cannot be written, and all others are copied when they are written."""
    for directory in ("/etc", "/var", "/tmp", "/run", "/home", os.path.dirname(PACKAGE_ROOT)):
        name = f"{directory}/nixproc-test-of-nspawn"
        machine.succeed(["touch", name])
        assert not os.path.exists(name)
    machine.fail("touch /usr/nixproc-test-of-nspawn")


def test_software_of_the_host_works(machine: Machine) -> None:
    """The interpreter of the tests runs there with its packages, names are resolved, alternatives are found."""
    assert machine.succeed([machine.facts.python, "-c", "import pytest, requests; print('fine')"]) == "fine\n"
    assert machine.succeed("getent ahosts localhost").split()[0] in ("::1", "127.0.0.1")


def test_its_systemd_is_its_own(machine: Machine) -> None:
    """Systemd is its first process, nothing has failed, and units can be made and waited for."""
    assert machine.succeed("cat /proc/1/comm") == "systemd\n"
    assert machine.systemctl("--failed --no-legend") == (0, "")
    machine.succeed("systemd-run --unit=sleeper sleep 1000", "systemd-run --unit=failing --property=Restart=no false")
    machine.wait_for_unit("sleeper.service", timeout=10)
    machine.wait_until_fails("systemctl is-active failing.service", timeout=10)
    with pytest.raises(
        CommandFailed, match=r"unit failing\.service will not become active: it is failed(.|\n)*status=1"
    ):
        machine.wait_for_unit("failing.service", timeout=10)
    with pytest.raises(CommandFailed, match=r"unit no-such\.service cannot be waited for: it is not-found"):
        machine.wait_for_unit("no-such.service", timeout=10)


def test_enabled_services_of_the_host_do_not_run(boot: Boot) -> None:
    """Only what a bare system needs is running: presets of installed packages are not applied."""
    with boot() as machine:
        _, units = machine.systemctl("list-units --no-legend --plain --type=service --state=running")
    services = {line.split()[0] for line in units.splitlines()}
    assert services <= {"nixproc-agent.service", "systemd-journald.service", "dbus.service"}


def test_machines_are_gone_without_a_trace(boot: Boot) -> None:
    """At the end no process, control group, directory or lease is left."""
    with boot() as machine:
        pid = machine.processes.spawn(Spawn(("/bin/sleep", "1000")))
        assert len(first_processes(machine)) == 2
        assert machine.processes.describe(pid) == "/bin/sleep 1000"
    assert traces(machine) == []


def test_crash_and_start(boot: Boot) -> None:
    """A crashed machine answers no verb, says why, and is a new one after a start."""
    with boot() as machine:
        machine.succeed("touch /root/x")
        machine.crash()
        assert not machine.lifecycle.is_up
        with pytest.raises(MachineError, match="machine nspawn was crashed by a test"):
            machine.succeed("true")
        machine.start()
        machine.fail("test -e /root/x")
        machine.crash()
    assert traces(machine) == []


def test_nobody_else_is_taken_for_the_agent(boot: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an agent says is unpickled: who has called before it and is not of the machine is cut off, unheard.

    Other users cannot even call: they cannot pass to the socket.
    """
    calls = []

    @contextmanager
    def listening_to_a_stranger(path: str) -> Iterator[socket.socket]:
        with listening(path) as listener:
            calls.append(socket.socket(socket.AF_UNIX))
            directory = os.open(os.path.dirname(path), os.O_PATH)
            calls[-1].connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
            assert os.fstat(directory).st_mode & 0o777 == 0o700
            os.close(directory)
            yield listener

    monkeypatch.setattr(container, "listening", listening_to_a_stranger)
    with boot() as machine:
        machine.succeed("true")
        with calls[0] as stranger:
            assert stranger.recv(1) == b""


def test_shutdown_is_orderly(boot: Boot) -> None:
    """At a shutdown, services get their stop commands."""
    with boot() as machine:
        witness = f"{machine.spec.directory}/stopped"
        machine.succeed(["systemd-run", f"--property=ExecStop=/bin/touch {witness}", "sleep", "1000"])
        machine.shutdown(timeout=30)
        assert os.path.exists(witness)
        with pytest.raises(MachineError, match="machine nspawn was shut down by a test"):
            machine.succeed("true")


@pytest.mark.parametrize("victim", [0, 1], ids=["nspawn", "init"])
def test_death_is_an_error_at_once(boot: Boot, victim: int) -> None:
    """A machine that dies is reported by the next verb, with its console, and again at its end."""
    stack = ExitStack()
    machine = stack.enter_context(boot())
    os.kill(sorted(first_processes(machine))[victim], signal.SIGKILL)
    before = machine.clock.now()
    with pytest.raises(MachineError, match=r"machine nspawn has died(.|\n)*end of its console:\n(.|\n)*systemd"):
        machine.wait_until_succeeds("false", timeout=60)
    assert machine.clock.now() - before < 15
    with pytest.raises(MachineError, match="machine nspawn has died"):
        stack.close()
    assert traces(machine) == []


def test_death_of_the_agent_is_an_error_at_once(boot: Boot) -> None:
    """A machine whose agent has died is at its end, and is reported so."""
    stack = ExitStack()
    machine = stack.enter_context(boot())
    before = machine.clock.now()
    with pytest.raises(MachineError, match=r"machine nspawn has died: systemd-nspawn ended with status"):
        machine.succeed("systemctl kill --signal=KILL nixproc-agent.service", timeout=60)
    assert machine.clock.now() - before < container.END_SECONDS
    with pytest.raises(MachineError, match="machine nspawn has died"):
        stack.close()
    assert traces(machine) == []


def test_boot_that_fails_shows_the_console(boot: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that does not boot in time, or not at all, is an error with its console, and leaves nothing."""
    before = set(os.listdir("/sys/fs/cgroup"))
    monkeypatch.setattr(container, "BOOT_SECONDS", 3.0)
    options = [option for option in booting.BOOT_OPTIONS if not option.startswith("systemd.wants")]
    monkeypatch.setattr(booting, "BOOT_OPTIONS", options)
    with (
        pytest.raises(MachineError, match=r"did not boot within 3 s\nend of its console:\n(.|\n)*basic.target"),
        boot(),
    ):
        pass
    monkeypatch.setattr(booting, "ITS_OWN", booting.ITS_OWN - {"proc"})
    with pytest.raises(MachineError, match=r"did not boot: systemd-nspawn ended with status 1\n"), boot():
        pass
    assert set(os.listdir("/sys/fs/cgroup")) == before


def test_equal_ports_of_private_networks(boot: Boot) -> None:
    """Machines with networks of their own listen on equal ports, and each is reached."""
    with boot(private_network=True) as one, boot(private_network=True) as two:
        for number, machine in enumerate((one, two)):
            machine.succeed(f"mkdir /srv/w; echo {number} > /srv/w/name")
            serve(machine, 80)
        assert one.network.port_is_free(81)
        for number, machine in enumerate((one, two)):
            assert requests.get(f"{url(machine, 80)}srv/w/name", timeout=5).text == f"{number}\n"
        assert url(one, 80) != url(two, 80)


def test_addresses_of_a_private_network(boot: Boot) -> None:
    """Servers on any addresses of a machine are reached, each by an address of this host's."""
    with boot(private_network=True) as machine:
        hosts = ("127.0.0.2", "::1")
        for host in hosts:
            serve(machine, 80, host)
        assert set((machine.network.open_ports() or {})[80]) == set(hosts)
        assert {requests.get(url(machine, 80, host), timeout=5).status_code for host in hosts} == {200}
        assert len({machine.address(80, host) for host in (*hosts, *hosts)}) == len(hosts)
        assert not machine.network.port_is_free(80, "::1")
        assert machine.network.port_is_free(80, "127.0.0.1")


def test_block_and_unblock(boot: Boot) -> None:
    """A machine that is cut off cannot be reached, goes on, and can be reached again by the same address."""
    with boot(private_network=True) as machine:
        serve(machine, 8000)
        place = url(machine, 8000)
        assert requests.get(place, timeout=5).status_code == 200
        machine.block()
        machine.block()
        with pytest.raises(requests.RequestException):
            requests.get(place, timeout=0.5)
        assert machine.network.connection_problem(("127.0.0.1", 8000)) == ""
        machine.unblock()
        assert requests.get(place, timeout=5).status_code == 200
        assert url(machine, 8000) == place


def test_shared_network_cannot_be_cut_off(machine: Machine) -> None:
    """A machine on this host's network says what it would need to be cut off."""
    with pytest.raises(MachineError, match=r"cannot be cut off: it shares(.|\n)*--nixproc-network=private"):
        machine.block()


@pytest.mark.parametrize("name", ["a:b", "back\\slash", "two\nlines"])
def test_directory_that_cannot_be_shared(boot: Boot, tmp_path: Path, name: str) -> None:
    """A state root whose path nspawn cannot be told is refused by its path, with nothing left."""
    root = tmp_path / name
    with (
        pytest.raises(MachineError, match=r"machine nspawn cannot have its directory at(.|\n)*--nixproc-state-root"),
        boot(state_root=str(root)),
    ):
        pass
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("name", ["a  b", "it's $HOME `id`", "50% naïve"])
def test_directories_with_other_names(boot: Boot, tmp_path: Path, name: str) -> None:
    """A state root of any other name is shared."""
    with boot(state_root=str(tmp_path / name)) as machine:
        machine.succeed(["touch", f"{machine.spec.directory}/x"])
        assert os.path.exists(f"{machine.spec.directory}/x")


def commands_on(machine: Machine) -> str:
    """Return the command lines of all processes of a machine."""
    return "\n".join(machine.processes.describe(pid) for pid in machine.processes.parents())


def test_several_machines_side_by_side(boot: Boot) -> None:
    """Machines do not see each other's processes, and the end of one is nothing to the other."""
    with boot() as one:
        with boot() as two:
            two.processes.spawn(Spawn(("/bin/sleep", "4321")))
            # The kernel lets a spawn return a moment before it shows the new command line.
            wait_until(lambda: "" if "4321" in commands_on(two) else "not seen", two.deadline(10), "see the process")
            assert "4321" not in commands_on(one)
        assert one.succeed("echo alive") == "alive\n"


def test_interrupted_command_does_not_hold_the_machine(machine: Machine) -> None:
    """When a test is interrupted in a long command, the next verb is answered at once, and by its own answer."""
    before = machine.clock.now()
    previous = signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            machine.succeed("echo long; sleep 60")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert machine.succeed("echo next") == "next\n"
    assert machine.clock.now() - before < 5


def test_an_ordinary_user_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root there are no machines, and the reason says so."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert Nspawn.unavailable_reason() == "only root can boot a system container: run the tests as root"


def test_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without systemd-nspawn, the reason says what to install."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert (
        Nspawn.unavailable_reason() == "systemd-nspawn is not installed: apt-get install systemd-container util-linux"
    )


PLACES = ("/tmp/{}", "/var/lib/{}", "/opt/{}", "/var/tmp/{} a b", "/var/lib/{} it's 50% naïve, a:b\\c")
"""Where people keep projects; in most of these directories, a machine has its own files."""


@pytest.fixture(params=PLACES)
def project(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Return a new directory in such a place."""
    path = Path(request.param.format(f"nixproc-{secrets.token_hex(4)}"))
    path.mkdir()
    yield path
    shutil.rmtree(path)


def test_project_and_interpreter_are_seen_wherever_they_lie(
    boot: Boot, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine has the interpreter of the tests and their project where the host has them, by way of links too."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = project / "venv" / "lib" / version / "site-packages"
    for directory in (project / "venv" / "bin", packages):
        directory.mkdir(parents=True)
    (project / "venv" / "pyvenv.cfg").write_text(f"home = {os.path.dirname(os.path.realpath(sys.executable))}\n")
    (packages / "of-the-tests.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    (project / "venv" / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    (project / "text").write_text("mine\n")
    link = tmp_path / "link"
    link.symlink_to(project)
    monkeypatch.setattr(sys, "executable", f"{link}/venv/bin/python")
    with boot(needed=(str(link), str(project))) as machine:
        assert machine.facts.python == f"{link}/venv/bin/python"
        for place in (project, link):
            assert machine.succeed(["cat", f"{place}/text"]) == "mine\n"
            assert machine.succeed([f"{place}/venv/bin/python", "-c", "import sys; print(sys.prefix)"])
        machine.succeed(["touch", f"{project}/new"], ["test", "-e", f"{link}/new"])
    assert not (project / "new").exists()


def test_what_is_shown_later(machine: Machine, project: Path, tmp_path: Path) -> None:
    """A program that a model names is seen with what lies beside it; its interpreter too, and nothing else."""
    (project / "bin").mkdir()
    (project / "bin" / "sh").symlink_to("/bin/sh")
    script = project / "server"
    script.write_text(f'#!{project}/bin/sh\ncat "$(dirname "$0")/text"\n')
    script.chmod(0o755)
    (project / "text").write_text("mine\n")
    machine.files.show([str(script), "/no/such/path"])
    machine.files.show([str(script)])
    assert machine.succeed(["sh", str(script)]) == "mine\n"
    machine.succeed(["test", "-e", f"{project}/bin/sh"])
    machine.fail(["test", "-e", str(tmp_path)])


def test_shared_directory_is_not_covered(boot: Boot, tmp_path: Path) -> None:
    """A state root within the project stays what machine and host share."""
    with boot(state_root=str(tmp_path / "state"), needed=(str(tmp_path),)) as machine:
        machine.succeed(["touch", f"{machine.spec.directory}/x"])
        assert os.path.exists(f"{machine.spec.directory}/x")
        machine.fail(["touch", "/run/nixproc-host/tmp/x"])


def test_interpreter_that_is_missing_is_an_error_at_once(boot: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which the agent cannot run says so as soon as it knows, with what the agent wrote."""
    before = time.monotonic()
    # The guardian has the right one.
    monkeypatch.setattr(booting, "sys", SimpleNamespace(executable="/run/no/python", platform=sys.platform))
    with pytest.raises(MachineError, match=r"did not boot(.|\n)*its agent wrote:\n.*/run/no/python"), boot():
        pass
    assert time.monotonic() - before < container.BOOT_SECONDS / 2
