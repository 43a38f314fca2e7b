"""The states of a deployment's units; systemd is asked again when they may have changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import wait
from functools import partial
from typing import Final

from pytest_nixproc.errors import MachineError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.systemd.commands import ASK_SECONDS, Commands
from pytest_nixproc.managers.systemd.generator import prefix, unit_name
from pytest_nixproc.managers.systemd.unit_state import COMMANDS, PROPERTIES, UnitState, reason_of_end, unit_states
from pytest_nixproc.values.commands import OUTPUT_TAIL
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Status, Unit

LIST_FAILED: Final = ("list-units", "--all", "--full", "--plain", "--no-legend", "--state=failed")
FEW: Final = 20
"""How many units one systemctl shows as soon as two would."""

NOTICE_SECONDS: Final = 2.0
"""How long systemd may take to notice the end of a process."""


class Knowledge:
    """The states of units, seen through systemctl."""

    def __init__(self, machine: Machine, target: Target, commands: Commands) -> None:
        self.machine = machine
        self.target = target
        self.commands = commands
        self._known: dict[str, UnitState] = {}
        """The states that systemd has shown last; they hold for units whose processes still run."""

        self._stopped: set[str] = set()
        """Units that systemd has stopped without having to kill anything."""

    def forget(self, units: Iterable[Unit]) -> None:
        """Forget the states of units, so that systemd is asked again."""
        for unit in units:
            self._known.pop(unit.name, None)
            self._stopped.discard(unit.name)

    def note_stopped(self, units: Sequence[Unit]) -> None:
        """Note which units have been stopped well: a unit has failed of which systemd had to kill a process.

        The list of those that have failed is one answer of systemd's; to show how each has ended takes one for each.
        """
        pattern = f"{prefix(self.target)}-*"
        status, output = self.commands.ask(self.machine.deadline(ASK_SECONDS), *LIST_FAILED, pattern)
        if status == 0:
            failed = {line.split()[0] for line in output.splitlines() if line.strip()}
            self._stopped |= {unit.name for unit in units if unit_name(self.target, unit.name) not in failed}

    def is_stopped(self, unit: Unit) -> bool:
        """Tell whether a unit is known to have been stopped well."""
        return unit.name in self._stopped

    def names(self, units: Iterable[Unit]) -> list[str]:
        """Return the names by which systemd knows units."""
        return [unit_name(self.target, unit.name) for unit in units]

    def states_of(self, units: Sequence[Unit]) -> dict[str, UnitState]:
        """Return the state of each unit, once systemd has noticed the processes that have ended."""
        active = {
            unit.name: state
            for unit in units
            if (state := self._known.get(unit.name)) and state["ActiveState"] == "active" and state.pid
        }
        ended = self.machine.processes.ended([state.pid for state in active.values() if state.pid])
        # What was seen of a unit that ran then still holds while its process does.
        found = {name: state for name, state in active.items() if state.pid not in ended}
        if len(found) < len(units):
            found |= self._show([unit for unit in units if unit.name not in found])

        def has_noticed() -> bool:
            ended = self.machine.processes.ended([state.pid for state in found.values() if state.pid])
            late = [unit for unit in units if found[unit.name].pid in ended]
            found.update(self._show(late) if late else {})
            return not late

        self.machine.deadline(NOTICE_SECONDS).until(has_noticed)
        return found

    def _show(self, units: Sequence[Unit]) -> Mapping[str, UnitState]:
        """Have systemd show the states of units; for many, one systemctl reads while another one is answered."""
        middle = len(units) // 2 if len(units) > FEW else 0
        beside = self.machine.begin(partial(self._show_lot, units[:middle])) if middle else None
        try:
            found = self._show_lot(units[middle:])
        finally:
            wait([beside] if beside else ())
        return {**(beside.result() if beside else {}), **found}

    def _show_lot(self, units: Sequence[Unit]) -> Mapping[str, UnitState]:
        properties = f"--property={','.join(PROPERTIES)}"
        names = self.names(units)
        output = self.commands.succeed(self.machine.deadline(ASK_SECONDS), "show", properties, "--", *names)
        by_id = {state["Id"]: state for state in unit_states(output)}
        if missing := [name for name in names if name not in by_id]:
            raise MachineError(f"systemd does not know {missing[0]}", details=output[-OUTPUT_TAIL:])
        found = {unit.name: by_id[name] for unit, name in zip(units, names, strict=True)}
        self._known |= found
        return found

    def explained(self, state: UnitState) -> Status:
        """Return the status of a unit, with the reason why it has failed."""
        if state["ActiveState"] != "failed":
            return state.status()
        properties = [f"--property={name}" for name in COMMANDS]
        shown = self.commands.succeed(self.machine.deadline(ASK_SECONDS), "show", *properties, "--", state["Id"])
        return state.status(reason_of_end(state, shown))
