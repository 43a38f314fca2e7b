"""The states of supervised services; s6-supervise is asked again when they may have changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from pytest_nixproc.errors import MachineError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.api import daemon_of
from pytest_nixproc.managers.s6_rc.generator import atom
from pytest_nixproc.managers.s6_rc.live import NOTICE_SECONDS, LiveState
from pytest_nixproc.managers.s6_rc.service_state import FIELDS, ServiceState, service_states
from pytest_nixproc.managers.s6_rc.syntax import service_name
from pytest_nixproc.managers.s6_rc.tools import ASK_SECONDS
from pytest_nixproc.values.commands import OUTPUT_TAIL, describe_status
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Status, Unit

SHOW: Final = f"""\
cd -- "$1/servicedirs" || exit 1
shift
for name; do s6-svstat -o {FIELDS} -- "$name" 2> /dev/null || echo; done"""


def names_of(units: Iterable[Unit]) -> dict[str, str]:
    """Return the services that run the programs of units, by the units' names."""
    return {unit.name: atom(service_name(unit.name)) for unit in units}


class Supervision:
    """The supervised services of a deployment, seen through s6-svstat."""

    def __init__(self, machine: Machine, target: Target, live: LiveState) -> None:
        self.machine = machine
        self.target = target
        self.live = live
        self._known: dict[str, int] = {}
        """Processes of services, as last seen; that holds for those that still run."""
        self._stopped: dict[str, ServiceState] = {}
        """The states of services after they were stopped; they hold until the services are started."""

    def states_of(self, units: Sequence[Unit]) -> dict[str, ServiceState]:
        """Return the state of each unit's service, once s6-supervise has noticed the processes that have ended.

        A foreground proxy ends a moment after its daemon.
        """
        names = names_of(units)
        living = self._living(names.values())
        found = {name: ServiceState(pid=pid) for name, pid in living.items()}
        found |= self._show([name for name in names.values() if name not in living])

        def has_noticed() -> bool:
            late = [unit for unit in units if self._is_late(unit, found[names[unit.name]])]
            found.update(self._show([names[unit.name] for unit in late]) if late else {})
            return not late

        self.machine.deadline(NOTICE_SECONDS).until(has_noticed)
        return {unit: found[name] for unit, name in names.items()}

    def _living(self, names: Iterable[str]) -> dict[str, int]:
        """Return the processes of services, as last seen, that still run."""
        pids = {name: pid for name in names if (pid := self._known.get(name)) is not None}
        ended = self.machine.processes.ended(pids.values())
        return {name: pid for name, pid in pids.items() if pid not in ended}

    def _is_late(self, unit: Unit, state: ServiceState) -> bool:
        """Tell whether a process has ended, and s6-supervise has still to notice that, or to tidy up after it."""
        daemon = daemon_of(unit, self.machine, self.target) if state.pid else None
        return not state.is_settled or bool(self.machine.processes.ended([pid for pid in (state.pid, daemon) if pid]))

    def _show(self, names: Sequence[str]) -> dict[str, ServiceState]:
        """Return the states of services, by one command."""
        if not names:
            return {}
        status, output = self.live.tools.shell(self.machine.deadline(ASK_SECONDS), SHOW, self.live.directory, *names)
        if status != 0:
            raise MachineError("there is no live state of s6-rc", details=output[-OUTPUT_TAIL:].rstrip())
        found = dict(zip(names, service_states(output), strict=True))
        self._known |= {name: state.pid for name, state in found.items() if state.pid}
        return found

    def status(self, unit: Unit, state: ServiceState) -> Status:
        """Return the status of a unit, from the state of its service."""
        if state.pid is not None:
            pid = daemon_of(unit, self.machine, self.target) or state.pid
            return Status(running=True, pid=pid, text=f"up (pid {state.pid})")
        directory = self.live.service_directory(atom(service_name(unit.name)))
        if not self.machine.files.size(f"{directory}/supervise/death_tally"):
            return Status(running=False, text="down, and not started yet")
        text = f"down: it {describe_status(state.exit_status or 0)}"
        # As long as s6-supervise wants it up, it may be about to start it again, as an override of finish has it do.
        return Status(running=False, has_ended=state.is_settled, exit_status=state.exit_status, text=text)

    def note_stopped(self, names: Sequence[str]) -> None:
        """Remember the states of services that have been stopped."""
        self._stopped |= {name: state for name, state in self._show(names).items() if state.pid is None}

    def forget_stopped(self, names: Sequence[str]) -> None:
        """Forget the states of services that are about to be started."""
        self._stopped = {name: state for name, state in self._stopped.items() if name not in names}

    def last_state(self, unit: Unit) -> ServiceState:
        """Return the state of a unit's service after its stop, or else the present one."""
        return self._stopped.get(atom(service_name(unit.name))) or self.states_of([unit])[unit.name]
