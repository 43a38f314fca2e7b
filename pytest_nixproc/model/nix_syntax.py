"""Nix expressions as text.

The rules are those of the chapters "String literal", "Attribute set" and "List" of the Nix manual.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Final

SPECIAL: Final = re.compile(r'["\\\n\r\t]|\$(?=\{)')
"""What Nix would read otherwise in a string; a bare carriage return, for one, as a line feed."""

ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

LARGEST: Final = 2**63 - 1
"""The largest integer, and the smallest with a minus sign before it that is still read as one literal."""


class NixExpression(str):
    """Text that is a Nix expression already."""

    __slots__ = ()


class NoValue(TypeError):
    """A value that Nix has no literal for."""


def quote(text: str) -> str:
    """Return text as a string literal of Nix."""
    return '"' + SPECIAL.sub(lambda found: ESCAPES.get(found[0], f"\\{found[0]}"), text) + '"'


def literal(value: object, indent: str = "") -> str:
    """Return a value as a Nix expression, with the lines after the first indented; raises :class:`NoValue`."""
    if isinstance(value, NixExpression):
        return str(value)
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) <= LARGEST:
        # A minus sign is an operator: in a list, it would not belong to the number.
        return str(value) if value >= 0 else f"({value})"
    if isinstance(value, float) and isfinite(value):
        # Nix wants a point in it, whatever follows.
        digits, _, exponent = repr(value).partition("e")
        number = (digits if "." in digits else f"{digits}.0") + (f"e{exponent}" if exponent else "")
        return number if value >= 0 else f"({number})"
    if isinstance(value, Mapping):
        return attributes({str(name): item for name, item in value.items()}, indent)
    if isinstance(value, list | tuple):
        return items(value, indent)
    if value is None:
        return "null"
    raise NoValue(f"{value!r} is no value of a Nix expression")


def attributes(values: Mapping[str, object], indent: str = "") -> str:
    """Return an attribute set of Nix, with one attribute on each line."""
    inner = f"{indent}  "
    lines = (f"{inner}{quote(name)} = {literal(value, inner)};\n" for name, value in values.items())
    return f"{{\n{''.join(lines)}{indent}}}"


def items(values: Iterable[object], indent: str = "") -> str:
    """Return a list of Nix, with its items in their order."""
    words = [literal(value, indent) for value in values]
    return f"[ {' '.join(words)} ]" if words else "[ ]"
