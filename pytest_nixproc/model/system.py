"""A processes model: instances by name, and the order in which they can be activated."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType

from pytest_nixproc.errors import Fault, ModelError
from pytest_nixproc.model.graph import Levels, cycle_in, levels_of
from pytest_nixproc.model.ids import Assignments, Pool, read_pools
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.names import did_you_mean
from pytest_nixproc.model.process import ManagedProcess
from pytest_nixproc.model.ready import Condition
from pytest_nixproc.model.value_types import read_name
from pytest_nixproc.values.location import Location

Locate = Callable[[str, str], Location | None]


def provide_nothing(directory: str) -> None:
    """Do nothing: most models name programs that exist already."""


class ProcessesModel(Mapping[str, Instance]):
    """A validated system of process instances; a mapping of names to instances.

    ``origin`` is where it came from, for messages; ``id_resources`` are the pools from which instances can require
    ids: ``{"webappPorts": {"min": 5000, "max": 5999}}``, and ``recorded_ids`` those that they have had before.
    ``provide`` builds the programs that the model refers to before it is deployed, and keeps them for as long as the
    directory exists that it is given. ``locate`` finds the line of a value, given an instance and the path of the
    value in it, for sources that know better than the calls that made it. Raises
    :class:`~pytest_nixproc.errors.ModelError` with all faults of all instances.
    """

    def __init__(
        self,
        instances: Mapping[str, Instance],
        *,
        origin: str = "",
        id_resources: Mapping[str, object] | None = None,
        recorded_ids: Assignments | None = None,
        provide: Callable[[str], None] = provide_nothing,
        locate: Locate | None = None,
    ) -> None:
        self.origin = origin
        self.provide = provide
        self._locate = locate
        self.recorded_ids: Assignments = recorded_ids or Assignments()
        faults = [fault for name, value in instances.items() for fault in entry_faults(name, value)]
        self.pools: Mapping[str, Pool] = read_pools(id_resources or {}, "id_resources", faults)
        self._instances = MappingProxyType({str(name): value for name, value in instances.items() if is_whole(value)})
        self.dependencies: Mapping[str, tuple[str, ...]] = MappingProxyType(
            self._resolve_all(instances.keys() - self._instances.keys(), faults)
        )
        self.id_requests: Mapping[str, tuple[str, ...]] = {
            name: self._required_pools(name, faults)
            for name, instance in self._instances.items()
            if "requires_unique_ids_for" in instance.attributes
        }
        if cycle := cycle_in(self.dependencies):
            path = " -> ".join(cycle)
            faults.append(Fault(f"processes.{cycle[0]}.dependencies", f"form a cycle: {path}", "drop one of them"))
        if faults:
            raise ModelError(faults, origin=origin)
        self.levels: Levels = levels_of(self.dependencies)
        self._level_of = {name: number for number, level in enumerate(self.levels) for name in level}

    def _resolve_all(self, faulty: Collection[str], faults: list[Fault]) -> dict[str, tuple[str, ...]]:
        """Return the keys of each instance's dependencies; dependencies on ``faulty`` entries are left out."""
        known: dict[object, str] = {instance.pkg.name: key for key, instance in self._instances.items()}
        known |= {key: key for key in self._instances}
        known |= {instance.pkg: key for key, instance in self._instances.items()}
        return {name: self._resolve(name, known, faulty, faults) for name in self._instances}

    def _resolve(
        self, name: str, known: Mapping[object, str], faulty: Collection[str], faults: list[Fault]
    ) -> tuple[str, ...]:
        """Return the keys of an instance's dependencies; each that the model does not hold is a fault."""
        found = []
        for index, dependency in enumerate(self._instances[name].pkg.dependencies):
            wanted = dependency.name if isinstance(dependency, ManagedProcess) else dependency
            key = known.get(dependency) or known.get(wanted)
            if not wanted or wanted in faulty:
                continue
            if key is None:
                remedy = did_you_mean(wanted, self._instances) or "return it from the model too"
                path = f"processes.{name}.dependencies[{index}]"
                faults.append(Fault(path, f"is {wanted!r}, which the model does not hold", remedy))
            else:
                found.append(key)
        return tuple(dict.fromkeys(found))

    def _required_pools(self, name: str, faults: list[Fault]) -> tuple[str, ...]:
        """Return the pools that an instance requires ids from; each that is not declared is a fault."""
        path = f"processes.{name}.requires_unique_ids_for"
        wanted = self._instances[name].attributes["requires_unique_ids_for"]
        wanted = [wanted] if isinstance(wanted, str) else wanted
        if not isinstance(wanted, list | tuple | set | frozenset):
            faults.append(Fault(path, f"is {wanted!r}, which is not a list", "name the pools in a list"))
            return ()
        for index, pool in enumerate(wanted):
            if not isinstance(pool, str) or pool not in self.pools:
                remedy = f"declare its min and max in id_resources; there are {', '.join(self.pools) or 'none'}"
                faults.append(Fault(f"{path}[{index}]", f"is {pool!r}, which is no pool", remedy))
        return tuple(pool for pool in wanted if isinstance(pool, str))

    @cached_property
    def secrets(self) -> frozenset[str]:
        """The values of all variables that instances call secret."""
        return frozenset().union(*(instance.secret_values for instance in self._instances.values()))

    def __getitem__(self, name: str) -> Instance:
        return self._instances[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._instances)

    def __len__(self) -> int:
        return len(self._instances)

    def __repr__(self) -> str:
        return f"<ProcessesModel {self.origin or 'in Python'}: {', '.join(self)}>"

    def locate(self, instance: str, value_path: str) -> Location | None:
        """Return the line where a value of an instance was written, as the source or the call that made it tells."""
        if self._locate is not None:
            return self._locate(instance, value_path)
        made = self._instances[instance]
        return made.pkg.defined_at if value_path.startswith("pkg.") else made.defined_at

    def needs(self, name: str, other: str) -> bool:
        """Tell whether an instance depends on another one, directly or through others.

        It looks only at what lies between them, as all instances' needs together grow with the square of their number.
        """
        left, seen = [name], {name}
        while left:
            dependencies = self.dependencies[left.pop()]
            if other in dependencies:
                return True
            between = {found for found in dependencies if self.level(found) > self.level(other)} - seen
            seen |= between
            left += between
        return False

    def level(self, name: str) -> int:
        """Return the level of an instance: 0 without dependencies, else 1 more than the highest level of these."""
        return self._level_of[name]


def is_whole(value: object) -> bool:
    """Tell whether an entry of a model is an ``Instance`` whose ``pkg`` is a ``ManagedProcess``."""
    return isinstance(value, Instance) and isinstance(value.pkg, ManagedProcess)


def entry_faults(name: object, value: object) -> list[Fault]:
    """Return the faults of one entry of a model, looked at alone."""
    faults: list[Fault] = []
    read_name(name, f"processes.{name}", faults)
    if not isinstance(value, Instance):
        return [*faults, Fault(f"processes.{name}", f"is {value!r}, which is no instance", "use Instance(pkg=...)")]
    ready = value.attributes.get("ready")
    if ready is not None and not isinstance(ready, Condition):
        faults.append(
            Fault(f"processes.{name}.ready", f"is {ready!r}, which is no condition", "see pytest_nixproc.ready")
        )
    return faults + [Fault(f"processes.{name}.{fault.path}", fault.problem, fault.remedy) for fault in value.faults()]
