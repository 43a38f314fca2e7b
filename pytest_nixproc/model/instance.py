"""A process instance: a managed process under a name, with the parameters that make it different from its like."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pytest_nixproc.errors import Fault
from pytest_nixproc.model.names import camel_case, snake_case
from pytest_nixproc.model.process import ManagedProcess


class Instance:
    """A process instance of a model: ``pkg``, and free attributes that tests and other instances read.

    Attributes called ``port``, or ending in ``_port`` or ``Port``, are the TCP ports that the instance declares;
    ``ports`` may map names to more of them. ``ready`` says when the instance can be used (see ``ready``);
    ``requires_unique_ids_for`` names the pools from which it wants ids.
    """

    pkg: ManagedProcess
    attributes: Mapping[str, Any]

    def __init__(self, /, pkg: ManagedProcess, **attributes: Any) -> None:
        frozen = {snake_case(name): value for name, value in attributes.items()}
        vars(self).update(pkg=pkg, attributes=MappingProxyType(frozen))

    def __getattr__(self, name: str) -> Any:
        attributes = vars(self).get("attributes", {})
        if snake_case(name) in attributes:
            return attributes[snake_case(name)]
        known = ", ".join(sorted(attributes)) or "none"
        raise AttributeError(f"instance of {vars(self).get('pkg')!r} has no attribute {name!r}; it has: {known}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"an instance is frozen; give {name!r} when it is made")

    def __repr__(self) -> str:
        attributes = "".join(f", {name}={value!r}" for name, value in self.attributes.items())
        return f"Instance({self.pkg!r}{attributes})"

    @property
    def declared_ports(self) -> Mapping[str, int]:
        """The TCP ports that the instance declares, by the attribute or the name that declares them."""
        ports = {
            name: value
            for name, value in self.attributes.items()
            if (name == "port" or name.endswith("_port")) and is_number(value)
        }
        named = self.attributes.get("ports", {})
        if isinstance(named, Mapping):
            ports |= {f"ports.{name}": value for name, value in named.items() if is_number(value)}
        return ports

    def faults(self) -> list[Fault]:
        """Return what is wrong with the instance, with paths relative to it."""
        pkg: object = self.pkg
        if not isinstance(pkg, ManagedProcess):
            return [Fault("pkg", f"is {pkg!r}, which is no managed process", "use create_managed_process()")]
        problem = "is {!r}, which is no TCP port"
        named: object = self.attributes.get("ports", {})
        if not isinstance(named, Mapping):
            wrong = Fault("ports", f"is {named!r}, which is no mapping of names to ports", "call a single one 'port'")
            return [*self.pkg.faults, wrong]
        return list(self.pkg.faults) + [
            Fault(name, problem.format(value), "use a number from 1 to 65535")
            for name, value in (*self.attributes.items(), *self.named_ports().items())
            if is_port_name(name) and not (is_number(value) and 1 <= value <= 65535)
        ]

    def named_ports(self) -> Mapping[str, Any]:
        """Return the entries of ``ports``, by the path under which a fault names them."""
        named = self.attributes.get("ports", {})
        if not isinstance(named, Mapping):
            return {}
        return {f"ports.{camel_case(str(name))}": value for name, value in named.items()}


def is_port_name(name: str) -> bool:
    """Tell whether an attribute of this name declares a TCP port."""
    return name == "port" or name.endswith("_port") or name.startswith("ports.")


def is_number(value: object) -> bool:
    """Tell whether ``value`` is a whole number; Python's truth values are none here."""
    return isinstance(value, int) and not isinstance(value, bool)
