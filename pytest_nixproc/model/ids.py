"""Numbers that a system assigns to its instances: ports and other ids, from pools with bounds.

The rules of retention and search are those of upstream's id assignment, nixproc-id-assign, less its endless loops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from itertools import count
from types import MappingProxyType
from typing import Any, Final

from pytest_nixproc.errors import Fault, NixprocError
from pytest_nixproc.model.value_types import read_mapping, typed
from pytest_nixproc.values.value import Value

IsTaken = Callable[[str, int], bool]

FIRST_PROVISIONAL_PORT: Final = 61001
"""Where stand-ins for leased ports begin: no usual port of a server is near."""

GLOBAL: Final = "global"
"""The scope of pools whose ids are unique in the whole system; upstream's other scope needs several machines."""


class Pool(Value):
    """A pool of ids; both bounds are inclusive."""

    min: int
    max: int
    step: int = 1
    """Distance between ids, which leaves room for ids that a process derives from its own."""

    def __contains__(self, number: int) -> bool:
        return self.min <= number <= self.max

    def candidates(self, last: int | None) -> Iterator[int]:
        """Yield each id of the pool once: those after the last one assigned, then those from the minimum on.

        A last id that is no whole number of steps from the minimum, as when the step has changed, shifts what follows.
        """
        numbers = range(self.min, self.max + 1, self.step)
        behind = range(max(last + self.step, self.min), self.max + 1, self.step) if last is not None else range(0)
        yield from behind
        yield from (number for number in numbers if number not in behind)


class Assignments(Value):
    """The ids that instances have, and the last one that each pool assigned."""

    ids: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Ids by pool and instance."""

    last: Mapping[str, int] = field(default_factory=dict)
    """Last assigned id by pool."""


class Ids(Mapping[str, Mapping[str, int]]):
    """The ids that a model reads: ``ids.webappPorts.webapp1``, or ``ids["webappPorts"]["webapp1"]``."""

    def __init__(self, ids: Mapping[str, Mapping[str, int]]) -> None:
        self._ids = MappingProxyType({pool: Numbers(numbers) for pool, numbers in ids.items()})

    def __getitem__(self, pool: str) -> Mapping[str, int]:
        return self._ids[pool]

    def __getattr__(self, pool: str) -> Any:
        if pool.startswith("_"):
            raise AttributeError(pool)
        return self._ids.get(pool, Numbers({}))

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)


class Numbers(Mapping[str, int]):
    """The ids of one pool, by instance; instances are also attributes."""

    def __init__(self, numbers: Mapping[str, int]) -> None:
        self._numbers = numbers

    def __getitem__(self, instance: str) -> int:
        return self._numbers[instance]

    def __getattr__(self, instance: str) -> int:
        if instance.startswith("_"):
            raise AttributeError(instance)
        try:
            return self[instance]
        except KeyError:
            raise AttributeError(f"no id for {instance!r}; let it require one with requires_unique_ids_for") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


class ProvisionalIds(Ids):
    """Stand-ins for ids while a model is first loaded, to find the ids that it requires; each name has its own."""

    def __init__(self) -> None:
        super().__init__({})
        self._next = count(1)
        self._pools: dict[str, ProvisionalNumbers] = {}

    def __getitem__(self, pool: str) -> Mapping[str, int]:
        return self._pools.setdefault(pool, ProvisionalNumbers(self._next))

    def __getattr__(self, pool: str) -> Any:
        if pool.startswith("_"):
            raise AttributeError(pool)
        return self[pool]

    def get(self, pool: str, default: Any = None) -> Any:  # noqa: ARG002 - every pool is there
        """Return the stand-ins of a pool."""
        return self[pool]


class ProvisionalNumbers(Numbers):
    """Stand-ins for the ids of one pool."""

    def __init__(self, numbers: Iterator[int]) -> None:
        super().__init__({})
        self._next = numbers
        self._given: dict[str, int] = {}

    def __getitem__(self, instance: str) -> int:
        if instance not in self._given:
            self._given[instance] = next(self._next)
        return self._given[instance]

    def get(self, instance: str, default: Any = None) -> Any:  # noqa: ARG002 - every instance has one
        """Return the stand-in of an instance."""
        return self[instance]


class ProvisionalPorts:
    """Stand-ins for leased ports: each name has one of its own, always the same."""

    def __init__(self) -> None:
        self._next = count(FIRST_PROVISIONAL_PORT)
        self._given: dict[str, int] = {}

    def __call__(self, name: str) -> int:
        """Return the stand-in of a name."""
        if name not in self._given:
            self._given[name] = next(self._next)
        return self._given[name]


def assign(
    pools: Mapping[str, Pool], requests: Mapping[str, Sequence[str]], old: Assignments, is_taken: IsTaken
) -> Assignments:
    """Return ids for all requests (pool names by instance).

    An id is retained while its instance still requires the pool and the pool still holds it. New ids are searched from
    the last assigned one on, so that a freed id is not used again at once. ``is_taken`` tells of numbers that somebody
    else has. Pools of ports may overlap: none of them gives a port that another one has given. Raises
    :class:`~pytest_nixproc.errors.NixprocError` when a pool is exhausted.
    """
    ids: dict[str, dict[str, int]] = {pool: {} for pool in pools}
    last = {pool: number for pool, number in old.last.items() if pool in pools}
    wanted = [(pool, name) for name in sorted(requests) for pool in requests[name]]
    for pool, name in wanted:
        kept = old.ids.get(pool, {}).get(name)
        if kept is not None and kept in pools[pool]:
            ids[pool][name] = kept
    for pool, name in wanted:
        if name not in ids[pool]:
            beside = [other for other in ids if other == pool or (is_port_pool(other) and is_port_pool(pool))]
            used = {number for other in beside for number in ids[other].values()}
            number = first_free(pool, pools[pool], last.get(pool), used, is_taken)
            ids[pool][name] = last[pool] = number
    return Assignments(ids, last)


def first_free(name: str, pool: Pool, last: int | None, used: set[int], is_taken: IsTaken) -> int:
    """Return the next id of a pool that nobody has."""
    for number in pool.candidates(last):
        if number not in used and not is_taken(name, number):
            return number
    brief = f"no id is left in pool {name!r}, which goes from {pool.min} to {pool.max} in steps of {pool.step}"
    raise NixprocError(brief, remedy="widen the pool, or end what holds its ids")


def read_pools(value: object, path: str, faults: list[Fault]) -> dict[str, Pool]:
    """Read pools of ids: ``{name: {"min": ..., "max": ..., "step": ...}}``."""
    if not isinstance(value, Mapping):
        faults.append(Fault(path, f"is {value!r}, which is no mapping"))
        return {}
    pools = {}
    for name, entry in value.items():
        if isinstance(entry, Mapping) and entry.get("scope", GLOBAL) != GLOBAL:
            remedy = f"leave it out, or say {GLOBAL!r}: a system is on one machine"
            faults.append(Fault(f"{path}.{name}.scope", f"is {entry['scope']!r}", remedy))
            continue
        try:
            pool = entry if isinstance(entry, Pool) else Pool(**{key: entry[key] for key in entry if key != "scope"})
            numbers = (pool.min, pool.max, pool.step)
            sound = all(type(number) is int for number in numbers) and pool.min <= pool.max and pool.step > 0
        except TypeError:
            sound = False
        if sound:
            pools[str(name)] = pool
        else:
            remedy = "give min, max and, if needed, step"
            faults.append(Fault(f"{path}.{name}", f"is {entry!r}, which is no pool", remedy))
    return pools


def read_assignments(value: object, path: str, faults: list[Fault]) -> Assignments:
    """Read ids: ``{"ids": {pool: {instance: id}}, "lastAssignments": {pool: id}}``; both parts may be missing.

    What upstream keeps beside them for each of several machines is left out, as it does itself without them.
    """
    whole = read_mapping(value, path, faults)
    ids = {
        str(pool): read_numbers(numbers, f"{path}.ids.{pool}", faults)
        for pool, numbers in read_mapping(whole.get("ids", {}), f"{path}.ids", faults).items()
    }
    for pool, numbers in ids.items():
        faults += shared_ids(numbers, f"{path}.ids.{pool}")
    return Assignments(ids, read_numbers(whole.get("lastAssignments", {}), f"{path}.lastAssignments", faults))


def read_numbers(value: object, path: str, faults: list[Fault]) -> dict[str, int]:
    """Read a mapping of names to whole numbers."""
    numbers = read_mapping(value, path, faults)
    return {str(name): typed(number, int, "an integer", f"{path}.{name}", faults) for name, number in numbers.items()}


def shared_ids(numbers: Mapping[str, int], path: str) -> Iterator[Fault]:
    """Yield a fault for each instance that has the id of one before it."""
    owners: dict[int, str] = {}
    for name, number in numbers.items():
        if (owner := owners.setdefault(number, name)) != name:
            yield Fault(f"{path}.{name}", f"is {number}, which {owner} has", "remove one of them: it gets another")


def is_port_pool(name: str) -> bool:
    """Tell whether the ids of a pool are TCP ports, by the naming convention (``webappPorts``)."""
    return name.lower().endswith("ports")
