"""The secrets of a session's models, and masks over them in all that pytest shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from pytest_nixproc.values.masking import Secrets


class SessionSecrets:
    """The secrets of all models that a session has loaded; a plugin of pytest, which masks them in its reports."""

    def __init__(self) -> None:
        self._known = Secrets()

    def confide(self, values: Iterable[str]) -> None:
        """Keep more secrets in mind."""
        self._known = self._known.with_more(values)

    def masked(self, text: str) -> str:
        """Return a text without them."""
        return self._known.masked(text)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Mask secrets in the report of a test, before anybody prints it, writes it down or sends it elsewhere."""
        self._mask(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Mask secrets in what is said about a model file that cannot be collected."""
        self._mask(report)

    def _mask(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        """Mask secrets in the error, the captured output and the other sections of a report."""
        if self._known.values:
            report.sections = [(title, self.masked(text)) for title, text in report.sections]
            report.longrepr = self._masked(report.longrepr)

    def _masked(self, part: Any) -> Any:
        """Return a part of an error's representation without them; pytest's objects are changed in place."""
        if isinstance(part, str):
            return self.masked(part)
        if isinstance(part, list | tuple):
            return type(part)(map(self._masked, part))
        for name, value in attributes_of(part):
            setattr(part, name, self._masked(value))
        return part


def attributes_of(part: object) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of one of pytest's representations; those of nothing else."""
    if type(part).__module__.startswith("_pytest."):
        yield from list(vars(part).items())
