"""The rules that a user has chosen, and their application."""

from __future__ import annotations

import gc
from collections.abc import Iterable

from pytest_nixproc.checks.api import EndReport, Rule, RuleInput, Snapshot, StopReport, chosen
from pytest_nixproc.checks.constructor import compare
from pytest_nixproc.model.constructors import ConstructorFiles, ConstructorTrial
from pytest_nixproc.model.context import ModelContext
from pytest_nixproc.values.findings import Finding


class Rulebook:
    """The rules that ``select`` and ``ignore`` choose; both are codes, or beginnings of codes."""

    def __init__(self, rules: Iterable[Rule], select: Iterable[str] = (), ignore: Iterable[str] = ()) -> None:
        self.rules = chosen(rules, select, ignore)

    def static(self, given: RuleInput) -> list[Finding]:
        """Apply the rules to a model.

        The search for cyclic garbage is paused meanwhile: rules make none, and it would go through the whole model
        again and again, which takes as long as the rules do.
        """
        is_enabled = gc.isenabled()
        gc.disable()
        try:
            return [finding for rule in self.rules for finding in rule.static(given)]
        finally:
            if is_enabled:
                gc.enable()

    def live(self, snapshot: Snapshot) -> list[Finding]:
        """Apply the rules to a running system."""
        return [finding for rule in self.rules for finding in rule.live(snapshot)]

    def leak(self, report: StopReport) -> list[Finding]:
        """Apply the rules to the stop of an instance."""
        return [finding for rule in self.rules for finding in rule.leak(report)]

    def end(self, report: EndReport) -> list[Finding]:
        """Apply the rules to the end of an instance."""
        return [finding for rule in self.rules for finding in rule.end(report)]

    def constructor(self, trial: ConstructorTrial, context: ModelContext, files: ConstructorFiles) -> list[Finding]:
        """Apply the rules to the instances that a constructor makes of different parameters."""
        comparison = compare(trial, context, files)
        return [finding for rule in self.rules for finding in rule.constructor(comparison)]
