"""Words that were given up do not come back: each thing has one word, that of the field where it has one."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

NAMES: Final = {
    "Sight": "ProcessInfo",
    "Looker": "ReadinessChecker, ProcReader",
    "Look": "JobState, ServiceState, UnitState",
    "Looks": "ContainerStates",
    "Place": "MachineSpec",
    "Site": "DeploymentDirectory",
    "Home": "SystemdScope",
    "Draft": "Plan",
    "Neighbour": "OtherDeployment",
    "Departure": "StopReport",
    "Witness": "StopObserver",
    "Owner": "ProcessIdentity",
    "Owners": "ProcessAttribution",
    "Traces": "FileChanges, PidFileContents",
    "Trace": "FileChange",
    "Mention": "PassedValue",
    "Told": "ReferencedPidFile",
    "Said": "AccountClaim",
    "Claim": "ResourceClaim, DeploymentLease",
    "Arguments": "ModelContext",
    "Forms": "ModelLoader",
    "Trial": "ConstructorTrial",
    "Made": "Constructed",
    "Kept": "HardCoded",
    "Memory": "EvaluationCache",
    "Systems": "Session",
    "Deployed": "PointDeployment",
    "Scene": "DeploymentContext",
    "obstacle": "unavailable_reason",
    "put_down": "destroy",
    "appeared": "created_since",
    "newer": "modified_since",
    "catch_up": "sync_exits",
    "despite": "collect_any_problems",
}
"""Names in the package that were given up, and what is there in place of each."""

WORDS: Final = {
    r"to mend it": "fix:",
    r"each other's way": "conflict",
    r"\bsights?\b": "information about a process",
    r"\bobstacles?\b": "the reason why something cannot be used",
    r"\bneighbours?\b": "another deployment",
    r"\bdepartures?\b": "the report of a stop",
    r"-m pytest_nixproc \w": "nixproc",
}
"""Words in texts that were given up, as patterns."""

PYTHON: Final = sorted((ROOT / "pytest_nixproc").rglob("*.py"))
PAGES: Final = [
    path for place in (".", "docs", "docs/adr", "examples/*") for path in sorted(ROOT.glob(f"{place}/*.md"))
]
TEXTS: Final = [*PYTHON, *sorted((ROOT / "examples").rglob("*.py")), *PAGES]


def names_in(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the names in a module, each with its line."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], token.string


def words_in(text: str) -> Iterator[tuple[int, str]]:
    """Yield the words of a text that were given up, each with its line and the one that is meant."""
    for pattern, word in WORDS.items():
        for found in re.finditer(pattern, text, re.IGNORECASE):
            yield text.count("\n", 0, found.start()) + 1, f"{found[0]!r} is called {word!r}"


def test_names() -> None:
    """No name that was given up is used in code."""
    names = ((path, line, name) for path in PYTHON for line, name in names_in(path))
    assert [f"{path.relative_to(ROOT)}:{line}: {name}" for path, line, name in names if name in NAMES] == []


def test_words() -> None:
    """No text of the package, its documentation or its examples has a word that was given up."""
    assert {ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "docs" / "checks.md"} <= set(TEXTS)
    words = ((path, line, text) for path in TEXTS for line, text in words_in(path.read_text(encoding="utf-8")))
    assert [f"{path.relative_to(ROOT)}:{line}: {text}" for path, line, text in words] == []


def test_a_word_is_found() -> None:
    """A word that was given up is told with its line and with the one that is meant."""
    assert list(words_in("fine\nTo mend it: x\n")) == [(2, "'To mend it' is called 'fix:'")]
    assert any(name == "words_in" for _, name in names_in(Path(__file__)))
