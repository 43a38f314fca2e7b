"""The session of one pytest process: its settings, and the systems that it has deployed.

It begins before tests are collected, so it imports only what chooses the points; what deploys is imported while the
guardian starts (``warming.py``), or with the first deployment.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import pytest

from pytest_nixproc._persistence.leases import Leases
from pytest_nixproc._plugin import options
from pytest_nixproc._plugin.findings_log import FindingsLog
from pytest_nixproc._plugin.matrix import Matrix, Point
from pytest_nixproc._plugin.signals import Signals
from pytest_nixproc._registry import Registry
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.values.machine import MachineSpec

if TYPE_CHECKING:
    from pytest_nixproc._planning.plan import Plan
    from pytest_nixproc._planning.settings import Settings
    from pytest_nixproc._plugin.sharing import XdistSharing
    from pytest_nixproc._system.system import System

KEY: pytest.StashKey[Session] = pytest.StashKey()


class Session:
    """The session of a pytest process: its options and machines, the systems that are up, and its part in a run."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.registry = Registry()
        self.matrix = Matrix(config, self.registry)
        self.live: dict[System, dict[str, int]] = {}
        """Systems that are up, each with the sizes of its logs when the current test began."""
        self.test = ""
        """The id of the current test."""
        self.failed: set[System] = set()
        self.noted: list[tuple[str, str]] = []
        """Sections for the report of the current test."""
        self.kept: list[System] = []
        self.planned: list[tuple[Point, Plan]] = []
        self.findings = FindingsLog()
        self.secrets = self.findings.secrets
        self.is_over = False
        """Whether no test is run any more."""
        self.problems: list[str] = []
        """Problems of the teardown of systems that no test has had: shared ones, and all after an interrupt."""
        self.leases = Leases()
        self.signals = Signals()
        self._machines: dict[str, Machine] = {}
        self._reaped = False
        self.sharing: XdistSharing | None = None
        if hasattr(config, "workerinput") and options.read_flag(config, "share"):
            from pytest_nixproc._plugin.sharing import XdistSharing

            self.sharing = XdistSharing.of_worker(self.leases, config.workerinput["testrunuid"])

    def machine(self, name: str) -> Machine:
        """Return a machine that is no throwaway one; the first call makes it."""
        if name not in self._machines:
            self._machines[name] = self.registry.machine(name)()
        return self._machines[name]

    @contextmanager
    def machine_at(self, point: Point) -> Iterator[Machine]:
        """Return the machine of a point; a throwaway one is booted for the time of the ``with`` block.

        Raises :class:`~pytest_nixproc.errors.NixprocError`. Under ``--nixproc-plan``, none is booted.
        """
        kind = self.registry.machine(point.machine)
        if not kind.throwaway or options.read_flag(self.config, "plan"):
            with self.unbooted(point) as machine:
                yield machine
        else:
            from pytest_nixproc._deployment.machines import boot_machine

            self.reap_abandoned()
            project = (str(self.config.rootpath),)
            boot = boot_machine(kind, self.leases, self.settings, private_network=point.private_network, needed=project)
            with self.signals.handled(), boot as machine:
                yield machine

    @contextmanager
    def unbooted(self, point: Point) -> Iterator[Machine]:
        """Return the machine of a point as it is before it is booted, for the time of a ``with`` block."""
        kind = self.registry.machine(point.machine)
        if kind.throwaway:
            with kind(MachineSpec(private_network=point.private_network)) as machine:
                yield machine
        else:
            yield self.machine(point.machine)

    def close(self) -> None:
        """Close the machines; processes that still run below them end with them."""
        for machine in self._machines.values():
            machine.lifecycle.close()

    def control_run(self, run: str) -> None:
        """Become a member, as the controller, of the run of pytest-xdist; a guardian does its part if it is killed."""
        from pytest_nixproc._plugin.sharing import XdistSharing

        if self.sharing is None:
            self.sharing = XdistSharing.of_controller(
                self.leases, run, self.machine(options.read(self.config, "machine"))
            )

    def leave_run(self) -> list[str]:
        """End our part in the run, and return the problems; on the controller, the session has them too."""
        assert self.sharing is not None, "only members leave"
        sharing, self.sharing = self.sharing, None
        problems = sharing.leave(self.registry)
        if not hasattr(self.config, "workerinput"):
            self.machine(options.read(self.config, "machine")).lifecycle.unguard(f"run {sharing.run.identity}")
            self.problems += problems
        return problems

    @cached_property
    def settings(self) -> Settings:
        """The settings that the options ask for."""
        from pytest_nixproc._plugin.settings import settings_of

        return settings_of(self.config, self.report_progress, self.secrets.confide, self.signals.held_back)

    def report_progress(self, text: str) -> None:
        """Write a line to the terminal in the middle of a test; silent on an xdist worker, which has none."""
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        capture = self.config.pluginmanager.get_plugin("capturemanager")
        if reporter is not None and capture is not None:
            with capture.global_and_fixture_disabled():
                reporter.ensure_newline()
                reporter.write_line(f"nixproc: {self.secrets.masked(text)}")

    def reap_abandoned(self) -> None:
        """Take down the remains of crashed runs, before the first deployment; it is reported at the end."""
        if self._reaped:
            return
        from pytest_nixproc._recovery import reap_all

        self._reaped = True
        self.findings.tell(*reap_all(self.registry, self.leases))


def session_of(config: pytest.Config) -> Session:
    """Return the session of a pytest process; the first call makes it, so that an unused plugin makes none."""
    if KEY not in config.stash:
        session = config.stash[KEY] = Session(config)
        config.pluginmanager.register(session.secrets)
        config.add_cleanup(session.close)
    return config.stash[KEY]
