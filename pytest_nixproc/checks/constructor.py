"""Rules about a constructor: the resources that its instances share although their parameters differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Final

from pytest_nixproc.checks.api import Rule
from pytest_nixproc.checks.resources import (
    SHELL,
    Kind,
    Recogniser,
    Resource,
    scalars_in,
    texts_of,
    with_files,
)
from pytest_nixproc.errors import NixprocError
from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.model.constructors import (
    ANY_TYPE,
    Constructor,
    ConstructorFiles,
    ConstructorTrial,
    Parameter,
    Values,
)
from pytest_nixproc.model.context import ModelContext
from pytest_nixproc.model.ids import ProvisionalPorts
from pytest_nixproc.model.names import snake_case
from pytest_nixproc.values.findings import Finding, Origin, Severity
from pytest_nixproc.values.location import Location
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.value import Value

WORDS: Final[Mapping[Kind, tuple[str, str]]] = {
    "name": ("the name", "instance_suffix"),
    "port": ("TCP port", "port"),
    "path": ("the path", "instance_suffix"),
    "account": ("the account", "instance_suffix"),
}
"""How a kind of resource is called, and the parameter that one would expect to decide it."""


class Variant(Value):
    """An instance that a constructor has made of one set of parameters."""

    name: str
    values: Values
    """The set of parameters."""

    texts: Mapping[str, str]
    """All values of the instance as text, by their paths, and the configuration files that they refer to."""

    locate: Callable[[str], Location | None]
    """Returns the line of a value, given its path; None where it is not known."""


class HardCoded(Value):
    """A resource that stays the same although a constructor's parameters differ, with the origins of its value."""

    resource: Resource
    origins: tuple[Origin, ...]


class Comparison(Value):
    """The data that rules about constructors look at: instances of parameter sets that have nothing in common."""

    constructor: Constructor
    schemes: tuple[tuple[Variant, ...], ...]
    """The instances of each scheme, which is one way to name them."""

    unused: tuple[Parameter, ...]
    """Parameters that change nothing."""

    common: frozenset[str]
    """Values that all instances are given alike, as text."""

    state: StateDirs
    is_software: Callable[[str], bool]
    """Tells whether the file at a path comes with installed software, and is not left by a running program."""

    @cached_property
    def hard_coded(self) -> tuple[HardCoded, ...]:
        """The resources that stay the same in all instances of a scheme, each once."""
        parameters = self.constructor.parameters.values()
        defaults = frozenset(str(item.default) for item in parameters if item.is_port and item.default)
        recogniser = Recogniser(self.state, defaults, self.is_software)
        found: dict[Resource, dict[str, Origin]] = {}
        for scheme in self.schemes:
            for value_path, resource in self._hard_coded_in(scheme, recogniser):
                found.setdefault(resource, {}).setdefault(value_path, origin_of(scheme[0], value_path, resource.value))
        return tuple(HardCoded(resource, tuple(origins.values())) for resource, origins in sorted(found.items()))

    def _hard_coded_in(self, scheme: Sequence[Variant], recogniser: Recogniser) -> Iterator[tuple[str, Resource]]:
        first, *others = scheme
        recognised = recogniser.resources
        known = [recognised(value_path, first.texts) for value_path in first.texts]
        own = {item.value for resources in known for item in resources if item.kind == "path"}
        for value_path, resources in zip(first.texts, known, strict=True):
            for resource in sorted(resources):
                if self._may_stay(value_path, resource, own):
                    continue
                if all(
                    value_path in other.texts and resource in recognised(value_path, other.texts) for other in others
                ):
                    yield value_path, resource

    def _may_stay(self, value_path: str, resource: Resource, own: Iterable[str]) -> bool:
        """Tell whether instances may share a resource: all were given it, or it is a directory with a part for each."""
        if resource.kind != "path":
            return resource.value in self.common
        if any(f"{resource.value}/".startswith(f"{value}/") for value in self.common):
            return True
        return value_path in SHELL and any(path.startswith(f"{resource.value}/") for path in own)

    def deciding(self, resource: Resource) -> list[Parameter]:
        """Return the parameters that should determine a resource: those with that default, else the unused ones.

        Defaults are compared for ports alone. Where none is unused, these are all parameters of a fitting kind.
        """
        is_port = resource.kind == "port"
        parameters = self.constructor.parameters.values()
        fit = [item for item in parameters if (item.is_port if is_port else item.is_naming or item.is_path)]
        of_default = [item for item in fit if is_port and str(item.default) == resource.value]
        return of_default or [item for item in fit if item in self.unused] or fit


def compare(trial: ConstructorTrial, context: ModelContext, files: ConstructorFiles) -> Comparison:
    """Compare instances that a constructor makes from different parameters; nothing is leased or started.

    They are made from the parameter sets of a trial, and from copies of its first set that differ in one parameter.

    ``files`` reads the configuration that the processes refer to. Raises the errors of the constructor.
    """
    context = replace(context, free_port=ProvisionalPorts())
    schemes = trial.schemes(context)
    made = iter(variants_of(trial, context, [values for scheme in schemes for values in scheme], files))
    variants = tuple(tuple(next(made) for _ in scheme) for scheme in schemes)
    given = trial.given(context)
    common = frozenset(text for value in given.values() for text in scalars_in(value) if len(text) > 1)
    unused = tuple(unused_among(trial, context, variants[0][0], files))
    return Comparison(trial.constructor, variants, unused, common, context.state, files.is_software)


def variants_of(
    trial: ConstructorTrial, context: ModelContext, sets: Sequence[Values], files: ConstructorFiles
) -> list[Variant]:
    """Make an instance from each parameter set; return them with their values and those in configuration files."""
    instances, made = trial.construct(context, sets)
    with files.room() as directory:
        made.provide(directory)
        return [
            Variant(
                instance.pkg.name,
                values,
                with_files(texts_of(instance), files.read),
                partial(made.location, instance),
            )
            for instance, values in zip(instances, sets, strict=True)
        ]


def unused_among(
    trial: ConstructorTrial, context: ModelContext, base: Variant, files: ConstructorFiles
) -> Iterator[Parameter]:
    """Yield the parameters for which another value makes the same instance."""
    given = trial.given(context)
    own = [item for item in trial.constructor.parameters.values() if item.name not in given]
    others = {item: another(trial, context, item, base.values) for item in own}
    changed = {item: base.values | {item.name: other} for item, other in others.items() if other is not None}
    made = variants_or_none(trial, context, list(changed.values()), files)
    for item, variant in zip(changed, made, strict=True):
        if variant is not None and passed_on(item, variant.texts) == passed_on(item, base.texts):
            yield item


def variants_or_none(
    trial: ConstructorTrial, context: ModelContext, sets: Sequence[Values], files: ConstructorFiles
) -> Sequence[Variant | None]:
    """Return an instance of each parameter set; None for each set that the constructor refuses.

    A refused value was looked at, so its parameter counts as used.
    """
    try:
        return variants_of(trial, context, sets, files)
    except NixprocError:
        if len(sets) == 1:
            return [None]
        return [found for values in sets for found in variants_or_none(trial, context, [values], files)]


def passed_on(parameter: Parameter, values: Mapping[str, str]) -> dict[str, str]:
    """Return an instance's values without its attribute for a port parameter, which no program receives."""
    declared = snake_case(parameter.name) if parameter.is_port else ""
    return {value_path: value for value_path, value in values.items() if value_path != declared}


def another(trial: ConstructorTrial, context: ModelContext, parameter: Parameter, values: Values) -> Any:
    """Return a value for a parameter other than the one in a set; None where no other is known."""
    now = values.get(parameter.name, parameter.default)
    if parameter.name in trial.vary:
        return trial.vary[parameter.name][1]
    if parameter.is_port:
        return context.free_port(f"{trial.constructor.name}.{parameter.name}.other")
    if isinstance(now, bool):
        return not now
    if isinstance(now, int):
        return now + 1
    if isinstance(now, str) and now:
        return f"{now}-other"
    if parameter.is_naming or parameter.is_path:
        return trial.value(parameter, 1, context)
    return "other" if parameter.annotation in ("str", ANY_TYPE) else None


def kept_of_kind(comparison: Comparison, code: str, kind: Kind, severity: Severity = "error") -> Iterator[Finding]:
    """Yield a finding for each resource of one kind that is the same in all instances."""
    name = comparison.constructor.name
    word, usual = WORDS[kind]
    for hard_coded in comparison.hard_coded:
        if hard_coded.resource.kind == kind:
            deciding = comparison.deciding(hard_coded.resource)
            unused = " and ".join(item.name for item in deciding if item in comparison.unused)
            why = f"{name} does not pass {unused} on: " if unused else ""
            problem = f"{why}every instance of {name} has {word} {hard_coded.resource.value}"
            known = " or ".join(item.name for item in deciding)
            remedy = f"derive it from {known}" if known else f"add a parameter for it: {usual}"
            instances = tuple(variant.name for variant in comparison.schemes[0])
            resource = f"{'tcp port' if kind == 'port' else kind} {hard_coded.resource.value}"
            yield Finding(code, severity, problem, instances, hard_coded.origins, remedy, resource)


def origin_of(variant: Variant, value_path: str, value: str) -> Origin:
    """Return the origin of a value; in a text of several lines, the line that holds it."""
    lines = variant.texts[value_path].splitlines()
    location = variant.locate(value_path)
    if len(lines) < 2:
        return Origin(value_path, variant.texts[value_path], location)
    number = next((number for number, line in enumerate(lines, 1) if value in line), 1)
    return Origin(f"{value_path}, line {number}", lines[number - 1].strip(), location)


def idle_parameters(comparison: Comparison) -> Iterator[Finding]:
    """Find parameters that change nothing, except those that other rules blame for a shared resource."""
    blamed = {item for hard_coded in comparison.hard_coded for item in comparison.deciding(hard_coded.resource)}
    for item in comparison.unused:
        if item not in blamed:
            name = comparison.constructor.name
            problem = f"{name} does nothing with its parameter {item.name}"
            severity: Severity = "error" if item.is_required or item.is_port or item.is_naming else "warning"
            instances = tuple(variant.name for variant in comparison.schemes[0])
            origin = Origin(f"{comparison.constructor.origin}({item.name})", location=item.location)
            yield Finding("NP405", severity, problem, instances, (origin,), "pass it on, or remove it")


@hookimpl
def nixproc_checks() -> list[Rule]:
    """Return the rules about constructors, for the registry."""
    return RULES


RULES: Final = [
    Rule(
        "NP401",
        "the names of processes follow from parameters",
        constructor=partial(kept_of_kind, code="NP401", kind="name"),
        explanation="It compares `name` and `instance_name` of the processes that a constructor makes of different"
        " parameters. Two processes of one name would have one script, program section, unit or container, one PID"
        " file and one log.",
    ),
    Rule(
        "NP402",
        "TCP ports follow from parameters",
        constructor=partial(kept_of_kind, code="NP402", kind="port"),
        explanation="It looks for ports in arguments, environment, shell text, overrides, attributes and configuration"
        " files: numbers after an address, after a word or an option like `port` or `listen`, in variables like"
        " `PORT`, and the defaults of parameters that are ports. It does not know whether a port is listened on or"
        " connected to: if all instances are to connect to one, let them share it.",
    ),
    Rule(
        "NP403",
        "paths of sockets, logs and other state follow from parameters",
        constructor=partial(kept_of_kind, code="NP403", kind="path"),
        explanation="It looks in the same places for paths below the state directories, and below `/var`, `/run` and"
        " `/tmp`, unless they are files of the software. The state directories themselves may be common, and so may a"
        " directory that shell text makes and in which each instance has its own.",
    ),
    Rule(
        "NP404",
        "accounts follow from parameters",
        constructor=partial(kept_of_kind, code="NP404", kind="account", severity="warning"),
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
