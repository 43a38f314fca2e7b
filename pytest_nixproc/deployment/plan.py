"""What has to be done to get from one profile to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pytest_nixproc.managers.api import Unit
from pytest_nixproc.model.graph import Levels


@dataclass(frozen=True)
class Profile:
    """What is deployed: the units by instance, and the order in which they are activated."""

    units: Mapping[str, Unit] = field(default_factory=dict)
    levels: Levels = ()

    def paths(self) -> set[str]:
        """Return the paths of all generated files and links."""
        units = self.units.values()
        return {file.path for unit in units for file in unit.files} | {
            link.path for unit in units for link in unit.links
        }


@dataclass(frozen=True)
class Step:
    """Instances that are stopped or started side by side, and why."""

    verb: Literal["stop", "start"]
    names: tuple[str, ...]
    reason: str


def steps_between(old: Profile, new: Profile) -> tuple[Step, ...]:
    """Return the steps from one profile to another.

    What is obsolete stops first, in reverse order; then what is new starts, in order. An instance has changed when
    anything of its generated configuration has; those that depend on it go on.
    """
    obsolete = {name for name, unit in old.units.items() if new.units.get(name) != unit}
    fresh = {name for name, unit in new.units.items() if old.units.get(name) != unit}
    stops = [tuple(name for name in level if name in obsolete) for level in reversed(old.levels)]
    starts = [tuple(name for name in level if name in fresh) for level in new.levels]
    stop_reason = "changed or no longer in the model" if new.units else "the system is taken down"
    start_reason = "new or changed" if old.units else "the system is brought up"
    return (
        *(Step("stop", names, stop_reason) for names in stops if names),
        *(Step("start", names, start_reason) for names in starts if names),
    )
