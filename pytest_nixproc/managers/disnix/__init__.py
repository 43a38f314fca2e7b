"""disnix: a component per instance, with the conventions of the module ``process`` of Dysnomia.

Dysnomia activates the components where it is installed; elsewhere the driver does what its module does. The models that
Disnix deploys a system from are generated too.
"""

from __future__ import annotations

from typing import Final

from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.managers.api import Capabilities, Manager
from pytest_nixproc.managers.disnix.driver import DisnixDriver
from pytest_nixproc.managers.disnix.generator import MODULE, DisnixGenerator

CAPABILITIES: Final = Capabilities(
    prefers="daemon",
    dysnomia_module=MODULE,
    example_override={"pid_file": "/run/other.pid"},
    note="activated by Dysnomia where it is installed, else as its module does; nothing has to be installed",
)


MANAGER: Final = Manager("disnix", DisnixGenerator, DisnixDriver, CAPABILITIES)


@hookimpl
def nixproc_managers() -> list[Manager]:
    """Return the manager of this module, for the registry."""
    return [MANAGER]
