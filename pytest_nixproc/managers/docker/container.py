"""A container, as its generated files describe it, and the meaning of the engine's facts about one."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Mapping
from typing import Any, Final

from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.docker import arguments
from pytest_nixproc.managers.docker.generator import container_name, file_name
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Unit
from pytest_nixproc.values.value import Value

SIGNALLED: Final = 128
"""The number that is added to a signal's number in an exit status (POSIX.1 XCU 2.8.2)."""


class ContainerSpec(Value):
    """One container as its generated files describe it."""

    name: str
    """Its name in the engine."""

    image: str
    """The directory or archive that its image is made of; empty where the engine has the image."""

    tag: str
    """The name of its image in the engine."""

    command: tuple[str, ...]
    """Its command line; empty for that of its image."""

    keywords: Mapping[str, Any]
    """The SDK's keywords for its creation."""

    paths: tuple[str, ...]
    """The machine's software that it needs."""

    ports: tuple[int, ...]
    """The TCP ports that its instance declares."""

    stop_seconds: int
    """Seconds after which the engine kills it at a stop."""

    is_conventional: bool
    """Whether its image is the user's, and brings its own software."""

    @property
    def shares_network(self) -> bool:
        """Tell whether it uses the network of the engine's host."""
        return bool(self.keywords.get("network_mode") == "host")


def read_container(machine: Machine, target: Target, unit: Unit) -> ContainerSpec:
    """Read a container's files."""

    def text(suffix: str) -> str:
        return os.fsdecode(machine.files.read(f"{target.directory}/{file_name(unit.name)}-{suffix}") or b"")

    found = dict(entry.partition("=")[::2] for entry in shlex.split(text("docker-settings")))
    return ContainerSpec(
        name=container_name(target, unit.name),
        image=found.get("dockerImage", ""),
        tag=found.get("dockerImageTag", ""),
        command=tuple(shlex.split(text("docker-cmd"))),
        keywords=arguments.keywords(text("docker-createparams").split("\n")[:-1]),
        paths=tuple(shlex.split(text("storepaths"))),
        ports=tuple(map(int, found.get("dockerPorts", "").split())),
        stop_seconds=int(found.get("dockerStopTimeout") or 1),
        is_conventional=bool(found.get("dockerConventional")),
    )


def exit_status_of(state: Mapping[str, Any]) -> int:
    """Return an exit status; a container reports the end by a signal as shells do."""
    code = int(state["ExitCode"])
    return SIGNALLED - code if code - SIGNALLED in set(signal.Signals) else code


def is_up(state: Mapping[str, Any]) -> bool:
    """Tell whether a container has a first process: between two of its own starts, the engine says that it runs."""
    return bool(state["Running"] and not state["Restarting"])


def describe_end(facts: Mapping[str, Any]) -> str:
    """Return in words how a container ended, or why it did not start."""
    state = facts["State"]
    if state["OOMKilled"]:
        limit = facts["HostConfig"]["Memory"]
        return f"killed at its memory limit of {limit} bytes (OOM), status {state['ExitCode']}"
    return f"{state['Status']} with status {state['ExitCode']} {state['Error']}".strip()


def published(facts: Mapping[str, Any] | None) -> dict[int, int]:
    """Return the TCP ports of the machine that are published for a container, each with the container's port."""
    ports = (facts or {}).get("NetworkSettings", {}).get("Ports") or {}
    return {
        int(binding["HostPort"]): int(inner.partition("/")[0])
        for inner, bindings in ports.items()
        if inner.endswith("/tcp")
        for binding in bindings or ()
    }
