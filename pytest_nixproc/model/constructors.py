"""Constructors, which make one process from parameters, and parameter sets that make different processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import field
from typing import Any, Final

from pytest_nixproc.errors import NixprocError, SourceError
from pytest_nixproc.model.context import ModelContext
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.names import snake_case
from pytest_nixproc.model.process import ManagedProcess
from pytest_nixproc.model.recognition import NAME_ENDINGS, PATH_ENDINGS, is_port_name
from pytest_nixproc.model.system import ProcessesModel, provide_nothing
from pytest_nixproc.values.location import Location
from pytest_nixproc.values.value import Value

FEWEST: Final = 2
"""How many instances show whether they coexist."""


Values = dict[str, Any]


class ConstructorFiles(Value):
    """Access to files of the machine on which constructors are called."""

    read: Callable[[str], str | None]
    """Returns the text of a file; None where there is no file, or no text in it."""

    is_software: Callable[[str], bool]
    """Tells whether the file at a path comes with installed software, and is not left by a running program."""

    room: Callable[[], AbstractContextManager[str]]
    """Makes a temporary directory, which keeps build results for the time of a ``with`` block."""


ANY_TYPE: Final = "Any"
"""The annotation of a parameter that a value of any type may be tried for."""


class Parameter(Value):
    """A parameter of a constructor."""

    name: str
    is_required: bool = True
    default: Any = None
    annotation: str = ""
    """Name of the type that the parameter declares; empty without one."""

    location: Location | None = None
    """The line that declares the parameter; None where it is not known."""

    @property
    def is_port(self) -> bool:
        """Tell whether the parameter is a TCP port, by the naming convention that models have too."""
        return is_port_name(snake_case(self.name))

    @property
    def is_naming(self) -> bool:
        """Tell by the parameter's name whether the names of an instance are derived from it."""
        return snake_case(self.name).endswith(NAME_ENDINGS) or (self.name == "name" and self.is_required)

    @property
    def is_suffix(self) -> bool:
        """Tell whether the parameter is the suffix that follows the common part of a name."""
        return snake_case(self.name).endswith("suffix")

    @property
    def is_path(self) -> bool:
        """Tell whether the parameter is a path, by its name."""
        return snake_case(self.name).endswith(PATH_ENDINGS)


class Constructed(Value):
    """The results of a constructor for sets of values."""

    items: Sequence[Instance | ManagedProcess]
    """Instances, or processes without attributes, in the order of the sets."""

    provide: Callable[[str], None] = provide_nothing
    """Builds the programs that the items refer to, for a :class:`~pytest_nixproc.ProcessesModel` of them."""

    locate: Callable[[ManagedProcess, str], Location | None] = lambda _, __: None
    """Returns the line that sets a value of a process; None to use the line where the process or instance was made."""

    def location(self, instance: Instance, value_path: str) -> Location | None:
        """Return the line where a value of an instance was written; None where it is not known."""
        defined_at = instance.pkg.defined_at if value_path.startswith("pkg.") else instance.defined_at
        return self.locate(instance.pkg, value_path) or defined_at


class Constructor(Value):
    """A constructor of processes: its instance parameters, and the function that calls it."""

    name: str
    origin: str
    """The file and name of the constructor, for messages."""

    parameters: Mapping[str, Parameter]
    make: Callable[[ModelContext, Sequence[Mapping[str, Any]]], Constructed]
    """Makes one instance or process from each set of parameter values; other values come from the context.

    Raises :class:`~pytest_nixproc.errors.SourceError` or :class:`~pytest_nixproc.errors.ModelError`.
    """


class ConstructorTrial(Value):
    """Instances of one constructor side by side, and the values of their parameters."""

    constructor: Constructor
    vary: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Values that differ, one for each instance, by parameter."""

    shared: Callable[[ModelContext], Mapping[str, Any]] = lambda _: {}
    """Returns the values that all instances share, by parameter."""

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
        """The number of instances."""
        return max((len(values) for values in self.vary.values()), default=FEWEST)

    def given(self, context: ModelContext) -> Values:
        """Return the values that are passed to every instance alike: the shared ones, and those that the user sets.

        Of the user's parameters, ``port``, names, and those that vary are left out.
        """
        shared = self.shared(context)
        for name in shared:
            self._known(name)
            if name in self.vary:
                raise self._error(f"{name!r} is shared, and varies", "choose one")
        parameters = self.constructor.parameters.items()
        alike = {name for name, parameter in parameters if not parameter.is_naming} - {"port", *self.vary}
        return {**{name: value for name, value in context.params.items() if name in alike}, **shared}

    def schemes(self, context: ModelContext) -> list[list[Values]]:
        """Return the parameter values of each instance, once for each way in which the constructor can name instances.

        ``instance_suffix`` and ``instance_name`` are two ways: who gives one leaves the other alone.
        """
        given = self.given(context)
        own = [item for item in self.constructor.parameters.values() if item.name not in given]
        always = [item for item in own if item.is_required or item.is_port or item.name in self.vary]
        is_named = any(item.is_naming for item in always)
        ways = [[item] for item in own if item.is_naming and not is_named]
        return [
            [
                given | {item.name: self.value(item, number, context) for item in (*always, *way)}
                for number in range(self.count)
            ]
            for way in sorted(ways, key=lambda way: not way[0].is_suffix) or [[]]
        ]

    def value(self, parameter: Parameter, number: int, context: ModelContext) -> Any:
        """Return a value that no other instance has for a parameter."""
        name = parameter.name
        if name in self.vary:
            return self.vary[name][number]
        if parameter.is_port:
            return context.free_port(f"{self.constructor.name}.{name}.{number + 1}")
        if parameter.is_suffix:
            return str(number + 1)
        if parameter.is_naming:
            return f"{self.constructor.name}-{number + 1}".replace("_", "-")
        if parameter.is_path:
            return f"{context.state.lib_dir}/{name}-{number + 1}"
        if parameter.annotation == "int":
            return number + 1
        if parameter.annotation == "str":
            return f"{name}-{number + 1}"
        remedy = f"share one value, or vary it: --nixproc-param={name}=VALUE, --nixproc-vary={name}=[VALUE, VALUE]"
        raise self._error(f"nothing is known about the values of {name!r}", remedy)

    def construct(self, context: ModelContext, sets: Sequence[Values]) -> tuple[list[Instance], Constructed]:
        """Return an instance for each set of values, and the constructor's own results for all of them."""
        made = self.constructor.make(context, sets)
        given = self.given(context)
        return [self._instance(item, values, given) for item, values in zip(made.items, sets, strict=True)], made

    def _instance(self, made: Instance | ManagedProcess, values: Values, given: Values) -> Instance:
        """Return an item as an instance; one made of a process declares the parameters that are ports."""
        if isinstance(made, Instance):
            return made
        parameters = self.constructor.parameters
        own = {name: value for name, value in values.items() if value is not None and name not in given}
        return Instance(made, **{name: value for name, value in own.items() if parameters[name].is_port})

    def load(self, context: ModelContext) -> ProcessesModel:
        """Return the model of the instances, with everything that they share or depend on."""
        sets = self.schemes(context)[0]
        constructed, made = self.construct(context, sets)
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
            locate=lambda name, value_path: made.location(instances[name], value_path),
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
