"""The arguments of ``docker create``, as lines of a file and as keywords of the Docker SDK.

The names are those of docs.docker.com/reference/cli/docker/container/create.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, Final

from pytest_nixproc.errors import NixprocError
from pytest_nixproc.managers.overriding import known_names
from pytest_nixproc.values.value import Value

Values = Sequence[str]


class CreateOption(Value):
    """One option of ``docker create``, and its translation for the Docker SDK."""

    keyword: str
    """The SDK's keyword for it."""

    read: Callable[[Values], Any]
    """Makes the keyword's value of all values given."""

    repeats: bool = False
    """Whether all values given count; else the last one does."""

    is_switch: bool = False
    """Whether it needs no value."""


def last(values: Values) -> str:
    """Read an option of which the last value counts."""
    return values[-1]


def number(values: Values) -> int:
    """Read a whole number."""
    return int(values[-1])


def mapping(separator: str, values: Values, *, may_be_bare: bool = False) -> dict[str, str]:
    """Read entries like ``NAME=VALUE``; only some may be a name alone."""
    if broken := [value for value in values if separator not in value and not may_be_bare]:
        raise ValueError(f"{broken[0]} is not NAME{separator}VALUE")
    return {entry.partition(separator)[0]: entry.partition(separator)[2] for entry in values}


def size(values: Values) -> int:
    """Read a number of bytes, with a unit if need be."""
    from docker.utils import parse_bytes

    return int(parse_bytes(values[-1]))


def ports(values: Values) -> Mapping[str, Any]:
    """Read published ports: ``[[ADDRESS:]PORT:]CONTAINER_PORT[/PROTOCOL]``."""
    from docker.utils.ports import build_port_bindings

    bindings: Mapping[str, Any] = build_port_bindings(list(values))
    return bindings


def ulimits(values: Values) -> list[Any]:
    """Read limits: ``NAME=SOFT[:HARD]``."""
    from docker.types import Ulimit

    limits = []
    for value in values:
        name, _, limit = value.partition("=")
        soft, _, hard = limit.partition(":")
        limits.append(Ulimit(name=name, soft=int(soft), hard=int(hard or soft)))
    return limits


def volumes(values: Values) -> dict[str, dict[str, str]]:
    """Read volumes: ``SOURCE:TARGET[:MODE]``. Not left to the SDK, which takes some modes for a part of the target."""
    found: dict[str, dict[str, str]] = {}
    for value in values:
        source, _, rest = value.partition(":")
        target, _, mode = rest.partition(":")
        if not target or source in found:
            raise ValueError(f"{source} is given twice: use mount" if target else "it is not SOURCE:TARGET[:MODE]")
        found[source] = {"bind": target, "mode": mode or "rw"}
    return found


PROPERTIES_OF_MOUNTS: Final = ("type", "source", "target", "readonly")
SPELLINGS_OF_MOUNTS: Final = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}


def mounts(values: Values) -> list[Any]:
    """Read mounts: comma-separated ``NAME=VALUE``, quoted like CSV."""
    from docker.types import Mount

    found = []
    for entries in map(properties_of_mount, values):
        kind: Any = entries.get("type", "volume")
        is_read_only = on([entries.get("readonly", "false")])
        found.append(Mount(entries["target"], entries.get("source", ""), type=kind, read_only=is_read_only))
    return found


def properties_of_mount(value: str) -> dict[str, str]:
    """Return the properties of one mount by their full names."""
    given = dict(entry.partition("=")[::2] for entry in next(csv.reader([value])))
    entries = {SPELLINGS_OF_MOUNTS.get(name, name): text for name, text in given.items()}
    if unknown := entries.keys() - set(PROPERTIES_OF_MOUNTS):
        raise ValueError(f"{min(unknown)} cannot be set; known are {', '.join(PROPERTIES_OF_MOUNTS)}")
    if not entries.get("target"):
        raise ValueError("it has no target")
    return entries


def restart_policy(values: Values) -> dict[str, Any]:
    """Read when to restart: ``NAME[:ATTEMPTS]``."""
    name, _, attempts = values[-1].partition(":")
    return {"Name": name, "MaximumRetryCount": int(attempts or 0)}


SWITCH: Final = {"": True, "1": True, "t": True, "true": True, "0": False, "f": False, "false": False}


def on(values: Values) -> bool:
    """Read a switch, which may say that it is off."""
    if values[-1].lower() not in SWITCH:
        raise ValueError("it is neither true nor false")
    return SWITCH[values[-1].lower()]


def host(values: Values) -> str:
    """Read a namespace for which the SDK accepts ``host`` alone."""
    if values[-1] != "host":
        raise ValueError("only host can be set")
    return "host"


def alike(read: Callable[[Values], Any], *names: str, **properties: bool) -> dict[str, CreateOption]:
    """Return options whose keywords are their names."""
    return {name: CreateOption(name.replace("-", "_"), read, **properties) for name in names}


OPTIONS: Final[Mapping[str, CreateOption]] = {
    **alike(last, "cgroup-parent", "cgroupns", "cpuset-cpus", "cpuset-mems", "domainname", "entrypoint", "hostname"),
    **alike(last, "mac-address", "platform", "runtime", "stop-signal", "user"),
    **alike(number, "blkio-weight", "cpu-period", "cpu-quota", "cpu-shares", "oom-score-adj", "pids-limit"),
    **alike(size, "shm-size"),
    **alike(
        list, "cap-add", "cap-drop", "dns", "dns-search", "group-add", "security-opt", "volumes-from", repeats=True
    ),
    **alike(partial(mapping, "="), "storage-opt", repeats=True),
    **alike(partial(mapping, ":", may_be_bare=True), "tmpfs", repeats=True),
    **alike(on, "init", "oom-kill-disable", "privileged", "read-only", "tty", is_switch=True),
    "add-host": CreateOption("extra_hosts", partial(mapping, ":"), repeats=True),
    "cpus": CreateOption("nano_cpus", lambda values: int(Decimal(values[-1]) * 10**9)),
    "device": CreateOption("devices", list, repeats=True),
    "device-cgroup-rule": CreateOption("device_cgroup_rules", list, repeats=True),
    "dns-option": CreateOption("dns_opt", list, repeats=True),
    "env": CreateOption("environment", list, repeats=True),
    "ipc": CreateOption("ipc_mode", last),
    "label": CreateOption("labels", partial(mapping, "=", may_be_bare=True), repeats=True),
    "memory": CreateOption("mem_limit", size),
    "memory-reservation": CreateOption("mem_reservation", size),
    "memory-swap": CreateOption("memswap_limit", size),
    "memory-swappiness": CreateOption("mem_swappiness", number),
    "mount": CreateOption("mounts", mounts, repeats=True),
    "network": CreateOption("network_mode", last),
    "pid": CreateOption("pid_mode", last),
    "publish": CreateOption("ports", ports, repeats=True),
    "publish-all": CreateOption("publish_all_ports", on, is_switch=True),
    "restart": CreateOption("restart_policy", restart_policy),
    "sysctl": CreateOption("sysctls", partial(mapping, "="), repeats=True),
    "ulimit": CreateOption("ulimits", ulimits, repeats=True),
    "userns": CreateOption("userns_mode", host),
    "uts": CreateOption("uts_mode", host),
    "volume": CreateOption("volumes", volumes, repeats=True),
    "workdir": CreateOption("working_dir", last),
}

SHORT: Final[Mapping[str, str]] = {
    "c": "cpu-shares",
    "e": "env",
    "h": "hostname",
    "l": "label",
    "m": "memory",
    "net": "network",
    "P": "publish-all",
    "p": "publish",
    "t": "tty",
    "u": "user",
    "v": "volume",
    "w": "workdir",
}


class NoArgument(NixprocError):
    """The error about a parameter that is no argument of ``docker create``, or none that we can pass on."""


def full_name(name: str) -> str:
    """Return the option that a name means, in any of its spellings; raises :class:`NoArgument`."""
    dashed = name.lstrip("-").replace("_", "-")
    option = SHORT.get(dashed, dashed)
    if option not in OPTIONS:
        raise NoArgument(f"{name!r} is no option of docker create that can be set", remedy=known_names(dashed, OPTIONS))
    return option


def arguments(parameters: Iterable[tuple[str, object]]) -> list[str]:
    """Return parameters as arguments; raises :class:`NoArgument` for values that a line of a file cannot hold."""
    words = [word for name, value in parameters for word in argument(full_name(name), value)]
    if broken := [word for word in words if "\n" in word]:
        raise NoArgument(f"{broken[0]!r} cannot be an argument of docker create: it has more than one line")
    return words


def argument(name: str, value: object) -> Iterator[str]:
    """Yield the words of one option; a list stands for the option given again and again."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from argument(name, item)
    elif OPTIONS[name].is_switch:
        is_on = value is None or read(name, [str(value)])
        yield f"--{name}" if is_on else f"--{name}=false"
    elif isinstance(value, bool) or not isinstance(value, str | int | float | os.PathLike):
        raise NoArgument(f"--{name} {value}: it is neither a string, a number nor a path")
    else:
        yield from (f"--{name}", str(value))


def keywords(words: Sequence[str]) -> dict[str, Any]:
    """Return arguments as the SDK's keywords; raises :class:`NoArgument` for a value that cannot be read."""
    values: dict[str, list[str]] = {}
    waiting = iter(words)
    for word in waiting:
        spelled, _, text = word.partition("=")
        name = full_name(spelled)
        is_switch = OPTIONS[name].is_switch
        values.setdefault(name, []).append(text if is_switch else next(waiting, ""))
    return {OPTIONS[name].keyword: read(name, given) for name, given in values.items()}


def mounted(found: Mapping[str, Any]) -> set[str]:
    """Return the places that keywords mount something on."""
    volumes = {volume["bind"] for volume in found.get("volumes", {}).values()}
    return {*volumes, *(mount["Target"] for mount in found.get("mounts", ())), *found.get("tmpfs", ())}


def read(name: str, values: Values) -> Any:
    """Return the value of an option's keyword, made of all values of the option."""
    from docker.errors import DockerException

    try:
        return OPTIONS[name].read(values)
    except (ArithmeticError, csv.Error, DockerException, TypeError, ValueError) as error:
        raise NoArgument(f"--{name} {' '.join(values)}: {error}") from error
