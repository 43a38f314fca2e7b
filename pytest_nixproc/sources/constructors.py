"""Constructors: what makes one process from parameters, and sets of parameters that make different ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any, Final

from pytest_nixproc.errors import NixprocError, SourceError
from pytest_nixproc.model.instance import Instance, is_port_name
from pytest_nixproc.model.names import snake_case
from pytest_nixproc.model.places import Location
from pytest_nixproc.model.process import ManagedProcess
from pytest_nixproc.model.system import ProcessesModel, provide_nothing
from pytest_nixproc.sources.api import Arguments

PATH_ENDINGS: Final = ("_dir", "_directory", "_path", "_file", "_root", "socket")
NAME_ENDINGS: Final = ("instance_name", "suffix")
FEWEST: Final = 2
"""How many instances show whether they coexist."""

LARGEST: Final = 1 << 20
"""How many bytes a file may have that is read for configuration."""

LEFT_BY_PROGRAMS: Final = (".log", ".pid", ".sock", ".lock", ".out", ".err", ".db", ".sqlite")
"""What an earlier run may have left: that such a file exists does not make it part of the software."""

Values = dict[str, Any]


def read_text(path: str) -> str | None:
    """Return the text of a regular file; None for anything else, and for what is too large for a configuration."""
    try:
        if not os.path.isfile(path) or os.path.getsize(path) > LARGEST:
            return None
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError, ValueError):
        return None
    return None if "\0" in text else text


def is_software(path: str) -> bool:
    """Tell whether a path is that of a file which comes with the software, wherever it lies."""
    return os.path.isfile(path) and not path.endswith(LEFT_BY_PROGRAMS)


@dataclass(frozen=True)
class Files:
    """How files of the machine are looked at on which constructors are called; ``room`` keeps there what is built."""

    read: Callable[[str], str | None] = read_text
    is_software: Callable[[str], bool] = is_software
    room: Callable[[], AbstractContextManager[str]] = TemporaryDirectory


FILES: Final = Files()


ANY_TYPE: Final = "Any"
"""The annotation of a parameter that a value of any type may be tried for."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a constructor; ``annotation`` is the name of the type that it declares, if any."""

    name: str
    is_required: bool = True
    default: Any = None
    annotation: str = ""
    location: Location | None = None

    @property
    def is_port(self) -> bool:
        """Tell whether it is a TCP port, by the convention that models have too."""
        return is_port_name(snake_case(self.name))

    @property
    def is_naming(self) -> bool:
        """Tell whether the names of an instance are made of it."""
        return snake_case(self.name).endswith(NAME_ENDINGS) or (self.name == "name" and self.is_required)

    @property
    def is_suffix(self) -> bool:
        """Tell whether it is what follows the common part of a name."""
        return snake_case(self.name).endswith("suffix")

    @property
    def is_path(self) -> bool:
        """Tell whether it is a path, by its name."""
        return snake_case(self.name).endswith(PATH_ENDINGS)


def unknown_place(process: ManagedProcess, place: str) -> None:
    """Know no place."""


@dataclass(frozen=True)
class Made:
    """What a constructor has made of sets of values, in their order: instances, or processes without attributes.

    ``provide`` is for a model of them (:class:`~pytest_nixproc.ProcessesModel`). ``locate`` finds the line of a value
    of a process, for sources that know better than the calls that made it.
    """

    items: Sequence[Instance | ManagedProcess]
    provide: Callable[[str], None] = provide_nothing
    locate: Callable[[ManagedProcess, str], Location | None] = unknown_place

    def location(self, instance: Instance, place: str) -> Location | None:
        """Return where a value of an instance was written down."""
        made_at = instance.pkg.made_at if place.startswith("pkg.") else instance.made_at
        return self.locate(instance.pkg, place) or made_at


@dataclass(frozen=True)
class Constructor:
    """What makes processes: its instance parameters, and the function that is given sets of values for some of them.

    ``make`` raises :class:`~pytest_nixproc.errors.SourceError` or :class:`~pytest_nixproc.errors.ModelError`; what all
    instances share, it takes from the arguments by itself.
    """

    name: str
    origin: str
    parameters: Mapping[str, Parameter]
    make: Callable[[Arguments, Sequence[Mapping[str, Any]]], Made]


def nothing_shared(_: Arguments) -> Mapping[str, Any]:
    """Give instances no argument in common."""
    return {}


@dataclass(frozen=True)
class Trial:
    """Instances of one constructor side by side: ``vary`` has a value for each of them, ``shared`` one for all."""

    constructor: Constructor
    vary: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    shared: Callable[[Arguments], Mapping[str, Any]] = nothing_shared

    def __post_init__(self) -> None:
        for name, values in self.vary.items():
            self._known(name)
            if isinstance(values, str) or not isinstance(values, Sequence) or len(values) < FEWEST:
                raise self._error(f"{name!r} varies over {values!r}", "give a list of two or more values")
            if any(value == other for number, value in enumerate(values) for other in values[:number]):
                raise self._error(f"{name!r} varies over {values!r}, which has a value twice", "give different ones")
        if len({len(values) for values in self.vary.values()}) > 1:
            raise self._error("the lists of values differ in length", "give one value for each instance")

    @property
    def count(self) -> int:
        """How many instances there are."""
        return max((len(values) for values in self.vary.values()), default=FEWEST)

    def given(self, arguments: Arguments) -> Values:
        """Return what all instances are given alike: of the user's parameters, those that cannot be their own."""
        shared = self.shared(arguments)
        for name in shared:
            self._known(name)
            if name in self.vary:
                raise self._error(f"{name!r} is shared, and varies", "choose one")
        return {**{name: value for name, value in arguments.params.items() if self._can_share(name)}, **shared}

    def _can_share(self, name: str) -> bool:
        parameter = self.constructor.parameters.get(name)
        is_own = name == "port" or name in self.vary
        return parameter is not None and not is_own and not parameter.is_naming

    def schemes(self, arguments: Arguments) -> list[list[Values]]:
        """Return the parameters of each instance, once for each way in which the constructor lets them be named.

        ``instance_suffix`` and ``instance_name`` are two ways: who gives one leaves the other alone.
        """
        given = self.given(arguments)
        own = [item for item in self.constructor.parameters.values() if item.name not in given]
        always = [item for item in own if item.is_required or item.is_port or item.name in self.vary]
        is_named = any(item.is_naming for item in always)
        ways = [[item] for item in own if item.is_naming and not is_named]
        return [
            [
                given | {item.name: self.value(item, number, arguments) for item in (*always, *way)}
                for number in range(self.count)
            ]
            for way in sorted(ways, key=lambda way: not way[0].is_suffix) or [[]]
        ]

    def value(self, parameter: Parameter, number: int, arguments: Arguments) -> Any:
        """Return a value that no other instance has for a parameter."""
        name = parameter.name
        if name in self.vary:
            return self.vary[name][number]
        if parameter.is_port:
            return arguments.free_port(f"{self.constructor.name}.{name}.{number + 1}")
        if parameter.is_suffix:
            return str(number + 1)
        if parameter.is_naming:
            return f"{self.constructor.name}-{number + 1}".replace("_", "-")
        if parameter.is_path:
            return f"{arguments.state.lib_dir}/{name}-{number + 1}"
        if parameter.annotation == "int":
            return number + 1
        if parameter.annotation == "str":
            return f"{name}-{number + 1}"
        remedy = f"share one value, or vary it: --nixproc-param={name}=VALUE, --nixproc-vary={name}=[VALUE, VALUE]"
        raise self._error(f"nothing is known about the values of {name!r}", remedy)

    def construct(self, arguments: Arguments, sets: Sequence[Values]) -> tuple[list[Instance], Made]:
        """Return an instance for each set of values, and what the constructor says of them."""
        made = self.constructor.make(arguments, sets)
        given = self.given(arguments)
        return [self._instance(item, values, given) for item, values in zip(made.items, sets, strict=True)], made

    def _instance(self, made: Instance | ManagedProcess, values: Values, given: Values) -> Instance:
        """Return what was made as an instance: a process declares those of its parameters that are ports."""
        if isinstance(made, Instance):
            return made
        parameters = self.constructor.parameters
        own = {name: value for name, value in values.items() if value is not None and name not in given}
        return Instance(made, **{name: value for name, value in own.items() if parameters[name].is_port})

    def load(self, arguments: Arguments) -> ProcessesModel:
        """Return the model of the instances, with everything that they share or depend on."""
        sets = self.schemes(arguments)[0]
        constructed, made = self.construct(arguments, sets)
        # What is shared has to be the same object for all: a dependency refers to one process, not to its like.
        instances = {found.pkg.name: found for values in sets[:1] for found in instances_in(values)}
        for number, instance in enumerate(constructed, 1):
            name = instance.pkg.name or self.constructor.name
            instances[name if name not in instances else f"{name}-{number}"] = instance
        for process in [process for instance in instances.values() for process in instance.pkg.dependencies]:
            if isinstance(process, ManagedProcess) and all(process is not item.pkg for item in instances.values()):
                instances.setdefault(process.name, Instance(process))
        return ProcessesModel(
            instances,
            origin=self.constructor.origin,
            provide=made.provide,
            locate=lambda name, place: made.location(instances[name], place),
        )

    def _known(self, name: str) -> None:
        if name not in self.constructor.parameters:
            has = ", ".join(self.constructor.parameters) or "none"
            raise self._error(f"there is no parameter {name!r}", f"it has {has}")

    def _error(self, problem: str, remedy: str) -> NixprocError:
        return SourceError(f"{self.constructor.origin}: {problem}", remedy=remedy)


def instances_in(value: object) -> Iterator[Instance]:
    """Yield the instances that a value is or holds."""
    if isinstance(value, Instance):
        yield value
        value = dict(value.attributes)
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from instances_in(item)
