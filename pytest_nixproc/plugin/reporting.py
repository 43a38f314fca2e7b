"""What failing tests and the terminal show about deployed systems."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator

import pytest

from pytest_nixproc.checks.output import FORMATS, facts_of, finding_from
from pytest_nixproc.deployment.planner import Draft
from pytest_nixproc.deployment.system import System
from pytest_nixproc.errors import NixprocError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.api import Manager
from pytest_nixproc.plugin import options
from pytest_nixproc.plugin.systems import Systems


def mark_logs(systems: Systems) -> None:
    """Remember how long the logs are at the beginning of a test."""
    for system in systems.live:
        systems.live[system] = system.log_sizes()


def add_sections(systems: Systems, report: pytest.TestReport) -> None:
    """Add to a failing test's report what its systems did meanwhile, those too that are gone by now."""
    for system in systems.live:
        note_failure(systems, system)
    report.sections += systems.noted


def note_failure(systems: Systems, system: System) -> None:
    """Remember that a test has failed with a system, and what its report is to tell of it."""
    systems.failed.add(system)
    title = f"nixproc: {system.manager.name}, state in {system.state.state_dir}"
    try:
        text = "\n".join(describe(system, systems.live[system]))
    except (NixprocError, OSError) as error:
        text = f"cannot be looked at: {error}"
    systems.noted.append((title, text))


def describe(system: System, sizes: dict[str, int]) -> Iterator[str]:
    """Yield, for each instance, the manager's status and the log lines since the test began."""
    statuses = system.statuses()
    for name, log in system.logs_since(sizes).items():
        yield f"{name}: {statuses[name].text}"
        lines = log.splitlines()
        yield from (f"  | {line}" for line in lines) if lines else ("  | (nothing logged during this test)",)


def plan_lines(manager: Manager, draft: Draft, *, whole: bool) -> Iterator[str]:
    """Yield a plan for people: what would be started where, in which order, and what the checks say.

    A ``whole`` one has the text of every generated file.
    """
    yield f"{manager.name}: {draft.model.origin or 'model'}, in {draft.site.root}"
    for number, step in enumerate(draft.steps(), 1):
        yield f"  {number}. {step.verb} {', '.join(step.names)}  ({step.reason})"
        for name in step.names:
            ports = ", ".join(f"{place} {port}" for place, port in draft.model[name].declared_ports.items())
            unit = draft.profile.units[name]
            yield f"       {name}: {unit.mode}{f', {ports}' if ports else ''}, log {unit.log_file}"
            yield from (f"         writes {draft.target.directory}/{file.path}" for file in unit.files)
    yield from (f"  {line}" for finding in draft.findings for line in str(finding).splitlines())
    if not draft.findings:
        yield "  no conflicts"
    if whole:
        yield from file_lines(draft)


def file_lines(draft: Draft) -> Iterator[str]:
    """Yield the generated files and links of a plan, as they would be written."""
    for file in draft.files:
        yield f"  {file.path} (mode {file.mode:04o}):"
        yield from (f"    | {line}" for line in file.content.split("\n"))
    for link in draft.links:
        yield f"  {link.path} -> {link.target}"


def manager_lines(managers: list[Manager], machine: type[Machine]) -> Iterator[str]:
    """Yield the managers for people: whether they can run here, why not, and what they honour."""
    for manager in managers:
        obstacle = manager.obstacle(machine)
        capabilities = manager.capabilities
        yield f"{manager.name}: {f'cannot run here: {obstacle}' if obstacle else 'can run here'}"
        yield f"  prefers {capabilities.prefers} processes; platforms: {', '.join(capabilities.platforms)}"
        if capabilities.note:
            yield f"  {capabilities.note}"
        for parameter, reason in capabilities.unsupported.items():
            yield f"  refuses {parameter}: {reason}"


def kept_lines(system: System) -> Iterator[str]:
    """Yield how to look at a system that was kept, and how to stop it."""
    yield f"{system!r} is kept"
    yield f"  state: {system.state.state_dir}"
    yield from (f"  log of {name}: {place}" for name, place in system.log_places().items())
    yield f"  stop:  {shlex.join([sys.executable, '-m', 'pytest_nixproc', 'stop', system.root])}"


def findings_text(systems: Systems, kind: str) -> str:
    """Return all findings of the session in one of the formats."""
    return FORMATS[kind](list(systems.findings.values()), systems.rules)


def packed_findings(systems: Systems) -> str:
    """Return the findings of a worker as text that its controller can read."""
    return json.dumps([facts_of(finding) for finding in systems.findings.values()])


def take_findings(systems: Systems, packed: str) -> None:
    """Take in what a worker has found."""
    systems.note(finding_from(facts) for facts in json.loads(packed))


def summarize(systems: Systems, reporter: pytest.TerminalReporter) -> None:
    """Write what was planned, kept and found, at the end of the terminal output."""
    kind, path = options.read_findings(systems.config)
    is_wordy = reporter.config.get_verbosity() > 0
    sections = {
        "nixproc: plan": [
            line for point, draft in systems.planned for line in plan_lines(point.manager, draft, whole=is_wordy)
        ],
        "nixproc: kept": [line for system in systems.kept for line in kept_lines(system)],
        "nixproc: findings": list(systems.warnings),
        f"nixproc: findings as {kind}": [findings_text(systems, kind)] if kind != "text" and not path else [],
        "nixproc: shared systems were not stopped cleanly": systems.problems,
    }
    for title, lines in sections.items():
        if lines:
            reporter.section(title)
            for line in lines:
                reporter.write_line(line)
