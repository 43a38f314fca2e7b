"""The exceptions of this package, as one tree; every message gives the problem, its place and the remedy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import indent
from typing import Protocol


class NixprocError(Exception):
    """Base of all errors of this package.

    The text is a brief in one line, then details (facts, often several lines), then the remedy.
    """

    def __init__(self, brief: str, *, details: str = "", remedy: str = "") -> None:
        self.brief = brief
        self.details = details
        self.remedy = remedy
        super().__init__(brief)

    def __str__(self) -> str:
        parts = [self.brief, self.details, self.remedy and f"fix: {self.remedy}"]
        return "\n".join(part for part in parts if part)


@dataclass(frozen=True, order=True)
class Fault:
    """A problem with an input, at one path of it (``processes.web.dependencies[0]``)."""

    path: str
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}" + (f" ({self.remedy})" if self.remedy else "")


class ModelError(NixprocError):
    """A processes model that cannot be deployed; all its faults at once."""

    def __init__(self, faults: Sequence[Fault], *, origin: str = "") -> None:
        self.faults = tuple(faults)
        self.origin = origin
        count = "a fault" if len(faults) == 1 else f"{len(faults)} faults"
        brief = f"the processes model{f' {origin}' if origin else ''} has {count}"
        super().__init__(brief, details="\n".join(f"  {fault}" for fault in self.faults))


class SourceError(NixprocError):
    """A model file that cannot be read as one: absent, not parsable, or not of the expected form."""


class UnknownName(NixprocError):
    """A manager, machine, source or check that nobody registered."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        super().__init__(f"unknown {kind} {name!r}", remedy=f"choose one of: {', '.join(sorted(known))}")


class Unsupported(NixprocError):
    """A process with a value that its manager cannot express."""

    def __init__(self, manager: str, process: str, what: str, *, remedy: str = "") -> None:
        super().__init__(f"{manager} cannot deploy {process!r}: {what}", remedy=remedy)


class MachineError(NixprocError):
    """A machine that fails or refuses an action, for example because its guardian process is gone."""


class Unreachable(MachineError):
    """A process manager that does not answer: its processes can be taken down only when it is back."""


class Unremovable(MachineError):
    """A file or directory that cannot be removed, or not wholly; names what stays, and what to do about it."""


class Busy(NixprocError):
    """A deployment that another process is using at the moment."""


class CommandFailed(NixprocError):
    """A command that ended otherwise than expected; shows its arguments, its status and the end of its output."""


class WaitTimeout(NixprocError):
    """A wait that reached its deadline; shows its aim, its length, and the state that was seen last."""


class DeploymentError(NixprocError):
    """A deployment that could not be brought up; everything that it had started is stopped."""


class ScriptError(NixprocError):
    """A script of a test definition that has failed; shows the statement, and where the script was written."""


class ConflictFinding(Protocol):
    """The interface of a finding that an error carries; in practice always a :class:`~pytest_nixproc.Finding`.

    This module imports nothing of the package, and so cannot name that class in its types.
    """

    @property
    def code(self) -> str:
        """The code of the rule, ``NP101`` for example."""

    @property
    def problem(self) -> str:
        """The problem in one line."""

    @property
    def instances(self) -> tuple[str, ...]:
        """The instances that it is about."""

    @property
    def remedy(self) -> str:
        """The change to make."""


class ConflictError(DeploymentError):
    """Instances of a system that conflict; carries the findings."""

    def __init__(self, brief: str, findings: Sequence[ConflictFinding]) -> None:
        self.findings = tuple(findings)
        super().__init__(brief, details="\n".join(str(finding) for finding in findings))


class StartError(DeploymentError):
    """An instance that did not become ready."""


class TeardownError(NixprocError):
    """A system that was not stopped cleanly, with all its problems; the teardown went on past each of them."""

    def __init__(self, problems: Sequence[str], subject: str = "the system") -> None:
        self.problems = tuple(problems)
        details = "\n".join(indent(problem, "  ") for problem in self.problems)
        super().__init__(f"{subject} was not stopped cleanly", details=details)
