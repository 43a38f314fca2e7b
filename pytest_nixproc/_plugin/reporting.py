"""The texts about deployed systems in the reports of failing tests and on the terminal."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator

import pytest

from pytest_nixproc._persistence.files import write_report
from pytest_nixproc._persistence.process_identity import ProcessIdentity
from pytest_nixproc._planning.plan import Plan
from pytest_nixproc._plugin import options
from pytest_nixproc._plugin.session import Session
from pytest_nixproc._plugin.settings import rules_of
from pytest_nixproc._system.system import System
from pytest_nixproc.checks.output import FORMATS
from pytest_nixproc.errors import NixprocError
from pytest_nixproc.machines.api import Machine
from pytest_nixproc.managers.api import Manager
from pytest_nixproc.values.masking import Secrets
from pytest_nixproc.values.state_files import StateEntry


def note_failure(session: Session, system: System) -> None:
    """Remember that a test has failed with a system, and note the system's statuses and logs for the report."""
    session.failed.add(system)
    title = f"nixproc: {system.manager.name}, state in {system.state.state_dir}"
    try:
        text = "\n".join(describe(system, session.live[system]))
    except (NixprocError, OSError) as error:
        text = f"cannot be looked at: {error}"
    session.noted.append((title, text))


def describe(system: System, sizes: dict[str, int]) -> Iterator[str]:
    """Yield, for each instance, the manager's status and the log lines since the test began."""
    statuses = system.statuses()
    for name, log in system.logs_since(sizes).items():
        yield f"{name}: {statuses[name].text}"
        lines = log.splitlines()
        yield from (f"  | {line}" for line in lines) if lines else ("  | (nothing logged during this test)",)


def plan_lines(manager: Manager, plan: Plan, *, whole: bool) -> Iterator[str]:
    """Yield a plan for people: the steps in their order, with their ports and files, and the findings.

    A ``whole`` one has the text of every generated file.
    """
    yield f"{manager.name}: {plan.model.origin or 'model'}, in {plan.directory.root}"
    for number, step in enumerate(plan.steps(), 1):
        when = f", when {', '.join(step.after)} {'is' if len(step.after) == 1 else 'are'} ready" if step.after else ""
        yield f"  {number}. {step.verb} {step.name}{when}  ({step.reason})"
        ports = ", ".join(f"{place} {port}" for place, port in plan.model[step.name].declared_ports.items())
        unit = plan.unit_set.units[step.name]
        yield f"       {unit.mode}{f', {ports}' if ports else ''}, log {unit.log_file}"
        yield from (f"         {line}" for line in made_by(plan, step.name))
    yield from (f"  {line}" for finding in plan.findings for line in str(finding).splitlines())
    if not plan.findings:
        yield "  no conflicts"
    if whole:
        yield from file_lines(plan)


def made_by(plan: Plan, name: str) -> Iterator[str]:
    """Yield the directories and files that are made for an instance; owners that it does not get are said."""
    unit, process = plan.unit_set.units[name], plan.model[name].pkg
    yield from (f"writes {plan.target.directory}/{file.path}" for file in unit.files)
    entries: tuple[StateEntry, ...] = (*unit.state_directories, *unit.state_files)
    described: tuple[StateEntry, ...] = (*process.directories, *process.files)
    for entry, told in zip(entries, described, strict=True):
        verb = "writes" if entry in unit.state_files else "makes"
        owner = f", of {entry.user}:{entry.group}".rstrip(":") if entry.user or entry.group else ""
        left_out = "" if owner or not (told.user or told.group) else ", which is of who deploys in this profile"
        yield f"{verb} {entry.path} (mode {entry.mode:04o}{owner}){left_out}"


def file_lines(plan: Plan) -> Iterator[str]:
    """Yield the generated files and links of a plan, as they would be written, but with masks over secrets."""
    secrets = Secrets(plan.model.secrets)
    for file in plan.files:
        yield f"  {file.path} (mode {file.mode:04o}):"
        yield from (f"    | {line}" for line in secrets.masked(file.content).split("\n"))
    for link in plan.links:
        yield f"  {link.path} -> {link.target}"
    for state_file in (file for unit in plan.unit_set.units.values() for file in unit.state_files):
        yield f"  {state_file.path} (mode {state_file.mode:04o}):"
        yield from (f"    | {line}" for line in secrets.masked(state_file.text).split("\n"))


def manager_lines(managers: list[Manager], machine: type[Machine]) -> Iterator[str]:
    """Yield the managers for people: whether they can run here, why not, and the parameters that they refuse."""
    for manager in managers:
        reason = manager.unavailable_reason(machine)
        capabilities = manager.capabilities
        yield f"{manager.name}: {f'cannot run here: {reason}' if reason else 'can run here'}"
        yield f"  prefers {capabilities.prefers} processes; platforms: {', '.join(capabilities.platforms)}"
        if capabilities.note:
            yield f"  {capabilities.note}"
        for parameter, reason in capabilities.unsupported.items():
            yield f"  refuses {parameter}: {reason}"


def kept_lines(system: System) -> Iterator[str]:
    """Yield the places of a kept system's state and logs, and the command that stops it."""
    yield f"{system!r} is kept"
    yield f"  state: {system.state.state_dir}"
    yield from (f"  log of {name}: {place}" for name, place in system.log_places().items())
    yield f"  stop:  {shlex.join([sys.executable, '-m', 'pytest_nixproc', 'end', system.root])}"


def findings_text(session: Session, kind: str) -> str:
    """Return all findings of the session in one of the formats."""
    return FORMATS[kind](list(session.findings.found.values()), rules_of(session.registry, session.settings))


def write_findings(session: Session, kind: str, path: str) -> None:
    """Write all findings of the session into a file, in one of the formats, if only to say that there are none."""
    if session.findings.owner != ProcessIdentity.current():
        # A forked child, which has seen a part of the session alone.
        return
    try:
        write_report(path, findings_text(session, kind))
    except NixprocError as error:
        # Nobody handles errors this late: this one ends pytest with its text, and with status 1.
        raise SystemExit(str(error)) from error


def summarize(session: Session, reporter: pytest.TerminalReporter) -> None:
    """Write plans, kept systems, findings and problems at the end of the terminal output."""
    kind, path = options.read_findings(session.config)
    is_wordy = reporter.config.get_verbosity() > 0
    sections = {
        "nixproc: plan": [
            line for point, plan in session.planned for line in plan_lines(point.manager, plan, whole=is_wordy)
        ],
        "nixproc: kept": [line for system in session.kept for line in kept_lines(system)],
        "nixproc: findings": list(session.findings.warnings),
        f"nixproc: findings as {kind}": [findings_text(session, kind)] if kind != "text" and not path else [],
        "nixproc: systems were not stopped cleanly": session.problems,
    }
    for title, lines in sections.items():
        if lines:
            reporter.section(title)
            for line in lines:
                reporter.write_line(session.secrets.masked(line))
