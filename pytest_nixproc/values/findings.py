"""The findings of rules: problems, each with its instances and the origins of its values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final, Literal

from pytest_nixproc.values.location import Location
from pytest_nixproc.values.value import Value

Severity = Literal["error", "warning"]


UNSAID: Final = object()
"""Stands for a value where only its place matters."""


class Origin(Value):
    """The place that one value of a finding comes from: its path in the model, and the line that sets it."""

    path: str
    """Path of the value in the model."""

    value: Any = UNSAID
    """The value; ``UNSAID`` where only its place matters."""

    location: Location | None = None
    """The line that sets the value; None where it is not known."""

    def __str__(self) -> str:
        value = "" if self.value is UNSAID else f" = {self.value!r}"
        return f"{self.path}{value}{f' ({self.location})' if self.location else ''}"


class Finding(Value):
    """One problem that a rule found."""

    code: str
    """Code of the rule."""

    severity: Severity
    problem: str
    instances: tuple[str, ...]
    origins: tuple[Origin | str, ...] = ()
    """Origins of the values that lead to the problem; evidence for which no origin is known is given as plain text."""

    remedy: str = ""
    resource: str = ""
    """The resource in dispute: ``tcp port 80``."""

    def __str__(self) -> str:
        origins = "".join(f"\n    {origin}" for origin in self.origins)
        remedy = f"\n    fix: {self.remedy}" if self.remedy else ""
        return f"{self.code} {self.severity}: {self.problem}{origins}{remedy}"


def masked(finding: Finding, mask: Callable[[str], str]) -> Finding:
    """Return a finding whose texts, and the values that it comes from, a function has masked."""
    return replace(
        finding,
        problem=mask(finding.problem),
        origins=tuple(masked_origin(origin, mask) for origin in finding.origins),
        remedy=mask(finding.remedy),
        resource=mask(finding.resource),
    )


def masked_origin(origin: Origin | str, mask: Callable[[str], str]) -> Origin | str:
    """Return an origin whose value a function has masked, unless there is nothing to mask in it."""
    if isinstance(origin, str):
        return mask(origin)
    text = str(origin.value)
    return origin if origin.value is UNSAID or mask(text) == text else replace(origin, value=mask(text))


def errors_of(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that forbid a deployment."""
    return [finding for finding in findings if finding.severity == "error"]
