"""The overrides of a service: directives that systemd knows, in sections of its unit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from pytest_nixproc.errors import Fault
from pytest_nixproc.managers import kinds
from pytest_nixproc.managers.launch import Launch
from pytest_nixproc.managers.overriding import Overridden
from pytest_nixproc.managers.systemd.directives import DIRECTIVES, KINDS, section_of
from pytest_nixproc.model.names import did_you_mean

SECTIONS: Final = tuple(DIRECTIVES)
EXTENSION: Final = "X-"
"""How the names of sections and directives begin that systemd leaves to others (systemd.unit(5))."""

Sections = dict[str, dict[str, Any]]


def overridden(launch: Launch, sections: Sections) -> Sections:
    """Return the sections with the process's overrides; raises for what is no directive of a service's unit."""
    changed = launch.overridden(sections)
    faults: list[Fault] = []
    for section, directives in changed.items():
        if section not in SECTIONS and not section.startswith(EXTENSION):
            raise launch.refusal(f"its overrides set {section!r}, which is no section of a service", right(section))
        if not isinstance(directives, Mapping):
            raise launch.refusal(f"its override {section!r} is {directives!r}, which is not a mapping of directives")
        for name, value in directives.items():
            refuse_lines(launch, section, name, value)
        if section in SECTIONS:
            faults += faults_of(section, Overridden.compared(directives, sections.get(section, {})))
    launch.refuse_overrides(faults)
    return {section: dict(directives) for section, directives in changed.items()}


def right(section: str) -> str:
    """Return what to write in place of what is no section: it may be a directive, or a section that is mistyped."""
    if own := section_of(section):
        return f"write it into {own!r}"
    known = f"known are {', '.join(SECTIONS)} and X-…, each a mapping: {{'Service': {{'Restart': 'always'}}}}"
    return did_you_mean(section, SECTIONS) or known


def faults_of(section: str, changed: Overridden) -> list[Fault]:
    """Return what is wrong with the directives that a process has set in a section; systemd would ignore them."""
    faults: list[Fault] = []
    extensions = [name for name in changed.written if name.startswith(EXTENSION)]
    changed.read((*DIRECTIVES[section], *extensions), KINDS, faults, noun="directive of systemd", part=section)
    return [belonging(fault) for fault in faults]


def belonging(fault: Fault) -> Fault:
    """Return a fault with the section that the directive belongs into, if it stands in another one."""
    section, _, name = fault.path.partition(".")
    own = section_of(name)
    if own is None or own == section or name in DIRECTIVES[section]:
        return fault
    return Fault(fault.path, "is no directive of that section", f"write it into {own!r}")


def refuse_lines(launch: Launch, section: str, name: str, value: object) -> None:
    """Raise for a directive that would be more than a line."""
    for item in value if isinstance(value, list | tuple) else (value,):
        text = kinds.text_of(item)
        if text is None or not re.fullmatch("[A-Za-z0-9-]+", name) or re.search(r"[\r\n\x00]|\\\Z", text):
            what = f"its overrides set {section}.{name} to {item!r}, which is not one line of a unit file"
            remedy = "write it as in a unit file; a list repeats the directive"
            raise launch.refusal(what, remedy)
