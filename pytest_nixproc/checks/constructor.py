"""Rules about a constructor: what its instances have in common although their parameters differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Final

from pytest_nixproc.checks.api import Finding, Origin, Rule, Severity
from pytest_nixproc.checks.resources import (
    SHELL,
    Kind,
    Recogniser,
    Resource,
    numbers_in,
    places_of,
    with_files,
)
from pytest_nixproc.errors import NixprocError
from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.model.ids import ProvisionalPorts
from pytest_nixproc.model.names import snake_case
from pytest_nixproc.model.places import Location
from pytest_nixproc.model.state import StateDirs
from pytest_nixproc.sources.api import Arguments
from pytest_nixproc.sources.constructors import ANY_TYPE, Constructor, Files, Parameter, Trial, Values

WORDS: Final[Mapping[Kind, tuple[str, str]]] = {
    "name": ("the name", "instance_suffix"),
    "port": ("TCP port", "port"),
    "path": ("the path", "instance_suffix"),
    "account": ("the account", "instance_suffix"),
}
"""How a kind of resource is called, and the parameter that one would expect to decide it."""


@dataclass(frozen=True)
class Variant:
    """What a constructor has made of one set of parameters: the name, and all values by their places."""

    name: str
    values: Values
    places: Mapping[str, str]
    locate: Callable[[str], Location | None]


@dataclass(frozen=True)
class Kept:
    """A resource that all instances of a scheme have, with the places that name it."""

    resource: Resource
    origins: tuple[Origin, ...]


@dataclass(frozen=True)
class Comparison:
    """What rules about constructors look at: what was made of sets of parameters that have nothing in common.

    Each scheme is one way to name instances. ``idle`` are the parameters that change nothing. ``common`` are the values
    that all instances are given alike.
    """

    constructor: Constructor
    schemes: tuple[tuple[Variant, ...], ...]
    idle: tuple[Parameter, ...]
    common: frozenset[str]
    state: StateDirs
    is_software: Callable[[str], bool]

    @cached_property
    def kept(self) -> tuple[Kept, ...]:
        """What stays the same, each once."""
        found: dict[Resource, dict[str, Origin]] = {}
        for scheme in self.schemes:
            for place, resource in self._kept_in(scheme):
                found.setdefault(resource, {}).setdefault(place, origin_of(scheme[0], place, resource.value))
        return tuple(Kept(resource, tuple(origins.values())) for resource, origins in sorted(found.items()))

    def _kept_in(self, scheme: Sequence[Variant]) -> Iterator[tuple[str, Resource]]:
        first, *others = scheme
        known = [self._recogniser.resources(place, first.places) for place in first.places]
        own = {item.value for resources in known for item in resources if item.kind == "path"}
        for place, resources in zip(first.places, known, strict=True):
            for resource in sorted(resources):
                if self.is_common(resource) or (place in SHELL and is_above(resource, own)):
                    continue
                if all(place in other.places and resource in self._in(other, place) for other in others):
                    yield place, resource

    def _in(self, variant: Variant, place: str) -> set[Resource]:
        return self._recogniser.resources(place, variant.places)

    def is_common(self, resource: Resource) -> bool:
        """Tell whether a resource is one that all instances were told to use."""
        return any(
            resource.value == value or (resource.kind == "path" and resource.value.startswith(f"{value}/"))
            for value in self.common
        )

    @cached_property
    def _recogniser(self) -> Recogniser:
        ports = [item.default for item in self.constructor.parameters.values() if item.is_port]
        return Recogniser(self.state, frozenset(str(port) for port in ports if port), self.is_software)

    def deciding(self, resource: Resource) -> list[Parameter]:
        """Return the parameters that a resource should follow from: whose default it is, else those that are idle."""
        is_port = resource.kind == "port"
        parameters = self.constructor.parameters.values()
        fit = [item for item in parameters if (item.is_port if is_port else item.is_naming or item.is_path)]
        of_default = [item for item in fit if is_port and str(item.default) == resource.value]
        return of_default or [item for item in fit if item in self.idle] or fit


def is_above(resource: Resource, paths: Iterable[str]) -> bool:
    """Tell whether a path is only the directory of others: instances may share that, and make it."""
    return resource.kind == "path" and any(path.startswith(f"{resource.value}/") for path in paths)


def compare(trial: Trial, arguments: Arguments, files: Files) -> Comparison:
    """Make instances from sets of parameters, and from sets that differ in one of them; nothing is leased or started.

    ``files`` are asked for the configuration that the processes refer to. Raises what constructors raise.
    """
    arguments = replace(arguments, free_port=ProvisionalPorts())
    schemes = trial.schemes(arguments)
    made = iter(variants_of(trial, arguments, [values for scheme in schemes for values in scheme], files))
    variants = tuple(tuple(next(made) for _ in scheme) for scheme in schemes)
    given = trial.given(arguments)
    common = frozenset(text for value in given.values() for text in numbers_in(value) if len(text) > 1)
    idle = tuple(idle_among(trial, arguments, variants[0][0], files))
    return Comparison(trial.constructor, variants, idle, common, arguments.state, files.is_software)


def variants_of(trial: Trial, arguments: Arguments, sets: Sequence[Values], files: Files) -> list[Variant]:
    """Make an instance of each set, and write down its values, those in the files too that it refers to."""
    instances, made = trial.construct(arguments, sets)
    with files.room() as directory:
        made.provide(directory)
        return [
            Variant(
                instance.pkg.name,
                values,
                with_files(places_of(instance), files.read),
                partial(made.location, instance),
            )
            for instance, values in zip(instances, sets, strict=True)
        ]


def idle_among(trial: Trial, arguments: Arguments, base: Variant, files: Files) -> Iterator[Parameter]:
    """Yield the parameters of which another value makes the same instance."""
    given = trial.given(arguments)
    own = [item for item in trial.constructor.parameters.values() if item.name not in given]
    others = {item: another(trial, arguments, item, base.values) for item in own}
    changed = {item: base.values | {item.name: other} for item, other in others.items() if other is not None}
    made = variants_or_none(trial, arguments, list(changed.values()), files)
    for item, variant in zip(changed, made, strict=True):
        if variant is not None and told(item, variant.places) == told(item, base.places):
            yield item


def variants_or_none(
    trial: Trial, arguments: Arguments, sets: Sequence[Values], files: Files
) -> Sequence[Variant | None]:
    """Make an instance of each set; None of one that is refused, as the value was looked at then."""
    try:
        return variants_of(trial, arguments, sets, files)
    except NixprocError:
        if len(sets) == 1:
            return [None]
        return [found for values in sets for found in variants_or_none(trial, arguments, [values], files)]


def told(parameter: Parameter, places: Mapping[str, str]) -> dict[str, str]:
    """Return what a program is told: a port that an instance only declares is not part of it."""
    declared = snake_case(parameter.name) if parameter.is_port else ""
    return {place: value for place, value in places.items() if place != declared}


def another(trial: Trial, arguments: Arguments, parameter: Parameter, values: Values) -> Any:
    """Return a value that a parameter does not have in a set; None where none can be thought of."""
    now = values.get(parameter.name, parameter.default)
    if parameter.name in trial.vary:
        return trial.vary[parameter.name][1]
    if parameter.is_port:
        return arguments.free_port(f"{trial.constructor.name}.{parameter.name}.other")
    if isinstance(now, bool):
        return not now
    if isinstance(now, int):
        return now + 1
    if isinstance(now, str) and now:
        return f"{now}-other"
    if parameter.is_naming or parameter.is_path:
        return trial.value(parameter, 1, arguments)
    return "other" if parameter.annotation in ("str", ANY_TYPE) else None


def kept_of_kind(comparison: Comparison, code: str, kind: Kind, severity: Severity = "error") -> Iterator[Finding]:
    """Yield a finding for each resource of a kind that stays the same."""
    name = comparison.constructor.name
    word, usual = WORDS[kind]
    for kept in comparison.kept:
        if kept.resource.kind == kind:
            deciding = comparison.deciding(kept.resource)
            idle = " and ".join(item.name for item in deciding if item in comparison.idle)
            why = f"{name} does not pass {idle} on: " if idle else ""
            problem = f"{why}every instance of {name} has {word} {kept.resource.value}"
            known = " or ".join(item.name for item in deciding)
            remedy = f"derive it from {known}" if known else f"add a parameter for it: {usual}"
            instances = tuple(variant.name for variant in comparison.schemes[0])
            resource = f"{'tcp port' if kind == 'port' else kind} {kept.resource.value}"
            yield Finding(code, severity, problem, instances, kept.origins, remedy, resource)


def origin_of(variant: Variant, place: str, value: str) -> Origin:
    """Return where a value stands; of a text that has several lines, which one."""
    lines = variant.places[place].splitlines()
    location = variant.locate(place)
    if len(lines) < 2:
        return Origin(place, variant.places[place], location)
    number = next((number for number, line in enumerate(lines, 1) if value in line), 1)
    return Origin(f"{place}, line {number}", lines[number - 1].strip(), location)


def names_kept(comparison: Comparison) -> Iterator[Finding]:
    """Find names of processes that do not follow from parameters."""
    yield from kept_of_kind(comparison, "NP401", "name")


def ports_kept(comparison: Comparison) -> Iterator[Finding]:
    """Find TCP ports that do not follow from parameters."""
    yield from kept_of_kind(comparison, "NP402", "port")


def paths_kept(comparison: Comparison) -> Iterator[Finding]:
    """Find paths of state that do not follow from parameters."""
    yield from kept_of_kind(comparison, "NP403", "path")


def accounts_kept(comparison: Comparison) -> Iterator[Finding]:
    """Find users, groups and their ids that do not follow from parameters."""
    yield from kept_of_kind(comparison, "NP404", "account", severity="warning")


def idle_parameters(comparison: Comparison) -> Iterator[Finding]:
    """Find parameters that change nothing, but those that other rules blame for what stays the same."""
    blamed = {item for kept in comparison.kept for item in comparison.deciding(kept.resource)}
    for item in comparison.idle:
        if item not in blamed:
            name = comparison.constructor.name
            problem = f"{name} does nothing with its parameter {item.name}"
            severity: Severity = "error" if item.is_required or item.is_port or item.is_naming else "warning"
            instances = tuple(variant.name for variant in comparison.schemes[0])
            origin = Origin(f"{comparison.constructor.origin}({item.name})", location=item.location)
            yield Finding("NP405", severity, problem, instances, (origin,), "pass it on, or remove it")


@hookimpl
def nixproc_checks() -> list[Rule]:
    """Offer the rules about constructors."""
    return RULES


RULES: Final = [
    Rule(
        "NP401",
        "the names of processes follow from parameters",
        constructor=names_kept,
        explanation="It compares `name` and `instance_name` of the processes that a constructor makes of different"
        " parameters. Two processes of one name would have one script, program section, unit or container, one PID"
        " file and one log.",
    ),
    Rule(
        "NP402",
        "TCP ports follow from parameters",
        constructor=ports_kept,
        explanation="It looks for ports in arguments, environment, shell text, overrides, attributes and configuration"
        " files: numbers after an address, after a word or an option like `port` or `listen`, in variables like"
        " `PORT`, and the defaults of parameters that are ports. It does not know whether a port is listened on or"
        " connected to: if all instances are to connect to one, let them share it.",
    ),
    Rule(
        "NP403",
        "paths of sockets, logs and other state follow from parameters",
        constructor=paths_kept,
        explanation="It looks in the same places for paths below the state directories, and below `/var`, `/run` and"
        " `/tmp`, unless they are files of the software. The state directories themselves may be common, and so may a"
        " directory that shell text makes and in which each instance has its own.",
    ),
    Rule(
        "NP404",
        "accounts follow from parameters",
        constructor=accounts_kept,
        severity="warning",
        explanation="It compares `user`, and the names and numbers of accounts. Instances that run as one user can"
        " read and write each other's state.",
    ),
    Rule(
        "NP405",
        "every parameter changes something",
        constructor=idle_parameters,
        severity="warning",
        explanation="It changes one parameter at a time, and compares everything that is made of it. A value that an"
        " instance only declares, and its program is not told, does not count. It is an error for ports, names and"
        " required parameters. If the constructor refuses a changed value, the parameter counts as used.",
    ),
]
