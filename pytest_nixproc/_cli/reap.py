"""``nixproc reap``: everything that crashed test runs have left behind."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from textwrap import indent
from typing import Final

from pytest_nixproc._cli.api import ExitStatus, Result, Say, Subcommand
from pytest_nixproc._orphans import orphans
from pytest_nixproc._persistence.directory import default_state_root
from pytest_nixproc._persistence.leases import DeploymentLease, Leases
from pytest_nixproc._persistence.owners import stranded
from pytest_nixproc._recovery import abandoned, frozen_guardians, reap, rests, take_over, wake_guardians
from pytest_nixproc._registry import Registry


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options to the parser: to only show what would be taken down, and where else to look."""
    parser.add_argument("--dry-run", action="store_true", help="only say what would be taken down")
    parser.add_argument(
        "--state-root", action="append", default=[], metavar="DIR", help="a place to look for more than leases name"
    )


@dataclass
class Report:
    """The report of one call."""

    deployments: dict[str, list[str]] = field(default_factory=dict)
    """The problems of each deployment that was found, by its directory."""

    belongings: dict[str, list[str]] = field(default_factory=dict)
    """The problems of each thing that a manager had of deployments without a directory."""

    woken: list[str] = field(default_factory=list)
    """What was done with guardians that somebody has stopped."""

    left: list[str] = field(default_factory=list)
    doubtful: dict[str, str] = field(default_factory=dict)
    """What was not touched, with the reason and what to type."""

    unreadable: list[str] = field(default_factory=list)

    @property
    def status(self) -> ExitStatus:
        """The exit status of the command."""
        if self.left or self.doubtful or any(self.belongings.values()):
            return ExitStatus.INCONSISTENT
        return ExitStatus.FAILED if self.unreadable else ExitStatus.DONE


class Reaper:
    """One call of the command: each item is told of, and none that is strange keeps the others."""

    def __init__(self, leases: Leases, say: Say, *, is_dry: bool) -> None:
        self.leases = leases
        self.say = say
        self.is_dry = is_dry
        self.registry = Registry()
        self.report = Report()

    def carry_out(self, state_roots: Iterable[str]) -> Report:
        """Take down what is left of crashed runs, and tell of what is not surely of them."""
        report, leases = self.report, self.leases
        self._wake_guardians()
        lost = list(stranded(state_roots, leases))
        found = list(abandoned(leases)) if self.is_dry else take_over(leases)
        for lease in [*found, *rests(leases), *(item.lease for item in lost if item.lease)]:
            self._take_down(lease)
        self._remove_orphans()
        for item in lost:
            if not item.lease:
                self._doubt(item.root, item.doubt, item.remedy)
        report.unreadable = leases.corrupt()
        if not self.is_dry:
            report.left = [root for root in report.deployments if leases.lease_of(root)]
            leases.leave()
        return report

    def _wake_guardians(self) -> None:
        frozen = frozen_guardians(self.leases)
        if self.is_dry:
            self.report.woken += [
                f"would wake the guardian of {lease.root}, which somebody has stopped" for lease in frozen
            ]
        elif frozen:
            self.report.woken += wake_guardians(self.registry, self.leases)
        for line in self.report.woken:
            self.say(line)

    def _take_down(self, lease: DeploymentLease) -> None:
        self.say(f"{'would take down' if self.is_dry else 'taking down'} {lease.root}")
        self.report.deployments[lease.root] = [] if self.is_dry else reap(lease, self.registry, self.leases)
        self._tell(self.report.deployments[lease.root])

    def _remove_orphans(self) -> None:
        for orphan in orphans(self.registry.managers.values(), self.leases):
            if orphan.doubt:
                self._doubt(orphan.name, orphan.doubt, orphan.belonging.remedy)
                continue
            self.say(f"{'would remove' if self.is_dry else 'removing'} {orphan.name}")
            self.report.belongings[orphan.name] = [] if self.is_dry else orphan.remove()
            self._tell(self.report.belongings[orphan.name])

    def _doubt(self, name: str, doubt: str, remedy: str) -> None:
        self.report.doubtful[name] = f"{doubt}; if nobody needs it: {remedy}"
        self.say(f"not touched: {name}: {self.report.doubtful[name]}")

    def _tell(self, problems: Iterable[str]) -> None:
        for problem in problems:
            self.say(indent(problem, "  "))


def run(options: argparse.Namespace, say: Say) -> Result:
    """Take down abandoned deployments, whose users and guardian are gone, each by its journal.

    They are found by leases, by journals in state roots, and by labels; never by names alone.
    """
    reaper = Reaper(Leases(), say, is_dry=options.dry_run)
    report = reaper.carry_out([default_state_root(), *map(os.path.abspath, options.state_root)])
    for path in report.unreadable:
        print(f"cannot read {path}: remove it when no test runs", file=sys.stderr)
    if not (report.deployments or report.belongings or report.doubtful or report.woken):
        say("nothing is left of earlier runs")
    return Result(report.status, asdict(report))


COMMAND: Final = Subcommand(
    "reap", "deployments of tests", "take down what crashed test runs have left behind", declare, run
)
