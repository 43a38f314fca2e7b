"""Rules about the resources that the instances of a model claim, before anything is started."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from functools import cache
from typing import Final

from pytest_nixproc.checks.api import Rule, RuleInput, origin_of
from pytest_nixproc.checks.claims import ENVIRONMENT, ResourceClaim, by_resource
from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.model.endpoint import Endpoint
from pytest_nixproc.model.recognition import LOCAL_ADDRESS, STATE_ROOTS
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.findings import Finding, Origin, Severity

PROJECT_DEPTH: Final = 3
"""How deep the directories are of which a project has one for itself: ``/var/lib/ci``, and not ``/var/lib``."""

SOCKET_PATH_BYTES: Final = 107  # unix(7): sun_path has 108 bytes with the NUL; 104 on BSD and macOS
PORTABLE_SOCKET_PATH_BYTES: Final = 103


def contested(claims: Iterable[ResourceClaim]) -> Iterator[list[ResourceClaim]]:
    """Yield the claims on each resource that more than one instance claims."""
    for claimants in by_resource(claims).values():
        if len(claimants) > 1 and len({claim.instance for claim in claimants}) > 1:
            yield claimants


def instances_of(claims: Iterable[ResourceClaim]) -> tuple[str, ...]:
    """Return the instances that make some claims, each once."""
    return tuple(dict.fromkeys(claim.instance for claim in claims))


def origins_of(model: ProcessesModel, claims: Iterable[ResourceClaim]) -> tuple[Origin, ...]:
    """Return the origins of claims: the values that make them."""
    return tuple(origin_of(model, claim.instance, claim.value_path, claim.value) for claim in claims)


def conflict(
    given: RuleInput, code: str, problem: str, claims: list[ResourceClaim], remedy: str, resource: str
) -> Finding:
    """Return the finding for a resource that several instances claim."""
    instances, origins = instances_of(claims), origins_of(given.model, claims)
    return Finding(code, "error", f"{' and '.join(instances)} {problem}", instances, origins, remedy, resource)


def without_clients(model: ProcessesModel, claims: list[ResourceClaim]) -> list[ResourceClaim]:
    """Return claims without those of clients, which depend on the owner of a resource and are passed its value."""
    owners = {claim.instance for claim in claims if not claim.is_passed}
    return [
        claim for claim in claims if not claim.is_passed or not any(model.needs(claim.instance, it) for it in owners)
    ]


def duplicate_ports(given: RuleInput) -> Iterator[Finding]:
    """Find ports that two instances declare for one protocol and address; without an address, all are meant."""
    by_port: dict[tuple[str, int], list[tuple[str, Endpoint]]] = defaultdict(list)
    for name, endpoint in given.inventory.endpoints:
        by_port[endpoint.protocol, endpoint.port].append((name, endpoint))
    for (protocol, port), found in by_port.items():
        for claims in overlapping(found) if len(found) > 1 else ():
            problem = f"declare the same {protocol.upper()} port {port}"
            remedy = "give each instance its own port"
            yield conflict(given, "NP101", problem, claims, remedy, f"{protocol} port {port}")


def overlapping(found: Iterable[tuple[str, Endpoint]]) -> Iterator[list[ResourceClaim]]:
    """Yield conflicting endpoints of one port: those bound to the same address, and those bound to all addresses."""
    by_address: dict[str, list[ResourceClaim]] = defaultdict(list)
    for name, endpoint in found:
        by_address[endpoint.address].append(ResourceClaim(name, endpoint.value_path, endpoint.port, endpoint.port))
    everywhere = by_address.pop("", [])
    groups = [[*everywhere, *claims] for claims in by_address.values()] or [everywhere]
    yield from (claims for claims in groups if len(instances_of(claims)) > 1)


def duplicate_pid_files(given: RuleInput) -> Iterator[Finding]:
    """Find PID files that two instances, or their managers, would write."""
    for claims in contested(given.inventory.pid_files):
        path, remedy = claims[0].resource, "give each instance its own instance_name or pid_file"
        yield conflict(given, "NP102", f"have the same PID file {path}", claims, remedy, path)


def duplicate_log_files(given: RuleInput) -> Iterator[Finding]:
    """Find log files that two instances, or their managers, would write."""
    for claims in contested(given.inventory.log_files):
        path, remedy = claims[0].resource, "give each its own instance_name"
        yield conflict(given, "NP103", f"have the same log file {path}", claims, remedy, path)


def duplicate_state_paths(given: RuleInput) -> Iterator[Finding]:
    """Find state that two instances claim for themselves: sockets, data directories, homes that are to be created."""
    for claimants in contested(given.inventory.paths):
        claims = without_clients(given.model, claimants)
        if len(instances_of(claims)) > 1:
            path, remedy = claims[0].resource, "derive the path from the instance's name"
            yield conflict(given, "NP104", f"claim the same path {path}", claims, remedy, path)
    for claims in contested(given.inventory.files):
        path, owners = claims[0].resource, instances_of(claims)
        if len({file for name in owners for file in given.model[name].pkg.files if file.path == path}) > 1:
            problem = f"describe different files at {path}"
            yield conflict(given, "NP104", problem, claims, "derive the path from the instance's name", path)


def duplicate_names(given: RuleInput) -> Iterator[Finding]:
    """Find processes whose configurations would have the same name; case does not count (macOS, Windows)."""
    claims = [
        ResourceClaim(name, "pkg.name", instance.pkg.name, instance.pkg.name.casefold())
        for name, instance in given.model.items()
    ]
    for claimants in contested(claims):
        value, remedy = claimants[0].value, "pass a suffix on to the second one's name"
        yield conflict(given, "NP105", f"have the same name {value!r}", claimants, remedy, f"name {value}")


def paths_outside_state(given: RuleInput) -> Iterator[Finding]:
    """Find PID files outside the state directories, which a test must not write."""
    for claim in given.inventory.pid_files:
        if not claim.is_passed and not given.target.state.contains(claim.resource):
            path = given.model[claim.instance].pkg.pid_file_at(given.target)
            origin = origin_of(given.model, claim.instance, "pkg.pid_file", path)
            remedy = "build it from state.runtime_dir or state.tmp_dir"
            problem = f"{claim.instance} has its PID file outside the state"
            yield Finding("NP107", "error", problem, (claim.instance,), (origin,), remedy, claim.resource)


def mentions_outside_state(given: RuleInput) -> Iterator[Finding]:
    """Find values that look like state kept outside the state directories."""
    for name, value_path, option, value in given.inventory.passed_values:
        if not value.startswith(STATE_ROOTS) or given.target.state.contains(path := os.path.normpath(value)):
            continue
        # Programs often lie below /tmp themselves, and are words without an option.
        is_word = not option and not value_path.startswith(ENVIRONMENT)
        origin, remedy = origin_of(given.model, name, value_path, value), "build it from the state directories"
        if is_word and value.startswith("/tmp/"):  # noqa: S108 - it is only compared
            continue
        file = origin.location.file if origin.location else ""
        if is_of_a_project(path, (os.path.dirname(file), given.target.facts.package_root)):
            continue
        problem = f"{name} mentions a path outside the state"
        yield Finding("NP108", "warning", problem, (name,), (origin,), remedy, path)


def is_of_a_project(path: str, places: Iterable[str]) -> bool:
    """Tell whether a path belongs to a project with a file in one of some places, which may lie where state is kept."""
    known = filter(os.path.isabs, places)
    return any(os.path.commonpath([path, place]).count("/") >= PROJECT_DEPTH for place in known)


def passed_ports(given: RuleInput) -> Iterator[Finding]:
    """Find ports that are passed to a program to listen on, and that another instance has."""
    declared: dict[int, list[ResourceClaim]] = defaultdict(list)
    for name, endpoint in given.inventory.endpoints:
        declared[endpoint.port].append(ResourceClaim(name, endpoint.value_path, endpoint.port, endpoint.port))
    for port, told in by_resource(given.inventory.ports).items():
        owners = declared.get(port, [])
        names = {claim.instance for claim in owners}
        strangers = [claim for claim in without_clients(given.model, [*owners, *told]) if claim.instance not in names]
        claims = [*owners, *strangers]
        if strangers and len(instances_of(claims)) > 1:
            problem = f"are both told or declare to listen on port {port}"
            remedy = "pass the instance's own port on to its program"
            yield conflict(given, "NP111", problem, claims, remedy, f"port {port}")


def long_socket_paths(given: RuleInput) -> Iterator[Finding]:
    """Find Unix sockets whose paths are longer than a socket address can hold (unix(7))."""
    for claim in given.inventory.sockets:
        length = len(os.fsencode(claim.resource))
        if length > PORTABLE_SOCKET_PATH_BYTES:
            is_too_long = length > SOCKET_PATH_BYTES
            limit = SOCKET_PATH_BYTES if is_too_long else PORTABLE_SOCKET_PATH_BYTES
            where = "" if is_too_long else " of macOS and BSD"
            problem = f"{claim.instance} has a socket whose path has {length} bytes, more than the {limit}{where}"
            origins = origins_of(given.model, [claim])
            remedy = "choose a shorter name, or a shorter --nixproc-state-root"
            severity: Severity = "error" if is_too_long else "warning"
            yield Finding("NP112", severity, problem, (claim.instance,), origins, remedy, claim.resource)


def nested_paths(given: RuleInput) -> Iterator[Finding]:
    """Find paths of one instance inside a directory that another instance claims for itself."""
    inventory = given.inventory
    owners = by_resource(claim for claim in inventory.paths if claim.resource in inventory.directories)
    claimed_from = ways_up(owners)
    explicit = (
        claim for claim in (*inventory.pid_files, *inventory.log_files) if claim.value_path != "pkg.instance_name"
    )
    for claim in (*inventory.paths, *inventory.files, *explicit):
        for parent in claimed_from(claim.resource[: claim.resource.rfind("/")]):
            outer = [other for other in owners[parent] if other.instance != claim.instance]
            claims = without_clients(given.model, [*outer, claim])
            if outer and claim in claims:
                problem = f"claim {parent} and {claim.resource}, which lies in it"
                yield conflict(given, "NP113", problem, claims, "give each instance a directory of its own", parent)
                break


def ways_up(owners: Container[str]) -> Callable[[str], list[str]]:
    """Return a function that finds the claimed directories at or above a path, the nearest first.

    It remembers them: most paths of a model lie in few directories.
    """

    @cache
    def claimed_from(directory: str) -> list[str]:
        found = []
        while directory:
            if directory in owners:
                found.append(directory)
            directory = directory[: directory.rfind("/")]
        return found

    return claimed_from


def missing_dependencies(given: RuleInput) -> Iterator[Finding]:
    """Find instances that get the address or socket of another one, and do not depend on it."""
    ports = {endpoint.port: name for name, endpoint in given.inventory.endpoints}
    sockets = {claim.resource: claim.instance for claim in given.inventory.sockets if not claim.is_passed}
    found: dict[tuple[str, str], Origin] = {}
    for name, value_path, _, value in given.inventory.passed_values:
        for other in spoken_of(value, ports, sockets):
            # Nobody can depend on who needs it: that would be a cycle.
            if other != name and not given.model.needs(name, other) and not given.model.needs(other, name):
                origin = origin_of(given.model, name, value_path, value)
                found.setdefault((name, other), origin)
    for (name, other), origin in found.items():
        problem = f"{name} is told where {other} listens, and does not depend on it"
        yield Finding("NP118", "warning", problem, (name, other), (origin,), f"add {other} to its dependencies")


def spoken_of(value: str, ports: Mapping[int, str], sockets: Mapping[str, str]) -> Iterator[str]:
    """Yield the instances that a value refers to, by the path of a socket or a local address with a port."""
    if value in sockets:
        yield sockets[value]
    elif ":" in value:
        found = (ports.get(int(port)) for port in LOCAL_ADDRESS.findall(value))
        yield from (name for name in found if name is not None)


@hookimpl
def nixproc_checks() -> list[Rule]:
    """Return the rules about claims, for the registry."""
    return RULES


RULES: Final = [
    Rule(
        "NP101",
        "no two instances declare the same port",
        static=duplicate_ports,
        explanation="It compares the ports that instances declare: `port`, attributes that end in `_port`, the entries"
        " of `ports`, and for UDP `udp_port`, `_udp_port`, `udp_ports`. One number may be used for TCP and for UDP,"
        " and on different addresses; an instance without `bind_address` (or `bind_ip`, `listen_address`,"
        " `listen_host`, `address`) is taken to listen on all of them.",
    ),
    Rule(
        "NP102",
        "no two instances have the same PID file",
        static=duplicate_pid_files,
        explanation="When two programs write one PID file, the manager stops the wrong one. The rule compares the"
        " files that managers use (`pid_file`, or the path that follows from `instance_name`), and those that programs"
        " are told by variables and options whose names end in `PID_FILE` or `pid-file`.",
    ),
    Rule(
        "NP103",
        "no two instances have the same log file",
        static=duplicate_log_files,
        explanation="Two writers garble a log, and rotating it for one takes it away from the other. The rule compares"
        " the files that managers keep (they follow from `instance_name`) and those that programs are told:"
        " `LOG_FILE`, `--log-file`, `--error-log`, `--access-log`.",
    ),
    Rule(
        "NP104",
        "no two instances claim the same socket, data directory or home",
        static=duplicate_state_paths,
        explanation="Claims are attributes, variables and options whose names say so: `socket`, `data_dir`, `PGDATA`,"
        " `--dbpath`, `--cache-dir`; and home directories that are to be created. The state directories themselves may"
        " be shared, except as a data directory. A variable such as `DB_SOCKET` is a client's and claims nothing, and"
        " neither does a value of an instance that is depended on. Files that a model describes may be the same for"
        " several instances, and not different ones at one path.",
    ),
    Rule(
        "NP105",
        "no two processes have the same name",
        static=duplicate_names,
        explanation="The name is that of a script, program section, unit or container. Case does not count: some file"
        " systems and managers ignore it.",
    ),
    Rule(
        "NP107",
        "PID files lie in the state directories",
        static=paths_outside_state,
        explanation="A fixed path is the same for every deployment, so two runs of the same tests conflict,"
        " and the file outlives the test.",
    ),
    Rule(
        "NP108",
        "arguments and environment name no state elsewhere",
        static=mentions_outside_state,
        severity="warning",
        explanation="Values that begin with `/var/`, `/run/`, `/tmp/` or `/dev/shm/` look like something that a"
        " program writes. It is a warning, because a program may only read there. Arguments without an option's name"
        " may lie below `/tmp`: they are often the program itself. What lies in the project of the file that names it,"
        " or beside this package, is not meant, wherever they lie.",
    ),
    Rule(
        "NP111",
        "no program is told to listen on another instance's port",
        static=passed_ports,
        explanation="The typical fault of a constructor that ignores its `port`: the instances declare different"
        " ports, and the programs are all told the same one. The rule checks `PORT`, `LISTEN_PORT` and `BIND_PORT` and"
        " the options of these names. An instance that depends on the owner of the port is taken for its client.",
    ),
    Rule(
        "NP112",
        "paths of Unix sockets are short enough",
        static=long_socket_paths,
        explanation="An address holds 107 bytes on Linux and 103 on macOS and BSD (unix(7), unix(4)). A path that is"
        " longer than both is an error, one between them a warning.",
    ),
    Rule(
        "NP113",
        "no instance keeps state inside another's directory",
        static=nested_paths,
        explanation="A program that has a directory for itself may empty it, back it up, or refuse to start when it"
        " finds something unknown in it.",
    ),
    Rule(
        "NP118",
        "an instance that is told where another listens depends on it",
        static=missing_dependencies,
        severity="warning",
        explanation="Without the dependency the two are started side by side, and chance decides which is ready first."
        " The rule recognises local addresses with a port that another instance declares, and the paths of sockets.",
    ),
]
