"""The order that dependencies require."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from graphlib import CycleError, TopologicalSorter

Levels = tuple[tuple[str, ...], ...]


def cycle_in(dependencies: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the names along one dependency cycle, its first name again at the end; empty without a cycle."""
    try:
        TopologicalSorter(dependencies).prepare()
    except CycleError as error:
        # graphlib lists each node after the one that depends on it the other way round: reverse to "needs" order.
        return list(reversed(error.args[1]))
    return []


def among(members: Collection[str], dependencies: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return the dependencies among some names, direct ones and those through names that are not among them."""
    found = {}
    for member in members:
        needed: dict[str, None] = {}
        left, seen = list(reversed(dependencies.get(member, ()))), {member}
        while left:
            if (name := left.pop()) in seen:
                continue
            seen.add(name)
            if name in members:
                needed[name] = None
            else:
                left += reversed(dependencies.get(name, ()))
        found[member] = tuple(needed)
    return found


def levels_of(dependencies: Mapping[str, tuple[str, ...]]) -> Levels:
    """Group names so that each stands in the first level after all its dependencies; sorted within a level."""
    sorter = TopologicalSorter(dependencies)
    sorter.prepare()
    levels = []
    while sorter.is_active():
        level = sorter.get_ready()
        levels.append(tuple(sorted(level)))
        sorter.done(*level)
    return tuple(levels)
