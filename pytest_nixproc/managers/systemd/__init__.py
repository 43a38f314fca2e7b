"""systemd: one service per instance, driven through systemctl.

The units are run by the systemd of a machine made for them, by that of the calling user's session, or by one that is
started for the deployment alone. None is ever written where systemd would find it after a reboot.
"""

from __future__ import annotations

from typing import Final

from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.managers.api import Capabilities, Manager
from pytest_nixproc.managers.systemd.availability import unavailable_reason
from pytest_nixproc.managers.systemd.driver import SystemdDriver
from pytest_nixproc.managers.systemd.generator import SystemdGenerator

CAPABILITIES: Final = Capabilities(
    prefers="foreground",
    platforms=("linux",),
    dysnomia_module="systemd-unit",
    contains=True,
    example_override={"Service": {"Restart": "always"}},
    note="under the systemd of the session, or one of the deployment's own; programs are not restarted unless "
    "overrides say so (Service.Restart)",
)


MANAGER: Final = Manager("systemd", SystemdGenerator, SystemdDriver, CAPABILITIES, unavailable_reason)


@hookimpl
def nixproc_managers() -> list[Manager]:
    """Return the manager of this module, for the registry."""
    return [MANAGER]
