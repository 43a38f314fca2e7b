"""The container of a throwaway machine, from its boot to its end, as this host sees it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

from pytest_nixproc.errors import MachineError, WaitTimeout
from pytest_nixproc.machines.host import Host
from pytest_nixproc.machines.nspawn.agent import AgentConnection, peer_of
from pytest_nixproc.machines.nspawn.boot import Boot, directories_with_software, own_file, refuse_directory
from pytest_nixproc.machines.nspawn.control_groups import control_groups, remove_listed_groups
from pytest_nixproc.machines.nspawn.forwards import PortForwards
from pytest_nixproc.machines.nspawn.showing import Showing
from pytest_nixproc.machines.process_table import descendants
from pytest_nixproc.machines.waiting import wait_until
from pytest_nixproc.values.commands import describe_status
from pytest_nixproc.values.machine import MachineSpec

BOOT_SECONDS: Final = 60.0
END_SECONDS: Final = 10.0

DIED: Final = "has died"
CONSOLE_LINES: Final = 30


class MachineContainer:
    """The container of one machine: its processes on this host, its agent, and how it has ended.

    Processes and agent are new after each boot.
    """

    def __init__(self, machine: str, spec: MachineSpec, host: Host) -> None:
        self.machine = machine
        self.spec = spec
        self.host = host
        self.boot_count = 0
        self.showing = Showing((), spec.directory)
        self.forwards = PortForwards(machine, self.ask, private_network=spec.private_network)
        self._pids: list[int] = []
        """Of systemd-nspawn, and of the first process of the machine, each as this host numbers them."""

        self._agent: AgentConnection | None = None
        self._end = "has not been booted"

    @property
    def has_agent(self) -> bool:
        """Tell whether the machine can be asked, as far as is known."""
        return self._agent is not None

    @property
    def is_up(self) -> bool:
        """Tell whether the machine runs."""
        return self.has_agent and not self.host.processes.ended(self._pids)

    @property
    def failure(self) -> MachineError | None:
        """The error that says how the machine died; None while it runs, and when a test has ended it."""
        if self.has_agent and not self.is_up:
            self._note_death()
        return self._down() if self._end.startswith(DIED) else None

    def ask(self, verb: str, *arguments: object, handle: int | None = None) -> Any:
        """Have the agent carry a verb out; raises :class:`~pytest_nixproc.errors.MachineError` if there is none."""
        if self._agent is None:
            raise self._down()
        if self.host.processes.ended(self._pids):
            self._note_death()
            raise self._down()
        try:
            return self._agent.ask(verb, *arguments, handle=handle)
        except (EOFError, ConnectionError):
            self._note_death()
            raise self._down() from None

    def _note_death(self) -> None:
        """Remember how the machine has ended, once all of it has."""
        self._await_end(END_SECONDS)
        self.host.processes.sync_exits()
        status = self.host.processes.exit_status(self._pids[0])
        self.kill()
        self._end = f"{DIED}: systemd-nspawn {describe_status(status)}" if status is not None else DIED

    def _down(self) -> MachineError:
        return MachineError(f"machine {self.machine} {self._end}", details=self._last_words())

    def _last_words(self) -> str:
        said = {"its agent wrote:": self._end_of("agent.log"), "end of its console:": self._end_of("console")}
        return "\n".join(line for title, end in said.items() if end for line in (title, *end))

    def _end_of(self, name: str) -> list[str]:
        content = self.host.files.read(own_file(self.spec.directory, name)) or b""
        return content.decode(errors="replace").replace("\r", "").rstrip().splitlines()[-CONSOLE_LINES:]

    def boot(self) -> None:
        """Boot the machine; return when units can be started. Raises :class:`~pytest_nixproc.errors.MachineError`."""
        refuse_directory(self.machine, self.spec.directory)
        self.showing = Showing(list(directories_with_software()), self.spec.directory)
        boot = Boot(self.spec, self.host.facts, self.showing)
        groups = list(control_groups(f"nixproc-{os.path.basename(self.spec.directory)}"))
        boot.write(self.host.files, groups)
        self.boot_count += 1
        with listening(boot.own("agent.socket")) as listener:
            for group in groups:
                os.mkdir(group)
            self._pids = [self.host.processes.spawn(boot.command(groups))]
            self._await_agent(listener)

    def _await_agent(self, listener: socket.socket) -> None:
        """Wait for the agent to connect; an error or interrupt that ends the wait ends the machine too."""
        try:
            wait_until(lambda: self._accept(listener), self.host.deadline(BOOT_SECONDS), "wait for its agent")
        except BaseException as error:
            self.kill()
            if isinstance(error, WaitTimeout):
                self._end = f"did not boot within {BOOT_SECONDS:g} s"
                raise self._down() from None
            raise

    def _accept(self, listener: socket.socket) -> str:
        """Accept the agent's connection if there is one; return why not, or an empty text."""
        processes = self.host.processes
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            if processes.ended(self._pids):
                processes.sync_exits()
                self._end = f"did not boot: systemd-nspawn {describe_status(processes.exit_status(self._pids[0]) or 0)}"
                raise self._down() from None
            return "it has not called"
        if not self._is_ours(connection):
            connection.close()
            return "somebody else has called"
        connection.settimeout(None)
        self._agent = AgentConnection(connection)
        self._pids += [pid for pid, parent in processes.parents().items() if parent == self._pids[0]]
        return ""

    def _is_ours(self, connection: socket.socket) -> bool:
        """Tell whether it is our user, on this machine, who has called: what an agent says is unpickled."""
        pid, user = peer_of(connection)
        return user == os.geteuid() and pid in descendants(self._pids[:1], self.host.processes.parents())

    def shut_down(self, order: Callable[[], object], seconds: float) -> None:
        """Have the machine power itself off, and wait for its end."""
        if not self.has_agent:
            raise self._down()
        with contextlib.suppress(MachineError):
            # The agent may be ended before it has answered.
            order()
        if not self._await_end(seconds):
            brief = f"machine {self.machine} did not shut down within {seconds:g} s"
            raise MachineError(brief, details=self._last_words())
        self.end_as("was shut down by a test")

    def crash(self) -> None:
        """Kill the machine, because a test wants it."""
        if not self.has_agent:
            raise self._down()
        self.end_as("was crashed by a test")

    def end_as(self, end: str) -> None:
        """Kill the machine, and give ``end`` as the reason from now on."""
        self.kill()
        self._end = end

    def kill(self) -> None:
        """Kill systemd-nspawn and the machine's first process, with which the kernel kills all others; then tidy up."""
        self.hang_up()
        self._pids += descendants(self._pids[:1], self.host.processes.parents())
        for pid in self._pids:
            self.host.processes.signal(pid, signal.SIGKILL)
        self._await_end(END_SECONDS)
        remove_listed_groups(own_file(self.spec.directory, "cgroups"))

    def hang_up(self) -> None:
        """Close the connection to the agent, and forward nothing any more."""
        if self._agent is not None:
            self._agent.close()
            self._agent = None
        self.forwards.drop()

    def _await_end(self, seconds: float) -> bool:
        """Wait for the end of the machine's processes; tell whether it has come."""
        return not self.host.processes.wait_ended(self._pids, self.host.deadline(seconds))


@contextlib.contextmanager
def listening(path: str) -> Iterator[socket.socket]:
    """Listen on a Unix socket for the time of a ``with`` block, without ever blocking."""
    directory = os.open(os.path.dirname(path), os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.settimeout(0)
            # By way of its directory, a path may have more than the 107 bytes of an address (unix(7)).
            listener.bind(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
            listener.listen(1)
            yield listener
    finally:
        os.close(directory)
