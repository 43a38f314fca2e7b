"""The claims of a model's instances on ports, files, directories and sockets, found in one pass.

A claim is recognised by the name under which a value stands: an attribute ``data_dir``, a variable ``PID_FILE``, an
option ``--log-file``. Names that clients use for the resources of others, like ``DB_SOCKET``, are no claims.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

from pytest_nixproc.model.accounts import needed_accounts
from pytest_nixproc.model.endpoint import Endpoint
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import ManagedProcess
from pytest_nixproc.model.recognition import PID_PATH, Kind, is_for_one, kind_of
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.value import Value

PARAMETERS: Final = (
    "args",
    "foreground_process_args",
    "foreground_process_extra_args",
    "daemon_args",
    "daemon_extra_args",
)
ENVIRONMENT: Final = "pkg.environment."


LISTED: Final = re.compile("--?([A-Za-z][A-Za-z0-9_.-]*)(?:=(.*))?", re.DOTALL)


class PassedValue(NamedTuple):
    """A value that is passed to a program, as an argument or in its environment."""

    instance: str
    value_path: str
    """Path of the value, relative to the instance."""

    name: str
    """Name of the option or variable, in lower case with underscores; empty for an argument without an option."""

    value: str


class ResourceClaim(NamedTuple):
    """The use of a resource by an instance, with the value in the model that says so."""

    instance: str
    value_path: str
    """Path of the value, relative to the instance."""

    value: Any
    resource: Any
    """The resource that the value means, in the form by which claims are compared."""

    is_passed: bool = False
    """Whether the value stands in arguments or environment, which may also name resources of other instances."""


class ReferencedPidFile(NamedTuple):
    """A PID file whose path is passed to programs."""

    path: str
    claims: tuple[ResourceClaim, ...]
    """The values that name the file, each with its instance."""

    is_asked_for: bool
    """Whether an option asks for the file; else programs may do without it."""


def passed_values(instance: str, process: ManagedProcess) -> Iterator[PassedValue]:
    """Yield the arguments and environment variables of a process, each argument with the name of its option."""
    for parameter in PARAMETERS:
        if args := getattr(process, parameter):
            yield from arguments(instance, f"pkg.{parameter}", args)
    for name, value in process.environment.items():
        yield PassedValue(instance, f"{ENVIRONMENT}{name}", name.lower(), value)


def arguments(instance: str, value_path: str, args: Iterable[str]) -> Iterator[PassedValue]:
    """Yield the arguments of a command: ``--name=value``, ``--name value``, and values without a name."""
    name = ""
    for index, value in enumerate(args):
        option = LISTED.fullmatch(value) if value.startswith("-") else None
        if option is None:
            yield PassedValue(instance, f"{value_path}[{index}]", name, value)
            name = ""
            continue
        name = option[1].replace("-", "_").lower()
        if option[2] is not None:
            yield PassedValue(instance, f"{value_path}[{index}]", name, option[2])
            name = ""


@dataclass
class Inventory:
    """All claims of a model, by kind of resource, and all values that are passed to its programs."""

    endpoints: list[tuple[str, Endpoint]] = field(default_factory=list)
    pid_files: list[ResourceClaim] = field(default_factory=list)
    log_files: list[ResourceClaim] = field(default_factory=list)
    paths: list[ResourceClaim] = field(default_factory=list)
    """Sockets, directories and homes."""

    directories: set[str] = field(default_factory=set)
    """Those of the paths that are directories."""

    files: list[ResourceClaim] = field(default_factory=list)
    """Files that are written in the state before anything starts."""

    sockets: list[ResourceClaim] = field(default_factory=list)
    ports: list[ResourceClaim] = field(default_factory=list)
    """Ports that arguments and environment name for a program to listen on."""

    passed_values: list[PassedValue] = field(default_factory=list)

    @classmethod
    def of(cls, model: ProcessesModel, target: Target) -> Self:
        """Return the inventory of a model, found in one pass over its instances."""
        inventory = cls()
        shared = frozenset(target.state.all())
        for name, instance in model.items():
            inventory.add(name, instance, target, shared)
        return inventory

    def add(self, name: str, instance: Instance, target: Target, shared: frozenset[str]) -> None:
        """Add the claims of one instance; ``shared`` are the directories that all instances may use."""
        process = instance.pkg
        self.endpoints += [(name, endpoint) for endpoint in instance.endpoints]
        self.pid_files.append(path_claim(name, process, "pid_file", process.pid_file_at(target)))
        self.log_files.append(path_claim(name, process, "", process.log_file_at(target)))
        self.files += [ResourceClaim(name, "pkg.files", file.path, file.path) for file in process.files]
        for value_path, value in instance.attributes.items():
            if isinstance(value, str | os.PathLike):
                kind: Kind = "socket" if value_path.endswith("socket") else kind_of(value_path)
                self.claim(PassedValue(name, value_path, value_path, os.fspath(value)), kind, shared, is_passed=False)
        told = list(passed_values(name, process))
        self.passed_values += told
        for passed in told:
            if kind := kind_of(passed.name):
                self.claim(passed, kind, shared, is_passed=True)
        for user, account in process.credentials.users.items():
            if account.create_home_dir:
                home = PassedValue(name, f"pkg.credentials.users.{user}.home_dir", "data_dir", account.home_dir)
                self.claim(home, "directory", shared, is_passed=False)

    def referenced_pid_files(self) -> tuple[ReferencedPidFile, ...]:
        """Return the PID files that arguments and environment name, each with the instances that it belongs to.

        A file belongs to the instances whose options or variables have the name of a PID file, or to the one whose
        manager uses it. A path that only ends in ``.pid`` belongs to all instances that are passed it, unless another
        one claims it: then they are its clients.
        """
        decided = {claim.resource: claim.instance for claim in self.pid_files if not claim.is_passed}
        named = by_resource(claim for claim in self.pid_files if claim.is_passed)
        mentioned = by_resource(
            ResourceClaim(passed.instance, passed.value_path, passed.value, os.path.normpath(path), is_passed=True)
            for passed in self.passed_values
            if ".pid" in passed.value
            for path in PID_PATH.findall(passed.value)
        )
        found = {path: named.get(path) or mentioned[path] for path in {**named, **mentioned}}
        own = {path: [c for c in told if decided.get(path, c.instance) == c.instance] for path, told in found.items()}
        asked = {path for path, told in named.items() if any(not c.value_path.startswith(ENVIRONMENT) for c in told)}
        return tuple(ReferencedPidFile(path, tuple(told), path in asked) for path, told in own.items() if told)

    def claim(self, passed: PassedValue, kind: Kind, shared: frozenset[str], *, is_passed: bool) -> None:
        """Add the claim that one value makes, if it makes any."""
        instance, value_path, name, value = passed
        if kind == "port":
            if is_passed and value.isdecimal():
                self.ports.append(ResourceClaim(instance, value_path, value, int(value), is_passed))
            return
        if not kind or not value.startswith("/"):
            return
        claim = ResourceClaim(instance, value_path, value, os.path.normpath(value), is_passed)
        if kind == "pid file":
            self.pid_files.append(claim)
        elif kind == "log file":
            self.log_files.append(claim)
        elif kind == "socket":
            self.paths.append(claim)
            self.sockets.append(claim)
        elif claim.resource not in shared or is_for_one(name):
            self.paths.append(claim)
            self.directories.add(claim.resource)


def path_claim(instance: str, process: ManagedProcess, parameter: str, path: str) -> ResourceClaim:
    """Return the claim on a path that ``parameter`` sets, or that the process's name determines by default."""
    named = "instance_name" if process.instance_name else "name"
    decisive = parameter if parameter and getattr(process, parameter) else named
    return ResourceClaim(instance, f"pkg.{decisive}", getattr(process, decisive), os.path.normpath(path))


class OtherDeployment(Value):
    """The exclusive resources of another deployment on the same machine: its ports, paths, and ids of accounts."""

    name: str
    ports: Sequence[tuple[str, Endpoint]] = ()
    """Declared ports, each with its instance."""

    paths: Mapping[str, str] = field(default_factory=dict)
    """Claimed paths outside the state directories, each with its instance."""

    ids: Mapping[str, str] = field(default_factory=dict)
    """Ids that accounts get: ``uid 900`` for ``user www``."""

    @classmethod
    def of(cls, name: str, model: ProcessesModel, target: Target, inventory: Inventory) -> Self:
        """Return the resources of a model, as other deployments see them."""
        claims = (*inventory.pid_files, *inventory.log_files, *inventory.paths)
        paths = {claim.resource: claim.instance for claim in claims if not target.state.contains(claim.resource)}
        accounts = needed_accounts(model)
        ids = {
            f"user {user}": f"uid {account.uid}" for user, account in accounts.users.items() if account.uid is not None
        }
        ids |= {
            f"group {group}": f"gid {entry.gid}" for group, entry in accounts.groups.items() if entry.gid is not None
        }
        return cls(name, tuple(inventory.endpoints), paths, {} if target.force_disable_user_change else ids)


def by_resource(claims: Iterable[ResourceClaim]) -> Mapping[Any, list[ResourceClaim]]:
    """Return claims by the resource that they claim."""
    found: dict[Any, list[ResourceClaim]] = defaultdict(list)
    for claim in claims:
        found[claim.resource].append(claim)
    return found
