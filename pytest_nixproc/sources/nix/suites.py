"""Files of test definitions for the test driver of upstream, the Nix process management framework."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pytest_nixproc.errors import SourceError
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.sources.api import Script, Scripted

FUNCTION: Final = re.compile(r"\btestService\b")
COMMENT: Final = re.compile(r"#[^\n]*|/\*.*?\*/", re.DOTALL)
NEEDED: Final = ("initialTests", "readiness")
"""Phases that the driver runs before all others: later scripts rely on them."""

NO_MACHINE: Final = "it configures a NixOS machine of its own (nixosConfig), and here is none"


def defines_tests(path: str) -> bool:
    """Tell whether a file names the function that makes test definitions, outside its comments."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return FUNCTION.search(COMMENT.sub("", file.read())) is not None


def scripted(model: ProcessesModel, suite: Mapping[str, Any]) -> Scripted:
    """Return a model with its scripts; phases with an empty script are left out."""
    scripts = map(script_of, suite["scripts"])
    said = tuple(script for script in scripts if script.text.strip())
    return Scripted(model, said, tuple(f"{package}/bin" for package in suite["packages"]))


def script_of(entry: Mapping[str, Any]) -> Script:
    """Return one script; raises :class:`~pytest_nixproc.errors.SourceError` for one that is no text."""
    phase, place, text = entry["phase"], place_of(entry["place"]), entry["text"]
    if not isinstance(text, str):
        brief = f"{place}: {phase} yields {text!r}, which is no script"
        raise SourceError(brief, remedy="let it yield text, empty where there is nothing to do")
    return Script(phase, entry["instance"], text, place, phase in NEEDED)


def place_of(position: Mapping[str, Any] | None) -> str:
    """Return the file and line of a position; empty where Nix knows none."""
    return f"{position['file']}:{position['line']}" if position else ""


def names_of(value: object, known: Sequence[str]) -> tuple[str, ...]:
    """Return the known names, of managers or profiles, that a test definition selects."""
    chosen = value if isinstance(value, list) else [value]
    return tuple(name for name in known if name in chosen)
