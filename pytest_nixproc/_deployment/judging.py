"""Judging a deployed system by the rules: as it is now, the stops of its instances, and their ends."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock
from typing import Final

from pytest_nixproc._deployment.operation import Operation
from pytest_nixproc.checks.api import NOT_RUNNING, Snapshot, StopReport
from pytest_nixproc.checks.rulebook import Rulebook
from pytest_nixproc.errors import ConflictError
from pytest_nixproc.machines.shielding import verb
from pytest_nixproc.values.findings import Finding, errors_of

CONFLICT: Final = "the running instances conflict"


class Judge:
    """The judge of one deployed system, whose plan keeps the findings."""

    def __init__(self, operation: Operation, rulebook: Rulebook) -> None:
        self.operation = operation
        self.rulebook = rulebook
        self._noting = Lock()

    def refuse_live_conflicts(self, started: Iterable[str]) -> None:
        """Inspect the system; what ends the deployment are ends of ``started`` instances, and errors.

        Where the settings are tolerant, errors do not.
        """
        snapshot = self.operation.snapshot()
        self.operation.refuse_ended(started, snapshot.statuses)
        errors = errors_of(self._judged(snapshot))
        if errors and not self.operation.context.settings.tolerant:
            raise ConflictError(CONFLICT, errors)

    @verb
    def inspect(self) -> list[Finding]:
        """Apply the live rules to the system; return their findings."""
        return self._judged(self.operation.snapshot())

    def _judged(self, snapshot: Snapshot) -> list[Finding]:
        findings = self.rulebook.live(snapshot)
        for name in (name for finding in findings if finding.code == NOT_RUNNING for name in finding.instances):
            self.operation.expect_end(name, self.operation.context.pids.get(name))
        return self._found(findings)

    @verb
    def check_stop(self, report: StopReport) -> list[Finding]:
        """Apply the leak rules to the stop of an instance; return their findings."""
        for name, pid in report.ended.items():
            self.operation.expect_end(name, pid)
        return self._found(self.rulebook.leak(report))

    @verb
    def check_ends(self) -> list[Finding]:
        """Apply the rules about ends to those since the last call that nobody has asked for; return their findings."""
        return self._found([finding for report in self.operation.take_ends() for finding in self.rulebook.end(report)])

    def _found(self, findings: list[Finding]) -> list[Finding]:
        with self._noting:
            self.operation.plan = self.operation.plan.with_findings(findings)
        return findings

    def assert_no_conflicts(self) -> None:
        """Apply the live rules to the system; raises :class:`~pytest_nixproc.errors.ConflictError`."""
        if errors := errors_of(self.inspect()):
            raise ConflictError(CONFLICT, errors)
