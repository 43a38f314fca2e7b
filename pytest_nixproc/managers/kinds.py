"""Kinds of values that parameters of managers have: each reads what an override says, or adds a fault.

They look at values alone, and never at the machine: what exists there is seen by who starts something.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from pytest_nixproc.errors import Fault
from pytest_nixproc.model.names import did_you_mean
from pytest_nixproc.model.value_types import ValueType

SIGNALS: Final = (
    *("HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "IOT", "EMT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE"),
    *("ALRM", "TERM", "STKFLT", "CHLD", "CLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM"),
    *("PROF", "WINCH", "IO", "POLL", "PWR", "INFO", "LOST", "SYS", "UNUSED", "THR", "LIBRT", "RTMIN", "RTMAX"),
)
"""The signals of all systems that a manager runs on, without ``SIG``."""

HIGHEST_SIGNAL: Final = 128
"""The highest number of a signal on any of these systems (FreeBSD)."""


def that(title: str, accepts: Callable[[Any], bool], *words: str) -> ValueType:
    """Return the kind of values that pass a test; of ``words``, the nearest is named for one that does not."""

    def read(value: object, path: str, faults: list[Fault]) -> object:
        if not accepts(value):
            remedy = did_you_mean(value, words) if isinstance(value, str) else ""
            faults.append(Fault(path, f"is {value!r}, which is not {title}", remedy))
        return value

    return ValueType(title, read)


def text_of(value: object) -> str | None:
    """Return the text that a file has of a value: text, a number, a path or a truth value; None for all else."""
    return str(value) if isinstance(value, str | int | float | os.PathLike) else None


def written_as(title: str, pattern: str, *words: str) -> ValueType:
    """Return the kind of values whose text matches a pattern."""
    matches = re.compile(pattern).fullmatch
    return that(title, lambda value: (text := text_of(value)) is not None and bool(matches(text)), *words)


def one_of(*words: str, or_else: ValueType | None = None) -> ValueType:
    """Return the kind of words; other values are left to another kind, if there is one."""
    title = f"one of {', '.join(words)}" if or_else is None else f"{or_else.title}, or {', '.join(words)}"
    return that(title, lambda value: text_of(value) in words or (or_else is not None and is_of(or_else, value)), *words)


def is_of(kind: ValueType, value: object) -> bool:
    """Tell whether a value is of a kind."""
    faults: list[Fault] = []
    kind.read(value, "", faults)
    return not faults


def optional(kind: ValueType) -> ValueType:
    """Return the kind of values that can also be nothing."""
    return ValueType(
        kind.title,
        lambda value, path, faults: None if value is None else kind.read(value, path, faults),
        kind.schema,
    )


def is_signal(value: object) -> bool:
    """Tell whether a value is the name or the number of a signal, as kill(1) takes it."""
    text = str(value).upper().removeprefix("-").removeprefix("SIG")
    if text.isdigit():
        return 0 < int(text) <= HIGHEST_SIGNAL
    return text in SIGNALS or bool(re.fullmatch(r"RTMIN\+[0-9]{1,2}|RTMAX-[0-9]{1,2}", text))


def is_truth(value: object) -> bool:
    """Tell whether a value is true or false; text is neither, as every text but the empty one would be true."""
    return isinstance(value, bool) or (isinstance(value, int) and value in (0, 1))


def are_texts(value: object) -> bool:
    """Tell whether a value is a mapping of texts, numbers or truth values."""
    return isinstance(value, Mapping) and all(text_of(item) is not None for item in value.values())


TEXT: Final = written_as("text or a number", r"(?s).*")
TRUTH: Final = that("True or False", is_truth)
WHOLE_NUMBER: Final = written_as("a whole number", r"[+-]?[0-9]+")
COUNT: Final = written_as("a whole number, 0 or more", r"[0-9]+")
SECONDS: Final = written_as("a number of seconds", r"[0-9]+(\.[0-9]*)?")
SIGNAL: Final = that("the name or number of a signal", is_signal, *SIGNALS, *(f"SIG{name}" for name in SIGNALS))
TEXTS: Final = that("a mapping of texts", are_texts)
