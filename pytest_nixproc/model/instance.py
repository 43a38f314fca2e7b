"""A process instance: a managed process under a name, with the parameters that tell it from others."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

from pytest_nixproc.errors import Fault
from pytest_nixproc.model.call_site import call_site
from pytest_nixproc.model.endpoint import ADDRESSES, Endpoint
from pytest_nixproc.model.names import camel_case, did_you_mean, snake_case
from pytest_nixproc.model.process import ManagedProcess
from pytest_nixproc.model.recognition import is_port_name, is_udp_name
from pytest_nixproc.values.location import Location
from pytest_nixproc.values.masking import MASK, Secrets


class Instance:
    """A process instance of a model: ``pkg``, and free attributes that tests and other instances read.

    Attributes called ``port``, or ending in ``_port`` or ``Port``, are the TCP ports that the instance declares;
    ``ports`` may map names to more of them. Those called ``udp_port``, or ending in ``_udp_port``, and ``udp_ports``
    are UDP. ``bind_address`` says on which address (see ``ADDRESSES``). ``ready`` says when the instance can be used
    (see ``ready``); ``requires_unique_ids_for`` names the pools from which it wants ids. ``secrets`` names variables of
    the process's environment whose values are masked wherever people would read them.
    """

    pkg: ManagedProcess
    attributes: Mapping[str, Any]
    defined_at: Location | None

    def __init__(self, /, pkg: ManagedProcess, **attributes: Any) -> None:
        frozen = {snake_case(name): value for name, value in attributes.items()}
        vars(self).update(pkg=pkg, attributes=MappingProxyType(frozen), defined_at=call_site())

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
        return Secrets(self.secret_values).masked(f"Instance({self.pkg!r}{attributes})")

    @cached_property
    def secret_names(self) -> tuple[str, ...]:
        """The names of the variables whose values are secret."""
        named = self.attributes.get(SECRETS, ())
        names = (named,) if isinstance(named, str) else named
        is_list = isinstance(names, list | tuple | set | frozenset)
        return tuple(name for name in names if isinstance(name, str)) if is_list else ()

    @property
    def secret_values(self) -> frozenset[str]:
        """The values of these variables, and the texts of files that are secret."""
        pkg = self.pkg if isinstance(self.pkg, ManagedProcess) else ManagedProcess()
        variables = pkg.environment
        texts = (file.text for file in pkg.files if file.secret)
        return frozenset((*(variables[name] for name in self.secret_names if name in variables), *texts))

    @cached_property
    def declared_ports(self) -> Mapping[str, int]:
        """The TCP ports that the instance declares, by the attribute or the name that declares them."""
        return dict(self._ports("ports", lambda name: is_port_name(name) and not is_udp_name(name)))

    @cached_property
    def declared_udp_ports(self) -> Mapping[str, int]:
        """The UDP ports that the instance declares, by the attribute or the name that declares them."""
        return dict(self._ports("udp_ports", is_udp_name))

    def _ports(self, section: str, is_meant: Callable[[str], bool]) -> Iterator[tuple[str, int]]:
        for name, value in self.attributes.items():
            if is_meant(name) and is_number(value):
                yield name, value
        named = self.attributes.get(section)
        if isinstance(named, Mapping):
            yield from ((f"{section}.{name}", value) for name, value in named.items() if is_number(value))

    @cached_property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The ports that the instance declares, with their protocols and addresses."""
        tcp = [Endpoint.declared(name, port, "tcp", self._host(name)) for name, port in self.declared_ports.items()]
        udp = [Endpoint.declared(name, port, "udp", self._host(name)) for name, port in self.declared_udp_ports.items()]
        return (*tcp, *udp)

    def endpoints_of(self, port: int) -> tuple[Endpoint, ...]:
        """Return the TCP endpoints of one port: none if it is not declared, several if it is on several addresses."""
        return tuple(endpoint for endpoint in self.endpoints if (endpoint.protocol, endpoint.port) == ("tcp", port))

    @property
    def main_endpoint(self) -> Endpoint | None:
        """The endpoint of its ``port``, or of the only TCP port it declares; None where there is no such one."""
        found = {endpoint.value_path: endpoint for endpoint in self.endpoints if endpoint.protocol == "tcp"}
        return found.get("port") or (next(iter(found.values())) if len(found) == 1 else None)

    def _host(self, port: str) -> str:
        """Return what is said about the address that a port is bound to: one of its own, or that of all ports."""
        own = port.removesuffix("port")
        names = (*(f"{own}{name}" for name in ADDRESSES), *ADDRESSES)
        said = (value for name in names if isinstance(value := self.attributes.get(name), str))
        return next(said, "")

    def faults(self) -> list[Fault]:
        """Return the faults of the instance, with paths relative to it."""
        secret = {f"environment.{name}" for name in self.secret_names}
        return [without_value(fault) if fault.path in secret else fault for fault in self._faults()]

    def _faults(self) -> list[Fault]:
        pkg: object = self.pkg
        if not isinstance(pkg, ManagedProcess):
            return [Fault("pkg", f"is {pkg!r}, which is no managed process", "use create_managed_process()")]
        problem = "is {!r}, which is no {} port"
        for section in SECTIONS:
            named: object = self.attributes.get(section, {})
            if not isinstance(named, Mapping):
                remedy = f"call a single one {section.removesuffix('s')!r}"
                return [
                    *self.pkg.faults,
                    *self._faults_of_meanings(),
                    Fault(section, f"is {named!r}, which is no mapping of names to ports", remedy),
                ]
        return [*self.pkg.faults, *self._faults_of_meanings()] + [
            Fault(name, problem.format(value, "UDP" if is_udp_name(name) else "TCP"), "use a number from 1 to 65535")
            for name, value in (*self.attributes.items(), *self.named_ports().items())
            if is_port_name(name) and not (is_number(value) and 1 <= value <= 65535)
        ]

    def _faults_of_meanings(self) -> Iterator[Fault]:
        """Yield the faults of attributes that mean something here and are no ports."""
        may_end = self.attributes.get("may_end", False)
        if not isinstance(may_end, bool):
            yield Fault("may_end", f"is {may_end!r}, which is no truth value", "use True or False")
        for name in LIMITS:
            seconds = self.attributes.get(name, 1)
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
                yield Fault(name, f"is {seconds!r}, which is no time limit", "use a number of seconds")
        yield from self._faults_of_secrets()

    def _faults_of_secrets(self) -> Iterator[Fault]:
        """Yield a fault for each secret that would be shown, because it is no variable of the process."""
        named, variables = self.attributes.get(SECRETS, ()), self.pkg.environment
        if not isinstance(named, str | list | tuple | set | frozenset):
            yield Fault(SECRETS, f"is {named!r}, which is not a list", "name variables of the environment in a list")
            return
        # Those that cannot be read have faults of their own.
        known = {*variables, *(fault.path.removeprefix("environment.") for fault in self.pkg.faults)}
        for name in (named,) if isinstance(named, str) else named:
            if name not in known:
                remedy = did_you_mean(str(name), variables) or "name a key of its process's environment"
                yield Fault(SECRETS, f"holds {name!r}, which is no variable of its process", remedy)

    def named_ports(self) -> Mapping[str, Any]:
        """Return the entries of ``ports`` and ``udp_ports``, by the paths that faults give for them."""
        sections = {section: self.attributes.get(section, {}) for section in SECTIONS}
        return {
            f"{section}.{camel_case(str(name))}": value
            for section, named in sections.items()
            if isinstance(named, Mapping)
            for name, value in named.items()
        }


SECTIONS: Final = ("ports", "udp_ports")
LIMITS: Final = ("start_timeout", "stop_timeout")
SECRETS: Final = "secrets"


def without_value(fault: Fault) -> Fault:
    """Return a fault without the value that it is about."""
    return replace(fault, problem=re.sub(r"\Ais .*(?=, which )", f"is {MASK}", fault.problem, flags=re.DOTALL))


def is_number(value: object) -> bool:
    """Tell whether ``value`` is a whole number; booleans do not count."""
    return isinstance(value, int) and not isinstance(value, bool)
