"""The findings of the checks in a test session, and the messages that are printed at its end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_nixproc._persistence.process_identity import ProcessIdentity
from pytest_nixproc._plugin.secrets import SessionSecrets
from pytest_nixproc.errors import ConflictError
from pytest_nixproc.values.findings import Finding, masked

if TYPE_CHECKING:
    from pytest_nixproc._system.system import System


class FindingsLog:
    """The findings of a session, each of them once, as people may read them: without the secrets of the models."""

    def __init__(self) -> None:
        self.secrets = SessionSecrets()
        self.owner = ProcessIdentity.current()
        """The process that reports them."""
        self.found: dict[str, Finding] = {}
        """Everything that the checks have found, by its text."""
        self.warnings: dict[str, None] = {}
        """Messages that are printed at the end of the session."""
        self.ends: dict[System, list[tuple[str, Finding]]] = {}
        """Findings about ends of instances that nobody asked for, each with the test that has failed for it."""

    def note(self, findings: Iterable[Finding]) -> None:
        """Add findings to the report of the session; the same finding of several systems counts once."""
        shown = (masked(finding, self.secrets.masked) for finding in findings)
        self.found.update((str(finding), finding) for finding in shown)

    def tell(self, *texts: object) -> None:
        """Add messages that are printed at the end of the session."""
        self.warnings.update(dict.fromkeys(self.secrets.masked(str(text)) for text in texts))

    @contextmanager
    def conflicts_noted(self) -> Iterator[None]:
        """Add the findings that refuse a deployment to the report of the session."""
        try:
            yield
        except ConflictError as error:
            self.note(finding for finding in error.findings if isinstance(finding, Finding))
            raise
