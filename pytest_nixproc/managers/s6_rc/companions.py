"""Logging companions: the services that write the output of programs into logs, with a short delay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.s6_rc.generator import companion
from pytest_nixproc.managers.s6_rc.live import LiveState
from pytest_nixproc.managers.s6_rc.syntax import service_name
from pytest_nixproc.managers.s6_rc.tools import ASK_SECONDS
from pytest_nixproc.values.units import Unit

WRITE_SECONDS: Final = 0.5
"""How long a companion is waited for that is given more and more."""

SHOW_COMPANIONS: Final = """\
cd -- "$1/servicedirs" || exit 1
for name in *"$2"; do echo "$name $(s6-svstat -o pid -- "$name")"; done"""


class Companions:
    """The logging companions of a deployment, which have to write what they received before logs are read."""

    def __init__(self, machine: Machine, live: LiveState) -> None:
        self.machine = machine
        self.live = live
        self._pids: dict[str, int] | None = None
        """Processes of companions, once somebody has asked for a log."""

    def forget(self) -> None:
        """Forget the companions' processes: new ones are started with the units."""
        self._pids = None

    def await_written(self, unit: Unit) -> None:
        """Wait until a unit's companion has written all output that it has received so far.

        A process sleeps only when it waits for more: the kernel wakes it within the writer's call (proc(5), write(2)).
        """
        pid = self._find().get(companion(service_name(unit.name)), 0)
        self.machine.deadline(WRITE_SECONDS).until(lambda: not self._is_busy(pid))

    def _is_busy(self, pid: int) -> bool:
        stat = (self.machine.files.read(f"/proc/{pid}/stat") or b"").rpartition(b")")[2].split()
        return bool(stat) and stat[0] in (b"R", b"D")

    def _find(self) -> Mapping[str, int]:
        """Return the processes of all companions, by the names of their services."""
        if self._pids is None:
            limit = self.machine.deadline(ASK_SECONDS)
            _, output = self.live.tools.shell(limit, SHOW_COMPANIONS, self.live.directory, companion(""))
            rows = (line.rpartition(" ") for line in output.splitlines())
            self._pids = {name: int(pid) for name, _, pid in rows if pid.isdigit()}
        return self._pids
