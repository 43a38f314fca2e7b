"""The steps from one profile to another: one for each instance, and the steps that it waits for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Literal

from pytest_nixproc.model.graph import among, levels_of
from pytest_nixproc.values.units import Unit
from pytest_nixproc.values.value import Value


class UnitSet(Value):
    """The units of a deployment, with their dependencies."""

    units: Mapping[str, Unit] = field(default_factory=dict)
    """Units by instance."""

    dependencies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The instances that each instance depends on."""

    def paths(self) -> set[str]:
        """Return the paths of all generated files and links."""
        units = self.units.values()
        return {file.path for unit in units for file in unit.files} | {
            link.path for unit in units for link in unit.links
        }


class Step(Value):
    """The stop or start of an instance, with the steps that come before it and the reason."""

    verb: Literal["stop", "start"]
    name: str
    after: tuple[str, ...]
    """Instances whose steps of the same kind come first: they are started and ready, or stopped."""

    reason: str


def steps_between(old: UnitSet, new: UnitSet) -> tuple[Step, ...]:
    """Return the steps from one profile to another.

    All that is obsolete stops before anything new starts; an instance stops when those that depend on it have, and
    starts when those that it depends on are ready. An instance has changed when anything of its generated configuration
    has; those that depend on it go on.
    """
    obsolete = {name for name, unit in old.units.items() if new.units.get(name) != unit}
    fresh = {name for name, unit in new.units.items() if old.units.get(name) != unit}
    stop_reason = "changed or no longer in the model" if new.units else "the system is taken down"
    start_reason = "new or changed" if old.units else "the system is brought up"
    return (
        *stops(among(obsolete, old.dependencies), stop_reason),
        *starts(among(fresh, new.dependencies), start_reason),
    )


def starts(needs: Mapping[str, tuple[str, ...]], reason: str) -> Iterator[Step]:
    """Yield the starts of instances, each after those of the instances that it needs."""
    for level in levels_of(needs):
        for name in level:
            yield Step("start", name, needs[name], reason)


def stops(needs: Mapping[str, tuple[str, ...]], reason: str) -> Iterator[Step]:
    """Yield the stops of instances, each after those of the instances that need it."""
    needed_by: dict[str, list[str]] = {name: [] for name in needs}
    for name in sorted(needs):
        for needed in needs[name]:
            needed_by[needed].append(name)
    for level in reversed(levels_of(needs)):
        for name in level:
            yield Step("stop", name, tuple(needed_by[name]), reason)
