"""s6-rc: a supervision tree per deployment, with a service database compiled from its definitions.

The tree runs below the machine's guardian, and keeps scan directory, database and live state in the deployment's
``runtime_dir``. The sources of all rules are the pages of skarnet.org on s6, s6-rc and execline, named where used.
"""

from __future__ import annotations

from typing import Final

from pytest_nixproc.hooks import hookimpl
from pytest_nixproc.managers.api import Capabilities, Manager
from pytest_nixproc.managers.s6_rc.driver import S6RcDriver
from pytest_nixproc.managers.s6_rc.generator import S6RcGenerator
from pytest_nixproc.managers.s6_rc.tools import unavailable_reason

CAPABILITIES: Final = Capabilities(
    prefers="foreground",
    platforms=("linux",),
    dysnomia_module="s6-rc-service",
    example_override={"notification_fd": 3},
    note="each deployment has its own s6-svscan; programs are not restarted unless overrides say so (finish); daemons "
    "run behind a foreground proxy",
)


MANAGER: Final = Manager("s6-rc", S6RcGenerator, S6RcDriver, CAPABILITIES, unavailable_reason)


@hookimpl
def nixproc_managers() -> list[Manager]:
    """Return the manager of this module, for the registry."""
    return [MANAGER]
