"""Overrides: how a process changes the parameters that are generated for its manager, and which changes are refused."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from copy import deepcopy
from types import MappingProxyType
from typing import Any, Final, Self

from pytest_nixproc.errors import Fault
from pytest_nixproc.model.names import camel_case, did_you_mean
from pytest_nixproc.model.process import CamelCaseFunction, ManagedProcess
from pytest_nixproc.model.value_types import ValueType
from pytest_nixproc.values.value import Value

MOST_NAMES: Final = 24
"""How many known names an error lists at most."""

ANY_KIND: Final[Mapping[str, ValueType]] = MappingProxyType({})
"""The kinds of parameters whose values are not looked at."""

Spelling = Callable[[str], str]
"""Turns a name that users write into that of a parameter."""


class Overridden(Value):
    """The parameters of a manager, or of one part of it, as a process overrides them."""

    values: Mapping[str, Any]
    written: Mapping[str, str]
    """The names that the process has set, each as it is written there."""

    def read(
        self,
        known: Collection[str] | None,
        kinds: Mapping[str, ValueType],
        faults: list[Fault],
        *,
        noun: str = "parameter",
        part: str = "",
    ) -> dict[str, Any]:
        """Read what the process has set by its kind, or add faults; names that are not known are faults, if any are."""
        values = dict(self.values)
        for name, written in self.written.items():
            path = f"{part}.{written}" if part else written
            if known is not None and name not in known:
                spelled = camel_case if written != name else str
                faults.append(Fault(path, f"is no {noun}", known_names(written, map(spelled, known))))
            elif name in kinds:
                values[name] = kinds[name].read(values[name], path, faults)
        return values

    @classmethod
    def compared(cls, values: Mapping[str, Any], generated: Mapping[str, Any], spelling: Spelling = str) -> Self:
        """Return parameters that replace generated ones; those that are the same were not set by the process."""
        spelled = {spelling(str(name)): value for name, value in values.items()}
        written = {spelling(str(name)): str(name) for name in values}
        differing = (name for name in spelled if name not in generated or not is_same(spelled[name], generated[name]))
        return cls(spelled, {name: written[name] for name in differing})


def is_same(value: object, generated: object) -> bool:
    """Tell whether a value is the generated one; languages without tuples make lists of them."""
    return (list(value) if isinstance(value, tuple) else value) == (
        list(generated) if isinstance(generated, tuple) else generated
    )


def known_names(name: str, known: Iterable[str]) -> str:
    """Return which known name may have been meant; else which there are, or the first of them."""
    names = sorted(known)
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return did_you_mean(name, names) or f"known are {', '.join(names[:MOST_NAMES])}{more}"


def overridden(
    manager: str,
    process: ManagedProcess,
    parameters: Mapping[str, Any],
    faults: list[Fault],
    *,
    part: str = "",
    spelling: Spelling = str,
) -> Overridden:
    """Return generated parameters as the process overrides them for a manager, or for one part of it.

    A mapping is merged in deeply (nested mappings merge, all else is replaced); a function gets the parameters and
    returns all of them anew, or those of the mapping in whose place it stands. ``spelling`` turns the names that users
    write into those of the parameters.
    """
    override: Any = process.overrides.get(manager, {})
    override = override.get(part, {}) if part else override
    if not callable(override):
        written = {spelling(str(name)): str(name) for name in override}
        return Overridden(merged(parameters, {spelling(str(name)): value for name, value in override.items()}), written)
    given = deepcopy(dict(parameters))
    returned = override({given_as(name, override, spelling): value for name, value in given.items()})
    if not isinstance(returned, Mapping):
        faults.append(Fault(part or manager, f"is a function that returns {returned!r}", "return a mapping"))
        return Overridden(parameters, {})
    return Overridden.compared(returned, parameters, spelling)


def given_as(name: str, override: object, spelling: Spelling) -> str:
    """Return the name of a parameter as a function gets it: in camelCase where its language has that."""
    spelled = camel_case(name)
    return spelled if isinstance(override, CamelCaseFunction) and spelling(spelled) == name else name


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes`` merged in deeply; a function in the place of a mapping changes that."""
    result = dict(base)
    for name, change in changes.items():
        old = result.get(name)
        if isinstance(old, Mapping) and isinstance(change, Mapping):
            result[name] = merged(old, change)
        else:
            result[name] = change(deepcopy(dict(old))) if isinstance(old, Mapping) and callable(change) else change
    return result
