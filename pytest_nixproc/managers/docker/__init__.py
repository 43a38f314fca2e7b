"""docker: one container per instance, on an engine that is there already, driven through its API.

The image is nearly empty; what runs is the machine's own software, mounted read-only. Network and state directory are
the host's, so instances are told apart by their parameters, as under every manager.
"""

from __future__ import annotations

from typing import Final

from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.api import Capabilities, Manager
from pytest_nixproc.managers.docker import engine, labels
from pytest_nixproc.managers.docker.driver import DockerDriver
from pytest_nixproc.managers.docker.generator import DockerGenerator

CAPABILITIES: Final = Capabilities(
    prefers="foreground",
    platforms=("linux",),
    dysnomia_module="docker-container",
    contains=True,
    example_override={"container": {"docker_stop_timeout": 30}},
    # What is mounted in a container is mounted anew.
    executes_files=False,
    note="containers share the host's network and see the state directory and the software they need; "
    "what else a program writes is lost",
)


def unavailable_reason(machine: type[Machine]) -> str:
    """Return why no engine can be used, or an empty text; containers run on the host, not on throwaway machines."""
    if machine.throwaway:
        return f"the engine's containers would not run on machine {machine.name}: use --nixproc-machine=host"
    return engine.unavailable_reason()


MANAGER: Final = Manager(
    "docker", DockerGenerator, DockerDriver, CAPABILITIES, unavailable_reason, belongings=labels.belongings
)


@hookimpl
def nixproc_managers() -> list[Manager]:
    """Return the manager of this module, for the registry."""
    return [MANAGER]
