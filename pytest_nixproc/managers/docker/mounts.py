"""Mounts of the machine's software, which containers see read-only."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.docker import arguments
from pytest_nixproc.managers.docker.container import ContainerSpec


class SoftwareMounts:
    """The mounts of the software that programs need, found once for all programs with the same needs."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._places: dict[tuple[str, ...], tuple[str, ...]] = {}

    def of_container(self, container: ContainerSpec) -> list[Any]:
        """Return the mounts of a container, except for places on which the model mounts something else."""
        taken = arguments.mounted(container.keywords)
        # The engine puts its init there, and we would hide it; what is in /sbin is in /usr/sbin too, or is not needed.
        taken |= {"/sbin"} if container.keywords.get("init") else set()
        return self.of_programs(container.paths, taken) if container.paths else []

    def of_programs(self, paths: tuple[str, ...], taken: Collection[str] = ()) -> list[Any]:
        """Return the mounts of programs and the files that they need, except for places that are taken."""
        from docker.types import Mount

        if paths not in self._places:
            self._places[paths] = self.machine.files.software(paths)
        places = [place for place in self._places[paths] if place not in taken]
        return [Mount(target=place, source=place, type="bind", read_only=True) for place in places]
