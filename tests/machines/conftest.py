"""Machines to try: this host, and throwaway ones where they can be had."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from pytest_nixproc._deployment.machines import boot_machine
from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc._planning.settings import Settings
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.machines.host import Host
from pytest_nixproc.machines.nspawn import Nspawn

REQUIRED = frozenset(os.environ.get("NIXPROC_REQUIRE", "").split(","))

Boot = Callable[..., AbstractContextManager[Machine]]


@pytest.fixture(scope="session")
def boot() -> Boot:
    """Return a function that boots a throwaway machine for the time of a ``with`` block, if it can be had here."""
    if reason := Nspawn.unavailable_reason():
        (pytest.fail if "nspawn" in REQUIRED else pytest.skip)(f"machine nspawn cannot run here: {reason}")

    def boot(
        *, state_root: str | None = None, private_network: bool = False, needed: tuple[str, ...] = ()
    ) -> AbstractContextManager[Machine]:
        settings = Settings(state_root=state_root)
        return boot_machine(Nspawn, Leases(), settings, private_network=private_network, needed=needed)

    return boot


@pytest.fixture(scope="module", params=["host", "nspawn"])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """Return a machine of each kind."""
    if request.param == "nspawn":
        with request.getfixturevalue("boot")() as machine:
            yield machine
    else:
        host = Host()
        yield host
        host.lifecycle.close()
