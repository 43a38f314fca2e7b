"""Findings as text, as JSON, and as SARIF 2.1.0, which code hosts and editors show beside the lines of a model."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final
from urllib.parse import quote

from pytest_nixproc.checks.api import Rule
from pytest_nixproc.values.findings import UNSAID, Finding, Origin
from pytest_nixproc.values.location import Call, Location

SARIF_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
TOOL: Final = "pytest-nixproc"


def as_text(findings: Sequence[Finding], rules: Iterable[Rule]) -> str:  # noqa: ARG001 - the texts say it all
    """Return findings as text for people, with the number of findings of each severity."""
    severities = [finding.severity for finding in findings]
    counts = {word: severities.count(word) for word in ("error", "warning")}
    parts = [f"{count} {word}{'s' if count > 1 else ''}" for word, count in counts.items() if count]
    return "\n".join([*map(str, findings), " and ".join(parts) or "no findings"])


def as_json(findings: Sequence[Finding], rules: Iterable[Rule]) -> str:
    """Return findings, and the rules that were applied, as JSON; the keys are those of :class:`Finding`."""
    applied = [{"code": rule.code, "asserts": rule.asserts, "severity": rule.severity} for rule in rules]
    return json.dumps({"findings": [facts_of(finding) for finding in findings], "rules": applied}, indent=2)


def facts_of(finding: Finding) -> dict[str, Any]:
    """Return a finding as data."""
    return {
        "code": finding.code,
        "severity": finding.severity,
        "problem": finding.problem,
        "instances": list(finding.instances),
        "resource": finding.resource,
        "origins": [origin_facts(origin) for origin in finding.origins],
        "remedy": finding.remedy,
    }


def origin_facts(origin: Origin | str) -> dict[str, Any]:
    """Return an origin as data: its path in the model, and the value, file and line as far as they are known.

    ``via`` are the functions, files and lines through which that line has made the value, if there are any.
    """
    if isinstance(origin, str):
        return {"text": origin}
    facts: dict[str, Any] = {"path": origin.path}
    if origin.value is not UNSAID:
        facts["value"] = origin.value if isinstance(origin.value, int | str) else str(origin.value)
    if origin.location:
        facts |= {"file": origin.location.file, "line": origin.location.line}
        if origin.location.via:
            facts["via"] = [asdict(call) for call in origin.location.via]
    return facts


def finding_from(facts: Mapping[str, Any]) -> Finding:
    """Return the finding from the data that :func:`facts_of` has made of it."""
    return Finding(
        facts["code"],
        facts["severity"],
        facts["problem"],
        tuple(facts["instances"]),
        tuple(origin_from(origin) for origin in facts["origins"]),
        facts["remedy"],
        facts["resource"],
    )


def origin_from(facts: Mapping[str, Any]) -> Origin | str:
    """Return the origin from the data that :func:`origin_facts` has made of it."""
    if "text" in facts:
        return str(facts["text"])
    via = tuple(Call(**call) for call in facts.get("via", ()))
    location = Location(facts["file"], facts["line"], via) if "file" in facts else None
    return Origin(facts["path"], facts.get("value", UNSAID), location)


def as_sarif(findings: Sequence[Finding], rules: Iterable[Rule]) -> str:
    """Return findings as a log of one run; files are relative to the working directory where they lie below it."""
    known = list(rules)
    driver = {"name": TOOL, "rules": [sarif_rule(rule) for rule in known]}
    places = {rule.code: index for index, rule in enumerate(known)}
    results = [sarif_result(finding, places) for finding in findings]
    base = {"WORKDIR": {"uri": f"file://{quote(os.getcwd())}/"}}
    run = {"tool": {"driver": driver}, "originalUriBaseIds": base, "columnKind": "unicodeCodePoints"}
    return json.dumps({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [{**run, "results": results}]}, indent=2)


def sarif_rule(rule: Rule) -> dict[str, Any]:
    """Return a rule as a ``reportingDescriptor``."""
    facts: dict[str, Any] = {
        "id": rule.code,
        "shortDescription": {"text": rule.asserts},
        "defaultConfiguration": {"level": rule.severity},
    }
    return facts | ({"fullDescription": {"text": rule.explanation}} if rule.explanation else {})


def sarif_result(finding: Finding, places: Mapping[str, int]) -> dict[str, Any]:
    """Return a finding as a ``result``: the first line that is known is its location, the others are related."""
    origins = [origin for origin in finding.origins if isinstance(origin, Origin) and origin.location]
    locations = [sarif_location(number, origin) for number, origin in enumerate(origins)]
    remedy = [f"Fix: {finding.remedy}"] if finding.remedy else []
    result: dict[str, Any] = {
        "ruleId": finding.code,
        "level": finding.severity,
        "message": {"text": "\n".join([finding.problem, *map(str, finding.origins), *remedy])},
        "locations": locations[:1],
        "properties": {"instances": list(finding.instances), "resource": finding.resource},
    }
    if finding.code in places:
        result["ruleIndex"] = places[finding.code]
    return result | ({"relatedLocations": locations[1:]} if locations[1:] else {})


def sarif_location(number: int, origin: Origin) -> dict[str, Any]:
    """Return an origin as a ``location``, and its file as an ``artifactLocation``."""
    assert origin.location is not None, "only origins with lines have locations"
    near = os.path.relpath(origin.location.file)
    if near.startswith(os.pardir):
        artifact = {"uri": f"file://{quote(os.path.abspath(origin.location.file))}"}
    else:
        artifact = {"uri": quote(near), "uriBaseId": "WORKDIR"}
    path = {"fullyQualifiedName": origin.path, "kind": "parameter"}
    physical = {"artifactLocation": artifact, "region": {"startLine": origin.location.line}}
    return {"id": number, "physicalLocation": physical, "logicalLocations": [path], "message": {"text": str(origin)}}


FORMATS: Final[Mapping[str, Callable[[Sequence[Finding], Iterable[Rule]], str]]] = {
    "text": as_text,
    "json": as_json,
    "sarif": as_sarif,
}
